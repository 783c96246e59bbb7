"""`paddle.reader`: functions that make readers of readers.

A reader is a function without arguments that returns an iterator over samples, anew each time.
"""

from holdfast.fluid.paddle.reader import creator, decorator
from holdfast.fluid.paddle.reader.decorator import (
    ComposeNotAligned,
    Fake,
    PipeReader,
    Reader,
    buffered,
    cache,
    chain,
    compose,
    firstn,
    map_readers,
    multiprocess_reader,
    shuffle,
    xmap_readers,
)

__all__ = [
    "ComposeNotAligned",
    "Fake",
    "PipeReader",
    "Reader",
    "buffered",
    "cache",
    "chain",
    "compose",
    "creator",
    "decorator",
    "firstn",
    "map_readers",
    "multiprocess_reader",
    "shuffle",
    "xmap_readers",
]

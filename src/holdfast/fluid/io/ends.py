"""prepend_feed_ops and append_fetch_ops: what a program for prediction is fed with and gives, as its bytes say it.

Fluid adds operators for that. Here a program has two lists of names, and the operators are only in what is written of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.fluid.framework import Program


def prepend_feed_ops(
    inference_program: Program, feed_target_names: Sequence[str], feed_holder_name: str = "feed"
) -> None:
    """Note what a program is fed with; nothing happens if there are no names.

    Raises:
        ValueError: the program has no variable of a name.
    """
    if feed_target_names:
        inference_program.feed_names = _known(inference_program, feed_target_names)


def append_fetch_ops(
    inference_program: Program, fetch_target_names: Sequence[str], fetch_holder_name: str = "fetch"
) -> None:
    """Note what a program gives.

    Raises:
        ValueError: the program has no variable of a name.
    """
    inference_program.fetch_names = _known(inference_program, fetch_target_names)


def _known(program: Program, names: Sequence[str]) -> list[str]:
    block = program.global_block()
    return [block.var(name).name for name in names]

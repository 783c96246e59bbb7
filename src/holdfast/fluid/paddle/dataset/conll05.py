"""Sentences with their semantic roles (the public test part of CoNLL-2005), from `conll05st-tests.tar.gz` and three lists."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.errors import FormatError
from holdfast.fluid.paddle.dataset import common
from holdfast.fluid.paddle.reader.decorator import Reader

NAME = "conll05st-tests.tar.gz"
WORDS, VERBS, TARGETS = "wordDict.txt", "verbDict.txt", "targetDict.txt"
EMBEDDING = "emb"
ORIGIN = "http://paddlemodels.bj.bcebos.com/conll05st/"
UNK_IDX = 0
_WORDS_MEMBER = "conll05st-release/test.wsj/words/test.wsj.words.gz"
_PROPS_MEMBER = "conll05st-release/test.wsj/props/test.wsj.props.gz"
_AROUND = (-2, -1, 0, 1, 2)


def get_dict() -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Numbers of words, of predicates, and of labels.

    Labels are numbered by their sorted names, `B-` before `I-`, `O` last. Paddle numbers them in the order of a set, which
    under Python 3 is another one in each process.

    Raises:
        FileNotFoundError: a list is not there; the message says where to put it.
    """
    words, verbs = ({word: number for number, word in enumerate(_lines(name))} for name in (WORDS, VERBS))
    tags = sorted({label[2:] for label in _lines(TARGETS) if label[:2] in ("B-", "I-")})
    labels = [f"{place}-{tag}" for tag in tags for place in "BI"]
    return words, verbs, {label: number for number, label in enumerate([*labels, "O"])}


def get_embedding() -> str:
    """The path of the file of word vectors.

    Raises:
        FileNotFoundError: it is not there; the message says where to put it.
    """
    return str(_path(EMBEDDING))


def test() -> Reader:
    """A reader of nine lists, as long as the sentence: words, five words around the predicate, predicate, marks, labels.

    Raises:
        FileNotFoundError: a file is not there; the message says where to put it.
        FormatError: while reading, when the archive is damaged.
    """
    words, verbs, labels = get_dict()
    path = _path(NAME)

    def samples() -> Iterator[tuple[list[int | None], ...]]:
        for sentence, predicate, roles in _corpus(path):
            at, size = roles.index("B-V"), len(sentence)
            near = [at + step for step in _AROUND if 0 <= at + step < size]
            context = [
                "bos" if at + step < 0 else "eos" if at + step >= size else sentence[at + step] for step in _AROUND
            ]
            yield (
                [words.get(word, UNK_IDX) for word in sentence],
                *(list[int | None]([words.get(word, UNK_IDX)]) * size for word in context),
                [verbs.get(predicate)] * size,
                [int(place in near) for place in range(size)],
                [labels.get(role) for role in roles],
            )

    return samples


def fetch() -> None:
    """Check that all files are there; nothing is downloaded.

    Raises:
        FileNotFoundError: one is not.
    """
    for name in (NAME, WORDS, VERBS, TARGETS, EMBEDDING):
        _path(name)


def _path(name: str) -> Path:
    return common.need("conll05st", *common.spellings(f"conll05st%2F{name}"), origin=ORIGIN)


def _lines(name: str) -> list[str]:
    return [line.strip() for line in _path(name).read_text("utf-8").splitlines()]


def _corpus(path: Path) -> Iterator[tuple[list[str], str, list[str]]]:
    """Each sentence once for each of its predicates, with the roles of its words."""
    try:
        with tarfile.open(path) as archive:
            words, props = (_text(archive, member) for member in (_WORDS_MEMBER, _PROPS_MEMBER))
    except (*common.DAMAGED, KeyError) as error:
        raise FormatError(f"{path} is no complete archive of CoNLL-2005's test part: {error}") from error
    sentence: list[str] = []
    rows: list[list[str]] = []
    for word, row in zip([*words, ""], [*props, ""], strict=True):  # the last sentence may end without an empty line
        if columns := row.split():
            sentence.append(word)
            rows.append(columns)
        elif rows:
            predicates = [columns[0] for columns in rows if columns[0] != "-"]
            spans = list(zip(*rows, strict=True))[1:]
            for predicate, marks in zip(predicates, spans, strict=True):
                yield list(sentence), predicate, _roles(marks, path)
            sentence, rows = [], []


def _text(archive: tarfile.TarFile, member: str) -> list[str]:
    file = archive.extractfile(member)
    if file is None:
        raise KeyError(member)
    return [line.strip() for line in gzip.decompress(file.read()).decode().splitlines()]


def _roles(marks: Sequence[str], path: Path) -> list[str]:
    """`(A0*`, `*`, `*)` as `B-A0`, `I-A0`, `I-A0`; outside of brackets `O`."""
    roles: list[str] = []
    inside: str | None = None
    for mark in marks:
        if mark.startswith("(") and "*" in mark:
            tag = mark[1 : mark.index("*")]
            roles.append(f"B-{tag}")
            inside = None if ")" in mark else tag
        elif mark in ("*", "*)"):
            roles.append("O" if inside is None else f"I-{inside}")
            inside = None if mark == "*)" else inside
        else:
            raise FormatError(f"{path} has the mark {mark!r}, expected one such as (A0*, * or *)")
    return roles

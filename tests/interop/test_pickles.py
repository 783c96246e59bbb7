"""The restricted reader of pickles: what it builds, and all that it refuses without executing anything."""

import collections
import contextlib
import io
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.errors import FormatError
from holdfast.interop import pickles
from holdfast.interop.pickle_writing import UnwritableError, written
from interop.truth import pickle_files, same

FILES = pickle_files()
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 100), 1 << 100)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | hnp.arrays(hnp.scalar_dtypes().filter(lambda d: d.kind in "biufc" and d.itemsize <= 16 and d.str[1:] in pickles.DTYPES),
                 hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)),
    lambda inner: st.lists(inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=8) | st.integers(-9, 9), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and same(a, b.astype(b.dtype.newbyteorder("=")))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def read(data: bytes) -> Any:
    return pickles.read(data, "evil")


@given(PLAIN, st.sampled_from([2, 3, 4]))
def test_what_pickle_writes_is_read(value: Any, protocol: int) -> None:
    assert equal(read(pickle.dumps(value, protocol)), value)


@given(PLAIN)
def test_what_is_written_is_read_by_pickle_and_by_us(value: Any) -> None:
    data = b"".join(written(value))

    assert equal(pickle.loads(data), value)
    assert equal(read(data), value)


def test_written_names_are_those_that_every_numpy_knows() -> None:
    data = b"".join(written({"w": np.zeros(2, np.float32)}))

    assert data.startswith(b"\x80\x02")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in data
    assert b"numpy._core" not in data


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), np.array([None]), np.array(["a"]), 1 << 200])
def test_write_refuses_what_has_no_place(value: Any) -> None:
    with pytest.raises(UnwritableError):
        list(written({"x": [value]}))


@pytest.mark.parametrize("path", FILES, ids=[f"{p.parents[1].name}-{p.name}" for p in FILES])
def test_every_truncation_and_padding_of_every_file_is_refused(path: Path) -> None:
    data = path.read_bytes()
    read(data)

    for size in range(0, len(data), 1 if len(data) < 2000 else 7):
        with pytest.raises(FormatError):
            read(data[:size])
    with pytest.raises(FormatError, match=f"expected {len(data):,} bytes, found {len(data) + 3:,}"):
        read(data + b"abc")


@given(st.data())
@settings(max_examples=300)
def test_damaged_pickles_are_read_or_refused(data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(FILES)).read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(changed) - 1), min_size=1, max_size=5)):
        changed[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FormatError):  # and nothing else
        read(bytes(changed))


@given(st.lists(st.sampled_from([bytes((i,)) for i in range(256)]), max_size=30).map(b"".join))
@settings(max_examples=500)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with_end = b"\x80\x02" + body + b"."
    with contextlib.suppress(FormatError):
        read(with_end)


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


CALLS = [
    (os.system, "touch executed"),
    (exec, "open('executed','w')"),
    (eval, "open('executed','w')"),
    (open, "executed", "w"),
    (__import__, "antigravity"),
    (getattr, "text", "join"),
    (np.load, "executed"),
    (np.frombuffer, b"1234"),
    (np.dtype, "O"),
    (np.ndarray, (1 << 40,)),
    (bytearray, 1 << 40),
    (bytes, 1 << 40),
    (tuple, "abc"),
    (collections.OrderedDict, [("a", 1)]),
    (collections.Counter,),
    (io.BytesIO, b""),
    (type, "X", (), {}),
    (Evil, 1),
]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("call", CALLS, ids=[getattr(c[0], "__name__", "?") for c in CALLS])
def test_calls_are_refused_and_nothing_is_executed(
    call: tuple, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FormatError, match="evil: "):
        read(pickle.dumps({"w": Evil(*call)}, protocol))
    assert list(tmp_path.iterdir()) == []


PREFIX = b"\x80\x02"
ENCODE = b"c_codecs\nencode\n"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"cos\nsystem\n(X\x02\x00\x00\x00lstR", "it refers to os.system"),
        (b"cnumpy\nload\n", "it refers to numpy.load"),
        (b"cnumpy.core.multiarray\nscalar.__class__\n", "it refers to"),
        (b"cnumpy.core.multiarray\n_reconstruct\n", "a class, instead of a value"),
        (b"cnumpy\nndarray\n)\x81", "makes an object"),
        (b"cnumpy\nndarray\n)R", "calls what is no function"),
        (b"X\x01\x00\x00\x00a)R", "calls what is no function"),
        (b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8tR", "is not one of numbers"),
        (b"cnumpy\ndtype\n(X\x02\x00\x00\x00V9tR", "is not one of numbers"),
        (b"cnumpy\ndtype\n)R", "is not one of numbers"),
        (b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4tR", "a part of an array"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR", "a part of an array"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x09tU\x01btR", "NumPy does not begin"),
        (b"cbuiltins\nbytes\n(K\x09tR", "Python does not make them"),
        (ENCODE + b"(X\x01\x00\x00\x00aX\x03\x00\x00\x00rottR", "Python does not encode"),
        (ENCODE + b"(X\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1tR", "not Latin-1"),
        (b"P123\n", "opcode b'P'"),
        (b"\x97", "opcode b'\\\\x97'"),
        (b"i__main__\nx\n", "opcode b'i'"),
        (b"o", "opcode b'o'"),
        (b"\x92", "opcode"),
        (b"\x82\x01", "opcode"),
        (b"0", "opcode"),
        (b"", "another number of values"),
        (b"NN", "another number of values"),
        (b"N(", "another number of values"),
        (b"a", "a value is missing"),
        (b"(NN(a", "a value is missing"),
        (b"Na", "no list"),
        (b"Nu", "a mark is missing"),
        (b"}(Nu", "a key has no value"),
        (b"](K\x01K\x02u", "no dict"),
        (b"}]Ns", "a key of type list"),
        (b"})Ns", "a key of type tuple"),
        (b"}NNs", "a key of type NoneType"),
        (b"}\x88Ns", "a key of type bool"),
        (b"}J\x00\x00\x00\x80Ns", "a key of type int"),
        (b"}(K\x01NK\x01Nu", "the key '1' twice"),
        (b"]Nb", "sets the state of what has none"),
        (b"h\x07", "refers to part 7"),
        (b"j\xff\xff\xff\xff", "refers to part 4294967295"),
        (b"X\xff\xff\xff\xff", "cut off"),
        (b"\x8e" + b"\xff" * 8, "cut off"),
        (b"\x8d" + b"\xff" * 7 + b"\x7f", "cut off"),
        (b"\x95" + b"\xff" * 8, "cut off"),
        (b"\x8b\xff\xff\xff\x7f", "an integer of 2,147,483,647 bytes"),
        (b"\x8b\xff\xff\xff\xff", "an integer of -1 bytes"),
        (b"I12x\n", "malformed"),
        (b"I" + b"1" * 300 + b"\n", "a line has no end"),
        (b"X\x01\x00\x00\x00\xff", "not UTF-8"),
        (b"c\xff\nx\n", "not ASCII"),
        (b"NN\x93", "no text"),
        (b"]q\x00h\x00a", "without end"),
        (b"}q\x00(K\x01h\x00u", "without end"),
        (b"\x85" * 100, "a value is missing"),
        (b"N" + b"\x85" * 100, "without end"),
    ],
)  # fmt: skip
def test_hostile_opcodes(body: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=f"^evil.*{reason}"):
        read(PREFIX + body + b".")


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x01N.", b"\x80\x06N.", b"N.", b"(dp0\n.", b"\x93NUMPY"])
def test_other_protocols_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read(data)


def array_pickle(shape: bytes, kind: bytes, data: bytes) -> bytes:
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
    dtype = b"cnumpy\ndtype\n(X" + len(kind).to_bytes(4, "little") + kind + b"\x89\x88tR(K\x03X\x01\x00\x00\x00<NNNtb"
    raw = b"B" + len(data).to_bytes(4, "little") + data
    return PREFIX + start + b"(K\x01(" + shape + b"t" + dtype + b"\x89" + raw + b"tb."


@pytest.mark.parametrize(
    ("shape", "kind", "data", "reason"),
    [
        (b"K\x03", b"f4", bytes(8), r"an array f4 \(3,\) has 8 bytes, expected 12"),
        (b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"f4", bytes(8), "has 8 bytes, expected"),
        (b"K\x00\x8a\x08" + b"\xff" * 7 + b"\x7f", b"f4", b"", "has 0 bytes, expected 0"),
        (b"J\xff\xff\xff\xff", b"f4", bytes(8), "the shape of an array is not one"),
        (b"N", b"f4", bytes(8), "the shape of an array is not one"),
        (b"\x88", b"f4", bytes(4), "the shape of an array is not one"),
        (b"K\x01" * 65, b"f4", bytes(4), "the shape of an array is not one"),
        (b"K\x02", b"b1", b"\x01\x02", "neither 0 nor 1"),
    ],
)
def test_hostile_arrays(shape: bytes, kind: bytes, data: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        read(array_pickle(shape, kind, data))


def test_an_array_that_is_read_has_its_own_writable_memory() -> None:
    found = read(array_pickle(b"K\x02", b"f4", np.array([1.5, -0.0], np.float32).tobytes()))

    assert found.flags.writeable
    assert found.flags.owndata
    assert same(found, np.array([1.5, -0.0], np.float32))


def test_memory_is_bounded_by_the_size_of_the_file() -> None:
    text = b"X" + (100_000).to_bytes(4, "little") + b"a" * 100_000 + b"q\x00"
    bombs = {
        "encode": text + (ENCODE + b"(h\x00X\x06\x00\x00\x00latin1tR") * 5000,
        "tuples": b"(" + b"N" * 50_000 + b"tq\x00" + b"cbuiltins\ntuple\n(h\x00tR" * 5000,
        "laughs": b"]q\x00" + b"".join(b"](h" + bytes((i,)) + b"h" + bytes((i,)) + b"eq" + bytes((i + 1,)) for i in range(60)),
    }  # fmt: skip

    for name, body in bombs.items():
        tracemalloc.start()
        with pytest.raises(FormatError):
            read(PREFIX + body + b".")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20 * len(body) + (1 << 20), name


def test_one_array_under_many_names_stays_one() -> None:
    array = np.zeros(3)

    found = read(pickle.dumps({"a": array, "b": array}, 2))

    assert found["a"] is found["b"]


def test_python_2_pickles() -> None:
    # As cPickle of Python 2.7 writes {'w': numpy.array([1.5], 'f4'), 'n': 1L << 40, 'b': True} in protocol 2.
    data = (
        b"\x80\x02}q\x01(U\x01wq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
        b"(K\x01K\x01\x85cnumpy\ndtype\nq\x06U\x02f4K\x00K\x01\x87Rq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x04\x00\x00\xc0?tbU\x01n\x8a\x06\x00\x00\x00\x00\x00\x01U\x01bI01\nU\x01iI5000000000\nu."
    )

    found = read(data)

    assert same(found.pop("w"), np.array([1.5], np.float32))
    assert found == {"n": 1 << 40, "b": True, "i": 5_000_000_000}


def test_records_are_only_those_that_the_caller_allows() -> None:
    data = b"\x80\x04\x8c\x01m\x8c\x01C\x93)\x81}(\x8c\x01aK\x01ub."

    found = pickles.read(data, "x", records=frozenset({"m.C"}))

    assert (found.kind, found.fields) == ("C", {"a": 1})
    with pytest.raises(FormatError, match="it refers to m.C"):
        pickles.read(data, "x")
    with pytest.raises(FormatError, match="it refers to m.D"):
        pickles.read(data.replace(b"\x01C", b"\x01D"), "x", records=frozenset({"m.C"}))


def test_scalars_and_ordered_dicts() -> None:
    value = collections.OrderedDict(lr=np.float64(0.25), n=np.int64(3), b=np.bool_(True))

    for protocol in (2, 4):
        assert read(pickle.dumps(value, protocol)) == {"lr": 0.25, "n": 3, "b": True}


def test_big_endian_and_fortran_arrays() -> None:
    big = np.arange(6, dtype=">i4").reshape(2, 3)

    assert same(read(pickle.dumps(big, 2)), big.astype("<i4"))
    assert same(read(pickle.dumps(np.asfortranarray(big.astype("<i4")), 4)), big.astype("<i4"))

"""Digests against known values of XXH3-128."""

from hypothesis import given, strategies as st

from holdfast.format import digests


def test_hexdigest_is_the_canonical_form() -> None:
    # From the xxHash specification's reference: XXH3_128bits of no bytes, seed 0, high half first.
    assert digests.hexdigest(b"") == "99aa06d3014798d86001c324468d497f"


@given(st.lists(st.binary(max_size=400), max_size=8))
def test_hasher_does_not_see_the_pieces(pieces: list[bytes]) -> None:
    hasher = digests.hasher()
    for piece in pieces:
        hasher.update(piece)

    assert hasher.hexdigest() == digests.hexdigest(b"".join(pieces))


def test_block_count_is_one_for_each_begun_block() -> None:
    block = digests.BLOCK_BYTES

    assert block == 8_388_608
    assert [digests.block_count(n) for n in (0, 1, block - 1, block, block + 1, 3 * block)] == [0, 1, 1, 1, 2, 3]


def test_file_digest_is_of_the_digests_in_their_order() -> None:
    header, one, two = (digests.hexdigest(text) for text in (b"h", b"1", b"2"))

    assert digests.file_digest(header, [one, two]) == digests.hexdigest(bytes.fromhex(header + one + two))
    assert digests.file_digest(header, [two, one]) != digests.file_digest(header, [one, two])
    assert digests.file_digest(header, []) == digests.hexdigest(bytes.fromhex(header))


def test_file_digest_of_what_is_no_digest_equals_none() -> None:
    assert digests.file_digest("z" * 32, []) == ""
    assert digests.file_digest("0" * 32, ["0" * 31 + "-"]) == ""

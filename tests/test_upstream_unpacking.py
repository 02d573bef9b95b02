"""Bodies in every requested encoding, in pieces of any size, never beyond the limit."""

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.upstream.transport import TooLarge, Unpacking


def bare(body: bytes) -> bytes:
    """Deflate without zlib's header, as some servers send it."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}


@given(st.binary(max_size=5000), st.integers(1, 700), st.sampled_from(sorted(PACKED)))
def test_a_packed_body_is_unpacked(body: bytes, size: int, encoding: str) -> None:
    """With any pieces of the network."""
    packed = PACKED[encoding](body)
    unpacking = Unpacking(encoding, len(body))
    for begin in range(0, len(packed), size):
        unpacking.feed(packed[begin : begin + size])
    assert unpacking.body() == body


@given(st.lists(st.binary(max_size=300), min_size=2, max_size=4), st.integers(1, 400), st.booleans())
def test_all_members_of_a_packed_body_are_unpacked(bodies: list[bytes], size: int, padded: bool) -> None:
    """Servers that compress block by block send several; zeros behind them belong to none."""
    packed = b"".join(map(gzip.compress, bodies)) + bytes(600 * padded)
    unpacking = Unpacking("gzip", sum(map(len, bodies)))
    for begin in range(0, len(packed), size):
        unpacking.feed(packed[begin : begin + size])
    assert unpacking.body() == b"".join(bodies)


def test_all_members_together_are_limited() -> None:
    """Each of them alone would fit."""
    with pytest.raises(TooLarge):
        Unpacking("gzip", 1000).feed(gzip.compress(b"x" * 600) * 2)


def test_deflate_without_its_header_is_understood() -> None:
    """There are two readings of the standard."""
    unpacking = Unpacking("deflate", 2000)
    unpacking.feed(bare(b"branch " * 200))
    assert unpacking.body() == b"branch " * 200


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_a_byte_too_many_is_refused(encoding: str) -> None:
    """At once, without unpacking the rest."""
    packed = PACKED[encoding](b"x" * 1001)
    Unpacking(encoding, 1001).feed(packed)
    with pytest.raises(TooLarge):
        Unpacking(encoding, 1000).feed(packed)


def test_a_wrong_content_encoding_is_an_error() -> None:
    """Not an empty body."""
    with pytest.raises(zlib.error):
        Unpacking("gzip", 100).feed(b"<html>")

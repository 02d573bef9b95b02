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

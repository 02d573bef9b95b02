"""Bodies as they come, unpacked no further than there is room: a small gzip may hold a great deal."""

import zlib

ENCODINGS = {"", "identity", "gzip", "x-gzip", "deflate"}
"""What the upstream may answer in: the empty one, which is none, and what was asked for."""

_GZIP_OR_ZLIB = 47
_BARE = -15


class TooLarge(Exception):
    """The body holds more than there is room for; no more of it has been unpacked."""


class Unpacking:
    """Unpacks one body of at most `room` bytes, piece by piece."""

    def __init__(self, encoding: str, room: int) -> None:
        """Take an encoding of ENCODINGS."""
        self._is_packed = encoding not in {"", "identity"}
        self._window = _GZIP_OR_ZLIB
        self._unpacker = zlib.decompressobj(self._window)
        self._room = room
        self._pieces = list[bytes]()

    def feed(self, raw: bytes) -> None:
        """Take the next piece; raises TooLarge, and zlib.error for what is not packed so."""
        piece = self._unpacked(raw) if self._is_packed else raw
        self._room -= len(piece)
        if self._room < 0:
            raise TooLarge
        self._pieces.append(piece)

    def body(self) -> bytes:
        """Return all that was fed."""
        return b"".join(self._pieces)

    def _unpacked(self, raw: bytes) -> bytes:
        try:
            return self._unpacker.decompress(raw, self._room + 1)
        except zlib.error:
            # Some servers send "deflate" without zlib's header; RFC 9110, section 8.4.1.2, knows them.
            if self._window == _BARE or self._pieces:
                raise
            self._window = _BARE
            self._unpacker = zlib.decompressobj(_BARE)
            return self._unpacker.decompress(raw, self._room + 1)

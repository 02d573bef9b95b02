"""A last moment for a whole exchange, beneath the HTTP library.

Its time-outs bound each single read, so a server that sends a byte every few seconds, be it of the
headers, holds a client for ever. Here every read and write of a connection is cut at one moment.
"""

import ssl
import threading
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import httpcore


class Deadline(threading.local):
    """When the exchange of this thread must be over, on the clock of `timer`; None is never."""

    at: float | None = None


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections whose reads and writes keep the deadline of the thread that uses them."""

    def __init__(self, deadline: Deadline, timer: Callable[[], float]) -> None:
        self._plain = httpcore.SyncBackend()
        self._deadline = deadline
        self._timer = timer

    def left(self, timeout: float | None) -> float | None:
        """Return the time-out of one step; raises httpcore.ReadTimeout after the deadline."""
        at = self._deadline.at
        if at is None:
            return timeout
        left = at - self._timer()
        if left <= 0:
            raise httpcore.ReadTimeout("the answer takes too long altogether")
        return left if timeout is None else min(timeout, left)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect as the HTTP library does, and wrap what it gets."""
        stream = self._plain.connect_tcp(host, port, self.left(timeout), local_address, socket_options)
        return _Stream(stream, self)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Connect to a local socket, and wrap what it gets."""
        return _Stream(self._plain.connect_unix_socket(path, self.left(timeout), socket_options), self)


class _Stream(httpcore.NetworkStream):
    """One connection."""

    def __init__(self, plain: httpcore.NetworkStream, backend: DeadlineBackend) -> None:
        self._plain = plain
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._plain.read(max_bytes, self._backend.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._plain.write(buffer, self._backend.left(timeout))

    def close(self) -> None:
        self._plain.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(
            self._plain.start_tls(ssl_context, server_hostname, self._backend.left(timeout)), self._backend
        )

    def get_extra_info(self, info: str) -> Any:
        return self._plain.get_extra_info(info)


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

"""The deadline of a whole exchange, kept by each read and write of its connection.

The time-outs of the HTTP library limit only single reads: a server that sends a byte every few seconds could
keep a client for ever.
"""

import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any

import httpcore


class Deadline(threading.local):
    """The time, by `timer`, at which the exchange of this thread must be over; None for no limit."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self.at: float | None = None
        self._timer = timer

    def left(self, timeout: float | None) -> float | None:
        """Return the time-out of one step, in seconds; raises httpcore.ReadTimeout after the deadline."""
        if self.at is None:
            return timeout
        left = self.at - self._timer()
        if left <= 0:
            raise httpcore.ReadTimeout("the whole answer takes too long")
        return left if timeout is None else min(timeout, left)


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections whose reads and writes keep the deadline of the thread that uses them."""

    def __init__(self, deadline: Deadline) -> None:
        self._plain = httpcore.SyncBackend()
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect as the HTTP library does, and wrap the connection."""
        left = self._deadline.left(timeout)
        stream = self._plain.connect_tcp(host, port, left, local_address, socket_options)
        return DeadlineStream(stream, self._deadline)


class DeadlineStream(httpcore.NetworkStream):
    """One connection, which keeps the deadline of the thread that uses it.

    It reads and writes at the socket, and sets its time limit only where that changes: httpcore does so at
    each read and write, in a context manager, which took 3 % of the CPU of a first sync.

    :param depth: how many layers of TLS there are; only httpcore can use the second one, within a proxy's.
    """

    def __init__(self, plain: httpcore.NetworkStream, deadline: Deadline, *, depth: int = 0) -> None:
        self._plain = plain
        self._deadline = deadline
        self._depth = depth
        self._socket: Any = plain.get_extra_info("socket") if depth < 2 else None
        self._limit: float | None = -1.0  # none that a socket has

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, at most so many bytes; raises httpcore.ReadTimeout and ReadError."""
        left = self._deadline.left(timeout)
        if self._socket is None:
            return self._plain.read(max_bytes, left)
        try:
            self._limit_to(left)
            received: bytes = self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(error) from error
        except OSError as error:
            raise httpcore.ReadError(error) from error
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all bytes; raises httpcore.WriteTimeout and WriteError."""
        left = self._deadline.left(timeout)
        if self._socket is None:
            self._plain.write(buffer, left)
            return
        try:
            self._limit_to(left)
            while buffer:
                buffer = buffer[self._socket.send(buffer) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout(error) from error
        except OSError as error:
            raise httpcore.WriteError(error) from error

    def close(self) -> None:
        """Close the connection."""
        self._plain.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Encrypt it, within the encryption that it has; raises httpcore's errors."""
        left = self._deadline.left(timeout)
        inner = self._plain.start_tls(ssl_context, server_hostname, left)
        return DeadlineStream(inner, self._deadline, depth=self._depth + 1)

    def get_extra_info(self, info: str) -> Any:
        """Tell what httpcore knows of the connection."""
        return self._plain.get_extra_info(info)

    def _limit_to(self, seconds: float | None) -> None:
        if seconds != self._limit:
            self._socket.settimeout(seconds)
            self._limit = seconds

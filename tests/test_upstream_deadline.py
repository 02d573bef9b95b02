"""Connections that keep the deadline: which layer reads and writes, and with which time limit."""

import ssl
from collections.abc import Callable
from typing import Any

import httpcore
import pytest

from mirror.upstream.deadline import Deadline, DeadlineStream


class Socket:
    """Takes seven bytes at a time, and notes the time limits that are set."""

    def __init__(self) -> None:
        self.limits = list[float | None]()
        self.sent = b""
        self.error: OSError | None = None

    def settimeout(self, seconds: float | None) -> None:
        """Note it."""
        self.limits.append(seconds)

    def send(self, data: bytes) -> int:
        """Take a part of the bytes."""
        self._fail()
        self.sent += data[:7]
        return len(data[:7])

    def recv(self, most: int) -> bytes:
        """Return some bytes."""
        self._fail()
        return b"answer"[:most]

    def _fail(self) -> None:
        if self.error:
            raise self.error


class Plain(httpcore.NetworkStream):
    """A connection of httpcore, over a socket that all layers of encryption share, as in httpcore."""

    def __init__(self, socket: Socket, layers: list[str], depth: int = 0) -> None:
        self._socket, self._layers, self._depth = socket, layers, depth

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Note that this layer reads."""
        self._layers.append(f"read {self._depth}")
        return b"inner"[:max_bytes]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Note that this layer writes."""
        self._layers.append(f"write {self._depth}: {buffer.decode()}")

    def start_tls(self, *_: object, **__: object) -> httpcore.NetworkStream:
        """Add a layer."""
        return Plain(self._socket, self._layers, self._depth + 1)

    def get_extra_info(self, info: str) -> Any:
        """Return the socket beneath all layers."""
        return self._socket if info == "socket" else None


def stream(layers: list[str]) -> tuple[Socket, Deadline, list[float], DeadlineStream]:
    """Return a connection with its socket, its deadline and the time, in a list."""
    socket, now = Socket(), [0.0]
    deadline = Deadline(lambda: now[0])
    return socket, deadline, now, DeadlineStream(Plain(socket, layers), deadline)


def test_only_the_library_uses_encryption_within_encryption() -> None:
    """The socket beneath has the first layer; what is written there would go past the second one."""
    layers, context = list[str](), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    socket, _, _, plain = stream(layers)
    once = plain.start_tls(context)
    twice = once.start_tls(context)
    for each in (plain, once):
        each.write(b"by the socket")
        assert each.read(100) == b"answer"
    assert (socket.sent, layers) == (b"by the socket" * 2, [])
    twice.write(b"secret")
    assert twice.read(100) == b"inner"
    assert (socket.sent, layers) == (b"by the socket" * 2, ["write 2: secret", "read 2"])


def test_the_time_limit_of_a_socket_is_set_where_it_changes() -> None:
    """It is that of a step, or what is left until the deadline."""
    socket, deadline, now, plain = stream([])
    plain.write(b"request", 30)
    plain.read(100, 30)
    deadline.at = 300.0
    plain.read(100, 30)
    assert socket.limits == [30]
    now[0] = 290.0
    plain.read(100, 30)
    plain.write(b"", 30)
    assert socket.limits == [30, 10]
    plain.read(100, None)
    now[0] = 300.0
    with pytest.raises(httpcore.ReadTimeout, match="too long"):
        plain.read(100, 30)
    assert socket.limits == [30, 10]


@pytest.mark.parametrize(
    ("use", "late", "broken"),
    [
        (lambda plain: plain.read(1, 1), httpcore.ReadTimeout, httpcore.ReadError),
        (lambda plain: plain.write(b"x", 1), httpcore.WriteTimeout, httpcore.WriteError),
    ],
)
def test_errors_are_those_of_the_library(
    use: Callable[[DeadlineStream], object], late: type[Exception], broken: type[Exception]
) -> None:
    """The client tells by them whether to repeat a request."""
    socket, _, _, plain = stream([])
    for error, ours in (
        (TimeoutError("late"), late),
        (ssl.SSLError("bad record"), broken),
        (OSError(), broken),
    ):
        socket.error = error
        with pytest.raises(ours):
            use(plain)

"""A small HTTP/1.1 server on asyncio that serves a sandbox.

It exists because a general server does not let an application produce some faults (half a body, a reset,
silence), and because the sandbox must be faster than the program that it tests.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from threading import Thread

from mirror.sandbox.exchange import Request, SandboxResponse, Transfer
from mirror.sandbox.sandbox import Sandbox

_BACKLOG = 256
_LARGEST = 8 << 20
_DRIP_STEPS = 20
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class ClientConnection(asyncio.Protocol):
    """The connection of one client. Requests are answered one after the other."""

    def __init__(self, sandbox: Sandbox, connections: set["ClientConnection"]) -> None:
        self._sandbox = sandbox
        self._connections = connections
        self._received = b""
        self._busy = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, so that it is closed with the server."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - tells the type checker
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Unregister the connection."""
        self._transport = None
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are complete."""
        self._received += data
        self._go_on()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _go_on(self) -> None:
        while not self._busy and self._transport is not None and (request := self._next_request()):
            self._busy = True
            answer = self._sandbox.answer(request)
            if answer.delay and answer.delivery is Transfer.WHOLE:
                asyncio.get_running_loop().call_later(answer.delay, self._deliver_late, request, answer)
            else:
                self._deliver(request, answer)

    def _next_request(self) -> Request | None:
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank:
            if len(head) > _LARGEST:
                self.abort()
            return None
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        length = headers.get("content-length", "0")
        parts = lines[0].split(" ")
        if len(parts) != 3 or not length.isdecimal() or "transfer-encoding" in headers:
            self._write(SandboxResponse(400), close=True, head_only=False)
            return None
        if len(rest) < int(length):
            if headers.get("expect", "").lower() == "100-continue" and not rest and self._transport:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        self._received = rest[int(length) :]
        method, target, version = parts
        path, _, query = target.partition("?")
        if version == "HTTP/1.0":
            headers.setdefault("connection", "close")
        return Request(method, path, query, headers, rest[: int(length)], self._client())

    def _client(self) -> str:
        peer = self._transport.get_extra_info("peername") if self._transport else None
        return str(peer[0]) if peer else "unknown"

    def _deliver_late(self, request: Request, answer: SandboxResponse) -> None:
        self._deliver(request, answer)
        self._go_on()

    def _deliver(self, request: Request, answer: SandboxResponse) -> None:
        transport = self._transport
        if transport is None or answer.delivery is Transfer.HANG:
            return  # and stay busy: nothing more is answered on this connection
        close = request.headers.get("connection", "").lower() == "close"
        match answer.delivery:
            case Transfer.DROP:
                transport.close()
            case Transfer.RESET:
                raw: socket.socket = transport.get_extra_info("socket")
                # A socket that lingers for no time sends a reset when it is closed.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                transport.abort()
            case Transfer.TRUNCATE:
                head, body = _serialized(answer, close=False, head_only=False)
                transport.write(head + body[: len(body) // 2])
                transport.close()
            case Transfer.DRIP:
                head, body = _serialized(answer, close=close, head_only=False)
                self._drip(head + body, answer.delay / _DRIP_STEPS, close=close)
            case _:
                self._write(answer, close=close, head_only=request.method == "HEAD")
                self._busy = False

    def _write(self, answer: SandboxResponse, *, close: bool, head_only: bool) -> None:
        if self._transport is not None:
            head, body = _serialized(answer, close=close, head_only=head_only)
            self._transport.write(head + body)
            if close:
                self._transport.close()

    def _drip(self, rest: bytes, pause: float, *, close: bool, step: int = 0) -> None:
        if self._transport is None:
            return
        step = step or max(1, len(rest) // _DRIP_STEPS)
        self._transport.write(rest[:step])
        if len(rest) > step:
            loop = asyncio.get_running_loop()
            loop.call_later(pause, lambda: self._drip(rest[step:], pause, close=close, step=step))
            return
        self._busy = False
        if close:
            self._transport.close()
        self._go_on()


def _serialized(answer: SandboxResponse, *, close: bool, head_only: bool) -> tuple[bytes, bytes]:
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}", "Server: sandbox"]
    if answer.status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Type: {answer.content_type}")
        lines.append(f"Content-Length: {len(answer.body)}")
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    if close:
        lines.append("Connection: close")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head, b"" if head_only else answer.body


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises OSError with the address and the reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as problem:
        listening.close()
        raise OSError(problem.errno, f"cannot listen on {host}:{port}: {problem.strerror}") from None
    listening.settimeout(0)
    return listening


async def _serve_until(sandbox: Sandbox, listening: socket.socket, stop: asyncio.Event) -> None:
    connections: set[ClientConnection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: ClientConnection(sandbox, connections), sock=listening, backlog=_BACKLOG
    )
    await stop.wait()
    # asyncio would leave open a socket that it is accepting while the server closes.
    while being_accepted := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(being_accepted)
    server.close()
    for connection in list(connections):
        connection.abort()
    await asyncio.sleep(0)  # let the aborted connections close their sockets


def _origin(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """A sandbox that is being served."""

    sandbox: Sandbox
    origin: str

    @property
    def url(self) -> str:
        """Where API 2.0 begins."""
        return f"{self.origin}/2.0"


@contextmanager
def running(sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0) -> Iterator[RunningSandbox]:
    """Serve a sandbox from another thread while the block runs. Port 0 is any free port."""
    listening = _listen(host, port)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def work() -> None:
        try:
            loop.run_until_complete(_serve_until(sandbox, listening, stop))
        finally:
            loop.close()

    # The socket listens already, so requests that arrive before the thread is ready wait.
    thread = Thread(target=work, name="sandbox", daemon=True)
    thread.start()
    try:
        yield RunningSandbox(sandbox, _origin(listening))
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def serve(
    sandbox: Sandbox, host: str = "127.0.0.1", port: int = 8002, *, announce: Callable[[str], None] = print
) -> None:
    """Serve a sandbox until SIGINT or SIGTERM; `announce` is called with its address once it listens."""
    listening = _listen(host, port)

    async def work() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Only the main thread may set handlers; others stop with their process.
            with contextlib.suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, stop.set)
        announce(_origin(listening))
        await _serve_until(sandbox, listening, stop)

    asyncio.run(work())

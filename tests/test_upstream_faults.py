"""Real connections that fail in every way of networks: limited in time, memory and effect."""

import gzip
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from random import Random

import httpcore
import pytest
from upstream_fakes import FakeClock, MemoryLedger

from mirror.config import Duration, Retry, UpstreamConfig
from mirror.errors import UpstreamBusy, UpstreamShapeError
from mirror.upstream.connect import connect
from mirror.upstream.kept_connections import KeptConnections
from mirror.upstream.protocol import Upstream

Fault = Callable[[socket.socket], None]

BODY = b'{"values": []}'
GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
TIMEOUT = 0.2  # so that a whole exchange may take two seconds


class Server:
    """A local server with a fault for each of the first connections, and none for later ones."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = iter(faults)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.requests = 0
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                fault = next(self._faults, None)
                threading.Thread(target=self._serve, args=(connection, fault), daemon=True).start()

    def _serve(self, connection: socket.socket, fault: Fault | None) -> None:
        with closing(connection), suppress(OSError):
            while self._read_request(connection):
                if fault:
                    fault(connection)
                    return
                connection.sendall(GOOD)

    def _read_request(self, connection: socket.socket) -> bool:
        read = b""
        while b"\r\n\r\n" not in read:
            received = connection.recv(65536)
            if not received:
                return False
            read += received
        self.requests += 1
        return True

    def close(self) -> None:
        """Stop listening, so that nobody who gets the port next is answered from here."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(timeout=1)
        self._listener.close()


def reset(connection: socket.socket) -> None:
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(connection: socket.socket) -> None:
    """Close without an answer."""


def black_hole(connection: socket.socket) -> None:
    """Stay open without an answer."""
    with suppress(OSError):
        connection.recv(1)


def drip(data: bytes) -> Fault:
    """Send a beginning, then a byte before each time-out."""

    def dripping(connection: socket.socket) -> None:
        connection.sendall(data)
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(TIMEOUT / 4)

    return dripping


def say(data: bytes) -> Fault:
    """Send this and close."""
    return lambda connection: connection.sendall(data)


def with_body(headers: bytes, body: bytes) -> bytes:
    """Write an answer with the right length, the last of its connection."""
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n%sContent-Length: %d\r\n\r\n%s" % (
        headers,
        len(body),
        body,
    )


FAULTS: dict[str, Fault] = {
    "reset": reset,
    "hang up": hang_up,
    "black hole": black_hole,
    "headers drip": drip(b"HTTP/1.1 200 OK\r\nX: "),
    "body drips": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"),
    "truncated body": say(GOOD[:-3]),
    "truncated chunks": say(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{"valu\r\n'),
    "truncated without length": say(b"HTTP/1.0 200 OK\r\n\r\n" + BODY[:-3]),
    "no HTTP": say(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "no gzip": say(with_body(b"Content-Encoding: gzip\r\n", b"no gzip")),
    "truncated gzip": say(with_body(b"Content-Encoding: gzip\r\n", gzip.compress(BODY * 50)[:-20])),
    "endless headers": say(b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 50_000),
}


@contextmanager
def upstream_with(
    *faults: Fault, attempts: int = 2, url: str = "", timeout: float = TIMEOUT
) -> Iterator[tuple[Upstream, Server, FakeClock]]:
    """Connect to a server with these faults."""
    server, clock = Server(list(faults)), FakeClock()
    config = UpstreamConfig(
        name="faulty",
        kind="sandbox",
        url=url or f"http://127.0.0.1:{server.port}/2.0",
        timeout=Duration(timeout),
        retry=Retry(attempts=attempts),
    )
    upstream, _ = connect(
        config, ledger=MemoryLedger(), wait=clock.wait, clock=clock.clock, random=Random(1), environ={}
    )
    with closing(server), closing(upstream):
        yield upstream, server, clock


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_transient_fault_costs_one_retry(fault: Fault) -> None:
    """The second try succeeds after a wait; nothing takes much longer than ten time-outs."""
    with upstream_with(fault) as (upstream, server, clock):
        started = time.monotonic()
        assert upstream.fetch_members("w", None).rows == ()
        assert time.monotonic() - started < TIMEOUT * 10 + 5
        assert (server.requests, len(clock.naps)) == (2, 1)


@pytest.mark.parametrize("name", ["reset", "black hole", "truncated body", "no HTTP"])
def test_a_permanent_fault_is_reported(name: str) -> None:
    """With the address and the fault."""
    with upstream_with(*[FAULTS[name]] * 2) as (upstream, server, _):
        with pytest.raises(UpstreamBusy, match=f"127.0.0.1:{server.port}/2.0/workspaces/w/members") as caught:
            upstream.fetch_members("w", None)
        assert caught.value.status is None
        assert server.requests == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/2.0",
        "http://no-such-host.invalid/2.0",
        "http://no..host/2.0",
        "http://127.0.0.1:{port}/2.0",
    ],
)
def test_a_refused_connection_is_reported(url: str) -> None:
    """Refused, unknown and without TLS have different messages, and are retried as configured."""
    with upstream_with(hang_up, hang_up) as (_, server, _):
        address = url.replace("http:", "https:").format(port=server.port) if "{port}" in url else url
        with upstream_with(url=address) as (upstream, _, clock), pytest.raises(UpstreamBusy, match="connect"):
            upstream.fetch_members("w", None)
        assert len(clock.naps) == 1


def test_a_decompression_bomb_is_cut_off() -> None:
    """A small gzip with a body over the limit is refused, and requested with fewer rows only."""
    bomb = gzip.compress(bytes(66 * 1024 * 1024), 9)
    fault = say(with_body(b"Content-Encoding: gzip\r\n", bomb))
    with upstream_with(*[fault] * 9, timeout=30) as (upstream, server, clock):  # unpacking takes long
        with pytest.raises(UpstreamShapeError, match="larger than"):
            upstream.fetch_members("w", None)
        assert 1 < server.requests < 9
        assert clock.naps == []


def test_connections_are_reused() -> None:
    """Twenty requests in turn need one connection, four threads at most four."""
    with upstream_with() as (upstream, server, _):
        for _ in range(20):
            upstream.fetch_members("w", None)
        assert server.connections == 1
        threads = [
            threading.Thread(target=lambda: [upstream.fetch_members("w", None) for _ in range(20)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.requests == 100
        assert server.connections <= 4


def test_an_answer_that_nobody_asked_for_is_not_taken() -> None:
    """Two answers to one request, in one piece: the next request does not get the second of them."""
    other = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n"?"'

    def answer_twice(connection: socket.socket) -> None:
        connection.sendall(GOOD + other)
        connection.recv(1)  # until the other side closes it

    with upstream_with(answer_twice) as (upstream, server, clock):
        for _ in range(2):
            assert upstream.fetch_members("w", None).rows == ()
        assert (server.connections, clock.naps) == (2, [])


def test_a_connection_that_the_upstream_has_closed_is_not_used() -> None:
    """It is noticed before the next request is sent, which costs no retry."""
    over = threading.Event()

    def answer_once(connection: socket.socket) -> None:
        connection.sendall(GOOD)
        connection.shutdown(socket.SHUT_RDWR)
        over.set()

    with upstream_with(answer_once) as (upstream, server, clock):
        assert upstream.fetch_members("w", None).rows == ()
        over.wait()
        assert upstream.fetch_members("w", None).rows == ()
        assert (server.connections, clock.naps) == (2, [])


def test_connections_are_closed_once() -> None:
    """After that nothing is sent, and a connection that was opened meanwhile is closed, too."""
    with upstream_with() as (upstream, server, _):
        assert upstream.fetch_members("w", None).rows == ()
        upstream.close()
        with pytest.raises(RuntimeError, match="closed"):
            upstream.fetch_members("w", None)
        assert server.requests == 1

        class Slow(httpcore.HTTPConnection):
            def handle_request(self, request: httpcore.Request) -> httpcore.Response:
                kept.close()  # by another thread, while this one connects
                return super().handle_request(request)

        opened = list[Slow]()

        def open_one(origin: httpcore.Origin) -> Slow:
            opened.append(Slow(origin))
            return opened[-1]

        kept = KeptConnections(open_one)
        with pytest.raises(RuntimeError, match="closed"):
            kept.send(httpcore.Request("GET", f"http://127.0.0.1:{server.port}/", headers={"Host": "here"}))
        assert [one.is_closed() for one in opened] == [True]

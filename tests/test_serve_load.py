"""What visitors can do to the server: slow queries, floods of connections, endless requests."""

import contextlib
import http.client
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from cli_runner import Folder, small_sandbox
from fixtures_db import fill_public
from forked_command import ForkedCommand
from live_server import WITHOUT_TLS

from mirror.sandbox.faults import parse_fault
from mirror.serve.connections import BoundedProtocol, WaitingConnections, most_connections

SLOW = "/mirror.json?sql=" + quote(
    "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) from c"
)
HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: "


Process = subprocess.Popen[str] | ForkedCommand


@contextmanager
def served(folder: Folder, command: str, *, descriptors: int = 0) -> Iterator[tuple[Process, str]]:
    """Run a command that serves; return the process and the address."""
    process = _with_few(descriptors, folder, command) if descriptors else folder.start(command)
    try:
        assert process.stdout is not None
        yield process, next(word for word in process.stdout.readline().split() if word.startswith("http"))
    finally:
        process.kill()
        process.communicate()


def _with_few(descriptors: int, folder: Folder, command: str) -> subprocess.Popen[str]:
    """Start a command that may open so many files."""
    return subprocess.Popen(
        ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *folder.command(command)],
        cwd=folder.path,
        env=folder.environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def filled(tmp_path: Path) -> Folder:
    """A folder with a mirror without private rows."""
    folder = Folder(tmp_path)
    folder.configure("http://127.0.0.1:9", serve="port = 0")
    (folder.path / "data").mkdir()
    fill_public(folder.path / "data/mirror.db").store.close()
    return folder


@contextmanager
def asking_slowly(process: Process, address: str, times: int) -> Iterator[list[Future[Any]]]:
    """Send queries that reach their time limit, wait until the server has them, kill it at the end."""

    def ask() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        with closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", SLOW)
            answer = connection.getresponse()
            return answer.status, answer.read()
        return 0, b""

    with ThreadPoolExecutor(times) as threads:
        try:
            asked = [threads.submit(ask) for _ in range(times)]
            time.sleep(0.3)
            yield asked
        finally:
            process.kill()


def test_slow_queries_block_neither_api_nor_pages(filled: Folder) -> None:
    """Sixteen of them wait for four threads; everything else is answered."""
    with served(filled, "serve") as (process, address), asking_slowly(process, address, 16) as slow:
        with httpx.Client(verify=WITHOUT_TLS, trust_env=False, timeout=60) as client:
            for path in (
                "/1.0/repositories/jespern/django-piston", "/2.0/repositories/jespern", "/", "/-/changes",
                "/-/search?q=django", "/-/r/jespern/django-piston", "/-/mirror-status", "/-/metrics",
            ):  # fmt: skip
                assert client.get(address + path).status_code == 200
        assert not all(one.done() for one in slow)


def test_too_many_waiting_queries_are_refused(filled: Folder) -> None:
    """At once, so that waiting ones are answered in time."""
    with served(filled, "serve") as (process, address), asking_slowly(process, address, 130) as slow:
        done, _ = wait(slow, return_when=FIRST_COMPLETED)
        status, said = done.pop().result()
        assert status == 503
        assert b"Try again" in said


def test_a_signal_ends_serve_soon(filled: Folder) -> None:
    """Slow queries, an unread export, a kept connection, half a request: all are cut off."""
    with served(filled, "serve") as (process, address), asking_slowly(process, address, 8):
        port = int(address.rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            sockets = [
                stack.enter_context(closing(socket.create_connection(("127.0.0.1", port)))) for _ in range(3)
            ]
            sockets[0].sendall(b"GET /mirror/tags.csv?_stream=on HTTP/1.1\r\nHost: x\r\n\r\n")
            sockets[1].sendall(HALF)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
            assert time.monotonic() - began < 15
        assert process.returncode == 0
        assert "Traceback" not in said


def test_a_signal_ends_run_soon(filled: Folder) -> None:
    """During a sync with a silent upstream, and with waiting queries."""
    with small_sandbox(250) as box:
        box.sandbox.add_fault(parse_fault("hang,where=all,nth=every"))
        filled.configure(box.url, 'timeout = "60s"\nschedule = "0 0 1 1 *"', serve="port = 0")
        with served(filled, "run") as (process, address), asking_slowly(process, address, 8):
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
            assert time.monotonic() - began < 15
            assert process.returncode == 0
            assert "Traceback" not in said


def test_half_requests_leave_the_server_up(filled: Folder) -> None:
    """More of them than descriptors: others are answered, and the log has one line."""
    with served(filled, "serve", descriptors=256) as (process, address), contextlib.ExitStack() as stack:
        port = int(address.rpartition(":")[2])
        for _ in range(400):
            with contextlib.suppress(OSError):
                half = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=5)))
                half.sendall(HALF)
        with httpx.Client(verify=WITHOUT_TLS, trust_env=False, timeout=20) as client:
            for path in ("/2.0/repositories/jespern", "/-/search?q=django", "/mirror/repositories.json"):
                assert client.get(address + path).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
        assert [line for line in said.splitlines() if "64 connections are open" in line] == [said.strip()]


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with a body as long as the path says, without reading what was sent."""
    if scope["type"] != "http":
        return
    length = int(scope["path"].removeprefix("/") or 1)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(length):
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture(scope="module")
def impatient() -> Iterator[int]:
    """The port of a server with deadlines of a fifth of a second."""

    class Impatient(BoundedProtocol):
        waiting = WaitingConnections(50)
        head_seconds = body_seconds = unread_seconds = 0.2

    server = uvicorn.Server(
        uvicorn.Config(
            echo, http=Impatient, log_config=None, lifespan="off", ws="none", timeout_keep_alive=60
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def test_kept_connections_make_room_for_others(impatient: int) -> None:
    """The one that is idle for the longest time is closed, long before its time; each new one is answered."""
    with contextlib.ExitStack() as stack:
        kept = list[socket.socket]()
        for _ in range(60):
            one = stack.enter_context(closing(socket.create_connection(("127.0.0.1", impatient), timeout=10)))
            one.sendall(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
            body = b""
            while not body.endswith(b"0\r\n\r\n"):
                part = one.recv(200_000)
                assert part
                body += part
            kept.append(one)
        assert all(is_closed_by_server(one) for one in kept[:10])
        kept[-1].sendall(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept[-1].recv(12) == b"HTTP/1.1 200"


def is_closed_by_server(connection: socket.socket, *, drip: bytes = b"") -> bool:
    """Wait at most ten seconds for the end of a connection, sending a byte now and then."""
    connection.settimeout(0.05)
    for _ in range(200):
        try:
            if drip:
                connection.sendall(drip)
            if not connection.recv(65_536):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


@pytest.mark.parametrize(
    ("begun", "drip"),
    [
        (b"", b""),
        (HALF, b""),
        (HALF, b"x"),
        (b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n" + HALF, b"x"),
        (b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", b"x"),
        (b"GET /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["nothing", "half a head", "a head that drips", "a second head", "a body", "chunks"],
)
def test_a_slow_request_is_cut_off(impatient: int, begun: bytes, drip: bytes) -> None:
    """A slow head or body, read or not, on a new or a reused connection."""
    with closing(socket.create_connection(("127.0.0.1", impatient))) as connection:
        connection.sendall(begun)
        assert is_closed_by_server(connection, drip=drip)


def test_a_slow_reader_is_cut_off(impatient: int) -> None:
    """The connection is closed, and the rest of the answer is not produced."""
    with closing(http.client.HTTPConnection("127.0.0.1", impatient)) as client:
        client.request("GET", "/2000")
        answer = client.getresponse()
        time.sleep(1)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()


def test_an_offer_to_upgrade_is_ignored(impatient: int, caplog: pytest.LogCaptureFixture) -> None:
    """Java's client sends one with each request: the answer is HTTP/1.1, and the log stays empty."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAA"}
    with closing(http.client.HTTPConnection("127.0.0.1", impatient)) as client:
        client.request("GET", "/1", headers=offer)
        assert client.getresponse().status == 200
    assert caplog.messages == []


def test_quick_requests_on_a_kept_connection_go_on(impatient: int) -> None:
    """Deadlines are for each request, not for the connection."""
    with closing(http.client.HTTPConnection("127.0.0.1", impatient)) as client:
        for _ in range(6):
            client.request("GET", "/1")
            assert len(client.getresponse().read()) == 100_000
            time.sleep(0.1)
        assert client.sock is not None


def test_connections_leave_descriptors_for_the_process() -> None:
    """For any limit of descriptors."""
    assert 8 <= most_connections() <= 2000

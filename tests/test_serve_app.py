"""The server itself: a real process on a real port is started, sent requests, and stopped."""

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cli_runner import WARNINGS
from fixtures_db import fill_public
from live_server import serve

from mirror.config import ServeConfig
from mirror.errors import ConfigError, MirrorError, StoreError
from mirror.serve.server import build
from mirror.serve.state import served

PROGRAM = """
import sys
from pathlib import Path
from mirror.config import ServeConfig
from threading import Event
from mirror.serve.server import answer, build, listening
datasette = build(Path(sys.argv[1]), ServeConfig())
with listening("127.0.0.1", 0) as listener:
    caught = answer(datasette, listener, ready=lambda at: print(at, flush=True), stop=Event())
print(caught.name, flush=True)
"""


@contextmanager
def _running(path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    fill_public(path).store.close()
    process = subprocess.Popen(
        [sys.executable, *WARNINGS, "-c", PROGRAM, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().strip().rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_server_with_open_connections(tmp_path: Path, number: signal.Signals) -> None:
    """With an open connection of a browser, and a client in the middle of a request."""
    with (
        _running(tmp_path / "mirror.db") as (process, port),
        closing(http.client.HTTPConnection("127.0.0.1", port)) as kept,
        closing(socket.create_connection(("127.0.0.1", port))) as half,
    ):
        kept.request("GET", "/mirror/repositories.json")
        assert kept.getresponse().read()
        half.sendall(b"POST /-/mirror-login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\ntok")
        time.sleep(0.2)
        process.send_signal(number)
        output = process.communicate(timeout=30)[0]
        assert process.returncode == 0, output
        assert number.name in output
        assert "Traceback" not in output


def test_the_server_stops_on_an_event_of_another_thread(public_path: Path) -> None:
    """Outside the main thread, no signal handler is installed; the event ends it."""
    stop, up, addresses = threading.Event(), threading.Event(), list[str]()

    def ready(address: str) -> None:
        addresses.append(address)
        up.set()

    datasette = build(public_path, ServeConfig())
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=serve, args=(datasette, 0), kwargs={"ready": ready, "stop": stop})
    thread.start()
    assert up.wait(10)
    assert addresses[0].startswith("http://127.0.0.1:")
    stop.set()
    thread.join(3)
    assert not thread.is_alive()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_port_in_use_is_one_clear_error(public_path: Path) -> None:
    """The message has the port and a remedy, and the exit code is 4."""
    datasette = build(public_path, ServeConfig())
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MirrorError, match=rf":{port} cannot be served.*--port") as caught:
            serve(datasette, port, ready=lambda _: None)
    assert caught.value.exit_code == 4


def test_an_address_of_another_machine_is_one_clear_error(public_path: Path) -> None:
    """An address of another machine cannot be listened on."""
    with pytest.raises(MirrorError, match=r"192\.0\.2\.1"):
        serve(build(public_path, ServeConfig()), 0, ready=lambda _: None, host="192.0.2.1")


def test_an_unservable_file_is_refused_at_start(tmp_path: Path, public_path: Path) -> None:
    """A file that is no mirror, or trust for the whole network: an error before a port is opened."""
    with pytest.raises(StoreError, match="no mirror there yet"):
        build(tmp_path / "none.db", ServeConfig())
    with pytest.raises(ConfigError, match="loopback only"):
        build(public_path, ServeConfig(host="0.0.0.0", trust_basic_user=True))  # noqa: S104


def test_settings_reach_the_plugin(public_path: Path) -> None:
    """Options of `mirror serve` take precedence over defaults."""
    writer = object()
    datasette = build(public_path, ServeConfig(writes=True), writer=writer)
    assert served(datasette).config.writes
    assert served(datasette).writer is writer

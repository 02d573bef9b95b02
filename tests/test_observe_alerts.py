"""Alerts of successes, failures, recoveries and the brake, to a real listener and a real command."""

import contextlib
import json
import logging
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from cli_runner import BrokenReporter, Folder, small_sandbox, started, told
from fixtures_db import fill_public

from mirror.background.service import Background
from mirror.background.worker import chores_of
from mirror.config import from_toml
from mirror.errors import ConfigError
from mirror.observe.alerts import Alerts, address_of, events_of
from mirror.observe.delivery import MOST_WAITING, Courier, NotDelivered, call, post
from mirror.report import Reporter, RunCounts, Summary
from mirror.sandbox import parse_fault, visible_repositories
from mirror.store.runs import Failure

NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Listener:
    """A web server that records requests, and answers with `status`."""

    def __init__(self) -> None:
        self.heard = list[tuple[str, str]]()
        self.status = 200
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                listener.heard.append((self.path, body))
                self.send_response(listener.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def events(self) -> list[tuple[str, str]]:
        """Say what came, pings by their path and JSON by its event, and forget it."""
        heard, self.heard = self.heard, []
        return [(path, json.loads(body)["event"] if path == "/json" else "") for path, body in heard]


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A listener on loopback."""
    made = Listener()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def with_alerts(folder: Folder, url: str, listener: Listener, more: str = "") -> None:
    """Configure a ping and an address that takes JSON."""
    folder.configure(url, "credential = 'env:TOKEN'\nschedule = '0 0 1 1 *'", serve="port = 0")
    with (folder.path / "mirror.toml").open("a") as file:
        file.write(f'[[alert]]\nping = "{listener.url}/ping?a=b"\n[[alert]]\nurl = "env:CHAT"\n{more}')


def test_an_alert_is_sent_when_a_failure_begins_and_ends(folder: Folder, listener: Listener) -> None:
    """Three failing runs send one alert; each run is a separate process, as by cron."""
    chat = {"CHAT": f"{listener.url}/json", "TOKEN": "sandbox"}
    with small_sandbox(20) as box:
        with_alerts(folder, box.url, listener)
        assert folder.run("sync", **chat).code == 0
        assert listener.events() == [("/ping?a=b", "")]
        box.sandbox.add_fault(parse_fault("401,nth=every"))
        for _ in range(3):
            assert folder.run("sync", "--full", **chat).code == 3
        assert sorted(listener.events()) == [("/json", "failure"), ("/ping/fail?a=b", "")]
        box.sandbox.clear_faults()
        assert folder.run("sync", **chat).code == 0
        assert sorted(listener.events()) == [("/json", "recovery"), ("/ping?a=b", "")]


def test_the_brake_sends_one_alert(folder: Folder, listener: Listener) -> None:
    """With the number of missing repositories, and the command that continues."""
    chat = {"CHAT": f"{listener.url}/json", "TOKEN": "sandbox"}
    with small_sandbox(60) as box:
        with_alerts(folder, box.url, listener)
        folder.run("sync", **chat)
        names = [row["full_name"] for row in visible_repositories(box.sandbox.world)]
        (most, _), *_ = Counter(name.partition("/")[0] for name in names).most_common()
        for name in [name for name in names if name.startswith(f"{most}/")][:4]:
            box.sandbox.do("delete", name)
        listener.heard.clear()
        assert folder.run("sync", "--full", **chat).code == 1
        (body,) = [body for path, body in listener.heard if path == "/json"]
        alert = json.loads(body)
        assert (alert["event"], alert["upstream"], alert["state"]) == ("brake", "box", "incomplete")
        assert "--confirm-absence" in alert["text"]
        listener.heard.clear()
        folder.run("sync", "--full", **chat)
        assert ("/json", "brake") not in listener.events()


def test_an_alert_command_reads_the_alert(folder: Folder, listener: Listener) -> None:
    """As JSON on its standard input, only for its events."""
    script = "import sys; open('heard', 'a').write(sys.stdin.read() + chr(10))"
    command = json.dumps([sys.executable, "-c", script])
    with small_sandbox(20) as box:
        with_alerts(folder, box.url, listener, f'[[alert]]\ncommand = {command}\non = ["success"]\n')
        assert folder.run("sync", CHAT=f"{listener.url}/json", TOKEN="sandbox").code == 0
    (line,) = (folder.path / "heard").read_text().splitlines()
    alert = json.loads(line)
    assert (alert["event"], alert["upstream"], alert["kind"]) == ("success", "box", "full")
    assert "requests" in alert["text"]


def test_the_service_sends_alerts(folder: Folder, listener: Listener) -> None:
    """Of a failed run, before the service ends."""
    with small_sandbox(20) as box:
        box.sandbox.add_fault(parse_fault("401,nth=every"))
        with_alerts(folder, box.url, listener)
        with started(folder, "schedule", CHAT=f"{listener.url}/json", TOKEN="sandbox") as process:
            told(process, "box failed")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert ("/json", "failure") in listener.events()


def test_alerts_agree_with_the_health_route(folder: Folder, listener: Listener) -> None:
    """If any age is too old, the mirror is unhealthy, without blaming an upstream."""
    with small_sandbox(20) as box:
        with_alerts(folder, box.url, listener)
        text = (folder.path / "mirror.toml").read_text()
        (folder.path / "mirror.toml").write_text(text.replace("[serve]", 'stale_after = "0s"\n[serve]'))
        with started(folder, "schedule", CHAT=f"{listener.url}/json", TOKEN="sandbox") as process:
            told(process, "box complete")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    (body,) = [body for path, body in listener.heard if path == "/json"]
    alert = json.loads(body)
    assert (alert["event"], alert["upstream"]) == ("failure", "")
    assert "the mirror is unwell: box: the last sync ended" in alert["text"]


def test_an_internal_error_is_alerted_and_logged(
    tmp_path: Path, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """From any scheduled work; the service continues."""
    with small_sandbox(20) as box:
        config = from_toml(
            f'database = "{tmp_path}/m.db"\n[[upstream]]\nname = "box"\nkind = "sandbox"\nurl = "{box.url}"\n'
            f'[[alert]]\nurl = "{listener.url}/json"'
        )
        background = Background(config, report=BrokenReporter())
        background.start()
        for _ in range(1000):
            if listener.heard:
                break
            background.stop.wait(0.02)
        assert background.end()
    assert "a fault of this program" in json.loads(listener.heard[0][1])["text"]
    assert "ZeroDivisionError" in caplog.text


def test_a_failed_delivery_changes_nothing(folder: Folder, listener: Listener) -> None:
    """A refusal, no listener, a missing command: one line each, without the address."""
    listener.status = 500
    with small_sandbox(20) as box:
        with_alerts(folder, box.url, listener, '[[alert]]\ncommand = ["/nowhere/at-all"]\non = ["success"]\n')
        text = (folder.path / "mirror.toml").read_text()
        (folder.path / "mirror.toml").write_text(
            text.replace('url = "env:CHAT"', 'url = "env:CHAT"\non = ["success"]')
        )
        ran = folder.run("sync", CHAT="http://127.0.0.1:9/secret-address", TOKEN="sandbox")
    assert ran.code == 0
    assert ran.err.count("could not be delivered") == 3
    assert "the answer had status 500" in ran.err
    for secret in ("secret-address", "127.0.0.1:9", listener.url):
        assert secret not in ran.err


def summary(state: str = "complete", kind: str = "full", requests: int = 3, *failures: Failure) -> Summary:
    """A summary of a run."""
    return Summary(
        upstream="box", kind=kind, state=state, counts=RunCounts(requests=requests), seconds=1.0,  # type: ignore[arg-type]
        failures=list(failures), notes=[],
    )  # fmt: skip


def waiting_for(failure: Failure) -> Summary:
    """The summary of a run that did not retry an earlier failure."""
    return msgspec.structs.replace(summary("incomplete"), waiting=[failure])


@pytest.mark.parametrize(
    ("run", "failed_before", "events"),
    [
        (summary(), False, ["success"]),
        (summary("incomplete", "incremental"), True, ["recovery", "success"]),
        (summary("failed"), False, ["failure"]),
        (summary("failed"), True, []),
        (summary("paused"), True, []),
        (summary("interrupted"), False, []),
        (summary("complete", "watch"), True, ["recovery"]),
        (summary("complete", "marked"), False, []),
        (summary("complete", "retry", 0), True, []),
        (summary("incomplete", "full", 3, Failure("absence", "team", "x")), False, ["success", "brake"]),
        (summary("incomplete", "full", 3, Failure("refs", "{u}", "x")), False, ["success"]),
        (summary("incomplete", "full", 3, Failure("workspace", "team", "x")), False, ["failure"]),
        (summary("incomplete", "full", 3, Failure("workspace", "team", "x", attempts=2)), False, []),
        (summary("incomplete", "full", 3, Failure("absence", "t", "x", attempts=2)), False, ["success"]),
        (summary("incomplete", "full", 3, Failure("page", "team: page 2", "x")), False, ["failure"]),
        (waiting_for(Failure("page", "team: page 2", "x")), False, []),
        (waiting_for(Failure("refs", "{u}", "x")), False, ["success"]),
    ],
)
def test_each_outcome_of_a_run_has_its_alert(run: Summary, failed_before: bool, events: list[str]) -> None:
    """A run without requests proves nothing, and one that waits for its budget is no failure."""
    assert events_of(run, failed_before=failed_before) == events


def test_a_local_fault_sends_one_alert_and_one_recovery(tmp_path: Path, listener: Listener) -> None:
    """A full disk, an unreadable file."""
    config = from_toml(f'database = "{tmp_path}/m.db"\n[[alert]]\nurl = "{listener.url}/json"')
    with Alerts(config, clock=lambda: NOW) as alerts:
        for _ in range(3):
            alerts.send_failure("", "the disk is nearly full")
        alerts.send_recovery()
        alerts.send_recovery()
    assert listener.events() == [("/json", "failure"), ("/json", "recovery")]


def test_a_failure_before_a_reload_has_its_recovery_after_it(tmp_path: Path, listener: Listener) -> None:
    """And is not sent again: the operator corrected something else."""
    (tmp_path / "copies").write_text("no folder")
    config = from_toml(
        f'database = "{tmp_path}/m.db"\nbackup_schedule = "1d"\nbackup_folder = "{tmp_path}/copies"\n'
        f'[[alert]]\nurl = "{listener.url}/json"\n[[upstream]]\nname = "box"\nkind = "sandbox"\n'
        'schedule = ""\nverify_schedule = ""\nwatch = 0'
    )
    fill_public(tmp_path / "m.db").store.close()
    background = Background(config, report=Reporter(), reread=lambda: config)
    background.start()
    try:
        for _ in range(2):
            background._worker.keep(next(chores_of(config)))
            background.reload()
        (tmp_path / "copies").unlink()
        background._worker.keep(next(chores_of(config)))
        background._worker.alerts.close()
    finally:
        assert background.end()
    sent = {json.loads(body)["event"]: json.loads(body)["text"] for _, body in listener.heard}
    assert (len(listener.heard), sent["recovery"]) == (2, "backup succeeded again")
    assert sent["failure"].startswith("backup: ")


def test_alerts_of_before_a_reload_are_delivered_first(listener: Listener) -> None:
    """Otherwise a failure would come after its recovery, or never if the service ends."""
    config = from_toml(f'[[alert]]\nurl = "{listener.url}/json"')
    before, after = Alerts(config, clock=lambda: NOW), Alerts(config, clock=lambda: NOW)
    after.continue_from(before)
    for number in range(9):
        before.send_failure(f"work {number}", "x")
    for number in range(9):
        after.send_recovery(f"work {number}")
    after.close()
    assert listener.events() == [("/json", "failure")] * 9 + [("/json", "recovery")] * 9


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:9", "http://256.0.0.1/", "https://127.0.0.1:9", "http://a.invalid/\u00e9 x"]
)
def test_no_alert_address_can_stop_a_sync(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Any undeliverable alert is one line of the log."""
    config = from_toml(f'[[alert]]\nurl = "{place}"')
    with caplog.at_level(logging.WARNING), Alerts(config, clock=lambda: NOW) as alerts:
        alerts.send_failure("", "x")
    assert "could not be delivered" in caplog.text


def test_an_address_is_never_logged(caplog: pytest.LogCaptureFixture, listener: Listener) -> None:
    """It is a secret, so it is also removed from texts of upstreams."""
    config = from_toml(f'[[alert]]\nurl = "{listener.url}/json"')
    with Alerts(config, clock=lambda: NOW) as alerts:
        alerts.send_failure("", f"someone said {listener.url}/json")
    assert listener.url not in listener.heard[0][1]
    assert "[secret]" in listener.heard[0][1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[alert]]", "one of ping, url and command"),
        ('[[alert]]\nping = "https://a.example"\nurl = "https://b.example"', "one of ping, url and command"),
        ('[[alert]]\nurl = "example.com"', "must be a web address"),
        ('[[alert]]\nurl = "https://a.example"\non = ["fire"]', "'fire'"),
        ('[[alert]]\nurl = "https://a.example"\nwhen = 3', "unknown setting 'when'"),
        ('[[alert]]\nurl = "http://[::1"', "not a web address"),
        ('[[alert]]\nurl = "https://a.example:port/"', "not a web address"),
        ('[[alert]]\nping = "https://user:word@a.example/"', "line 2: ping: holds a user and a password"),
        ('[[alert]]\nurl = "https://user@a.example"', "line 2: url: holds a user and a password"),
    ],
)
def test_a_wrong_alert_is_refused(text: str, says: str) -> None:
    """With line and remedy."""
    with pytest.raises(ConfigError, match=says):
        from_toml(text)


def test_an_unreadable_address_source_is_refused(tmp_path: Path) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match="not set"):
        Alerts(from_toml('[[alert]]\nurl = "env:NOT_SET_ANYWHERE"'))
    (tmp_path / "place").write_text("no address at all")
    with pytest.raises(ConfigError, match="not a web address"):
        Alerts(from_toml(f'[[alert]]\nping = "file:{tmp_path}/place"'))
    (tmp_path / "place").write_text("https://user:s3cret@a.example/")
    with pytest.raises(ConfigError, match="holds a user and a password") as caught:
        Alerts(from_toml(f'[[alert]]\nping = "file:{tmp_path}/place"'))
    assert "s3cret" not in str(caught.value)
    (tmp_path / "place").write_text("\ufeffhttps://a.example/hook\r\n", encoding="utf-8")
    assert address_of(f"file:{tmp_path}/place") == "https://a.example/hook"


@contextmanager
def answering(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """Answer one connection with pieces and pauses between them, until the pieces or the test end."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65_536)
                for piece in pieces:
                    connection.sendall(piece)
                    if done.wait(pause):
                        return

        pool.submit(answer)
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/secret-path"
        finally:
            done.set()


DRIPPING = [b"HTTP/1.1 200 OK\r\n", *(b"X-%d: y\r\n" % number for number in range(60)), b"\r\n"]


@pytest.mark.parametrize("pieces", [DRIPPING, [b"H"] * 60, [b""] * 60], ids=["headers", "status", "silence"])
def test_a_slow_drip_response_is_cut_off(pieces: list[bytes]) -> None:
    """After a total time, although each piece arrives within its time-out."""
    with answering(*pieces, pause=0.05) as url, pytest.raises(NotDelivered, match=r"within 0\.2 s") as caught:
        post(url, b"{}", seconds=0.2)
    assert "secret-path" not in str(caught.value)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(listener: Listener, status: int) -> None:
    """A GET to the new address would lose the alert; the status is logged, the address is not."""
    other = f"{listener.url}/elsewhere"
    head = f"HTTP/1.1 {status} Moved\r\nLocation: {other}\r\nContent-Length: 0\r\n\r\n".encode()
    with answering(head) as url, pytest.raises(NotDelivered, match=f"{status}; redirects") as caught:
        post(url, b"{}")
    assert "elsewhere" not in str(caught.value)
    assert listener.heard == []


def test_a_slow_receiver_holds_up_neither_work_nor_other_alerts(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Work continues, other targets get theirs, and a delivery that takes too long is a warning."""
    with answering(*DRIPPING, pause=0.05) as slow:
        config = from_toml(f'[[alert]]\nurl = "{slow}"\n[[alert]]\nurl = "{listener.url}/json"')
        alerts = Alerts(config, clock=lambda: NOW)
        alerts.send_failure("", "the disk is nearly full")
        alerts.close(0.5)
    assert listener.events() == [("/json", "failure")]
    assert "alert 1 could not be delivered in time" in caplog.text


def test_alerts_beyond_the_queue_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """With a line of the log; nothing waits or grows."""
    sent, free = list[int](), threading.Event()

    def send(alert: int, _: threading.Event) -> None:
        free.wait()
        sent.append(alert)

    courier = Courier("alert 1", send)
    for number in range(MOST_WAITING + 10):
        courier.send(number)
    free.set()
    assert courier.finish(time.monotonic() + 20)
    assert sent[:MOST_WAITING] == list(range(MOST_WAITING))
    assert caplog.text.count("others are queued") >= 9


CHILDREN = "sleep 300 & echo $! > {place}; sleep 300"


@pytest.mark.parametrize("stopped", [False, True], ids=["too long", "told to stop"])
def test_a_command_is_killed_with_its_children(tmp_path: Path, stopped: bool) -> None:
    """After its time, or when the service ends."""
    place, stop = tmp_path / "child", threading.Event()
    command = ["sh", "-c", CHILDREN.format(place=place)]
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(call, command, b"x" * 200_000, stop=stop, seconds=60 if stopped else 1.0)
        while not (place.exists() and place.read_text().strip()):
            time.sleep(0.02)
        if stopped:
            stop.set()
        with pytest.raises(NotDelivered, match="was killed"):
            ran.result()
    child = int(place.read_text())
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            break
        time.sleep(0.02)
    else:
        raise AssertionError("the child lives on")


def test_a_command_needs_no_room_on_a_disk(tmp_path: Path) -> None:
    """Its input is in memory: the alert may be about a full disk."""
    place = tmp_path / "input"
    call(["sh", "-c", f"readlink /proc/self/fd/0 > {place}"], b"{}", stop=threading.Event())
    assert place.read_text().startswith("/memfd:")

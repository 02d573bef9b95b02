"""Several processes answer on one port: changes reach all of them, and a parent replaces them."""

import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from asgi_client import bearer
from cli_runner import Folder, small_sandbox, started, told
from fixtures_db import fill_public
from forked_command import ForkedCommand
from test_observe_metrics import parsed
from webhook_client import signature
from write_harness import SECRET

from mirror.observe.metrics import LONGEST_KEY, MOST_ROWS, SharedNumbers, SharedText
from mirror.sandbox import RunningSandbox, visible_repositories
from mirror.store import Store, tokens

SECRETS = {"HOOK": "a secret of these tests", "LATER": "another secret of these tests", "BOX": SECRET}
HOOK = "/-/webhook/box"
FORM = {"Content_Type": "application/x-www-form-urlencoded"}
RARELY = 'schedule = "0 0 1 1 *"\nverify_schedule = ""\nwebhook_secret = "env:HOOK"\ncredential = "env:BOX"'


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, in this order."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(condition: Any, seconds: float = 10) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Worker:
    """A connection to one of the processes."""

    def __init__(self, address: str, pid: int, others: list[int]) -> None:
        self.pid = pid
        for other in others:
            os.kill(other, signal.SIGSTOP)
        self._kept = http.client.HTTPConnection(str(urlsplit(address).netloc), timeout=20)
        self.ask("GET", "/-/health")
        for other in others:
            os.kill(other, signal.SIGCONT)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str, Any]:
        """Send a request over the same connection; return status, body, headers."""
        self._kept.request(method, path, body, {name.replace("_", "-"): to for name, to in headers.items()})
        answer = self._kept.getresponse()
        return answer.status, answer.read().decode(), answer.headers

    def close(self) -> None:
        """Close the connection."""
        self._kept.close()

    def status(self, path: str, token: str) -> int:
        """Send a request with a token; return the status."""
        return self.ask("GET", path, **bearer(token))[0]


class Served:
    """`mirror run --workers 2` with writes and webhooks."""

    def __init__(self, folder: Folder, box: RunningSandbox, process: ForkedCommand) -> None:
        self.folder, self.box, self.process = folder, box, process
        self.address = re.findall(r"http://\S+", process.stdout.readline())[0]
        self.syncs = children(process.pid)[2]
        told(process, "box complete")

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder.path / "data/mirror.db"

    @contextmanager
    def workers(self) -> Iterator[tuple[Worker, Worker]]:
        """Connect to both."""
        until(lambda: len(children(self.process.pid)) == 3)
        pids = [pid for pid in children(self.process.pid) if pid != self.syncs]
        one, other = Worker(self.address, pids[0], pids[1:]), Worker(self.address, pids[1], pids[:1])
        with closing(one), closing(other):
            yield one, other

    def token(self, name: str, scope: str = "read") -> str:
        """Make a token that sees everything."""
        with Store(self.path) as store:
            return tokens.create(store, name, scope)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two processes that answer, and one that syncs a small sandbox."""
    folder = Folder(tmp_path_factory.mktemp("workers"))
    with small_sandbox(20) as box:
        folder.configure(box.url, RARELY, serve="port = 0\nwrites = true")
        with started(folder, "run", "--workers", "2", **SECRETS) as process:
            yield Served(folder, box, process)


def test_what_changes_in_the_file_all_workers_answer_at_once(served: Served) -> None:
    """A revoked token and a newly private repository, although both workers had answered before."""
    token = served.token("laptop")
    (public, *_) = [row for row in visible_repositories(served.box.sandbox.world) if not row["is_private"]]
    path = f"/2.0/repositories/{public['full_name']}"
    with served.workers() as workers:
        assert [worker.status(path, token) for worker in workers] == [200, 200]
        with Store(served.path) as store:
            tokens.revoke(store, "laptop")
        assert [worker.status(path, token) for worker in workers] == [401, 401]
        assert [worker.ask("GET", path)[0] for worker in workers] == [200, 200]
        for is_private, status in ((1, 404), (0, 200)):
            with closing(sqlite3.connect(served.path)) as writer, writer:
                change = "UPDATE repositories SET is_private = ? WHERE full_name = ?"
                writer.execute(change, (is_private, public["full_name"]))
            assert [worker.ask("GET", path)[0] for worker in workers] == [status, status]


def test_a_login_with_one_worker_is_one_with_all(served: Served) -> None:
    """They share the secret that signs logins, also with a replacement."""
    with served.workers() as (one, other):
        os.kill(one.pid, signal.SIGKILL)
        line = told(served.process, "another one starts")
        assert re.fullmatch(r"\S+ \S+ error: worker \d was ended by SIGKILL; another one starts\n", line)
        _, text, got = other.ask("GET", "/-/mirror-login")
        form = {
            "token": served.token("browser"),
            "csrftoken": re.findall(r'name="csrftoken" value="([^"]+)"', text)[0],
        }
        csrf = got["Set-Cookie"].split(";")[0]
        status, _, got = other.ask("POST", "/-/mirror-login", urlencode(form), Cookie=csrf, **FORM)
        assert status == 302
    login = next(each for each in got.get_all("Set-Cookie") if each.startswith("ds_actor")).split(";")[0]
    with served.workers() as workers:
        assert one.pid not in {worker.pid for worker in workers}
        for worker in workers:
            assert "browser" in worker.ask("GET", "/-/actor.json", Cookie=login)[1]


def test_metrics_are_the_sums_of_all_workers(served: Served) -> None:
    """Each returns the same, and counts of a killed worker are kept."""
    token, path = served.token("prometheus"), "/1.0/repositories/jespern/django-piston"

    def counted(worker: Worker) -> tuple[float, float]:
        found = parsed(worker.ask("GET", "/-/metrics", **bearer(token))[1])
        labels = "api1", "2xx"
        return found["answer_seconds_count", *labels], found["answer_seconds_bucket", *labels, "+Inf"]

    with served.workers() as (one, other):
        assert one.status(path, token) == 200
        total = counted(one)[0] + 7
        for worker in (one, one, one, other, other, other, other):
            worker.status(path, token)
        # An answer is counted once it was sent, and another process may be asked before that.
        until(lambda: counted(one) == counted(other) == (total, total))
        os.kill(other.pid, signal.SIGKILL)
        until(lambda: other.pid not in children(served.process.pid))
    with served.workers() as workers:
        assert [counted(worker) for worker in workers] == [(total, total)] * 2


def test_writes_and_webhooks_of_one_worker_show_in_the_others(served: Served) -> None:
    """All show a repository created through one; the syncing process follows a webhook's hint."""
    token = served.token("ci", "write")
    with served.workers() as (one, other):
        made = one.ask(
            "POST", "/1.0/repositories/", "name=made-by-one&owner=jespern", **FORM, **bearer(token)
        )
        assert made[0] == 200, made
        assert other.status("/1.0/repositories/jespern/made-by-one", token) == 200
        rows = visible_repositories(served.box.sandbox.world)
        body = json.dumps({"repository": next(row for row in rows if row["slug"] == "made-by-one")})
        signed = signature(body.encode(), SECRETS["HOOK"])
        said = other.ask("POST", HOOK, body, X_Event_Key="repo:updated", X_Hub_Signature=signed)
        assert json.loads(said[1])["outcome"] == "taken"
    told(served.process, "box marked complete")


def test_a_configuration_is_read_anew_by_all_and_one_process_syncs(served: Served) -> None:
    """After SIGHUP, webhooks have another secret, also in processes that start later."""
    file = served.folder.path / "mirror.toml"
    file.write_text(file.read_text().replace("env:HOOK", "env:LATER"))
    os.kill(served.process.pid, signal.SIGHUP)
    told(served.process, "read again")
    body = "{}"
    signed = {"X_Event_Key": "repo:nothing", "X_Hub_Signature": signature(body.encode(), SECRETS["LATER"])}
    with served.workers() as (one, other):
        until(lambda: other.ask("POST", HOOK, body, **signed)[0] == 200)
        os.kill(one.pid, signal.SIGKILL)
        until(lambda: one.pid not in children(served.process.pid))
    with served.workers() as workers:
        assert [worker.ask("POST", HOOK, body, **signed)[0] for worker in workers] == [200, 200]
    with closing(sqlite3.connect(served.path)) as reader:
        kinds = [kind for (kind,) in reader.execute("SELECT kind FROM sync_runs")]
    assert kinds.count("full") == 1


def test_a_secret_that_cannot_be_read_is_refused_by_all_processes(served: Served) -> None:
    """One of them reports it; those that start later have the old configuration too."""
    file = served.folder.path / "mirror.toml"
    before = file.read_text()
    file.write_text(re.sub(r"webhook_secret = .*", 'webhook_secret = "env:NOT_SET"', before))
    os.kill(served.process.pid, signal.SIGHUP)
    assert "NOT_SET" in told(served.process, "configuration")
    with served.workers() as (one, _):
        os.kill(one.pid, signal.SIGKILL)
        until(lambda: one.pid not in children(served.process.pid))
    with served.workers() as workers:
        assert [worker.ask("GET", "/-/health")[0] for worker in workers] == [200, 200]
    file.write_text(before)


def test_a_credential_that_was_adopted_may_become_unreadable(served: Served) -> None:
    """Each configuration is compared with the one before, not with that of the start."""
    file, key = served.folder.path / "mirror.toml", served.folder.path / "key"
    before = file.read_text()
    key.touch(0o600)
    key.write_text("sandbox")
    with_key = re.sub(r"credential = .*", 'credential = "file:key"', before)
    assert with_key != before
    for text in (with_key, with_key.replace("[[upstream]]", '[[upstream]]\nstale_after = "2h"')):
        file.write_text(text)
        os.kill(served.process.pid, signal.SIGHUP)
        assert "read again" in told(served.process, "configuration")
        key.unlink(missing_ok=True)
    file.write_text(before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_parent_is_the_end_of_all(folder: Folder, number: signal.Signals) -> None:
    """Within seconds, with an open connection; the port is free, and nothing is printed. SIGHUP ends none.

    Only a killed one leaves a journal beside the file.
    """
    fill_public(folder.path / "data" / "mirror.db").store.close()
    with started(folder, "serve", "--workers", "2", "--port", "0") as process:
        address = re.findall(r"http://\S+", process.stdout.readline())[0]
        there = children(process.pid)
        assert len(there) == 2
        with closing(Worker(address, there[0], [there[1]])) as worker:
            assert worker.ask("GET", "/")[0] == 200
            process.send_signal(signal.SIGHUP)
            told(process, "read again")
            assert children(process.pid) == there
            process.send_signal(number)
            _, said = process.communicate(timeout=20)
        assert said == ""
        assert process.returncode == (-number if number == signal.SIGKILL else 0)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in there))
    left_journal = (folder.path / "data/mirror.db-wal").exists()
    assert left_journal == (number == signal.SIGKILL)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((urlsplit(address).hostname, urlsplit(address).port))


def test_a_copy_that_takes_the_place_of_another_is_read_by_all(folder: Folder) -> None:
    """A server of copies opens the new one in each process, with the next request."""
    paths = [folder.path / "data" / name for name in ("mirror.db", "newer.db")]
    for path in paths:
        fill_public(path).store.close()
    with closing(sqlite3.connect(paths[1])) as writer, writer:
        writer.execute("UPDATE repositories SET description = 'of the newer copy'")
    (folder.path / "mirror.toml").write_text("[serve]\nport = 0\nread_only = true\nworkers = 2\n")
    with started(folder, "serve") as process:
        address = re.findall(r"http://\S+", process.stdout.readline())[0]
        pids = children(process.pid)
        one, other = Worker(address, pids[0], pids[1:]), Worker(address, pids[1], pids[:1])
        with closing(one), closing(other):
            page = "/2.0/repositories?pagelen=100"
            before = [worker.ask("GET", page)[1] for worker in (one, other)]
            paths[1].rename(paths[0])
            after = [worker.ask("GET", page)[1] for worker in (one, other)]
    assert ["of the newer copy" in text for text in (*before, *after)] == [False, False, True, True]


def test_errors_at_the_start_are_one_line_once(folder: Folder) -> None:
    """No file, a port in use, an invalid number."""
    no_file = folder.run("serve", "--workers", "2")
    assert (no_file.code, no_file.err.count("\n")) == (4, 1)
    fill_public(folder.path / "data" / "mirror.db").store.close()
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        used = folder.run("serve", "--workers", "2", "--port", str(taken.getsockname()[1]))
    assert (used.code, used.err.count("\n"), "--port" in used.err) == (4, 1, True)
    for wrong in ("0", "-1", "x", "1000"):
        refused = folder.run("serve", "--workers", wrong)
        assert (refused.code, refused.err.count("Error: Invalid value for '--workers'")) == (2, 1)
    (folder.path / "mirror.toml").write_text("[serve]\nworkers = 0\n")
    refused = folder.run("serve")
    assert (refused.code, refused.err.count("\n"), "workers" in refused.err) == (2, 1, True)


def test_numbers_are_summed_over_parts_and_counted_on_in_them() -> None:
    """A part that another process takes over keeps its rows; rows without room are left out."""
    numbers = SharedNumbers(2)
    numbers.add(b"one", 0)
    numbers.count_in(1)
    numbers.add(b"one", 0, 2.0)
    numbers.add(b"two", 15, 0.5)
    numbers.count_in(0)
    numbers.add(b"one", 0)
    numbers.add(b"x" * (LONGEST_KEY + 1), 0)
    sums = numbers.sums()
    assert set(sums) == {b"one", b"two"}
    assert (sums[b"one"][0], sums[b"two"][15], sum(sums[b"two"])) == (4.0, 0.5, 0.5)
    for number in range(MOST_ROWS + 10):
        numbers.add(b"%d" % number, 0)
    assert len(numbers.sums()) == MOST_ROWS + 1


def test_a_shared_text_holds_for_its_time() -> None:
    """None before it is written, after its time, or if it is too long or half written."""
    text = SharedText(most=10)
    assert text.read(0.0) is None
    text.write(b"0123456789", until=5.0)
    assert (text.read(4.9), text.read(5.0)) == (b"0123456789", None)
    text.write(b"0123456789x", until=9.0)
    assert text.read(4.9) == b"0123456789"

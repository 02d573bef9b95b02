"""The service as a process: signals, reloading, missed jobs, and two processes at once."""

import json
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli_runner import Folder, small_sandbox, started, told
from fixtures_db import fill_public
from webhook_client import signature

from mirror.sandbox import parse_fault, visible_repositories

ROOT = Path(__file__).resolve().parent.parent
RARELY = 'schedule = "0 0 1 1 *"\nverify_schedule = ""'
TALKATIVE = 'port = 0\n[log]\nlevel = "debug"'


def runs(folder: Folder) -> list[Any]:
    """Read kind and state of all runs."""
    with closing(sqlite3.connect(folder.path / "data/mirror.db")) as connection:
        return connection.execute("SELECT kind, state FROM sync_runs ORDER BY id").fetchall()


def test_a_missed_job_runs_once_at_start(folder: Folder) -> None:
    """An empty folder needs a sync; a synced one needs none until the next hour."""
    with small_sandbox(20) as box:
        folder.configure(box.url, RARELY)
        for _ in range(2):
            with started(folder, "schedule") as process:
                if not (folder.path / "data/mirror.db").exists():
                    told(process, "box complete")
                else:
                    told(process, "next")
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=30)
                assert process.returncode == 0
    assert runs(folder) == [("full", "complete")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_while_the_upstream_hangs(folder: Folder, number: signal.Signals) -> None:
    """It does not wait for the answer, although the time-out is a minute, and keeps the cursor."""
    with small_sandbox(250) as box:
        box.sandbox.add_fault(parse_fault("hang,where=refs,nth=every"))
        folder.configure(box.url, RARELY + '\ntimeout = "60s"', serve=TALKATIVE)
        with started(folder, "schedule") as process:
            told(process, "branches and tags")
            process.send_signal(number)
            process.communicate(timeout=20)
            assert process.returncode == 0
    assert runs(folder) == [("full", "interrupted")]


def test_a_sync_by_hand_and_the_service_never_collide(folder: Folder) -> None:
    """The second one changes nothing and names the holder of the lock."""
    with small_sandbox(20) as box:
        box.sandbox.add_fault(parse_fault("hang,where=refs,nth=every"))
        folder.configure(box.url, RARELY, serve=TALKATIVE)
        with started(folder, "schedule") as service:
            told(service, "branches and tags")
            by_hand = folder.run("sync")
            assert by_hand.code == 4
            assert f"process {service.pid} is syncing" in by_hand.err
        with started(folder, "sync") as by_hand_first:
            told(by_hand_first, "branches and tags")
            with started(folder, "schedule") as service:
                assert f"process {by_hand_first.pid} is syncing" in told(service, "skipped")


def test_sighup_reloads_the_configuration(folder: Folder) -> None:
    """A wrong one is refused with a message and the old one stays; a right one is adopted."""
    with small_sandbox(20) as box:
        folder.configure(box.url, RARELY)
        good = (folder.path / "mirror.toml").read_text()
        with started(folder, "schedule") as process:
            told(process, "box complete")
            for wrong in ("schedule = 3", 'schedule = "61 * * * *"', "[[upstream]]"):
                (folder.path / "mirror.toml").write_text(f'[[upstream]]\nname = "box"\n{wrong}\n')
                process.send_signal(signal.SIGHUP)
                assert "the old one stays" in told(process, "refused")
            other = folder.path / "other.db"
            for wrong in ("", good.replace("[[up", f'database = "{other}"\n[[up')):
                (folder.path / "mirror.toml").write_text(wrong)
                process.send_signal(signal.SIGHUP)
                assert "the old one stays" in told(process, "refused")
            (folder.path / "mirror.toml").unlink()
            process.send_signal(signal.SIGHUP)
            assert "mirror.toml: no such file" in told(process, "refused")
            assert not other.exists()
            (folder.path / "mirror.toml").write_text(good.replace('"box"', '"second"'))
            process.send_signal(signal.SIGHUP)
            told(process, "read again")
            told(process, "second complete")
            assert process.poll() is None


@pytest.mark.parametrize("command", ["schedule", "run", "serve"])
def test_a_sighup_before_the_start_waits_for_it(folder: Folder, command: str) -> None:
    """It is blocked before, so that it reaches the command whenever that is ready, and obeyed then."""
    folder.configure("http://127.0.0.1:1/2.0", f"{RARELY}\nwatch = 0", serve="port = 0")
    fill_public(folder.path / "data" / "mirror.db").store.close()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # for the process that starts
    try:
        running = subprocess.Popen(
            folder.command(command), cwd=folder.path, env=folder.environment(), stderr=subprocess.PIPE
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    running.send_signal(signal.SIGHUP)
    assert running.stderr is not None
    assert any(b"read again" in line for line in running.stderr)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)
    assert running.returncode == 0


def test_a_sighup_kills_no_service_that_is_starting(folder: Folder) -> None:
    """From the moment when the command is known: systemd takes that for a clean end, and restarts nothing."""
    lines = (
        "import signal; from mirror.cli import signals; signals.interrupt();"
        " signals.end_service_at_once(rereads=True); signal.raise_signal(signal.SIGHUP); print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", lines], env=folder.environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")


def exec_start(unit: str) -> str:
    """Read a unit's command."""
    lines = (ROOT / "contrib/systemd" / unit).read_text("utf-8").splitlines()
    (command,) = [line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")]
    return command


@pytest.mark.parametrize(
    ("unit", "says"),
    [("bitbucket-mirror.service", "box complete"), ("bitbucket-mirror-sync.service", "listing workspaces")],
)
def test_the_units_start_what_they_say(folder: Folder, unit: str, says: str) -> None:
    """ExecStart unchanged, except for the paths of the program and its configuration."""
    with small_sandbox(20) as box:
        folder.configure(box.url, RARELY, serve="port = 0")
        program, *arguments = shlex.split(exec_start(unit))
        assert program == "/opt/bitbucket-mirror/bin/mirror"
        arguments[arguments.index("/etc/bitbucket-mirror/mirror.toml")] = str(folder.path / "mirror.toml")
        with started(folder, *arguments) as process:
            told(process, says)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@pytest.mark.parametrize(
    "unit", sorted((ROOT / "contrib/systemd").glob("*.service")), ids=lambda path: path.name
)
def test_a_refused_system_call_does_not_kill_the_service(unit: Path) -> None:
    """Libraries try calls that they do not need: numpy calls mbind, which @resources has."""
    lines = unit.read_text("utf-8").splitlines()
    assert "SystemCallFilter=~@privileged @resources" in lines
    assert "SystemCallErrorNumber=EPERM" in lines


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """All three, with another program in place of ours."""
    for unit in (ROOT / "contrib/systemd").iterdir():
        text = unit.read_text("utf-8").replace("/opt/bitbucket-mirror/bin/mirror", sys.executable)
        (tmp_path / unit.name).write_text(text)
    units = sorted(str(path) for path in tmp_path.iterdir())
    assert len(units) == 3
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60, check=False
    )
    about_ours = [line for line in done.stderr.splitlines() if "bitbucket-mirror" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_the_documented_cron_line_runs(folder: Folder) -> None:
    """The command of the crontab, in a folder of its own."""
    lines = (ROOT / "contrib/crontab").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if not line.startswith("#")]
    command = line.split(maxsplit=5)[5]
    home = folder.path
    place = home / "bitbucket-mirror"
    (place / ".venv/bin").mkdir(parents=True)
    (place / "data").mkdir()
    program = place / ".venv/bin/mirror"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mirror "$@"\n')
    program.chmod(0o755)
    with small_sandbox(20) as box:
        Folder(place).configure(box.url)
        subprocess.run(
            ["/bin/sh", "-c", command], env=folder.environment(HOME=str(home)), check=True, timeout=60
        )
    assert "box: complete" in (place / "data/sync.log").read_text()


def test_status_shows_when_jobs_are_due(folder: Folder) -> None:
    """For people within eighty columns, and as JSON."""
    with small_sandbox(20) as box:
        schedules = (
            'schedule = "15m"\nretry_schedule = "20m"\nsweep_schedule = "1d"\nrefs_schedule = "6h"'
            '\nverify_schedule = "7d"'  # none is due before the sync, whatever the hour of the test
        )
        folder.configure(box.url, schedules)
        assert folder.run("sync").code == 0
        assert "no service is running" in folder.run("status").out
        with started(folder, "schedule") as process:
            told(process, "next")
            ran, as_json = folder.run("status"), folder.run("status", "--json")
    assert "next sync in 1" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    (upstream,) = json.loads(as_json.out)["upstreams"]
    assert set(upstream["next_runs"]) == {"sync", "retry", "sweep", "refs", "verify"}


def test_a_webhook_triggers_a_sync_within_seconds(folder: Folder) -> None:
    """Serving and syncing in one process: a hint is requested without any schedule."""
    secret = "a secret of this test alone"
    with small_sandbox(20) as box:
        folder.configure(box.url, RARELY + '\nwebhook_secret = "env:HOOK"', serve="port = 0")
        with started(folder, "run", HOOK=secret) as process:
            address = re.findall(r"http://\S+", process.stdout.readline())[0]
            told(process, "box complete")
            box.sandbox.do("rename", "ubernostrum/django-profiles", name="renamed-just-now")
            told_name = [
                row for row in visible_repositories(box.sandbox.world) if row["slug"] == "renamed-just-now"
            ]
            body = json.dumps({"repository": told_name[0]}).encode()
            answer = httpx.post(
                f"{address}/-/webhook/box",
                content=body,
                headers={"X-Event-Key": "repo:updated", "X-Hub-Signature": signature(body, secret)},
                trust_env=False,
            )
            assert answer.json()["outcome"] == "taken"
            told(process, "box marked complete")
    assert runs(folder) == [("full", "complete"), ("marked", "complete")]
    assert "renamed-just-now" in folder.run("search", "renamed-just").out


def test_a_webhook_acknowledged_before_sigkill_is_written_by_the_next_process(folder: Folder) -> None:
    """The file is locked when a chunked push arrives; after the 202, the process is killed."""
    secret, before, after = "a secret of this test alone", "a" * 40, "b" * 40
    path = folder.path / "data/mirror.db"
    with small_sandbox(20) as box:
        folder.configure(box.url, RARELY + '\nwebhook_secret = "env:HOOK"', serve="port = 0")
        rows = [
            row
            for row in visible_repositories(box.sandbox.world)
            if row["scm"] == "git" and not row["is_private"]
        ]
        row = rows[0]
        box.sandbox.do("create_branch", row["full_name"], name="pushed", target=before)
        assert folder.run("sync").code == 0
    old, new = ({"name": "pushed", "type": "branch", "target": {"hash": each}} for each in (before, after))
    told_of = {"push": {"changes": [{"old": old, "new": new}]}, "repository": row}
    body = json.dumps(told_of).encode()
    headers = {"X-Event-Key": "repo:push", "X-Hub-Signature": signature(body, secret)}
    with started(folder, "serve", HOOK=secret) as process, closing(sqlite3.connect(path)) as lock:
        address = re.findall(r"http://\S+", process.stdout.readline())[0]
        lock.execute("BEGIN IMMEDIATE")
        chunks = iter([body[:50], body[50:]])
        answer = httpx.post(f"{address}/-/webhook/box", content=chunks, headers=headers, trust_env=False)
        assert answer.status_code == 202
        process.kill()
    with started(folder, "serve", HOOK=secret), closing(sqlite3.connect(path)) as reader:
        for _ in range(200):
            found = reader.execute("SELECT target_hash FROM branches WHERE name = 'pushed'").fetchone()
            if found == (after,):
                break
            time.sleep(0.05)
    assert found == (after,)

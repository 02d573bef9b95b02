"""Commands that run for long: locks, signals, and a clean end."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cli_runner import WARNINGS, Folder, small_sandbox

from mirror.sandbox import RunningSandbox


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    """A sandbox that no test of this file edits."""
    with small_sandbox() as served:
        yield served


def held_at(served: RunningSandbox, nth: int) -> tuple[threading.Event, threading.Event]:
    """Hold the answer to the nth request; one event tells that it has come, the other lets it go on."""
    asked, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        go_on.wait(30)

    served.sandbox.on_request(nth, hold)
    return asked, go_on


def test_a_second_sync_names_the_process_that_holds_the_lock(folder: Folder) -> None:
    """The lock lasts for the run and ends with its process."""
    with small_sandbox(300) as served:
        folder.configure(served.url, "concurrency = 1")
        asked, go_on = held_at(served, 5)
        first = folder.start("sync")
        assert asked.wait(30)
        second = folder.run("sync")
        assert second.code == 4
        assert f"process {first.pid} is syncing into it" in second.err
        first.kill()
        first.communicate()
        go_on.set()
        assert folder.run("sync").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sync_keeps_its_place(folder: Folder, number: signal.Signals) -> None:
    """Exit code 130; the next run resumes and is complete."""
    with small_sandbox(300) as served:
        folder.configure(served.url)
        asked, go_on = held_at(served, 100)
        running = folder.start("sync")
        assert asked.wait(30)
        running.send_signal(number)
        out, err = running.communicate(timeout=90)
        go_on.set()
        assert running.returncode == 130, (out, err)
        assert "Traceback" not in err
        done = folder.run("sync")
        assert (done.code, "complete" in done.out) == (0, True)


def test_run_serves_and_syncs_until_ctrl_c(folder: Folder, box: RunningSandbox) -> None:
    """In one process; it prints its address, and a signal ends it cleanly, without a journal beside it."""
    folder.configure(box.url)
    running = folder.start("run", "--port", "0")
    line = running.stdout.readline()
    assert line.startswith("the mirror answers on http://127.0.0.1:")
    assert any("box complete" in line for line in running.stderr)
    assert httpx.get(re.findall(r"http://\S+", line)[0], timeout=30).status_code == 200
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 0
    assert "Traceback" not in err
    assert not list(folder.path.rglob("*-wal"))


def test_schedule_equals_scheduler_py(folder: Folder, box: RunningSandbox) -> None:
    """The file at the top level does what the command does, and a signal ends it."""
    folder.configure(box.url)
    script = Path(__file__).resolve().parent.parent / "scheduler.py"
    command = [sys.executable, *WARNINGS, str(script)]
    running = subprocess.Popen(
        command, cwd=folder.path, env=folder.environment(), stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    assert any("box complete" in line for line in running.stderr)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)
    assert running.returncode == 0
    for given, code in ((["--help"], 0), (["mirror.toml", "more.toml"], 2)):
        ran = subprocess.run(
            [*command, *given],
            cwd=folder.path,
            env=folder.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, "mirror schedule" in ran.stdout + ran.stderr) == (code, True)

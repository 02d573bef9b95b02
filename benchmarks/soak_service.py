"""The mirror of a soak test: a real `mirror run` that is killed, stopped, reloaded, started and measured.

The measurements come from /proc, so this runs on Linux only.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SECRETS = {"SOAK_TOKEN": "sandbox", "SOAK_HOOK": "the webhooks of a soak"}
START_SECONDS = 60.0

CONFIGURATION = """\
[[upstream]]
name = "box"
kind = "sandbox"
url = "{url}"
credential = "env:SOAK_TOKEN"
webhook_secret = "env:SOAK_HOOK"
requests_per_hour = 1000000
timeout = "3s"
retry = {{ attempts = 3, first_delay = "0.1s", max_delay = "1s" }}
jitter = "0s"
schedule = "15s"
retry_schedule = "20s"
sweep_schedule = "45s"
verify_schedule = "90s"

[serve]
port = {port}

[log]
format = "json"
"""


class Sample(NamedTuple):
    """What a process held at a time (monotonic seconds): memory in MB, open descriptors, threads.

    `memory` is its own. `resident` also counts the mirror file, once for each connection that maps it; the
    system can reclaim that.
    """

    at: float
    memory: float
    resident: float
    descriptors: int
    threads: int


class Service:
    """`mirror run` in a folder, and commands beside it; `outages` are when it was down, as (from, to)."""

    def __init__(self, folder: Path, url: str, port: int) -> None:
        self.folder, self.address = folder, f"http://127.0.0.1:{port}"
        self.outages = list[tuple[float, float]]()
        self.lives = list[list[Sample]]()
        self.ends = list[float]()
        self.problems = list[str]()
        self._process: subprocess.Popen[str] | None = None
        self._down_since: float | None = None
        self._turn = threading.Lock()
        (folder / "mirror.toml").write_text(CONFIGURATION.format(url=url, port=port))

    def start(self) -> None:
        """Start it, and return once it answers."""
        self._down_since = self._down_since or time.monotonic()
        with (self.folder / "mirror.log").open("a") as log:
            self._process = subprocess.Popen(
                command("run"),
                cwd=self.folder,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        if "answers on" not in self._process.stdout.readline():
            self.problems.append("the service did not start")
        with self._turn:
            self.lives.append([])
        self.outages.append((self._down_since, time.monotonic()))
        self._down_since = None

    def kill(self) -> None:
        """Kill it, and start it again."""
        self._end(signal.SIGKILL)
        self.start()

    def restart(self) -> None:
        """Terminate it, and start it again."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Terminate it, and record how long that took."""
        began = time.monotonic()
        code = self._end(signal.SIGTERM)
        self.ends.append(time.monotonic() - began)
        if code != 0:
            self.problems.append(f"the service ended with {code} on SIGTERM")

    def reload(self) -> None:
        """Make it reload its configuration."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def is_down(self, began: float) -> bool:
        """Return whether it was down at any time since."""
        down = self._down_since
        return down is not None or any(until >= began for _, until in self.outages)

    def sample(self) -> None:
        """Record what it holds now."""
        process = self._process
        if process is None or self._down_since is not None:
            return
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        except OSError:
            return  # it has just been ended
        fields = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+)", status, re.MULTILINE)}
        if "RssAnon" not in fields:
            return
        memory, resident = fields["RssAnon"] / 1024, fields["VmRSS"] / 1024
        held = Sample(time.monotonic(), memory, resident, descriptors, fields["Threads"])
        with self._turn, (self.folder / "samples.csv").open("a") as file:
            self.lives[-1].append(held)
            file.write(f"{process.pid},{','.join(f'{value:.1f}' for value in held)}\n")

    def run(self, *arguments: str, kill_after: float | None = None) -> int:
        """Run a command beside the service to its end, or kill it; return its exit code."""
        process = subprocess.Popen(
            command(*arguments), cwd=self.folder, env=environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _, said = process.communicate(timeout=kill_after or 120)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
            if kill_after is None:
                self.problems.append(f"mirror {' '.join(arguments)} did not end")
        if "Traceback" in said:
            self.problems.append(f"mirror {' '.join(arguments)}: {said.strip().splitlines()[-1]}")
        return process.returncode

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        assert process is not None  # noqa: S101 - it was started
        self._down_since = time.monotonic()
        process.send_signal(number)
        code = process.wait(timeout=START_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
        return code


def command(*arguments: str) -> list[str]:
    """Return the command line of a command of the mirror."""
    return [sys.executable, "-m", "mirror", *arguments]


def environment() -> dict[str, str]:
    """Return the environment of a command: with the secrets, and the package of this tree."""
    return {**os.environ, **SECRETS, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

"""How long commands take from start to end as processes, beside a Python that does nothing.

    python benchmarks/starts.py [--times 7] [--beside ANOTHER_CHECKOUT]

A sandbox runs in a process of its own; the mirror of it is small, a sync finds nothing new, and `mcp` is
asked nothing. The commands take turns, and the quickest of each is printed: seconds of CPU, seconds, and how
many times a bare Python.
With `--beside`, those of another checkout are measured too.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent.parent
SERVE = """
from mirror.sandbox import Sandbox, World, serve
serve(Sandbox(World(60)), port=0, announce=lambda origin: print(origin, flush=True))
"""
COMMANDS = (
    "search django", "search django --json", "refs master", "show NAME", "changes", "status", "sync",
    "--help", "serve --help", "mcp",
)  # fmt: skip


class Took(NamedTuple):
    """Seconds of CPU, and seconds by the clock."""

    cpu: float
    wall: float


def environment(checkout: Path) -> dict[str, str]:
    """Return the variables of a command of a checkout, whose bytecode is kept, as an installation does."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(checkout)}


def run(arguments: list[str], folder: Path, checkout: Path) -> Took:
    """Run a program once."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(checkout),
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(cpu, time.perf_counter() - began)


def filled(folder: Path, checkout: Path, origin: str) -> str:
    """Mirror the sandbox once, and return the name of a repository."""
    (folder / "mirror.toml").write_text(
        f'[[upstream]]\nname = "box"\nkind = "sandbox"\nurl = "{origin}/2.0"\nworkspaces = ["jespern"]\n'
    )
    run(["-m", "mirror", "sync"], folder, checkout)
    found = subprocess.run(
        [sys.executable, "-m", "mirror", "search", "", "--json"],
        cwd=folder,
        env=environment(checkout),
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.partition('"full_name":"')[2].partition('"')[0]


def measure(origin: str, checkouts: list[Path], times: int, folder: Path) -> None:
    """Let the commands take turns, and print the quickest of each."""
    took = dict[tuple[str, int], list[Took]]()
    for number, checkout in enumerate(checkouts):
        place = folder / str(number)
        place.mkdir()
        name = filled(place, checkout, origin)
        for _ in range(times):
            took.setdefault(("python -c pass", number), []).append(run(["-c", "pass"], place, checkout))
            for command in COMMANDS:
                words = command.replace("NAME", name).split()
                took.setdefault((command, number), []).append(run(["-m", "mirror", *words], place, checkout))
    bare = min(one.cpu for one in took["python -c pass", 0])
    print(f"{'':16}" + "".join(f"{path.name:>12}: CPU s{'s':>8}{'times':>8}" for path in checkouts))
    for command in ("python -c pass", *COMMANDS):
        line = f"{command:16}"
        for number in range(len(checkouts)):
            cpu, wall = (min(values) for values in zip(*took[command, number], strict=True))
            line += f"{cpu:19.3f}{wall:8.3f}{cpu / bare:8.1f}"
        print(line)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--beside", type=Path, help="another checkout, to compare with")
    asked = parser.parse_args()
    checkouts = [HERE] if asked.beside is None else [asked.beside.resolve(), HERE]
    serving = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True, cwd=HERE)
    try:
        assert serving.stdout is not None  # noqa: S101 - it is a pipe
        origin = serving.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as folder:
            measure(origin, checkouts, asked.times, Path(folder))
    finally:
        serving.terminate()
        serving.wait()


if __name__ == "__main__":
    main()

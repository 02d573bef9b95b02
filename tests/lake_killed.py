"""Export a mirror many times, each time in a copy, and kill the process at another moment.

`python lake_killed.py MIRROR LAKE FOLDER MOMENTS` fills FOLDER/0 ... with what is left, and FOLDER/done.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from fixtures_db import LATER, FixtureDb, hg_ref, repository

from mirror.lake.export import ExportOptions, export
from mirror.lake.place import Place


class KilledPlace(Place):
    """Counts what changes a lake, and kills the process before the step of a number."""

    def __init__(self, address: str, last: int | None) -> None:
        super().__init__(address)
        self.steps, self._last = 0, last

    def _step(self) -> None:
        if self.steps == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps += 1

    def put(self, file: Path, name: str) -> None:
        """Put a file."""
        self._step()
        super().put(file, name)
        self._step()

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._step()
        super().remove(name)


def changed_copy(mirror: Path, lake: Path, folder: Path) -> Path:
    """Copy a mirror and its lake, and change the mirror."""
    folder.mkdir()
    shutil.copy(mirror, folder / "mirror.db")
    shutil.copytree(lake, folder / "lake")
    filled = FixtureDb(folder / "mirror.db")
    filled.repositories([repository("ann/new"), repository("jespern/arriving", is_private=True)], at=LATER)
    filled.refs("jespern/django-piston", [hg_ref("tag", "v9", "9")], at=LATER)
    filled.store.close()
    return folder


def export_in(folder: Path, last: int | None) -> int:
    """Export, twice as a whole so that files are removed too; return the number of steps."""
    place = KilledPlace(str(folder / "lake"), last)
    export(folder / "mirror.db", place, ExportOptions())
    return place.steps


def main() -> None:
    """Count the steps, then die at each of some."""
    mirror, lake, folder = (Path(text) for text in sys.argv[1:4])
    moments = int(sys.argv[4])
    done = changed_copy(mirror, lake, folder / "done")
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, str(export_in(done, None)).encode())
        os._exit(0)
    os.wait()
    steps = int(os.read(read, 20))
    for number in range(moments):
        copy = changed_copy(mirror, lake, folder / str(number))
        if os.fork() == 0:
            export_in(copy, number * (steps - 1) // (moments - 1))
            os._exit(0)
        _, status = os.wait()
        print("killed" if os.WTERMSIG(status) == signal.SIGKILL else f"ended: {status}", flush=True)


if __name__ == "__main__":
    main()

"""Helpers for tests of copies: all rows of a file, and children that are killed at each call."""

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

Rows = dict[str, list[tuple[Any, ...]]]


def all_rows(path: Path) -> Rows:
    """Read every row of every table; raises AssertionError for a file with faults."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
            for (table,) in tables.fetchall()
        }


def killed_at(moment: int, work: Callable[[], object], *, where: str = "", named: str = "") -> bool:
    """Do something in a child that is killed before its call number `moment` of a C function.

    Calls count that are made by files with `where` in their path, of functions that are `named` so.
    Return whether it was killed: else it came to its end.
    """
    child = os.fork()
    if child == 0:
        left = moment

        def count(frame: FrameType, event: str, called: Any) -> None:
            nonlocal left
            counts = event == "c_call" and where in frame.f_code.co_filename
            if counts and named in ("", called.__name__):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.setprofile(count)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)

"""Reads that run where requests come in, and those that need a thread."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from mirror.serve.guarded_database import GuardedDatabase

Key = Any
# A function of a connection and of the milliseconds that its SQL may take.
Limited = Callable[[Any, int], Any]

AT_ONCE_MS = 25
# How many seconds a kind of reads uses the threads after one of them took longer than AT_ONCE_MS.
SLOW_SECONDS = 2.0


async def read_in_thread(database: GuardedDatabase, _: Key, fn: Limited, limit: int) -> Any:
    """Run a function in a thread; raises OperationalError as `refuse_outdated` does."""
    database.refuse_outdated()
    return await database.read(lambda connection: fn(connection, limit))


class QuickReads:
    """Reads that take less time than a change of threads, so they run where requests come in.

    A read that takes longer, or would have to wait for a lock, is repeated in a thread. Reads of its kind use
    threads for a while, so that they delay no other requests. The functions must only read.
    """

    def __init__(
        self, stopwatch: Callable[[], float] = time.monotonic, *, milliseconds: int = AT_ONCE_MS
    ) -> None:
        self._stopwatch, self._milliseconds = stopwatch, milliseconds
        self._slow_until = dict[Key, float]()
        self._opened = WeakSet[GuardedDatabase]()

    async def read(self, database: GuardedDatabase, kind: Key, fn: Limited, limit: int) -> Any:
        """Run a function here if its kind of reads is quick, else in a thread for `limit` milliseconds."""
        with suppress(sqlite3.OperationalError):  # a real error occurs again in the thread
            database.refuse_outdated()
            if self._is_quick(database, kind):
                return self._read_here(database, kind, fn, min(self._milliseconds, limit))
        return await read_in_thread(database, kind, fn, limit)

    def _is_quick(self, database: GuardedDatabase, kind: Key) -> bool:
        """Return whether no read of a kind was slow lately. Opens the database first, which is slow too."""
        if database not in self._opened:
            database.read_at_once(lambda _: None)
            self._opened.add(database)
        return kind not in self._slow_until or self._stopwatch() >= self._slow_until[kind]

    def _read_here(self, database: GuardedDatabase, kind: Key, fn: Limited, limit: int) -> Any:
        began = self._stopwatch()
        try:
            return database.read_at_once(lambda connection: fn(connection, limit))
        finally:
            ended = self._stopwatch()
            if ended - began > self._milliseconds / 1000:
                self._slow_until[kind] = ended + SLOW_SECONDS

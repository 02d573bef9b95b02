"""How many connections there may be, and how long each may take over a request and over reading the answer.

uvicorn waits for the rest of a request for ever, and accepts until no descriptor is left. Here, once so many
connections are open as there may be, the one that has waited longest for its client makes room for the next.
"""

import asyncio
import errno
import logging
import resource
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""For the head of a request, from the connection's or its own first byte on."""

BODY_SECONDS = 15.0
"""For a body; those that are read have 10 seconds and are answered 408, this ends those that nobody reads."""

UNREAD_SECONDS = 60.0
"""For which a client may leave unread what was sent to it."""

MOST = 2000
RESERVED = 128
"""Descriptors that the rest of the process may need: the database, the sync, the log."""

ACCEPTED_AT_ONCE = 16
"""Connections that asyncio accepts in one turn of its loop; it takes four turns until others are closed."""

SAID_EVERY = 60.0

log = logging.getLogger("uvicorn.error")


def most_connections() -> int:
    """Return how many connections may be open, by the descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(8, min(MOST, soft - RESERVED - 4 * ACCEPTED_AT_ONCE))


class SaidOnce(logging.Filter):
    """Lets a message of the server pass once a minute, however often it comes; tracebacks always."""

    def __init__(self) -> None:
        super().__init__()
        self._said = dict[str, float]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to log a record."""
        now = time.monotonic()
        if record.exc_info or now - self._said.get(record.msg, -SAID_EVERY) >= SAID_EVERY:
            self._said[record.msg] = now
            return True
        return False


def accept_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say in one line that no descriptor is left for a connection; leave all else to asyncio."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        log.warning("no descriptor is left for connections; raise the limit: ulimit -n")
    else:
        loop.default_exception_handler(context)


class Waiting:
    """The connections that wait for their client, the one that has waited longest first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._waiting = dict["Bounded", None]()

    def add(self, connection: "Bounded") -> None:
        """Note that a connection waits, unless it is known to."""
        self._waiting.setdefault(connection)

    def discard(self, connection: "Bounded") -> None:
        """Note that a connection waits no longer."""
        self._waiting.pop(connection, None)

    def make_room(self, open_now: int) -> bool:
        """Close the one that has waited longest where too many are open; tell whether there is room."""
        if open_now <= self.most:
            return True
        log.warning(
            "%s connections are open, as many as may be: those that ask nothing are closed", self.most
        )
        longest = next(iter(self._waiting), None)
        if longest is None:
            return False
        self.discard(longest)
        longest.transport.abort()
        return True


class Bounded(H11Protocol):
    """A connection with deadlines; `waiting` is shared by all connections of a server."""

    waiting: Waiting
    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS
    unread_seconds = UNREAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, if there is room."""
        super().connection_made(transport)
        self._owed = ""
        self._owed_until: asyncio.TimerHandle | None = None
        self._unread_until: asyncio.TimerHandle | None = None
        if self.waiting.make_room(len(self.connections)):
            self._client_owes("head")
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._client_owes("")
        self._has_read()
        self.waiting.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; what has begun has to end in time."""
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one."""
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        """Give the client a time to read what was sent."""
        super().pause_writing()
        if self._unread_until is None:
            self._unread_until = self.loop.call_later(self.unread_seconds, self.transport.abort)
        self.waiting.add(self)

    def resume_writing(self) -> None:
        """Send on."""
        self._has_read()
        super().resume_writing()
        self._update()

    def _has_read(self) -> None:
        if self._unread_until is not None:
            self._unread_until.cancel()
            self._unread_until = None

    def _update(self) -> None:
        """Note what the client owes, and whether anything waits for it."""
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            self._client_owes("body")
        elif state is h11.IDLE and self.conn.trailing_data[0]:
            self._client_owes("head")
        else:
            self._client_owes("")  # uvicorn closes what is idle between two requests
        if self._owed or self._unread_until is not None or state is h11.IDLE:
            self.waiting.add(self)
        else:
            self.waiting.discard(self)

    def _client_owes(self, what: str) -> None:
        """Set the deadline for a part of a request, unless it is set already; "" is nothing."""
        if what == self._owed:
            return
        if self._owed_until is not None:
            self._owed_until.cancel()
            self._owed_until = None
        self._owed = what
        if what:
            seconds = self.head_seconds if what == "head" else self.body_seconds
            self._owed_until = self.loop.call_later(seconds, self.transport.abort)
            self.waiting.add(self)


def bounded(most: int) -> type[Bounded]:
    """Make the protocol of a server that may have so many connections."""
    return type("Connection", (Bounded,), {"waiting": Waiting(most)})

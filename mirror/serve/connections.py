"""Limits of connections: how many may be open, and how slowly a client may send and read.

uvicorn alone waits for the rest of a request without end, and accepts connections until the process has no
descriptors left. Here, once the limit is reached, the connection that has waited longest for its client is
closed.
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
"""Seconds for the head of a request, counted from the opening of the connection or its first byte."""

BODY_SECONDS = 15.0
"""Seconds for a body that no view reads. A view that reads one allows 10 seconds, then answers 408."""

UNREAD_SECONDS = 60.0
"""Seconds for which a client may leave an answer unread."""

MOST = 2000
RESERVED = 128
"""Descriptors kept for the rest of the process: the database, the sync, the log."""

ACCEPTED_AT_ONCE = 16
"""Connections that asyncio accepts in one turn of its loop. Others are closed up to four turns later."""

REPEAT_SECONDS = 60.0

log = logging.getLogger("uvicorn.error")


def most_connections() -> int:
    """Return how many connections may be open, given the descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(8, min(MOST, soft - RESERVED - 4 * ACCEPTED_AT_ONCE))


class OncePerMinute(logging.Filter):
    """A log filter: each message of the server passes once a minute, tracebacks always."""

    def __init__(self) -> None:
        super().__init__()
        self._logged = dict[str, float]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        now = time.monotonic()
        if record.exc_info or now - self._logged.get(record.msg, -REPEAT_SECONDS) >= REPEAT_SECONDS:
            self._logged[record.msg] = now
            return True
        return False


def accept_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log in one line that the process is out of descriptors; leave all other errors to asyncio."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        log.warning("no descriptor is left for connections; raise the limit: ulimit -n")
    else:
        loop.default_exception_handler(context)


class WaitingConnections:
    """The connections that wait for their client, the longest first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._waiting = dict["BoundedProtocol", None]()

    def add(self, connection: "BoundedProtocol") -> None:
        """Add a connection, unless it is waiting already."""
        self._waiting.setdefault(connection)

    def discard(self, connection: "BoundedProtocol") -> None:
        """Remove a connection that no longer waits."""
        self._waiting.pop(connection, None)

    def make_room(self, open_now: int) -> bool:
        """If too many are open, close the one that has waited longest. Return whether there is room."""
        if open_now <= self.most:
            return True
        log.warning("%s connections are open, which is the limit: idle ones are closed", self.most)
        longest = next(iter(self._waiting), None)
        if longest is None:
            return False
        self.discard(longest)
        longest.transport.abort()
        return True


class BoundedProtocol(H11Protocol):
    """A connection with deadlines; all connections of a server share `waiting`."""

    waiting: WaitingConnections
    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS
    unread_seconds = UNREAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, if there is room for the connection."""
        super().connection_made(transport)
        self._expected = ""
        self._expected_until: asyncio.TimerHandle | None = None
        self._unread_until: asyncio.TimerHandle | None = None
        if self.waiting.make_room(len(self.connections)):
            self._expect("head")
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadlines."""
        self._expect("")
        self._has_read()
        self.waiting.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read more of the request, and set its deadline."""
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one."""
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        """Set a deadline for the client to read what was sent."""
        super().pause_writing()
        if self._unread_until is None:
            self._unread_until = self.loop.call_later(self.unread_seconds, self.transport.abort)
        self.waiting.add(self)

    def resume_writing(self) -> None:
        """Continue to send."""
        self._has_read()
        super().resume_writing()
        self._update()

    def _has_read(self) -> None:
        if self._unread_until is not None:
            self._unread_until.cancel()
            self._unread_until = None

    def _update(self) -> None:
        """Update what the client must send next, and whether the connection waits for it."""
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            self._expect("body")
        elif state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect("head")
        else:
            self._expect("")  # uvicorn closes what is idle between two requests
        if self._expected or self._unread_until is not None or state is h11.IDLE:
            self.waiting.add(self)
        else:
            self.waiting.discard(self)

    def _expect(self, what: str) -> None:
        """Set the deadline for a part of a request, unless it is set already; "" cancels it."""
        if what == self._expected:
            return
        if self._expected_until is not None:
            self._expected_until.cancel()
            self._expected_until = None
        self._expected = what
        if what:
            seconds = self.head_seconds if what == "head" else self.body_seconds
            self._expected_until = self.loop.call_later(seconds, self.transport.abort)
            self.waiting.add(self)


def bounded_protocol(most: int) -> type[BoundedProtocol]:
    """Return the protocol of a server with at most `most` connections."""
    return type("Connection", (BoundedProtocol,), {"waiting": WaitingConnections(most)})

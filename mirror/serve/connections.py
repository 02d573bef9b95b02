"""Connections: how many may be open, how slowly a client may send and read, and whose they are.

uvicorn alone waits for the rest of a request without end, and accepts connections until the process has no
descriptors left. Here, once the limit is reached, the connection that has waited longest for its client is
closed.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds for the head of a request, counted from the opening of the connection or its first byte.
HEAD_SECONDS = 10.0

# Seconds for a body that no view reads. A view that reads one allows 10 seconds, then answers 408.
BODY_SECONDS = 15.0

UNREAD_SECONDS = 60.0  # seconds for which a client may leave an answer unread
MOST = 2000  # open connections, if the limit of descriptors allows them
RESERVED = 128  # descriptors kept for the rest of the process: the database, the sync, the log

# Connections that asyncio accepts in one turn of its loop. Others are closed up to four turns later.
ACCEPTED_AT_ONCE = 16

REPEAT_SECONDS = 60.0  # for how long a message of the log is not repeated
MOST_MESSAGES = 1000  # that are remembered for it

log = logging.getLogger("uvicorn.error")


def most_connections() -> int:
    """Return how many connections may be open, given the descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(8, min(MOST, soft - RESERVED - 4 * ACCEPTED_AT_ONCE))


class OncePerMinute(logging.Filter):
    """A log filter: each message passes once a minute, tracebacks always."""

    def __init__(self) -> None:
        super().__init__()
        self._logged = dict[str, float]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        now, message = time.monotonic(), record.getMessage()
        if record.exc_info or now - self._logged.get(message, -REPEAT_SECONDS) >= REPEAT_SECONDS:
            if len(self._logged) >= MOST_MESSAGES:
                self._logged.clear()
            self._logged[message] = now
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

    def _should_upgrade(self) -> bool:
        """Answer as HTTP/1.1, without a warning: Java's client offers HTTP/2 (h2c) in each request."""
        return False

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


# How the names of headers begin that proxies add.
PROXY_HEADERS = ("x-forwarded-", "x-real-ip", "forwarded", "via")

PROC = Path("/proc/net")
TABLES = ("tcp", "tcp6")
_ESTABLISHED = "01"

Address = tuple[str, int]


def is_local(client: Any, headers: Mapping[str, str]) -> bool:
    """Return whether a request came from this machine directly, without a proxy."""
    if not client or any(name.startswith(PROXY_HEADERS) for name in headers):
        return False
    try:  # another site can make its name point here (DNS rebinding), so the Host header counts too
        host = urlsplit("//" + headers.get("host", "")).hostname or ""
    except ValueError:  # an unbalanced bracket
        return False
    return is_loopback(str(client[0])) and is_loopback(host)


def is_loopback(address: str) -> bool:
    """Return whether an address (or the name localhost) is a loopback address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class Peers:
    """The sockets of this machine, as the kernel lists them in the folder `proc`."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc

    def are_listed(self) -> bool:
        """Return whether this system lists the owners of sockets."""
        return (self._proc / TABLES[0]).is_file()

    def is_ours(self, client: Address | None, server: Address | None) -> bool:
        """Return whether the client's socket belongs to the system user of this process; False in doubt."""
        if client is None or server is None:
            return False
        try:
            wanted = (_plain(*client[:2]), _plain(*server[:2]))
            users = [user for table in TABLES for user in _users(self._proc / table, wanted)]
        except (OSError, ValueError, IndexError):
            return False
        return users == [os.geteuid()]


def _users(table: Path, wanted: tuple[str, str]) -> list[int]:
    """Return the users of the sockets in a table that connect these two addresses."""
    found = list[int]()
    try:
        lines = table.read_text("ascii").splitlines()[1:]
    except FileNotFoundError:  # a system without IPv6
        return found
    port = f":{int(wanted[0].rpartition(' ')[2]):04X}"
    # Each row is a socket: its address, the one it is connected to, its state, user and inode. The row with
    # the client's address is the client's. Linux lists sockets of ended processes as root's, without an
    # inode.
    for line in lines:
        # sl, local_address, rem_address, st, queues, timer, retransmits, uid, timeout, inode
        fields = line.split()
        if not fields[1].endswith(port):
            continue
        if (_read(fields[1]), _read(fields[2])) == wanted and fields[3] == _ESTABLISHED and fields[9] != "0":
            found.append(int(fields[7]))
    return found


def _read(text: str) -> str:
    """Read an address as the kernel writes it: four-byte words in the machine's byte order, and a port."""
    host, _, port = text.partition(":")
    packed = bytes.fromhex(host)
    if sys.byteorder == "little":
        packed = b"".join(packed[at : at + 4][::-1] for at in range(0, len(packed), 4))
    return _plain(str(ipaddress.ip_address(packed)), int(port, 16))


def _plain(host: str, port: int) -> str:
    """Normalise an address; an IPv4 address inside an IPv6 one becomes the IPv4 address."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"{mapped or address} {port}"

"""Delivery of alerts: as JSON to a web address, as a ping in the style of healthchecks, or to a command.

Each delivery has a deadline, whatever the receiver does. Redirects are not followed.
"""

import contextlib
import http.client
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, Generic, Self, TypeVar

SECONDS = 10.0  # for one delivery to an address, in total
COMMAND_SECONDS = 30.0  # for a command
LOOK_SECONDS = 0.05  # between two looks whether a command has ended


class NotDelivered(Exception):
    """An alert was not delivered. The message does not contain the address, which is a secret."""


def post(url: str, body: bytes, *, content_type: str = "application/json", seconds: float = SECONDS) -> None:
    """Post a body to an address within `seconds` in total; raises NotDelivered for any status but 2xx."""
    headers = {"Content-Type": content_type, "User-Agent": "bitbucket-mirror"}
    deadline = _Deadline(seconds)
    try:
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310 - checked
        with deadline:
            opener = urllib.request.build_opener(_NoRedirects, _Http(deadline), _Https(deadline))
            opener.open(request, timeout=seconds).close()
            if deadline.over:  # a truncated head looks like a complete one
                raise TimeoutError
    except urllib.error.HTTPError as error:
        error.close()
        redirected = "; redirects are not followed, give the address itself" if error.code < 400 else ""
        raise NotDelivered(f"the answer had status {error.code}{redirected}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        late = f" within {seconds:g} s" if deadline.over or isinstance(reason, TimeoutError) else ""
        raise NotDelivered(f"no answer{late} ({type(reason).__name__})") from None


class _Deadline:
    """Shuts down the connections of one exchange in time."""

    # A socket's own time-out only limits single reads: a slow receiver could keep it open for ever.
    def __init__(self, seconds: float) -> None:
        self.over = False
        self._copies = list[socket.socket]()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        for each in self._copies:
            each.close()

    def watch(self, opened: socket.socket) -> None:
        """Shut down this connection as well; raises TimeoutError if the time is over."""
        # A copy, because TLS takes the descriptor away from the socket that it wraps.
        self._copies.append(opened.dup())
        if self.over:
            raise TimeoutError

    def _cut(self) -> None:
        self.over = True
        for each in self._copies:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    """A connection whose deadline starts when it is open."""

    deadline: _Deadline

    def connect(self) -> None:
        super().connect()
        self.deadline.watch(self.sock)


class _TlsConnection(http.client.HTTPSConnection, _Connection):
    """The same with TLS; the handshake follows `connect`."""


class _Watched:
    """A handler whose connections have a deadline."""

    connection: type[_Connection]

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def opened(self, host: str, **options: Any) -> _Connection:
        """Make a connection."""
        connection = self.connection(host, **options)
        connection.deadline = self._deadline
        return connection


class _Http(_Watched, urllib.request.HTTPHandler):
    connection = _Connection

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.opened, req)


class _Https(_Watched, urllib.request.HTTPSHandler):
    connection = _TlsConnection

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.opened, req)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect: a redirected POST becomes a GET, and its receiver gets nothing."""


def ping(url: str, text: str, *, failed: bool) -> None:
    """Ping an address, with ``/fail`` appended for a failure; raises NotDelivered."""
    base, mark, query = url.partition("?")
    post(
        base.rstrip("/") + ("/fail" if failed else "") + mark + query,
        text.encode(),
        content_type="text/plain",
    )


def call(
    command: Sequence[str], body: bytes, *, stop: threading.Event, seconds: float = COMMAND_SECONDS
) -> None:
    """Run a command with a body as its standard input; raises NotDelivered unless it exits with 0.

    After `seconds`, or when `stop` is set, it is killed with everything that it has started.
    """
    try:
        with _started(command, body) as process:
            left = seconds
            while process.poll() is None and left > 0 and not stop.wait(LOOK_SECONDS):
                left -= LOOK_SECONDS
            code = process.poll()
    except OSError as error:
        raise NotDelivered(f"{command[0]}: {type(error).__name__}") from None
    if code is None:
        raise NotDelivered(f"{command[0]} was killed: it took longer than {seconds - max(left, 0):.0f} s")
    if code != 0:
        raise NotDelivered(f"{command[0]} ended with {code}")


@contextmanager
def _started(command: Sequence[str], body: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own; kill the group if it has not ended."""
    with _nameless() as file:  # a pipe would block if the command does not read it
        file.write(body)
        file.seek(0)
        process = subprocess.Popen(  # noqa: S603 - the operator's own command
            list(command),
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _nameless() -> IO[bytes]:
    """Open a file without a name, in memory if the system can: the alert may be about a full disk."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("alert"), "w+b")
    return tempfile.TemporaryFile()


T = TypeVar("T")

MOST_WAITING = 100

log = logging.getLogger("mirror.alerts")


class Courier(Generic[T]):
    """Sends alerts to one receiver, in order. One that cannot be delivered is logged.

    :param name: names the receiver in the log.
    :param send: delivers an alert, or ends early when its event is set; raises NotDelivered.
    """

    def __init__(self, name: str, send: Callable[[T, threading.Event], None]) -> None:
        self._name, self._send = name, send
        self._waiting = queue.Queue[T | None](MOST_WAITING)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def send(self, alert: T) -> None:
        """Queue an alert; never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name=self._name)
            self._thread.start()
        try:
            self._waiting.put_nowait(alert)
        except queue.Full:
            log.warning("%s could not be delivered: %d others are queued", self._name, MOST_WAITING)

    def finish(self, until: float) -> bool:
        """Send all queued alerts; return whether they were sent by `until`, on the monotonic clock."""
        if self._thread is None:
            return True
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=max(0.0, until - time.monotonic()))
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """Drop all queued alerts, and log it. `finish` then waits for the one being sent."""
        log.warning("%s could not be delivered in time", self._name)
        self._stop.set()

    def _work(self) -> None:
        while not self._stop.is_set() and (alert := self._waiting.get()) is not None:
            try:
                self._send(alert, self._stop)
            except NotDelivered as failure:
                log.warning("%s could not be delivered: %s", self._name, failure)
            except Exception:
                log.exception("%s: a fault of this program", self._name)

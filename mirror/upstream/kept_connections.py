"""The connections that are kept open from one request to the next.

httpcore's pool goes through all its connections before and after each request, under a lock, and asks the
system about each idle one: 7 % of the instructions of a first sync. Here a request takes the connection that
was used last.
"""

from collections.abc import Callable
from typing import Any

import httpcore


class KeptConnections:
    """Connections to some origins, for any number of threads; as many are open as threads have used at once.

    :param make: makes the connection to an origin; it connects at its first request.
    """

    def __init__(self, make: Callable[[httpcore.Origin], httpcore.ConnectionInterface]) -> None:
        self._make = make
        # Threads share both without a lock: each change is one operation of a list or a dict. A connection
        # that `close` misses, because a thread is taking it, is closed by `send`.
        self._idle = dict[tuple[bytes, bytes, int | None], list[httpcore.ConnectionInterface]]()
        self._busy = dict[httpcore.ConnectionInterface, None]()
        self._is_closed = False

    def send(self, request: httpcore.Request) -> tuple[httpcore.Response, Callable[[], None]]:
        """Send a request; return the answer, and what ends it, to be called once its body is read.

        Raises httpcore's errors, and RuntimeError once all are closed: a thread that outlives its run opens
        no new connection.
        """
        url = request.url
        idle = self._idle.setdefault((url.scheme, url.host, url.port), [])
        connection = _last_usable(idle) or self._make(url.origin)
        self._busy[connection] = None
        try:
            answer = connection.handle_request(request)
        except BaseException:
            self._close(connection)
            raise
        if self._is_closed:  # meanwhile
            self._close(connection)
            raise RuntimeError("the connections are closed")

        def end() -> None:
            answer.close()
            if connection.is_available() and not _has_more(connection):
                idle.append(connection)
                self._busy.pop(connection, None)
            else:
                self._close(connection)

        return answer, end

    def close(self) -> None:
        """Close all of them, also those that wait for an answer."""
        self._is_closed = True
        opened = [*self._busy]
        for idle in [*self._idle.values()]:
            opened += idle
        for connection in opened:
            connection.close()

    def _close(self, connection: httpcore.ConnectionInterface) -> None:
        self._busy.pop(connection, None)
        connection.close()


def _last_usable(idle: list[httpcore.ConnectionInterface]) -> httpcore.ConnectionInterface | None:
    """Take the connection that was used last, if the upstream has not closed it meanwhile."""
    while True:
        try:
            connection = idle.pop()
        except IndexError:
            return None
        if connection.is_available() and not connection.has_expired():
            return connection
        connection.close()


def _has_more(connection: Any) -> bool:
    """Return whether bytes came after the answer, which would be taken for the answer to the next request."""
    while (beneath := getattr(connection, "_connection", None)) is not None:  # of a proxy, of TLS
        connection = beneath
    # httpcore offers no public way to what it has read and not used.
    return bool(connection._h11_state.trailing_data[0])  # noqa: SLF001

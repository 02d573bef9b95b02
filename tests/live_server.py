"""A mirror served over real HTTP in a thread, as `mirror serve` does it."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasette.app import Datasette

from mirror.config import ServeConfig
from mirror.serve.server import answer, build, listening

WITHOUT_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody, for clients that ask over plain HTTP: reading certificates takes longer than a request."""


def serve(
    datasette: Datasette,
    port: int,
    *,
    ready: Callable[[str], None],
    host: str = "127.0.0.1",
    stop: threading.Event | None = None,
) -> None:
    """Answer requests on a port (0: any free one) until `stop`."""
    with listening(host, port) as listener:
        answer(datasette, listener, ready=ready, stop=stop or threading.Event())


@contextmanager
def serving(path: Path, *, writer: Any = None, **settings: Any) -> Iterator[str]:
    """Serve a file while the block lasts; give the address, which ends without a slash."""
    stop, up, addresses = threading.Event(), threading.Event(), list[str]()

    def ready(address: str) -> None:
        addresses.append(address)
        up.set()

    datasette = build(path, ServeConfig(**settings), writer=writer)
    thread = threading.Thread(target=serve, args=(datasette, 0), kwargs={"ready": ready, "stop": stop})
    thread.start()
    try:
        assert up.wait(20)
        yield addresses[0]
    finally:
        stop.set()
        thread.join(10)

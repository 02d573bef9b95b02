"""A mirror served over real HTTP in a thread, as `mirror serve` does it."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mirror.config import ServeConfig
from mirror.serve.server import build, serve

WITHOUT_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody, for clients that ask over plain HTTP: reading certificates takes longer than a request."""


@contextmanager
def serving(path: Path, **settings: Any) -> Iterator[str]:
    """Serve a file while the block lasts; give the address, which ends without a slash."""
    stop, up, addresses = threading.Event(), threading.Event(), list[str]()

    def ready(address: str) -> None:
        addresses.append(address)
        up.set()

    datasette = build(path, ServeConfig(**settings))
    thread = threading.Thread(
        target=serve, args=(datasette, "127.0.0.1", 0), kwargs={"ready": ready, "stop": stop}
    )
    thread.start()
    try:
        assert up.wait(20)
        yield addresses[0]
    finally:
        stop.set()
        thread.join(10)

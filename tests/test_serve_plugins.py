"""What plugins of Datasette find around the answers of a mirror."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asgi_client import client_of
from callers import MixedMirror
from datasette import hookimpl
from datasette.plugins import pm


class Notes:
    """A plugin around the application, which notes the names of headers as it gets them."""

    __name__ = "notes"

    def __init__(self) -> None:
        self.names = set[bytes]()

    @hookimpl(trylast=True)  # type: ignore[untyped-decorator]
    def asgi_wrapper(self) -> Any:
        """Pass everything on."""

        def around(application: Any) -> Any:
            async def noting(scope: Any, receive: Any, send: Any) -> None:
                async def sent(message: Any) -> None:
                    self.names |= {name for name, _ in message.get("headers", ())}
                    await send(message)

                await application(scope, receive, sent)

            return noting

        return around


@contextmanager
def beside(plugin: object) -> Iterator[None]:
    """Install a plugin."""
    pm.register(plugin)
    try:
        yield
    finally:
        pm.unregister(plugin)


def test_plugins_around_find_headers_in_lower_case(mixed: MixedMirror) -> None:
    """One that compresses replaces the length of a body; it would send two otherwise."""
    notes = Notes()
    with beside(notes):
        served = client_of(mixed.path)
        for path in (
            "/2.0/repositories",
            "/-/search.json?q=a",
            "/mirror/repositories",
            "/-/openapi/2.0.json",
        ):
            served.get(path)
    assert b"content-length" in notes.names
    assert {name.lower() for name in notes.names} == notes.names

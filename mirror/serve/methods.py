"""Methods that an address does not have: 405 with `Allow`, where Datasette would fail or leave that out.

Datasette calls whatever its view has by a method's name, and fails where there is nothing; and it takes every
POST to a table for one to a stored query that writes.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from datasette.utils import tilde_decode
from datasette.utils.asgi import Request, Response

if TYPE_CHECKING:
    from datasette.app import Datasette

_KNOWN = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TAKE_POSTS = ("/-/logout", "/-/messages", "/-/mirror-login")
_OF_A_TABLE = frozenset({"database", "table", "format"})
"""What Datasette takes from the addresses of tables, views and stored queries."""

Message = dict[str, Any]
Application = Callable[[Message, Any, Any], Awaitable[None]]


def checked(application: Application, answers_all: Callable[[str], bool]) -> Application:
    """Refuse methods that no view has, and let every 405 name those that there are.

    `answers_all` tells of which paths the views know all methods by themselves.
    """

    async def answer(scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        path, allowed = scope["path"], _allowed(scope["path"])

        async def sent(message: Message) -> None:
            await send(_with_allow(message, allowed) if message.get("status") == 405 else message)

        if scope["method"] not in _KNOWN and not answers_all(path):
            await not_allowed().asgi_send(sent)
        else:
            await application(scope, receive, sent)

    return answer


def not_allowed() -> Response:
    """Refuse a method; `checked` adds which ones there are."""
    return Response.text("Method not allowed", status=405)


async def is_post_to_reading(datasette: "Datasette", request: Request) -> bool:
    """Tell whether a POST went to a table, a view or a stored query that does not write."""
    names = request.scope.get("url_route", {}).get("kwargs", {})
    if request.method != "POST" or names.keys() != _OF_A_TABLE:
        return False
    database = datasette.get_database(route=tilde_decode(names["database"]))
    query = await datasette.get_canned_query(database.name, tilde_decode(names["table"]), request.actor)
    return not (query and query.get("write"))


def _allowed(path: str) -> bytes:
    return b"GET, HEAD, POST" if path.endswith(_TAKE_POSTS) else b"GET, HEAD"


def _with_allow(message: Message, allowed: bytes) -> Message:
    headers = list(message.get("headers", ()))
    if all(name.lower() != b"allow" for name, _ in headers):
        headers.append((b"allow", allowed))
    return {**message, "headers": headers}

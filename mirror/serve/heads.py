"""Limits of the heads of requests: addresses and header fields.

What reads them takes a time that grows with the square of their length: Datasette's links that leave out one
parameter, Python's cookies with escaped characters.
"""

from collections.abc import Callable

from mirror.serve.exchange import ApiError, Application, AsgiScope, Receive, Send, plain_error

LONGEST_ADDRESS = 56_000  # bytes; the longest SQL is shorter, also if all of it is escaped
LONGEST_FIELDS = 16 * 1024  # of all header fields, in bytes
MOST_PARAMETERS = 100  # of an address of a database, a table or SQL
MOST_ESCAPES = 500  # backslashes in cookies


def bounding_heads(application: Application, is_for_programs: Callable[[str], bool]) -> Application:
    """Refuse large heads before anything reads them.

    :param is_for_programs: returns whether a path belongs to an API, which bounds its parameters
        itself, as pages under /-/ do.
    """

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        refusal = _refusal(scope, is_for_programs)
        if refusal is None:
            await application(scope, receive, send)
        else:
            await plain_error(scope, refusal).asgi_send(send)

    return answer


def _refusal(scope: AsgiScope, is_for_programs: Callable[[str], bool]) -> ApiError | None:
    query: bytes = scope.get("query_string") or b""
    if len(scope.get("raw_path") or b"") + len(query) > LONGEST_ADDRESS:
        return ApiError(414, f"The address is longer than {LONGEST_ADDRESS:,} bytes.")
    is_datasettes = not (scope["path"].startswith("/-/") or is_for_programs(scope["path"]))
    if query.count(b"&") >= MOST_PARAMETERS and is_datasettes:
        return ApiError(400, f"The address has more than {MOST_PARAMETERS} parameters.")
    size = escapes = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        escapes += value.count(b"\\") if name == b"cookie" else 0
    if size > LONGEST_FIELDS:
        return ApiError(431, f"The header fields are longer than {LONGEST_FIELDS:,} bytes.")
    if escapes > MOST_ESCAPES:
        return ApiError(431, f"The cookies have more than {MOST_ESCAPES} backslashes.")
    return None

"""Makes the OpenAPI 3.1 document of an API from its route tables and the description of each route.

Descriptions consist of schemas, parameters and operations. A route without one raises KeyError, which a test
finds.
"""

import inspect
from collections.abc import Callable, Container, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from datasette.utils.asgi import Request, Response

from mirror import __version__
from mirror.serve.api1.routes import API as API_1
from mirror.serve.api2.routes import API as API_2
from mirror.serve.api_edge import Api, Names
from mirror.serve.datacenter.routes import API as DATA_CENTER
from mirror.serve.exchange import SAFETY, ApiError, Json, address_of, json_response
from mirror.serve.mementos import ACCEPT, NEXT_LOOK_HEADER

if TYPE_CHECKING:
    from datasette.app import Datasette

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
FLAG: Schema = {"type": "boolean"}
FLAG_OR_NULL: Schema = {"type": ["boolean", "null"]}
NUMBER: Schema = {"type": "integer"}
NUMBER_OR_NULL: Schema = {"type": ["integer", "null"]}

MORE = "<more>"  # a placeholder for the rest of an address


def not_read(patterns: Iterable[Names], readers: Container[Names], place: str) -> tuple[Names, ...]:
    """Return patterns of what is not mirrored, and of everything below each, except those with a reader.

    :param place: the placeholder at the end of patterns of `readers`, where any name may stand.
    """
    found = list[Names]()
    for pattern in patterns:
        one_below = (*pattern, place)
        below = (*one_below, MORE) if one_below in readers else (*pattern, MORE)
        found += [one for one in (pattern, below) if one not in readers]
    return tuple(found)


def named(name: str) -> Schema:
    """Refer to a schema of the document by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    """Allow null beside a schema."""
    return {"anyOf": [schema, {"type": "null"}]}


def one_of(*words: str) -> Schema:
    """Describe a text that is one of several words."""
    return {"type": "string", "enum": list(words)}


def array(items: Schema) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": items}


def by_name(values: Schema) -> Schema:
    """Describe an object whose keys are names, such as those of branches."""
    return {"type": "object", "additionalProperties": values}


def record(properties: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Describe an object: the keys that it always has, and those that it can have."""
    schema: Schema = {"type": "object", "properties": {**properties, **(optional or {})}}
    if properties:
        schema["required"] = list(properties)
    return schema


def alike(schema: Schema, keys: str) -> dict[str, Schema]:
    """Describe several keys by one schema; `keys` are separated by blanks."""
    return dict.fromkeys(keys.split(), schema)


# The body of an error of API 1.0 and 2.0.
ERROR = record(
    {"message": TEXT},
    {"detail": TEXT, "fields": by_name(array(TEXT)), "data": by_name(TEXT)},
)


class Parameter(NamedTuple):
    """A parameter in the query of an address."""

    name: str
    schema: Schema
    description: str
    required: bool = False


class Operation(NamedTuple):
    """The parameters and responses of a route.

    :param answer: the schema of its answer; None for an answer without a body.
    :param body: the schema of the request's body.
    :param statuses: the statuses of its answer.
    """

    answer: Schema | None
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None
    statuses: tuple[int, ...] = (200,)


class Description(NamedTuple):
    """The parts of an API's document that do not come from its route tables.

    :param prefix: the beginning of its addresses.
    :param reads: the operation of GET for each pattern of the table of readers.
    :param writes: the operation for each pattern and method of the table of writers.
    :param unmirrored: patterns of what the mirror does not hold.
    :param parameters: parameters of every address.
    :param schemas: all named schemas; `Error` is the body of every error.
    :param body_type: the content type of requests with a body.
    :param formats: other content types of answers, and whether the schema holds for them.
    """

    title: str
    prefix: str
    reads: Mapping[Names, Operation]
    schemas: Mapping[str, Schema]
    writes: Mapping[tuple[Names, str], Operation] = {}
    unmirrored: tuple[Names, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body_type: str = "application/json"
    formats: Mapping[str, bool] = {}


# The errors that are possible at every address.
_STATUSES = {
    "400": "A parameter or the body is wrong",
    "401": "It needs a token of this mirror, or the one sent is not accepted",
    "403": "The token may not do this",
    "404": "It does not exist, or it is hidden from the caller",
    "501": "The mirror does not hold this; the error names where the upstream has it",
    "503": "The mirror is busy, or has not read this yet; ask again later",
    "default": "Any other error",
}

_MOMENT: Json = {
    "name": ACCEPT,
    "in": "header",
    "required": False,
    "description": "A time in the past to answer for (RFC 7089), such as Tue, 03 Nov 2026 10:00:00 GMT",
    "schema": TEXT,
}
# Headers of answers from an address that accepts a time in the past.
_MEMENTO_HEADERS = {
    "Memento-Datetime": "When the mirror saw the data of the answer; only if the request named a time",
    NEXT_LOOK_HEADER: "When the mirror looked next, if it did",
    "Vary": f"Names {ACCEPT}, among others",
    "Link": 'This address, rel="original timegate"',
}

_LEADS_AWAY = {"307": "Leads to the upstream, where `redirect_unmirrored` is configured"}
_SECURITY: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token of this mirror"},
    "basic": {"type": "http", "scheme": "basic", "description": "A token of this mirror as the password"},
    "parameter": {"type": "apiKey", "in": "query", "name": "access_token"},
}

PATTERN = r"^/-/openapi/(?P<name>1\.0|2\.0|datacenter)\.json$"


@cache
def documented() -> dict[str, tuple[Api, Description]]:
    """Return the documented APIs, by the name of the document in its address."""
    # They describe routes with what is defined here; a server that is not asked for documents needs none.
    from mirror.serve.openapi import api1, api2, datacenter  # noqa: PLC0415

    return {
        "1.0": (API_1, api1.DESCRIPTION),
        "2.0": (API_2, api2.DESCRIPTION),
        "datacenter": (DATA_CENTER, datacenter.DESCRIPTION),
    }


def openapi_document(api: Api, described: Description, origin: str) -> Json:
    """Return the document of an API that is served at `origin`, the address of the mirror."""
    paths = dict[str, Json]()
    for pattern, reader in api.readers.items():
        operation = _operation(described, "get", pattern, described.reads[pattern], summary_of(reader))
        _path(paths, pattern)["get"] = _dated(operation) if reader in api.dated else operation
    for pattern, methods in api.writers.items():
        for method, writer in methods.items():
            wanted = described.writes[pattern, method]
            operation = _operation(described, method.lower(), pattern, wanted, summary_of(writer))
            _path(paths, pattern)[method.lower()] = operation
    for pattern in described.unmirrored:
        _path(paths, pattern)["get"] = {
            "operationId": _identity("get", pattern),
            "summary": "Data that the mirror does not hold: the answer has the upstream's address",
            "responses": _refusals("get"),
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": described.title,
            "version": __version__,
            "description": "The API of a mirror of Bitbucket. Objects can have more keys than listed here.",
        },
        "servers": [{"url": f"{origin}{described.prefix}"}],
        "security": [{}, *({name: []} for name in _SECURITY)],
        "paths": paths,
        "components": {
            "schemas": dict(described.schemas),
            "responses": {
                f"status_{status}": _answer(text, named("Error"), described)
                for status, text in {**_STATUSES, **_LEADS_AWAY}.items()
            },
            "securitySchemes": _SECURITY,
        },
    }


def template_of(pattern: Names) -> str:
    """Return a pattern of a route table as OpenAPI writes it: ``/users/{user}``."""
    return "/" + "/".join(f"{{{part[1:-1]}}}" if _is_placeholder(part) else part for part in pattern)


def summary_of(handler: Callable[..., Any]) -> str:
    """Return the first sentence of a function's docstring."""
    line = (inspect.getdoc(handler) or "").partition("\n")[0]
    return line.partition(". ")[0].rstrip(".")


def _is_placeholder(part: str) -> bool:
    return part.startswith("<")


def _path(paths: dict[str, Json], pattern: Names) -> Json:
    """Return the entry of a path, which begins with the parameters in the path."""
    places = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}
        for part in pattern
        if _is_placeholder(part)
    ]
    return paths.setdefault(template_of(pattern), {"parameters": places} if places else {})


def _operation(
    described: Description, method: str, pattern: Names, operation: Operation, summary: str
) -> Json:
    taken = operation.parameters if method != "get" else (*operation.parameters, *described.parameters)
    made: Json = {"operationId": _identity(method, pattern), "summary": summary}
    if taken:
        made["parameters"] = [_parameter(one) for one in taken]
    if operation.body is not None:
        made["requestBody"] = {"content": {described.body_type: {"schema": operation.body}}}
    answers = {
        str(status): _answer("The answer", operation.answer, described) for status in operation.statuses
    }
    made["responses"] = {**answers, **_refusals(method)}
    return made


def _dated(operation: Json) -> Json:
    """Add to an operation that it accepts a time in the past (RFC 7089)."""
    described_headers = {
        name: {"description": text, "schema": TEXT} for name, text in _MEMENTO_HEADERS.items()
    }
    answers = {
        status: {**answer, "headers": described_headers} if "content" in answer else answer
        for status, answer in operation["responses"].items()
    }
    return {
        **operation,
        "parameters": [*operation.get("parameters", ()), _MOMENT],
        "responses": answers,
    }


def _refusals(method: str) -> Json:
    statuses = {**_LEADS_AWAY, **_STATUSES} if method == "get" else _STATUSES
    return {status: {"$ref": f"#/components/responses/status_{status}"} for status in statuses}


def _identity(method: str, pattern: Names) -> str:
    return "_".join([method, *(part.strip("<>").replace("-", "_") for part in pattern)])


def _parameter(one: Parameter) -> Json:
    return {
        "name": one.name,
        "in": "query",
        "required": one.required,
        "description": one.description,
        "schema": one.schema,
    }


def _answer(text: str, schema: Schema | None, described: Description) -> Json:
    if schema is None:
        return {"description": text}
    others = {name: {"schema": schema} if same else {} for name, same in described.formats.items()}
    return {"description": text, "content": {"application/json": {"schema": schema}, **others}}


async def openapi(datasette: "Datasette", request: Request) -> Response:
    """Answer with the document of an API. Strangers may read it: it contains no data of the file."""
    api, described = documented()[request.url_vars["name"]]
    try:
        body, status = openapi_document(api, described, address_of(datasette, request)), 200
    except ApiError as error:
        body, status = error.body, error.status
    headers = {**SAFETY, "Access-Control-Allow-Origin": "*"}
    return json_response(body, headers, status=status, content_type="application/json")

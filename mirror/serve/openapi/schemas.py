"""The parts that descriptions of routes consist of: schemas, parameters, operations."""

from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

Schema = dict[str, Any]
Names = tuple[str, ...]

TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
FLAG: Schema = {"type": "boolean"}
FLAG_OR_NULL: Schema = {"type": ["boolean", "null"]}
NUMBER: Schema = {"type": "integer"}
NUMBER_OR_NULL: Schema = {"type": ["integer", "null"]}


MORE = "<more>"
"""A placeholder for the rest of an address."""


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

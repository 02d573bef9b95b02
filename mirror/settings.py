"""The descriptions of settings, used for the template, the documentation and error messages.

A setting is a field of a struct in `mirror/config.py`. Its description and example are in the field's
`msgspec.Meta`; its type, limits and default are those of the field.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from mirror.times import duration_text


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, described for people; `default` and `example` are written as in TOML.

    `default` is "" for a setting that must be given, or that has no value by default.
    """

    name: str
    kind: str
    help: str
    default: str
    example: str
    is_required: bool
    struct: type[msgspec.Struct] | None
    """The settings of a section or of an inline table."""

    is_repeated: bool
    """Whether it is a section that may stand there many times."""


def settings_of(struct: type[msgspec.Struct]) -> Iterator[Setting]:
    """Yield the settings that a struct declares, in its order."""
    found = inspect.type_info(struct)
    assert isinstance(found, inspect.StructType)  # noqa: S101 - what a struct is
    for field in found.fields:
        about = (field.type.extra_json_schema or {}) if isinstance(field.type, inspect.Metadata) else {}
        type_ = _bare(field.type)
        item = _bare(type_.item_type) if isinstance(type_, inspect.VarTupleType) else type_
        default = "" if field.required or field.default is None else toml_text(field.default)
        examples = about.get("examples")
        yield Setting(
            name=field.encode_name,
            kind=_kind(type_),
            help=about.get("description", ""),
            default=default,
            example=toml_text(examples[0]) if examples else default,
            is_required=field.required,
            struct=item.cls if isinstance(item, inspect.StructType) else None,
            is_repeated=isinstance(type_, inspect.VarTupleType),
        )


def toml_text(value: Any) -> str:
    """Write a value as TOML does."""
    if isinstance(value, msgspec.Struct):
        items = (f"{name} = {toml_text(getattr(value, name))}" for name in value.__struct_fields__)
        return f"{{ {', '.join(items)} }}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, float) and type(value) is not float:  # a Duration
        return json.dumps(duration_text(value))
    return json.dumps(value, ensure_ascii=False)


def _bare(type_: inspect.Type) -> inspect.Type:
    """Remove the description, and the None of an optional setting."""
    while isinstance(type_, inspect.Metadata):
        type_ = type_.type
    if isinstance(type_, inspect.UnionType):
        return _bare(next(one for one in type_.types if not isinstance(one, inspect.NoneType)))
    return type_


def _kind(type_: inspect.Type) -> str:  # noqa: PLR0911 - one for each type
    """Name a type, with its limits, in words."""
    match type_:
        case inspect.LiteralType(values=values):
            return " | ".join(map(str, values))
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high):
            return ("number" if isinstance(type_, inspect.FloatType) else "whole number") + _limits(low, high)
        case inspect.VarTupleType(item_type=item):
            return f"list of: {_kind(_bare(item))}"
        case inspect.CustomType():
            return "duration"
        case inspect.StructType():
            return "table"
        case _:
            return "text"


def _limits(low: float | None, high: float | None) -> str:
    if high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low is not None else ""

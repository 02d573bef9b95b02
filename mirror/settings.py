"""The descriptions of settings: for the template, the documentation, and the messages about mistakes.

A setting is a field of a struct in `mirror/config.py`. Its description and example are in the field's
`msgspec.Meta`; its type, limits and default are those of the field.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from inspect import getdoc
from typing import Any

import msgspec
from msgspec import inspect

from mirror.readable import did_you_mean
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
    inner: tuple["Setting", ...]
    """The settings of a section or of an inline table."""

    purpose: str
    """What a section is for."""

    is_repeated: bool
    """Whether it is a section that may occur many times."""

    @property
    def is_section(self) -> bool:
        """Whether it is a section; an inline table has a description as a setting."""
        return bool(self.inner) and not self.help

    @property
    def header(self) -> str:
        """The header of a section."""
        return f"[[{self.name}]]" if self.is_repeated else f"[{self.name}]"


def settings_of(struct: type[msgspec.Struct]) -> Iterator[Setting]:
    """Yield the settings that a struct declares, in its order."""
    found = inspect.type_info(struct)
    assert isinstance(found, inspect.StructType)  # noqa: S101 - for mypy
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
            inner=tuple(settings_of(item.cls)) if isinstance(item, inspect.StructType) else (),
            purpose=_purpose(item.cls) if isinstance(item, inspect.StructType) else "",
            is_repeated=isinstance(type_, inspect.VarTupleType),
        )


def _purpose(struct: type) -> str:
    """Return the first line of a section's docstring, without the section's name."""
    purpose = (getdoc(struct) or "").partition("\n")[0].partition(": ")[2]
    return purpose[:1].upper() + purpose[1:]


def toml_text(value: Any) -> str:
    """Write a value as TOML does."""
    if isinstance(value, msgspec.Struct):
        items = (f"{name} = {toml_text(getattr(value, name))}" for name in value.__struct_fields__)
        return f"{{ {', '.join(items)} }}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, float) and type(value) is not float:  # a Duration
        return json.dumps(duration_text(value))
    return json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f")  # which only TOML refuses


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


_UNKNOWN = re.compile(r"contains unknown field `(.+?)`")


def explained(message: str, text: str, where: str, root: type[msgspec.Struct]) -> str:
    """Turn a message of the validator into one with the line, the key and the remedy.

    `message` ends with the path of the value, as msgspec's messages do; `text` is the whole file and `where`
    its name; `root` declares the settings.
    """
    complaint, _, path = message.partition(" - at `")
    path = path.rstrip("`")
    unknown = _UNKNOWN.search(complaint)
    key = unknown[1] if unknown else path.rpartition(".")[2].partition("[")[0]
    line = _line_of(text, path, key)
    position = f"{where}, line {line}" if line else where
    if unknown and (places := _places_of(key, root)):
        return f"{position}: unknown setting {key!r} here; its place is {' or '.join(places)}"
    if unknown:
        known = sorted(_known(path, root))
        near = did_you_mean(key, known)
        return f"{position}: unknown setting {key!r}{near or ';'} known here: {', '.join(known)}"
    if complaint.startswith("Object missing required field"):
        return f"{position}: {complaint.replace('Object missing required field', 'this section needs')}"
    setting = _known(path.rpartition(".")[0], root).get(key)
    value = _value_at(text, path)
    if setting and complaint.startswith("Invalid enum value"):
        return f"{position}: {key}: {_not_allowed(setting, value)}"
    if setting and (suggested := _suggestion(setting, value)) is not None:
        return f"{position}: {key}: {complaint}; did you mean {suggested}?"
    return f"{position}: {key}: {complaint}{_hint(setting) if setting and ';' not in complaint else ''}"


def _places_of(key: str, root: type[msgspec.Struct]) -> list[str]:
    """Name the places of a file where a setting may be."""
    top = list(settings_of(root))
    above = ["the top of the file, above all sections"] if any(one.name == key for one in top) else []
    return above + [f"under {one.header}" for one in top if any(each.name == key for each in one.inner)]


def _not_allowed(setting: Setting, value: Any) -> str:
    """Refuse a value that is not allowed, and suggest the nearest allowed one."""
    allowed = setting.kind.removeprefix("list of: ").split(" | ")
    near = did_you_mean(str(value), allowed) or ";"
    return f"{value!r} is not allowed{near} allowed: {', '.join(allowed)}"


_SECRETS = frozenset({"credential", "webhook_secret", "ping", "url"})
"""Settings whose value is not shown: it may be a secret by mistake."""


def _suggestion(setting: Setting, value: Any) -> str | None:
    """Return a setting as it was probably meant: brackets or quotes are added or removed."""
    if setting.name in _SECRETS or setting.name == "file_mode":  # of 0o600, only the number 384 is known
        return None
    if isinstance(value, dict):
        return setting.header if setting.is_repeated and setting.inner else None
    suggested: Any = None
    kind = setting.kind
    if kind.startswith("list of: ") and isinstance(value, str) and value:
        suggested = [value]
    elif kind == "true or false" and not isinstance(value, bool) and str(value).lower() in _BOOLEANS:
        suggested = _BOOLEANS[str(value).lower()]
    elif kind.startswith(("whole number", "number")) and isinstance(value, str) and value.isdecimal():
        suggested = int(value)
    elif kind == "duration" and re.fullmatch(r"\d{1,9}", str(value)):
        suggested = f"{value}s"
    elif kind == "text" and isinstance(value, int | float) and not isinstance(value, bool):
        suggested = str(value)
    return None if suggested is None else f"{setting.name} = {toml_text(suggested)}"


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False, "no": False, "off": False, "0": False
}  # fmt: skip


def _value_at(text: str, path: str) -> Any:
    """Return the value at a path of a TOML text; None if there is none."""
    value: Any = tomllib.loads(text)
    for name, number in re.findall(r"(\w+)|\[(\d+)\]", path.removeprefix("$")):
        try:
            value = value[name] if name else value[int(number)]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _hint(setting: Setting) -> str:
    """Show how to write a setting, by its declaration."""
    if setting.inner:
        return ""
    about = "" if setting.kind == "text" else f" ({setting.kind})"
    return f"; write it like {setting.name} = {setting.example}{about}"


def _known(path: str, root: type[msgspec.Struct]) -> dict[str, Setting]:
    found = {setting.name: setting for setting in settings_of(root)}
    for part in re.findall(r"\w+", re.sub(r"\[\d+\]", "", path)):
        if part in found and found[part].inner:
            found = {each.name: each for each in found[part].inner}
    return found


def _line_of(text: str, path: str, key: str) -> int | None:
    """Return the line of a key in its section, or of the section's header; None if neither is found."""
    section = re.match(r"\$\.(\w+)(?:\[(\d+)\])?", path)
    wanted = (section[1], int(section[2] or 0)) if section else ("", 0)
    # tomllib tells no positions: this looks for the key in the text, and counts headers like [[upstream]].
    here, counts, header = ("", 0), dict[str, int](), None
    for number, line in enumerate(text.splitlines(), 1):
        heading = re.match(r"\s*\[\[?\s*(\w+)", line)
        if heading:
            counts[heading[1]] = counts.get(heading[1], -1) + 1
            here = (heading[1], counts[heading[1]])
            header = number if here == wanted else header
        if re.match(rf"\s*(.*[{{,.]\s*)?[\"']?{re.escape(key)}[\"']?\s*=", line) and (
            here == wanted or not wanted[0] or (here[0] == "" and wanted[0] == key)
        ):
            return number
    return header

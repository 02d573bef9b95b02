"""Explain a mistake in the configuration in one line, with the file, the line, the key and the remedy."""

import re
import tomllib
from typing import Any

import msgspec

from mirror.readable import did_you_mean
from mirror.settings import Setting, settings_of, toml_text

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
    spot = f"{where}, line {line}" if line else where
    if unknown:
        known = sorted(_known(path, root))
        near = did_you_mean(key, known)
        return f"{spot}: unknown setting {key!r}{near or ';'} known here: {', '.join(known)}"
    if complaint.startswith("Object missing required field"):
        return f"{spot}: {complaint.replace('Object missing required field', 'this section needs')}"
    setting = _known(path.rpartition(".")[0], root).get(key)
    value = _value_at(text, path)
    if setting and complaint.startswith("Invalid enum value"):
        return f"{spot}: {key}: {_not_allowed(setting, value)}"
    if setting and (meant := _meant(setting, value)) is not None:
        return f"{spot}: {key}: {complaint}; did you mean {meant}?"
    return f"{spot}: {key}: {complaint}{_hint(setting) if setting and ';' not in complaint else ''}"


def _not_allowed(setting: Setting, value: Any) -> str:
    """Refuse a value that is not allowed, and suggest the nearest allowed one."""
    allowed = setting.kind.removeprefix("list of: ").split(" | ")
    near = did_you_mean(str(value), allowed) or ";"
    return f"{value!r} is not allowed{near} allowed: {', '.join(allowed)}"


_SECRETS = frozenset({"credential", "webhook_secret", "ping", "url"})
"""Settings whose value is not shown: it may be a secret by mistake."""


def _meant(setting: Setting, value: Any) -> str | None:
    """Return a setting as it was probably meant, with brackets or quotes added or removed."""
    if setting.name in _SECRETS:
        return None
    if isinstance(value, dict):
        return f"[[{setting.name}]]" if setting.is_repeated and setting.struct else None
    meant: Any = None
    kind = setting.kind
    if kind.startswith("list of: ") and isinstance(value, str) and value:
        meant = [value]
    elif kind == "true or false" and str(value).lower() in _BOOLEANS:
        meant = _BOOLEANS[str(value).lower()]
    elif kind.startswith(("whole number", "number")) and isinstance(value, str) and value.isdecimal():
        meant = int(value)
    elif kind == "duration" and re.fullmatch(r"\d{1,9}", str(value)):
        meant = f"{value}s"
    elif kind == "text" and isinstance(value, int | float) and not isinstance(value, bool):
        meant = str(value)
    return None if meant is None else f"{setting.name} = {toml_text(meant)}"


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
    if setting.struct:
        return ""
    about = "" if setting.kind == "text" else f" ({setting.kind})"
    return f"; write it like {setting.name} = {setting.example}{about}"


def _known(path: str, root: type[msgspec.Struct]) -> dict[str, Setting]:
    """Return the settings of the section at a path."""
    found = {setting.name: setting for setting in settings_of(root)}
    for part in re.findall(r"\w+", re.sub(r"\[\d+\]", "", path)):
        setting = found.get(part)
        if setting and setting.struct:
            found = {each.name: each for each in settings_of(setting.struct)}
    return found


def _line_of(text: str, path: str, key: str) -> int | None:
    """Return the line of a key in its section; counts ``[[upstream]]`` headers."""
    section = re.match(r"\$\.(\w+)(?:\[(\d+)\])?", path)
    wanted = (section[1], int(section[2] or 0)) if section else ("", 0)
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

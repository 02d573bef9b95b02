"""Datasette's units of measure, made when something needs them: `?size__gt=5MB`.

Datasette reads the definitions of all units whenever it is imported, which takes more than half of the start
of a server. The pages of this program need none. Other plugins get the whole library.
"""

import importlib
import re
import sys
from functools import cached_property
from types import ModuleType
from typing import Any

_LIBRARY = "datasette.vendored.pint"

# A number, a unit, or both. The library also calculates: for `9**9**9` it needs hours and all memory, and for
# a name of 60,000 letters half a minute. No group is possessive: Python 3.11.2 matches too much by some.
_UNIT = r"[a-zµ°_]+(?:(?:\*\*|\^)-?\d)?"
_PLAIN = re.compile(
    r"(?=.{0,100}\Z)(?:[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d{1,3})?)? ?"
    rf"(?:{_UNIT}(?:[*/]{_UNIT})*)?",
    re.IGNORECASE | re.ASCII,
)


class LaterUnits:
    """What Datasette uses in place of a `UnitRegistry` of its library."""

    def __init__(self) -> None:
        _step_aside()  # Datasette has what it needs

    @cached_property
    def _units(self) -> Any:
        return _library().UnitRegistry()

    def __call__(self, text: str) -> Any:
        """Read a number with a unit, which visitors may send; raises BadRequest for any other text."""
        if not _PLAIN.fullmatch(text):
            from datasette.utils.asgi import BadRequest  # noqa: PLC0415 - this module is imported before it

            raise BadRequest(f"{text[:50]!r} is no number with a unit, such as 5MB")
        return self._units(text)

    def __getattr__(self, name: str) -> Any:
        """Return anything else that a registry has, such as a unit."""
        _refuse_special(name)
        return getattr(self._units, name)


class _StandIn(ModuleType):
    """Stands in the library's place while Datasette is imported."""

    UnitRegistry = LaterUnits

    def __getattr__(self, name: str) -> Any:
        """Load the library for a plugin that is imported meanwhile; `__path__` is for modules within it."""
        if name != "__path__":
            _refuse_special(name)
        return getattr(_library(), name)


def _refuse_special(name: str) -> None:
    """Raise AttributeError for a name that Python or a tool tries on every object."""
    if name.startswith("__"):
        raise AttributeError(name)


def _library() -> ModuleType:
    _step_aside()
    return importlib.import_module("datasette.vendored.pint")


def _step_aside() -> None:
    """Let the next import find the library."""
    if isinstance(sys.modules.get(_LIBRARY), _StandIn):
        del sys.modules[_LIBRARY]


def postpone() -> None:
    """Let Datasette make its units when it needs them; too late once it is imported."""
    if _LIBRARY not in sys.modules:
        sys.modules[_LIBRARY] = _StandIn(_LIBRARY)

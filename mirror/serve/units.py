"""Datasette's units of measure, made when something needs them: `?size__gt=5MB`.

Datasette reads the definitions of all units whenever it is imported, which takes more than half of the start
of a server. The pages of this program need none.
"""

import importlib
import sys
from functools import cached_property
from types import ModuleType
from typing import Any

_LIBRARY = "datasette.vendored.pint"


class LaterUnits:
    """What Datasette uses in place of a `UnitRegistry` of its library."""

    @cached_property
    def _units(self) -> Any:
        if isinstance(sys.modules.get(_LIBRARY), _StandIn):
            del sys.modules[_LIBRARY]
        return importlib.import_module("datasette.vendored.pint").UnitRegistry()

    def __call__(self, text: str) -> Any:
        """Read a number with a unit."""
        return self._units(text)

    def define(self, unit: str) -> None:
        """Add a unit of the operator."""
        self._units.define(unit)


class _StandIn(ModuleType):
    """Stands in the library's place while Datasette is imported."""

    UnitRegistry = LaterUnits


def postpone() -> None:
    """Let Datasette make its units when it needs them; too late once it is imported."""
    if _LIBRARY not in sys.modules:
        sys.modules[_LIBRARY] = _StandIn(_LIBRARY)

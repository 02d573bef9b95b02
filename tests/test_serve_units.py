"""Datasette's units are read when something needs them; other plugins get the library of units whole."""

import subprocess
import sys

import pytest

BEFORE, AFTER = "import mirror.serve\n", "import mirror.serve.plugin, datasette.app\n"
"""A plugin may be imported before Datasette has its units, or after that."""

OWN_UNITS = """
from datasette.app import ureg
ureg.define("shift = 8 * hour")
print(ureg("2 shift").to("hour"))"""


@pytest.mark.parametrize(
    ("start", "use"),
    [
        (BEFORE, "from datasette.vendored import pint\nprint(pint.Quantity(3, 'km').to('m'))"),
        (BEFORE, "from datasette.vendored.pint.registry import Quantity\nprint(Quantity(3, 'km').to('m'))"),
        (BEFORE, "from datasette.vendored import pint\nprint((3 * pint.UnitRegistry().km).to('m'))"),
        (AFTER, "from datasette.vendored import pint\nprint(pint.UnitRegistry.Quantity(3, 'km').to('m'))"),
    ],
)
def test_a_plugin_gets_the_library(start: str, use: str) -> None:
    """Whatever it uses of it; and units of Datasette's own can still be read and added."""
    done = subprocess.run(
        [sys.executable, "-c", start + use + OWN_UNITS], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("3000.0 meter\n16.0 hour\n", "")


def test_looking_at_all_modules_reads_no_units() -> None:
    """Tools ask every module for the names that Python gives."""
    look = (
        f"{BEFORE}import sys\nfor module in [*sys.modules.values()]: hasattr(module, '__file__')\n"
        "print('datasette.vendored.pint.registry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")

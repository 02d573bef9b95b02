"""Datasette's units are read when something needs them; other plugins get the library of units whole."""

import subprocess
import sys

BEFORE, AFTER = "import mirror.serve\n", "import mirror.serve.plugin, datasette.app\n"
"""A plugin may be imported before Datasette has its units, or after that."""

USES = [
    BEFORE + "from datasette.vendored import pint\nprint(pint.Quantity(3, 'km').to('m'))",
    BEFORE + "from datasette.vendored.pint.registry import Quantity\nprint(Quantity(3, 'km').to('m'))",
    BEFORE + "from datasette.vendored import pint\nprint((3 * pint.UnitRegistry().km).to('m'))",
    AFTER + "from datasette.vendored import pint\nprint(pint.UnitRegistry.Quantity(3, 'km').to('m'))",
]

OWN_UNITS = """
from datasette.app import ureg
ureg.define("shift = 8 * hour")
print(ureg("2 shift").to("hour"), flush=True)"""

APART = """
import os, sys
import asgi_csrf, asyncio, click, httpx, janus, jinja2, mergedeep, uvicorn, yaml
assert not [name for name in sys.modules if name.startswith(("mirror", "datasette"))]
for use in sys.argv[1:]:
    if not (child := os.fork()):
        exec(use)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)"""
"""Runs programs one by one, each in a process that has imported what Datasette needs, but not Datasette."""


def test_a_plugin_gets_the_library() -> None:
    """Whatever it uses of it; and units of Datasette's own can still be read and added."""
    programs = [use + OWN_UNITS for use in USES]
    done = subprocess.run(
        [sys.executable, "-c", APART, *programs], capture_output=True, text=True, check=False
    )
    assert done.stdout == "3000.0 meter\n16.0 hour\n0\n" * len(programs), done.stderr
    assert not done.stderr


def test_looking_at_all_modules_reads_no_units() -> None:
    """Tools ask every module for the names that Python gives."""
    look = (
        f"{BEFORE}import sys\nfor module in [*sys.modules.values()]: hasattr(module, '__file__')\n"
        "print('datasette.vendored.pint.registry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")

"""A simulated Bitbucket, served over real HTTP: to try the mirror out, to test it, to measure it.

Read `model` and `world` for its data, `api2` for what it answers, `control` and `faults` for what can be done
to it, `server` for how it travels.
"""

from .application import Sandbox
from .askers import ANONYMOUS, TOKEN, Asker, person
from .edits import Refusal
from .faults import Fault, parse_fault
from .model import utc_now
from .routes import Options
from .server import RunningSandbox, running, serve
from .world import World

__all__ = [
    "ANONYMOUS",
    "TOKEN",
    "Asker",
    "Fault",
    "Options",
    "Refusal",
    "RunningSandbox",
    "Sandbox",
    "World",
    "parse_fault",
    "person",
    "running",
    "serve",
    "utc_now",
]

"""A simulated Bitbucket, served over real HTTP: to try the mirror out, to test it, to measure it.

Read `model` and `world` for its data, `api2` for what it answers, `control` and `faults` for what can be done
to it, `server` for how it travels.
"""

from mirror.sandbox.edits import Refusal
from mirror.sandbox.exchange import ANONYMOUS, TOKEN, Asker, person
from mirror.sandbox.faults import Fault, parse_fault
from mirror.sandbox.model import utc_now
from mirror.sandbox.sandbox import Options, Sandbox
from mirror.sandbox.server import RunningSandbox, running, serve
from mirror.sandbox.world import World

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

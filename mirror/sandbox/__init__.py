"""A simulated Bitbucket, served over real HTTP: to try the mirror out, to test it, to measure it.

`model` and `world` hold its data, `api1`, `api2`, `datacenter` and `git` answer requests, `edits` changes the
data, `faults` spoils answers, `server` serves it all over HTTP.
"""

from mirror.sandbox.api2_shapes import repository_refs, visible_repositories
from mirror.sandbox.edits import EditError
from mirror.sandbox.faults import Fault, parse_fault
from mirror.sandbox.lively import Lively
from mirror.sandbox.model import ANONYMOUS, TOKEN, Principal, person, utc_now
from mirror.sandbox.sandbox import Sandbox, SandboxOptions
from mirror.sandbox.server import RunningSandbox, running, serve
from mirror.sandbox.world import World

__all__ = [
    "ANONYMOUS",
    "TOKEN",
    "EditError",
    "Fault",
    "Lively",
    "Principal",
    "RunningSandbox",
    "Sandbox",
    "SandboxOptions",
    "World",
    "parse_fault",
    "person",
    "repository_refs",
    "running",
    "serve",
    "utc_now",
    "visible_repositories",
]

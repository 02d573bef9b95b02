"""The command line: each command parses its arguments, calls one function of another package, and prints."""

# First: imports take most of a short run, and a signal must not end them with a traceback.
from mirror.cli import signals

_before = signals.handlers()
signals.end_at_once(signals.INTERRUPTED)

import gc  # noqa: E402

# Imported modules stay until the end: the garbage collector took a fifth of a start to look through them.
gc.disable()

from mirror.cli.main import main  # noqa: E402

gc.freeze()
gc.enable()
signals.restore(_before)  # `main` handles them, in a process of its own

__all__ = ["main"]

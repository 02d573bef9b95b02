"""The command line: each command parses its arguments, calls one function of another package, and prints."""

import gc
import signal
import threading

# Ctrl-C while modules are imported ends the process without a traceback; `main` handles it from then on.
_IS_OURS = signal.getsignal(signal.SIGINT) is signal.default_int_handler and (
    threading.current_thread() is threading.main_thread()
)
if _IS_OURS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# What is imported stays until the end: looking through it for garbage, there too, took a fifth of a start.
gc.disable()

from mirror.cli.main import main  # noqa: E402

gc.freeze()
gc.enable()
if _IS_OURS:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["main"]

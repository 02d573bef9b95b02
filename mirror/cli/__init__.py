"""The command line: each command parses its arguments, calls one function of another package, and prints."""

import gc
import signal
import threading

# Until `main` handles Ctrl-C, let it end the process without a traceback: imports take most of a short run.
_IS_OURS = signal.getsignal(signal.SIGINT) is signal.default_int_handler and (
    threading.current_thread() is threading.main_thread()
)
if _IS_OURS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Imported modules stay until the end: the garbage collector took a fifth of a start to look through them.
gc.disable()

from mirror.cli.main import main  # noqa: E402

gc.freeze()
gc.enable()
if _IS_OURS:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["main"]

"""What SIGINT and SIGTERM do to a command: it ends at any moment, without a traceback and with its exit code.

A service handles both itself once it has started (`mirror.serve.server`, `mirror.background.service`).
"""

import atexit
import os
import signal
import sys

TYPE_CHECKING = False  # `typing` takes longer to import than what may come before signals are handled
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

INTERRUPTED = 130
_ENDS = (signal.SIGINT, signal.SIGTERM)
_received = list[int]()


def handlers() -> "dict[signal.Signals, Any]":
    """Return what handles the signals now, without those that the caller of the program has ignored."""
    return {number: handler for number in _ENDS if (handler := signal.getsignal(number)) != signal.SIG_IGN}


def restore(before: "dict[signal.Signals, Any]") -> None:
    """Handle signals as `handlers` has returned."""
    for number, handler in before.items():
        try:
            signal.signal(number, handler)
        except ValueError:  # only the main thread may
            return


def end_at_once(code: int) -> None:
    """Let a signal end the process at once, with an exit code; what was saved is consistent.

    For moments at which an exception would show a traceback, or be lost: imports, and the end of Python.
    """
    restore(dict.fromkeys(handlers(), lambda *_: os._exit(code)))


def interrupt() -> None:
    """Let the first signal raise KeyboardInterrupt, and a second one end the process at once."""
    restore(dict.fromkeys(handlers(), _interrupt))
    sys.unraisablehook = _unraisable
    # The last thing that runs: then Python forgets its handlers, and takes its time to end.
    atexit.register(restore, dict.fromkeys(handlers(), signal.SIG_IGN))


def interrupted() -> bool:
    """Return whether KeyboardInterrupt was raised: another exception may be what became of it."""
    return bool(_received)


def end_service_at_once(*, rereads: bool) -> None:
    """Let a signal end a service that has not started yet as later: it was asked to stop, and did.

    A SIGHUP, which would kill it, waits until a service that `rereads` its configuration handles it.
    """
    # Only where `interrupt` was called: not in a program that calls commands as functions.
    if _interrupt in handlers().values():
        end_at_once(0)
        if rereads:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def _interrupt(number: int, _: "FrameType | None") -> None:
    _received.append(number)
    end_at_once(INTERRUPTED)
    raise KeyboardInterrupt


def _unraisable(lost: "Any") -> None:
    """End the process if KeyboardInterrupt was raised where Python ignores exceptions, as in a destructor."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        os._exit(INTERRUPTED)
    sys.__unraisablehook__(lost)

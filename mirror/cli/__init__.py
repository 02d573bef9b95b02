"""The command line: each command parses its arguments, calls one function of another package, and prints."""

import gc

# What is imported stays until the end: looking through it for garbage, there too, took a fifth of a start.
gc.disable()

from mirror.cli.main import main  # noqa: E402

gc.freeze()
gc.enable()

__all__ = ["main"]

"""The command line: each command parses its arguments, calls one function of another package, and prints."""

from mirror.cli.main import main

__all__ = ["main"]

"""The command line: each command parses, calls one function of another room, and prints."""

from mirror.cli.main import main

__all__ = ["main"]

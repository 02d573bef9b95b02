"""The command line: each command parses, calls one function of another room, and prints."""

from mirror.cli.base import main

__all__ = ["main"]

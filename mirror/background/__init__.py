"""The background service: what is done by the clock, and what is said of it."""

from mirror.background.service import Background, checked

__all__ = ["Background", "checked"]

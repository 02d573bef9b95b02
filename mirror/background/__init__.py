"""The background service: work by schedule, and its account."""

from mirror.background.service import Background, checked

__all__ = ["Background", "checked"]

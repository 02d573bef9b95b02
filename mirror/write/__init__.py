"""Pass-through of create, update, delete and fork: to the upstream first, then into the mirror at once."""

from mirror.write.passthrough import PassThrough

__all__ = ["PassThrough"]

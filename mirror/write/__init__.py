"""Pass-through of create, update, delete and fork: to the upstream first, then into the mirror at once.

Read `passthrough` for what happens and `outcome` for lost answers; docs/writing.md tells it to users.
"""

from mirror.config import Config
from mirror.write.passthrough import PassThrough, ServedWriter

__all__ = ["PassThrough", "writer_for"]


def writer_for(config: Config) -> ServedWriter:
    """Make the writer that a served mirror passes writes to; nothing is read or asked yet."""
    return ServedWriter(PassThrough(config))

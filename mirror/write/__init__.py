"""Pass-through of create, update, delete and fork: to the upstream first, then into the mirror at once.

Read `writer` for what happens and `settle` for lost answers; docs/writing.md tells it to users.
"""

from typing import TYPE_CHECKING

from mirror.config import Config
from mirror.write.passthrough import PassThrough, ServedWriter

if TYPE_CHECKING:
    from mirror.serve.api1.writes import Writer

__all__ = ["PassThrough", "writer_for"]


def writer_for(config: Config) -> "Writer":
    """Make the writer that a served mirror passes writes to; nothing is read or asked yet."""
    return ServedWriter(PassThrough(config))

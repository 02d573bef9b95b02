"""A public-only copy of the mirror, to host anywhere. It depends on the public rows alone.

`selection.py` names every column that may be copied, and copies the rows; `snapshot.py` makes the file and
checks it, `sidecars.py` makes the files beside it.
"""

from mirror.publish.snapshot import (
    OnProgress,
    PrivateFound,
    Published,
    PublishOptions,
    inside_hosts,
    public_rows,
    publish,
)

__all__ = [
    "OnProgress",
    "PrivateFound",
    "PublishOptions",
    "Published",
    "inside_hosts",
    "public_rows",
    "publish",
]

"""A public-only copy of the mirror, to host anywhere: a function of its public rows alone.

`columns.py` names every column that may be copied, `fill.py` copies the rows, `snapshot.py` makes the file
and checks it, `sidecars.py` makes the files beside it.
"""

from mirror.publish.snapshot import (
    PrivateFound,
    Published,
    PublishOptions,
    Told,
    inside_hosts,
    public_rows,
    publish,
)

__all__ = ["PrivateFound", "PublishOptions", "Published", "Told", "inside_hosts", "public_rows", "publish"]

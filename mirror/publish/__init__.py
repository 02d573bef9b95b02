"""A public-only copy of the mirror, to host anywhere: a function of its public rows alone.

`columns.py` names every column that may be copied, `fill.py` copies, `snapshot.py` makes the file,
`check.py` looks for what must not be in it, `beside.py` makes the files that go with it.
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

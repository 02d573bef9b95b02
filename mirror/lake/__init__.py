"""Many mirrors in one lake of Parquet files: export, merge, and a mirror of the merged lake.

`columns.py` names every column, `export.py` writes a mirror into its own folders of the lake by `parquet.py`
and `place.py`, `merge.py` runs `merge.sql` over the folders of all mirrors, `build.py` makes one mirror from
the result. Import these files only where they are used: pyarrow takes longer to load than most commands take.
"""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from mirror.errors import ConfigError

NEEDS_PYARROW = (
    "a lake needs pyarrow: pip install 'bitbucket-mirror[lake]', in a checkout"
    " .venv/bin/pip install -e '.[lake]'"
)
STORES = ("s3", "gs")
"""Schemes of object stores. pyarrow reads their keys from the environment."""


class Address(NamedTuple):
    """The place of a lake: `text` names it without secrets, `given` is the form for pyarrow."""

    text: str
    given: str
    is_folder: bool


def address_of(given: str) -> Address:
    """Parse an address; raises ConfigError if a lake cannot be there."""
    scheme, mark, _ = given.partition("://")
    if not mark:
        if not given.strip() or "\0" in given or given.startswith(tuple(f"{store}:" for store in STORES)):
            raise ConfigError("a lake needs a folder, or s3://BUCKET/PATH")
        folder = os.path.realpath(given)
        return Address(folder, folder, is_folder=True)
    if scheme not in STORES:
        raise ConfigError(f"{scheme}:// cannot hold a lake; give a folder, or s3://BUCKET/PATH")
    parts = urlsplit(given)
    if "@" in parts.netloc:
        raise ConfigError(
            "an address must not contain a key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not parts.netloc:
        raise ConfigError(f"{given}: has no bucket; write it like s3://BUCKET/PATH")
    return Address(f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}", given, is_folder=False)

"""How the place of a lake is written: a folder, or `s3://BUCKET/PATH`."""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from mirror.errors import ConfigError

STORES = ("s3", "gs")
"""Schemes of object stores; their keys come from the environment, as pyarrow's documentation says."""


class Address(NamedTuple):
    """The place of a lake: `text` names it without anything secret, `given` is how pyarrow takes it."""

    text: str
    given: str
    is_folder: bool


def address_of(given: str) -> Address:
    """Read an address; raises ConfigError for one that is no place for a lake."""
    scheme, mark, _ = given.partition("://")
    if not mark:
        if not given.strip() or "\0" in given or given.startswith(tuple(f"{store}:" for store in STORES)):
            raise ConfigError("a lake needs a folder, or s3://BUCKET/PATH")
        folder = os.path.realpath(given)
        return Address(folder, folder, is_folder=True)
    if scheme not in STORES:
        raise ConfigError(f"{scheme}:// is no place for a lake; give a folder, or s3://BUCKET/PATH")
    parts = urlsplit(given)
    if "@" in parts.netloc:
        raise ConfigError(
            "a key does not belong into an address: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not parts.netloc:
        raise ConfigError(f"{given}: names no bucket; write it like s3://BUCKET/PATH")
    return Address(f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}", given, is_folder=False)

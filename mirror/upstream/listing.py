"""What the upstreams share: rows of a listing, decoded and shaped each by itself."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec

from mirror.errors import UpstreamShapeError
from mirror.lenient_json import decoded_bytes
from mirror.upstream.answer import shown
from mirror.upstream.base import BadRow

Row = TypeVar("Row")
Shape = TypeVar("Shape")


class _Rough(msgspec.Struct, frozen=True):
    """What may name a row that is broken otherwise."""

    full_name: object = None
    name: object = None
    displayId: object = None  # noqa: N815 - as Data Center writes it
    slug: object = None
    uuid: object = None


class Rows(Generic[Row]):
    """Decodes rows as `kind` and shapes them; a bad row costs itself alone."""

    def __init__(self, kind: type[Shape], shape: Callable[[Shape], Row]) -> None:
        decode = msgspec.json.Decoder(kind).decode

        def decode_and_shape(raw: msgspec.Raw) -> Row:
            try:
                return shape(decode(raw))
            except msgspec.ValidationError:
                raise
            except (msgspec.DecodeError, UnicodeDecodeError):  # bytes that are no UTF-8
                return shape(decoded_bytes(bytes(raw), kind))

        self._shape = decode_and_shape

    def read(self, values: Iterable[msgspec.Raw]) -> tuple[tuple[Row, ...], tuple[BadRow, ...]]:
        """Return the good rows, and what was wrong with the others."""
        rows, bad = list[Row](), list[BadRow]()
        for raw in values:
            try:
                rows.append(self._shape(raw))
            except (msgspec.MsgspecError, UpstreamShapeError, ValueError, RecursionError) as error:
                bad.append(BadRow(what=named(bytes(raw)), error=shown(str(error))))
        return tuple(rows), tuple(bad)


def named(raw: bytes) -> str:
    """Name a row that could not be shaped, as well as it can be."""
    try:
        rough = decoded_bytes(raw, _Rough)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "a row"
    names = (rough.full_name, rough.name, rough.displayId, rough.slug, rough.uuid)
    return next((shown(name, 100) for name in names if isinstance(name, str) and name), "a row")

"""What a git server says of its refs: the lines of its protocol, read strictly. Pure: bytes in, values out.

The forms are those of gitprotocol-common, gitprotocol-http, gitprotocol-pack and gitprotocol-v2.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

import msgspec

from mirror import ref_names as git_names

LONGEST_LINE = 65_520
MOST_REFS = 500_000

_LENGTH = re.compile(rb"[0-9a-f]{4}", re.IGNORECASE)
_NO_REFS = b"capabilities^{}"


class GitRef(msgspec.Struct, frozen=True):
    """A ref: its full name, the object that it names, and for an annotated tag what that names in the end."""

    name: str
    object_id: str
    peeled: str | None = None


class Advertisement(msgspec.Struct, frozen=True, kw_only=True):
    """All refs of a repository but HEAD."""

    refs: tuple[GitRef, ...] = ()


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server of protocol version 2 can do: it tells its refs when it is asked to."""

    values: dict[str, str]


class GitError(ValueError):
    """The server says ERR: it will not serve this repository."""


def lines_of(body: bytes) -> Iterator[bytes | None]:
    """Yield the lines of a body without their ends, and None for each flush; raises ValueError.

    A delimiter between the parts of a request does not occur in what servers say of refs.
    """
    place = 0
    while place < len(body):
        prefix = body[place : place + 4]
        if not _LENGTH.fullmatch(prefix):
            raise ValueError(f"no length of a line at byte {place:,}")
        length = int(prefix, 16)
        if length == 0:
            yield None
            place += 4
            continue
        if length < 4 or length > LONGEST_LINE:
            raise ValueError(f"a line of length {length} at byte {place:,}")
        line = body[place + 4 : place + length]
        if len(line) != length - 4:
            raise ValueError(f"the last line, at byte {place:,}, is cut off")
        if line.startswith(b"ERR "):
            raise GitError(line[4:].decode("utf-8", "replace").strip())
        yield line.removesuffix(b"\n")
        place += length


def line(text: str) -> bytes:
    """Write one line of a request."""
    data = text.encode() + b"\n"
    return b"%04x%s" % (len(data) + 4, data)


def from_advertisement(body: bytes) -> Advertisement | Capabilities:
    """Read the answer to ``info/refs``, of protocol version 0, 1 or 2; raises ValueError."""
    said = _until_flush(_behind_service(lines_of(body)))
    first = next(said, None)
    if first == b"version 2":
        pairs = [each.decode("utf-8", "replace").partition("=") for each in said]
        return Capabilities(values={name: value for name, _, value in pairs})
    if first == b"version 1":
        first = next(said, None)
    return (
        Advertisement() if first is None else _from_v0(first, said)
    )  # git 2.39 tells an empty repository so


def from_ls_refs(body: bytes) -> Advertisement:
    """Read the answer to the command ``ls-refs`` of protocol version 2; raises ValueError."""
    refs = dict[str, GitRef]()
    for each in _until_flush(lines_of(body)):
        object_id, name, *attributes = each.split(b" ")
        if not all(b":" in attribute for attribute in attributes):
            raise ValueError("a ref with a blank in its name, which git does not allow")
        told = dict(attribute.partition(b":")[::2] for attribute in attributes)
        if name != b"HEAD":
            peeled = _object_id(told[b"peeled"]) if b"peeled" in told else None
            _add(refs, GitRef(_text(name), _object_id(object_id), peeled))
    return Advertisement(refs=tuple(refs.values()))


def ls_refs_request(capabilities: Capabilities, prefixes: Iterable[str]) -> bytes:
    """Write the command that asks for the refs below some prefixes, tags with their commits."""
    command = line("command=ls-refs")
    if "agent" in capabilities.values:
        command += line("agent=git/bitbucket-mirror")
    if "object-format" in capabilities.values:
        command += line(f"object-format={capabilities.values['object-format']}")
    arguments = ["peel", *(f"ref-prefix {prefix}" for prefix in prefixes)]
    return command + b"0001" + b"".join(line(argument) for argument in arguments) + b"0000"


def _behind_service(lines: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """Leave out the name of the service, which a server of version 2 need not tell, and its flush."""
    first = next(lines, b"")
    if first != b"# service=git-upload-pack":
        yield first
    elif next(lines, b"") is not None:
        raise ValueError("no flush after the name of the service")
    yield from lines


def _until_flush(lines: Iterator[bytes | None]) -> Iterator[bytes]:
    """Yield the lines before the flush that ends an answer; raises ValueError where it ends otherwise."""
    for each in lines:
        if each is None:
            if any(True for _ in lines):
                raise ValueError("a flush within the refs")
            return
        yield each
    raise ValueError("the answer does not end with a flush")


def _from_v0(line_of_first: bytes, others: Iterable[bytes]) -> Advertisement:
    """Read refs, the first of them with the capabilities behind a NUL."""
    first, nul, _ = line_of_first.partition(b"\0")
    if not nul:
        raise ValueError("the first ref tells no capabilities")
    refs = dict[str, GitRef]()
    for each in chain((first,), others):
        object_id, space, name = each.partition(b" ")
        if name == _NO_REFS:
            continue
        if not space or not name or b" " in name:
            raise ValueError("a line that is no ref")
        if each.startswith(b"shallow "):
            continue
        text = _text(name.removesuffix(b"^{}"))
        if not name.endswith(b"^{}"):
            _add(refs, GitRef(text, _object_id(object_id)))
        elif text in refs:
            refs[text] = msgspec.structs.replace(refs[text], peeled=_object_id(object_id))
        else:
            raise ValueError("a peeled tag without the tag")
    refs.pop("HEAD", None)
    return Advertisement(refs=tuple(refs.values()))


def _add(refs: dict[str, GitRef], ref: GitRef) -> None:
    """Note a ref; raises ValueError for a name that was told before, and for one too many."""
    if refs.setdefault(ref.name, ref) is not ref:
        raise ValueError("two refs of one name")
    if len(refs) > MOST_REFS:
        raise ValueError(f"more than {MOST_REFS:,} refs")


def _object_id(text: bytes) -> str:
    return git_names.object_id(text.decode("ascii", "replace"))


def _text(name: bytes) -> str:
    r"""Read a name. A byte that is no UTF-8 becomes ``\xNN``, so that two names stay two.

    git allows no backslash in names; one that a server sends all the same becomes ``\x5c``.
    """
    return name.replace(b"\\", rb"\x5c").decode("utf-8", "backslashreplace")

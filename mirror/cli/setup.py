"""`mirror init`, `mirror completions`, `mirror man`: texts that are made from settings and commands."""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from inspect import cleandoc
from pathlib import Path

import click

from mirror import __version__
from mirror.cli.common import LocalPath
from mirror.cli.main import mirror
from mirror.config import DEFAULT_FILE, Config, from_toml
from mirror.credentials import is_quoted
from mirror.errors import ConfigError
from mirror.readable import did_you_mean
from mirror.settings import Setting, settings_of, toml_text
from mirror.store.faults import explained
from mirror.store.files import PRIVATE

_HEAD = """\
# What bitbucket-mirror mirrors, how often, and to whom it answers. Durations are written 30s, 15m, 1h, 7d.
# Settings that are commented out show their default or an example. Paths are relative to this file's folder.

"""

_NOTES = {
    "credential": """\
# The secret is one of these. Without it, Bitbucket allows 60 requests an hour and shows what is public.
#   you@example.com:TOKEN   an API token with these scopes:
#                           read:repository:bitbucket, read:workspace:bitbucket, read:user:bitbucket
#   TOKEN                   an access token of a repository, project or workspace
#   oauth:KEY:SECRET        an OAuth consumer
"""
}
"""Longer explanations by setting."""

_GIVEN = frozenset({"database", "name", "kind", "workspaces"})
"""Settings that a new file sets; all others are comments."""


_POINTERS = frozenset({"credential", "webhook_secret"})
"""Settings that name the place of a secret."""

_ALIKE = 0.85
"""The similarity of a misspelt variable; it is high, since all have their beginning in common."""


def template(environ: Mapping[str, str] | None = None) -> str:
    """Return the text of a new `mirror.toml`, with the settings that variables of the environment give."""
    return _HEAD + "".join(_lines("", settings_of(Config), environ or {}))


def _apart(settings: Iterable[Setting]) -> tuple[list[Setting], list[Setting]]:
    """Return the plain settings, then the sections: TOML has them in this order."""
    found = list(settings)
    return [one for one in found if not one.is_section], [one for one in found if one.is_section]


def _lines(section: str, settings: Iterable[Setting], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a section, then those of its subsections.

    A repeatable section without required settings is shown as a comment.
    """
    is_shown = section.startswith("# ")
    plain, sections = _apart(settings)
    for setting in plain:
        yield _NOTES.get(setting.name, "")
        told = None if is_shown else _told(section, setting, environ)
        is_offered = setting.name in _GIVEN and not (environ and setting.name == "workspaces")
        is_given = (is_offered or told is not None) and not is_shown
        value = setting.example if is_given or is_shown else setting.default or setting.example
        value = value if told is None else told
        line = f"{'' if is_given else '# '}{setting.name} = {value}"
        help_text = f"{setting.help} ({setting.kind})" if "|" in setting.kind else setting.help
        if len(line) + len(help_text) < 100:
            yield f"{line:<29} # {help_text}\n"
        else:
            yield f"# {help_text}\n{line}\n"
    for setting in sections:
        header = f"{'# ' if _is_comment(setting) else ''}{setting.header}"
        yield f"\n# {setting.purpose}\n{header}\n"
        yield from _lines(header, setting.inner, environ)


def variable(section: str, name: str) -> str:
    """Return the variable of a setting, such as ``MIRROR_DATABASE`` or ``MIRROR_SERVE_PORT``."""
    return "_".join(filter(None, ("MIRROR", section.strip("[]").upper(), name.upper())))


def _told(section: str, setting: Setting, environ: Mapping[str, str]) -> str | None:
    """Return the value of a variable as TOML; None if it is unset. Raises ConfigError for a secret."""
    name = variable(section, setting.name)
    text = environ.get(name, "")
    if not text:
        return None
    if is_quoted(text):
        raise ConfigError(f"{name} is in quotation marks; write it without them")
    if setting.name in _POINTERS and not text.startswith(("env:", "file:")):
        raise ConfigError(f"{name} must not contain a secret but its place: env:NAME or file:PATH")
    shape = setting.default or setting.example
    if shape.startswith("["):
        return toml_text([one.strip() for one in text.split(",") if one.strip()])
    if shape.startswith('"'):
        return toml_text(text)
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        found = {}
    if len(found) != 1:  # another line of the text would be another setting
        raise ConfigError(f"{name} = {text!r}: write it like {shape} ({setting.kind})")
    return text.strip()


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raise ConfigError for a variable that looks like that of a setting, but belongs to none."""
    known = set(_variables("", settings_of(Config)))
    sections = tuple(f"MIRROR_{setting.name.upper()}_" for setting in settings_of(Config) if setting.inner)
    for name in sorted(environ):
        if name.startswith("MIRROR_") and name not in known:
            near = did_you_mean(name, known, cutoff=_ALIKE)
            if near or name.startswith(sections):
                raise ConfigError(f"{name} is the variable of no setting{near}")


def _variables(section: str, settings: Iterable[Setting]) -> Iterator[str]:
    """Yield the variables that a configuration can be written from."""
    for setting in settings:
        if not setting.is_section:
            yield variable(section, setting.name)
        elif not _is_comment(setting):
            yield from _variables(setting.name, setting.inner)


def _is_comment(section: Setting) -> bool:
    """Return whether a section is only shown as a comment."""
    return section.is_repeated and not any(each.is_required for each in section.inner)


def documentation() -> str:
    """Return `docs/configuration.md`: every setting of every section."""
    return _DOCUMENT + "".join(_tables("At the top of the file", "", settings_of(Config)))


_DOCUMENT = """\
# The settings of mirror.toml

`mirror init` writes a `mirror.toml` with all of them. Durations are written `30s`, `15m`, `1h`, `7d`. Paths
(`database`, `file:PATH`) are relative to the folder of the file; `~/` begins with your home directory. An
unknown setting, or a value of another type, is refused with file, line and remedy. This page
is made from the program by `make docs`.
"""


def _tables(title: str, purpose: str, settings: Iterable[Setting]) -> Iterator[str]:
    plain, sections = _apart(settings)
    yield f"\n## {title}\n" + (f"\n{purpose}\n" if purpose else "")
    yield "\n| setting | type | default | |\n| --- | --- | --- | --- |\n"
    for setting in plain:
        yield _row_of_setting(setting.name, setting)
        for inner in setting.inner:
            yield _row_of_setting(f"{setting.name}.{inner.name}", inner)
    for section in sections:
        yield from _tables(section.header, section.purpose, section.inner)


def _row_of_setting(name: str, setting: Setting) -> str:
    default = "required" if setting.is_required else f"`{setting.default}`" if setting.default else "none"
    example = "" if setting.example in ("", setting.default) else f" Example: `{setting.example}`"
    kind = setting.kind.replace("|", "\\|")
    return f"| `{name}` | {kind} | {default} | {setting.help}{example} |\n"


@click.command()
@click.argument("path", type=LocalPath(path_type=Path), default=DEFAULT_FILE)
@click.option(
    "--from-env", is_flag=True, help="Take settings from variables like MIRROR_UPSTREAM_WORKSPACES."
)
def init(path: Path, from_env: bool) -> None:
    """Write a commented mirror.toml to start from; never overwrites.

    PATH is the file to write; mirror.toml in this folder, if omitted. --from-env takes a setting from MIRROR_
    and its name; in a section, from MIRROR_UPSTREAM_ or MIRROR_SERVE_ and its name. Lists have commas. No
    secret is written, only where it is.

    \b
    Examples:
        mirror init && $EDITOR mirror.toml && mirror sync
        MIRROR_UPSTREAM_WORKSPACES=acme,beta MIRROR_UPSTREAM_CREDENTIAL=env:TOKEN mirror init --from-env
    """
    if from_env:
        _refuse_unknown(os.environ)
    text = template(os.environ if from_env else None)
    if from_env:
        from_toml(text, where="the variables")  # refuse invalid settings before there is a file
    write_new({path: text}, mode=PRIVATE)
    step = "look at it" if from_env else "name your workspaces in it, and its credential"
    click.echo(f"{path} written; {step}, then: mirror sync")


def write_new(texts: Mapping[Path, str], *, mode: int = 0o666) -> None:
    """Write files that do not exist; if one cannot be written, none stays.

    Raises ConfigError for one that exists or has no folder, StoreError for a full disk and the like.
    """
    made = list[Path]()
    try:
        for path, text in texts.items():
            with explained(path):
                _write_new(path, text, mode, made)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def _write_new(path: Path, text: str, mode: int, made: list[Path]) -> None:
    try:
        # O_EXCL never overwrites, even if another process writes the file at the same moment.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise ConfigError(f"{path} exists; remove it first, or name another file") from None
    except FileNotFoundError:
        raise ConfigError(f"{path}: its folder does not exist; make it first") from None
    made.append(path)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_MIRROR_COMPLETE"


@click.command()
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
def completions(shell: str) -> None:
    """Print the script that completes commands and options in a shell.

    SHELL is bash, zsh or fish.

    \b
    Examples:
        mirror completions bash > /etc/bash_completion.d/mirror
        mirror completions zsh > ~/.mirror.zsh   # then `source` it in ~/.zshrc
        mirror completions fish > ~/.config/fish/completions/mirror.fish
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - only this command needs it

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click knows all of SHELLS
    click.echo(found(mirror, {}, "mirror", _VARIABLE).source())


@click.command()
def man() -> None:
    """Print the manual page of all commands, for section 1.

    \b
    Example:
        mirror man > mirror.1 && man ./mirror.1
    """
    click.echo("\n".join(_lines_of_manual()))


def _lines_of_manual() -> Iterator[str]:
    yield f'.TH MIRROR 1 "" "bitbucket-mirror {__version__}" "User Commands"'
    yield ".SH NAME"
    yield r"mirror \- an offline copy of Bitbucket in one SQLite file"
    yield ".SH SYNOPSIS"
    yield r".B mirror"
    yield r"[\-\-config FILE] COMMAND [OPTIONS] [ARGUMENTS]"
    yield ".SH DESCRIPTION"
    yield from _text(mirror.help or "")
    yield ".SH OPTIONS"
    yield from _options(mirror)
    yield ".SH COMMANDS"
    yield from _commands(mirror, "mirror")
    yield ".SH EXIT STATUS"
    for code, meaning in _CODES.items():
        yield from (".TP", f".B {code}", meaning)
    yield ".SH FILES"
    yield from (".TP", ".B mirror.toml", "the configuration, written by", r".B mirror init")


_CODES = {
    0: "done, or stopped as asked, to be resumed",
    1: "finished, but some items failed; each is listed",
    2: "usage or configuration",
    3: "the upstream refused the credentials",
    4: "the upstream is unreachable, or the mirror file unusable",
    130: "interrupted; what was saved is kept",
}


def _commands(group: click.Group, path: str) -> Iterator[str]:
    """Yield each command with its help and its options, those of groups too."""
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
            continue
        usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=name)))
        yield f".SS {_escaped(f'{path} {name} {usage}')}"
        yield from _text(command.help or "")
        yield from _options(command)


def _options(command: click.Command) -> Iterator[str]:
    context = click.Context(command)
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            yield from (".TP", f".B {_escaped(record[0])}", _escaped(record[1]))


def _text(text: str) -> Iterator[str]:
    """Yield paragraphs; those that click does not wrap are examples, and are kept as they are."""
    for paragraph in cleandoc(text).split("\n\n"):
        lines = paragraph.removeprefix("\b\n").split("\n")
        if paragraph.startswith("\b"):
            yield from (".PP", ".nf", *map(_escaped, lines), ".fi")
        else:
            yield from (".PP", *map(_escaped, lines))


def _escaped(text: str) -> str:
    """Escape backslashes, hyphens, and a leading dot or quote, which roff would interpret."""
    plain = re.sub(r"([\\-])", lambda found: r"\e" if found[0] == "\\" else r"\-", " ".join(text.split("\n")))
    return rf"\&{plain}" if plain.startswith((".", "'")) else plain

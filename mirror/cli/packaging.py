"""`mirror completions`, `mirror man`: shell completion and the manual page, made from the commands."""

import re
from collections.abc import Iterator
from inspect import cleandoc

import click
from click.shell_completion import get_completion_class

from mirror import __version__
from mirror.cli.main import mirror

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_MIRROR_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completions(shell: str) -> None:
    """Print what completes commands and options in a shell.

    SHELL is bash, zsh or fish.

    \b
    Examples:
        mirror completions bash > /etc/bash_completion.d/mirror
        mirror completions zsh > ~/.mirror.zsh   # then `source` it in ~/.zshrc
        mirror completions fish > ~/.config/fish/completions/mirror.fish
    """
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
    click.echo("\n".join(_page()))


def _page() -> Iterator[str]:
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
    """Yield paragraphs. One that click must not wrap is an example, and is kept as it is."""
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

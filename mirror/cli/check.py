"""`mirror check`: check whether a mirror will work here, and what to do if not."""

from pathlib import Path

import click
import msgspec

from mirror.check import Check, exit_code, faulty_configuration, run_checks
from mirror.cli.main import configured, json_option, leave, out
from mirror.errors import ConfigError
from mirror.operations import built_in_sandbox


@click.command()
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Check that everything is in place: configuration, credentials, upstreams, disk, file, service.

    Nothing is changed; each upstream is asked a few requests. Exit code 0 if all is well, 2 for the
    configuration, 3 for a credential, 4 for anything else.

    \b
    Examples:
        mirror check
        mirror check --json | jq '.checks[] | select(.ok | not)'
    """
    found = _found(ctx, as_json=as_json)
    code = exit_code(found)
    if as_json:
        told = {"ok": code == 0, "checks": [each.public() for each in found]}
        click.echo(msgspec.json.encode(told))
    leave(code)


def _found(ctx: click.Context, *, as_json: bool) -> list[Check]:
    """Run all checks; without JSON, print each as soon as it is done."""
    found = list[Check]()

    def add(one: Check) -> None:
        found.append(one)
        if not as_json:
            _print(one)

    try:
        config = configured(ctx)
    except ConfigError as error:
        add(faulty_configuration(error))
        return found
    where = ctx.find_root().obj
    with built_in_sandbox(config):
        for one in run_checks(config, where=str(Path(where)) if where else "the built-in sandbox"):
            add(one)
    return found


def _print(one: Check) -> None:
    mark, style = ("ok  ", "green") if one.ok else ("BAD ", "bold red")
    printer = out()
    printer.say((mark, style), (f" {one.name}: ", "bold"), one.detail, wraps=False)
    if one.remedy:
        printer.say(f"      {'advice' if one.ok else 'remedy'}: {one.remedy}", wraps=False)

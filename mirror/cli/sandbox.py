"""`mirror sandbox`: the simulated Bitbucket."""

import click

from mirror.cli.common import announce, number_option
from mirror.config import SANDBOX_PORT
from mirror.errors import ConfigError, MirrorError
from mirror.sandbox import Lively, Sandbox, World, parse_fault, serve
from mirror.sandbox.lively import PER_MINUTE

PATHS = {"1.0": "/1.0", "2.0": "/2.0", "datacenter": "/rest/api/1.0"}


@click.command()
@click.option(
    "--host", metavar="HOST", default="127.0.0.1", show_default=True, help="The address to listen on."
)
@number_option(
    "--port", "The port to listen on; 0: any free one.", most=65535, default=SANDBOX_PORT, metavar="PORT"
)
@number_option("--repositories", "The number of repositories.", default=1_000)
@click.option(
    "--seed", type=int, metavar="N", default=1, show_default=True, help="The same seed makes the same data."
)
@number_option("--workspaces", "The number of owners. Default: one for every 250 repositories.", least=1)
@number_option(
    "--budget", "Answer at most N requests an hour, 60 without a credential. Default: no limit.", least=1
)
@click.option("--lively", is_flag=True, help="Simulate users who push, tag, rename, create and delete.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    default=PER_MINUTE,
    show_default=True,
    help="With --lively: how many edits a minute, on average.",
)
@click.option(
    "--api",
    type=click.Choice(list(PATHS)),
    default="2.0",
    show_default=True,
    help="The API whose address is printed.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="SPEC",
    help="A planned failure, like 503,where=refs,nth=3; see docs/sandbox.md. May be repeated.",
)
def sandbox(
    host: str,
    port: int,
    repositories: int,
    seed: int,
    workspaces: int | None,
    budget: int | None,
    lively: bool,
    rate: float,
    api: str,
    faults: tuple[str, ...],
) -> None:
    """Serve a simulated Bitbucket, to try the mirror without an account.

    \b
    Examples:
        mirror sandbox --repositories 100000
        mirror sandbox --lively --rate 60
        mirror sandbox --budget 1000 --fault 500,where=listing,nth=2
    """
    try:
        planned = [parse_fault(spec) for spec in faults]
    except ValueError as error:
        raise ConfigError(f"--fault: {error}") from None
    try:
        world = World(repositories, seed=seed, workspaces=workspaces)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    simulated = Sandbox(
        world,
        requests_per_hour=budget,
        anonymous_requests_per_hour=budget and min(budget, 60),
        faults=planned,
        lively=Lively(world, per_minute=rate, seed=seed).catch_up if lively else lambda: None,
    )

    def tell_address(origin: str) -> None:
        announce(f"a Bitbucket with {repositories:,} repositories answers on {origin}{PATHS[api]}")
        announce("stop it with Ctrl-C")

    try:
        serve(simulated, host, port, announce=tell_address)
    except OSError as error:
        raise MirrorError(f"{host}:{port} cannot be served: {error.strerror or error}; try --port") from error

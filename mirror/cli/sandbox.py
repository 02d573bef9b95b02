"""`mirror sandbox`: the simulated Bitbucket."""

import click

from mirror.config import SANDBOX_PORT
from mirror.errors import ConfigError, MirrorError
from mirror.sandbox import Sandbox, World, parse_fault, serve

PATHS = {"1.0": "/1.0", "2.0": "/2.0", "datacenter": "/rest/api/1.0"}


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=SANDBOX_PORT, show_default=True)
@click.option("--repositories", type=click.IntRange(min=0), default=1_000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, other data.")
@click.option("--workspaces", type=click.IntRange(min=1), help="Over how many owners to spread them.")
@click.option("--budget", type=click.IntRange(min=1), metavar="N", help="Enforce N requests an hour.")
@click.option("--api", type=click.Choice(list(PATHS)), default="2.0", show_default=True)
@click.option("--fault", "faults", multiple=True, metavar="SPEC", help="503,where=refs,nth=3 for one.")
def sandbox(
    host: str,
    port: int,
    repositories: int,
    seed: int,
    workspaces: int | None,
    budget: int | None,
    api: str,
    faults: tuple[str, ...],
) -> None:
    """Serve a simulated Bitbucket, to try the mirror on without an account.

    \b
    Examples:
        mirror sandbox --repositories 100000
        mirror sandbox --budget 1000 --fault 500,where=listing,nth=2
    """
    try:
        planned = [parse_fault(spec) for spec in faults]
    except ValueError as error:
        raise ConfigError(f"--fault: {error}") from None
    world = World(repositories, seed=seed, workspaces=workspaces)
    simulated = Sandbox(
        world,
        requests_per_hour=budget,
        anonymous_requests_per_hour=budget and min(budget, 60),
        faults=planned,
    )

    def announce(origin: str) -> None:
        click.echo(f"a Bitbucket of {repositories:,} repositories answers on {origin}{PATHS[api]}")
        click.echo("stop it with Ctrl-C")

    try:
        serve(simulated, host, port, announce=announce)
    except OSError as error:
        raise MirrorError(f"{host}:{port} cannot be served: {error.strerror or error}; try --port") from error

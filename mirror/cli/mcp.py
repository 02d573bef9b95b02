"""`mirror mcp`: tools for editors and assistants, over standard input and output."""

import sys
from pathlib import Path

import click

from mirror.cli.common import configured, importing
from mirror.errors import ConfigError
from mirror.queries.visibility import ANONYMOUS, OPERATOR
from mirror.store.files import open_reader


@click.command()
@click.option("--public", is_flag=True, help="Show only what a stranger may see.")
def mcp(public: bool) -> None:
    """Offer read-only tools to an editor or assistant (MCP, over stdio).

    The tools find repositories and refs, show one repository, list what changed, say whether the mirror is
    current, and answer a SELECT. All of them read the file; none sends a request. Needs the extra `mcp`.

    \b
    Examples:
        mirror mcp
        mirror --config /etc/mirror/mirror.toml mcp --public
    """
    try:
        with importing():
            from mirror.mcp.server import build  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if not str(error.name).startswith(("mcp", "pydantic", "anyio")):
            raise
        raise ConfigError(
            "the MCP server needs one more package: pip install 'bitbucket-mirror[mcp]', in a checkout"
            " .venv/bin/pip install -e '.[mcp]'"
        ) from None
    from mirror.mcp.tools import Tools  # noqa: PLC0415 - as above

    path = Path(configured().database)
    open_reader(path).close()  # report a missing file here, not in each answer
    try:
        build(Tools(path, ANONYMOUS if public else OPERATOR)).run()
    except BaseExceptionGroup as failed:  # the SDK's tasks fail together, as when the editor has gone
        sys.unraisablehook = lambda _: None  # Python 3.13 would tell it of the SDK's own stream, too
        raise _first_of(failed) from None


def _first_of(failed: BaseException) -> BaseException:
    """Return the first error inside groups of errors; it decides the exit code."""
    return _first_of(failed.exceptions[0]) if isinstance(failed, BaseExceptionGroup) else failed

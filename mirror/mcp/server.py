"""The server: offers the tools through the official SDK, which nothing else imports."""

from collections.abc import Callable
from functools import wraps

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from mirror import __version__
from mirror.errors import MirrorError
from mirror.mcp.tools import Answer, Tools

INSTRUCTIONS = """\
An offline mirror of Bitbucket: repositories, branches, tags and what changed, by the last sync. as_of in
each answer tells how old it is. Nothing asks Bitbucket, so no request is spent; what is not in the mirror may
exist all the same.
"""

_READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)


def build(tools: Tools) -> MCPServer[None]:
    """Build the server of some tools; `run()` speaks over standard input and output."""
    server: MCPServer[None] = MCPServer(
        "bitbucket-mirror", instructions=INSTRUCTIONS, version=__version__, log_level="ERROR"
    )
    for tool in (
        tools.find_repositories,
        tools.show_repository,
        tools.find_refs,
        tools.changes_since,
        tools.is_current,
        tools.query_sql,
    ):
        server.add_tool(_explaining(tool), annotations=_READ_ONLY)
    return server


def _explaining(tool: Callable[..., Answer]) -> Callable[..., Answer]:
    """Send the messages of our errors to the client; other errors only go to the log."""

    @wraps(tool)
    def answer(*values: object, **named: object) -> Answer:
        try:
            return tool(*values, **named)
        except MirrorError as error:
            raise ToolError(str(error)) from error

    return answer

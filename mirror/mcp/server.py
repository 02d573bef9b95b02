"""The server: offers the tools through the official SDK, which nothing else imports."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, InputRequiredResult, Tool, ToolAnnotations

from mirror import __version__
from mirror.errors import MirrorError
from mirror.mcp.tools import Answer, Tools
from mirror.readable import did_you_mean

INSTRUCTIONS = """\
An offline mirror of Bitbucket: repositories, branches, tags and what changed, by the last sync. as_of in
each answer says how old it is. No tool sends a request to Bitbucket; what is not in the mirror may still
exist.
"""

_READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)


class _Server(MCPServer[None]):
    """Refuses parameters that a tool does not have; the SDK ignores them, and answers another question."""

    async def list_tools(self) -> list[Tool]:
        """List the tools; their schemas allow no other parameters."""
        tools = await super().list_tools()
        for tool in tools:
            tool.input_schema["additionalProperties"] = False
        return tools

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[None, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; raises ToolError."""
        for tool in await self.list_tools():
            known = tool.input_schema["properties"]
            for parameter in arguments if tool.name == name else ():
                if parameter not in known:
                    near = did_you_mean(parameter, known)
                    raise ToolError(
                        f"{name} has no parameter {parameter!r}{near} (it has: {', '.join(known)})"
                    )
        return await super().call_tool(name, arguments, context)


def build(tools: Tools) -> MCPServer[None]:
    """Build the server of some tools; `run()` speaks over standard input and output."""
    # Standard output belongs to the protocol; clients show standard error as a log.
    server = _Server("bitbucket-mirror", instructions=INSTRUCTIONS, version=__version__, log_level="ERROR")
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

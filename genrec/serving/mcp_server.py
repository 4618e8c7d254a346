"""The tools over MCP (Model Context Protocol): an assistant uses a catalogue in two lines of its settings.

In: a `Toolbox`. Out: an MCP server of the official SDK (extra `mcp`). `genrec mcp BUNDLE` runs it over standard input and
output; `genrec serve` answers it over HTTP at /mcp (`genrec/serving/assistants.py`).

    {"mcpServers": {"shop": {"command": "genrec", "args": ["mcp", "runs/shop"]}}}

A wrong call is answered with an error that the assistant's model can read and mend, as the protocol asks.
Protocol: https://modelcontextprotocol.io/specification, 2025-03-26 to 2026-07-28, as the SDK speaks it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from genrec import __version__
from genrec.chat.tools import LANGUAGE, Toolbox
from genrec.errors import GenrecError, MissingDependencyError
from genrec.recommender import Recommender

try:
    import mcp.types as types
    from mcp.server import Server, ServerRequestContext
    from mcp.server.stdio import stdio_server
    from starlette.concurrency import run_in_threadpool
except ModuleNotFoundError as missing:
    raise MissingDependencyError(
        f"Tools over MCP need the extra `mcp` ({missing.name} is missing): pip install 'genrec[mcp]'"
    ) from None

log = logging.getLogger(__name__)

TOGETHER = 32  # calls of tools at once; others wait

ABOUT = (
    "Recommendations from one catalogue. Begin with recommend, go on with refine and the conversation that it gave; explain "
    "and compare say why. Every item returned exists and obeys the rules returned with it. Show titles as they come, name no "
    f"other items, and tell the user what is in not_understood. {LANGUAGE}"
)


def make_server(toolbox_of: Callable[[Any], Toolbox]) -> "Server[Any]":
    """toolbox_of: the tools for a request: the HTTP request that brought it, None over standard input. It runs in a worker
    thread, as the tools do."""

    pool = ThreadPoolExecutor(TOGETHER, "tools")

    async def list_tools(context: "ServerRequestContext[Any]", _: Any) -> types.ListToolsResult:
        tools = await run_in_threadpool(lambda: toolbox_of(context.request).tools())
        hints = types.ToolAnnotations(read_only_hint=True, open_world_hint=False)
        return types.ListToolsResult(
            tools=[
                types.Tool(name=tool.name, description=about, input_schema=tool.arguments, annotations=hints)
                for tool, about in tools
            ]
        )

    async def call_tool(context: "ServerRequestContext[Any]", asked: types.CallToolRequestParams) -> types.CallToolResult:
        # Threads of its own: a tool waits for a search, and that needs one of the server's.
        return await asyncio.get_running_loop().run_in_executor(pool, _called, toolbox_of, context.request, asked)

    return Server("genrec", version=__version__, instructions=ABOUT, on_list_tools=list_tools, on_call_tool=call_tool)


def _called(toolbox_of: Callable[[Any], Toolbox], request: Any, asked: types.CallToolRequestParams) -> types.CallToolResult:
    try:
        answer = toolbox_of(request).call(asked.name, asked.arguments)
    except GenrecError as error:
        return _problem(str(error))
    except Exception:
        log.exception("A tool failed")
        return _problem("Something went wrong here; the server's log says what.")
    return types.CallToolResult(content=[types.TextContent(text=answer.json)], structured_content=answer.data)


def _problem(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


def run(bundle: Path, history: Sequence[str] = ()) -> None:
    """Serve one bundle over standard input and output, until the assistant closes them. history: what its user had."""
    toolbox = Toolbox(Recommender.load(bundle), before=history)
    server = make_server(lambda _: toolbox)

    async def serve() -> None:
        async with stdio_server() as (receiving, sending):
            await server.run(receiving, sending, server.create_initialization_options())

    asyncio.run(serve())

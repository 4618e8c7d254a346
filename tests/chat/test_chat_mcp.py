"""`genrec mcp` with the SDK's own, unmodified client: a process of its own, spoken to over standard input and output."""

import json
import sys
from pathlib import Path

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from genrec.bundle import read_bundle


def test_an_assistant_holds_a_conversation_over_standard_input_and_output(bundle: Path) -> None:
    rows = {row["item_id"]: row for row in read_bundle(bundle).catalogue.table.to_pylist()}
    had = next(iter(rows))

    async def talk() -> None:
        command = StdioServerParameters(
            command=sys.executable, args=["-m", "genrec.cli", "mcp", str(bundle), "--history", had],
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        async with Client(command) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert list(tools) == ["recommend", "refine", "explain", "compare"]
            assert "- price: numbers" in tools["recommend"].description
            assert tools["refine"].input_schema["required"] == ["conversation", "wish"]
            first = (await client.call_tool("recommend", {"wish": "hair care or skin care under $40"})).structured_content
            assert all("care" in rows[item["item_id"]]["category"] for item in first["items"])
            assert all(rows[item["item_id"]]["price"] < 40 for item in first["items"])
            assert had not in {item["item_id"] for item in first["items"]}
            named = {"conversation": first["conversation"]}
            second = await client.call_tool("refine", named | {"wish": "cheaper than the first"})
            assert json.loads(second.content[0].text) == second.structured_content
            most = rows[first["items"][0]["item_id"]]["price"]
            assert second.structured_content["items"]
            assert all(rows[item["item_id"]]["price"] < most for item in second.structured_content["items"])
            why = (await client.call_tool("explain", named | {"item": "#1"})).structured_content
            assert [one["item_id"] for one in why["history"]] == [had]
            both = (await client.call_tool("compare", named | {"items": ["#1", "#2"]})).structured_content
            assert [i["item_id"] for i in both["items"]] == [i["item_id"] for i in second.structured_content["items"][:2]]
            wrong = await client.call_tool("refine", named | {"wsh": "cheaper"})
            assert wrong.is_error
            assert "Did you mean 'wish'" in wrong.content[0].text

    anyio.run(talk)

"""`volantd mcp` on stdin and stdout, driven by the official MCP client for Python.

VOLANT_URL and VOLANT_TOKEN name the daemon; tests/devvm/clients.sh sets them.
"""

import asyncio
import os
import sys
import tempfile

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client


async def main(volantd):
    with tempfile.NamedTemporaryFile("w") as token:
        token.write(os.environ["VOLANT_TOKEN"])
        token.flush()
        for mode in ["auto", "legacy", "2026-07-28"]:
            server = StdioServerParameters(
                command=volantd,
                args=["mcp", "--host", os.environ["VOLANT_URL"], "--token-file", token.name])
            name = "stdio-" + mode.replace("-", "")
            async with Client(stdio_client(server), mode=mode) as mcp:
                tools = (await mcp.list_tools()).tools
                made = await mcp.call_tool("vm_create", {"name": name, "memory_mb": 96, "wait": True})
                assert made.structured_content["status"] == "running", made
                ran = await mcp.call_tool("vm_exec", {"name": name, "command": "echo hi"})
                assert ran.structured_content["stdout"] == "hi\n", ran
                gone = await mcp.call_tool("vm_delete", {"name": name})
                assert not gone.is_error, gone
            print(f"  {mode}: {len(tools)} tools, a VM's life")


asyncio.run(main(sys.argv[1]))

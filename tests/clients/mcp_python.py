"""The official MCP client for Python against a running daemon: every way it can choose a protocol.

VOLANT_URL and VOLANT_TOKEN name the daemon; tests/devvm/clients.sh sets them.
"""

import asyncio
import os
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

URL = os.environ["VOLANT_URL"] + "/mcp"
TOKEN = os.environ["VOLANT_TOKEN"]
TOOLS = {
    "vm_list", "vm_get", "vm_create", "vm_start", "vm_stop", "vm_restart", "vm_delete",
    "vm_exec", "vm_logs", "vm_wait", "events_list", "system_info",
}


def client(mode, token=TOKEN):
    http = httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=300)
    return Client(streamable_http_client(URL, http_client=http), mode=mode)


def data(result):
    assert not result.is_error, result
    assert result.structured_content is not None, result
    return result.structured_content


async def life_of_a_vm(mode):
    name = "py-" + mode.replace("-", "")
    steps = []

    async def progress(done, total, message):
        steps.append((done, message))

    async with client(mode) as mcp:
        tools = {tool.name: tool for tool in (await mcp.list_tools()).tools}
        assert TOOLS <= tools.keys(), TOOLS - tools.keys()
        for tool in tools.values():
            hints = tool.annotations
            given = [hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint,
                     hints.open_world_hint]
            assert None not in given and tool.title and tool.description, tool
            assert tool.output_schema["type"] == "object", tool
        made = data(await mcp.call_tool(
            "vm_create", {"name": name, "memory_mb": 96, "wait": True}, progress_callback=progress))
        assert made["status"] == "running", made
        counts = [done for done, _ in steps]
        assert counts and counts == sorted(set(counts)), steps
        ran = data(await mcp.call_tool(
            "vm_exec", {"name": name, "command": "echo out; echo err >&2; exit 3"}))
        assert (ran["exit_code"], ran["stdout"], ran["stderr"]) == (3, "out\n", "err\n"), ran
        # Far more than a message may hold comes back shortened, and the client survives it.
        large = data(await mcp.call_tool(
            "vm_exec", {"name": name, "command": "head -c 3000000 /dev/zero | tr '\\0' x"}))
        assert "bytes left out" in large["stdout"] and len(large["stdout"]) < 300_000
        log = data(await mcp.call_tool("vm_logs", {"name": name, "source": "console", "tail": 50}))
        assert isinstance(log["text"], str) and log["truncated"] is False, log
        assert data(await mcp.call_tool("vm_wait", {"name": name, "phase": "ready"}))["ready"]
        listed = data(await mcp.call_tool("vm_list", {}))["items"]
        assert name in [vm["name"] for vm in listed], listed
        events = data(await mcp.call_tool("events_list", {"since": 0}))
        assert [e for e in events["items"] if (e["name"], e["type"]) == (name, "VM_RUNNING")], events

        resources = [str(r.uri) for r in (await mcp.list_resources()).resources]
        assert "volant://vms" in resources and f"volant://vms/{name}" in resources, resources
        assert len((await mcp.list_resource_templates()).resource_templates) == 3
        read = await mcp.read_resource(f"volant://vms/{name}/console?tail=5")
        assert read.contents[0].uri, read
        prompts = [p.name for p in (await mcp.list_prompts()).prompts]
        assert "diagnose-vm" in prompts, prompts
        prompt = await mcp.get_prompt("diagnose-vm", {"name": name})
        assert name in prompt.messages[0].content.text, prompt

        # What goes wrong in a tool is its result, with the stable code of REST.
        again = await mcp.call_tool("vm_create", {"name": name})
        assert again.is_error and again.content[0].text.startswith("vm_exists:"), again
        bad = await mcp.call_tool("vm_get", {"name": "no/such"})
        assert bad.is_error and bad.content[0].text.startswith("invalid_name:"), bad
        data(await mcp.call_tool("vm_delete", {"name": name}))
        gone = await mcp.call_tool("vm_get", {"name": name})
        assert gone.is_error and gone.content[0].text.startswith("vm_not_found:"), gone
    print(f"  {mode}: {len(tools)} tools, a VM's life, {len(steps)} steps of progress")


async def cancelling_ends_the_command(mode):
    name = "py-cancel"
    async with client(mode) as mcp:
        data(await mcp.call_tool("vm_create", {"name": name, "memory_mb": 96, "wait": True}))
        call = asyncio.create_task(mcp.call_tool("vm_exec", {"name": name, "command": "sleep 7777"}))
        for _ in range(100):
            seen = data(await mcp.call_tool("vm_exec", {"name": name, "command": "pidof sleep"}))
            if seen["exit_code"] == 0:
                break
        assert seen["exit_code"] == 0, "the command does not run"
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            pass
        for _ in range(100):
            seen = data(await mcp.call_tool("vm_exec", {"name": name, "command": "pidof sleep"}))
            if seen["exit_code"] != 0:
                break
        assert seen["exit_code"] != 0, "the cancelled command still runs"
        data(await mcp.call_tool("vm_delete", {"name": name}))
    print(f"  {mode}: a cancelled call's command is gone from the guest")


MANIFEST = {
    "schema_version": "1", "name": "py-tools", "version": "1.0.0", "initramfs": {"url": "builtin:default"},
    "resources": {"cpu_cores": 1, "memory_mb": 96},
    "workload": {
        "type": "http", "base_url": "http://127.0.0.1:8080",
        "entrypoint": ["/bin/sh", "-c", "mkdir /www; echo from the guest >/www/index.html; exec httpd -f -p 8080 -h /www"],
    },
    "health": {"http": {"path": "/"}, "interval_ms": 1000},
    "actions": {"page": {"description": "The page", "method": "GET", "path": "/"},
                "lost": {"method": "GET", "path": "/nothing"}},
}


async def actions_are_tools(narrow):
    headers = {"authorization": f"Bearer {TOKEN}"}
    rest = httpx2.AsyncClient(base_url=os.environ["VOLANT_URL"], headers=headers, timeout=300)
    made = await rest.post("/api/v1/plugins", json=MANIFEST)
    assert made.status_code == 201, made.text
    async with client("auto") as mcp:
        tools = {tool.name: tool for tool in (await mcp.list_tools()).tools}
        page = tools["py-tools__page"]
        assert page.description == "The page" and page.annotations.destructive_hint, page
        nobody = await mcp.call_tool("py-tools__page", {})
        assert nobody.is_error and nobody.content[0].text.startswith("no_ready_vm:"), nobody
        vm = {"name": "py-acts", "plugin": "py-tools", "wait": True, "until": "ready"}
        data(await mcp.call_tool("vm_create", vm))
        for arguments in [{}, {"vm": "py-acts"}]:
            seen = data(await mcp.call_tool("py-tools__page", arguments))
            assert (seen["vm"], seen["status"], seen["content"]) == ("py-acts", 200, "from the guest\n"), seen
        for wrong in [{"vm": 7}, {"name": "py-acts"}]:
            seen = await mcp.call_tool("py-tools__page", wrong)
            assert seen.is_error and "invalid_arguments" in seen.content[0].text, (wrong, seen)
        assert data(await mcp.call_tool("py-tools__lost", {"payload": {"a": 1}}))["status"] == 404
        data(await mcp.call_tool("vm_delete", {"name": "py-acts"}))
    async with client("auto", narrow) as mcp:
        assert not [tool for tool in (await mcp.list_tools()).tools if "__" in tool.name]
        refused = await mcp.call_tool("py-tools__page", {})
        assert refused.is_error and refused.content[0].text.startswith("insufficient_scope:"), refused
    await rest.post("/api/v1/plugins/py-tools/enabled", json={"enabled": False})
    async with client("auto") as mcp:
        assert not [tool for tool in (await mcp.list_tools()).tools if tool.name.startswith("py-tools__")]
    assert (await rest.delete("/api/v1/plugins/py-tools")).status_code in (200, 204)
    print("  a plugin's actions are tools while it is enabled, and answer from a guest")


async def scopes(narrow):
    async with client("auto", narrow) as mcp:
        tools = [tool.name for tool in (await mcp.list_tools()).tools]
        assert "vm_get" in tools and "vm_create" not in tools, tools
        refused = await mcp.call_tool("vm_create", {"name": "py-refused"})
        assert refused.is_error and refused.content[0].text.startswith("insufficient_scope:"), refused
        assert data(await mcp.call_tool("vm_list", {}))["items"] == []
    for token in ["", "wrong"]:
        try:
            async with client("auto", token) as mcp:
                await mcp.list_tools()
        except Exception:
            continue
        raise AssertionError(f"the token {token!r} was let in")
    print("  a narrow token sees and does what it may; none and a wrong one nothing")


async def main():
    for mode in ["auto", "legacy", "2026-07-28"]:
        await life_of_a_vm(mode)
    for mode in ["2026-07-28", "legacy"]:
        await cancelling_ends_the_command(mode)
    await actions_are_tools(os.environ["VOLANT_TOKEN_READ"])
    await scopes(os.environ["VOLANT_TOKEN_READ"])


sys.exit(asyncio.run(main()))

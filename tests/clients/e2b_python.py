"""E2B's own SDK for Python, as it comes from PyPI, against a running daemon: both of its clients.

E2B_API_KEY, E2B_API_URL and E2B_SANDBOX_URL name the daemon; tests/devvm/clients.sh sets them. VOLANT_TOKEN_READ
is a token that may only look.
"""

import asyncio
import json
import os
import time
import urllib.request

from e2b import (
    AsyncSandbox, AuthenticationException, CommandExitException, FileNotFoundException,
    FilesystemEventType, NotFoundException, Sandbox, SandboxException, SandboxQuery, SandboxState,
    TemplateException, TimeoutException,
)
from e2b.exceptions import SandboxNotRunningException
from e2b.sandbox.commands.command_handle import PtySize

OPTIONS = {"request_timeout": 240}
SMALL = {
    "schema_version": "1", "name": "small", "version": "1.0.0", "initramfs": {"url": "builtin:default"},
    "resources": {"cpu_cores": 1, "memory_mb": 96}, "workload": {"entrypoint": ["sleep", "100000"]},
}


def rest(method, path, document=None):
    url = os.environ["E2B_API_URL"].removesuffix("/e2b") + "/api/v1" + path
    headers = {"authorization": "Bearer " + os.environ["E2B_API_KEY"], "content-type": "application/json"}
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, body, headers, method=method)
    return urllib.request.urlopen(request, timeout=60).status


def until(what, condition, limit=60):
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def raises(kind, call, *args, **options):
    try:
        call(*args, **options)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def commands(sandbox):
    ran = sandbox.commands.run("echo out; echo err >&2; echo $A$B; pwd", envs={"B": "b"})
    assert (ran.stdout, ran.stderr, ran.exit_code) == ("out\nab\n/root\n", "err\n", 0), ran
    failed = raises(CommandExitException, sandbox.commands.run, "echo so; exit 3")
    assert (failed.exit_code, failed.stdout, failed.error) == (3, "so\n", "exit status 3"), failed
    as_user = sandbox.commands.run("id -un; pwd", user="www-data", cwd="/tmp")
    assert as_user.stdout == "www-data\n/tmp\n", as_user
    seen = []
    sandbox.commands.run("for i in 1 2 3; do echo $i; done", on_stdout=seen.append)
    assert "".join(seen) == "1\n2\n3\n", seen
    large = sandbox.commands.run("head -c 1000000 /dev/zero | tr '\\0' x")
    assert large.stdout == "x" * 1_000_000, len(large.stdout)
    raises(TimeoutException, sandbox.commands.run, "sleep 100", timeout=2)
    until("a command outlives its time",
          lambda: not any("sleep 100" in p.args[-1] for p in sandbox.commands.list()))
    raises(SandboxException, sandbox.commands.run, "true", cwd="/nowhere")
    print("  commands: output, exit codes, users, callbacks, a megabyte, deadlines")


def background(sandbox):
    handle = sandbox.commands.run("read a; echo got $a; cat; echo end", background=True, stdin=True,
                                  timeout=0)
    running = [process for process in sandbox.commands.list() if process.pid == handle.pid]
    assert running and running[0].cmd == "/bin/bash", sandbox.commands.list()
    sandbox.commands.send_stdin(handle.pid, "one\n")
    sandbox.commands.stream_input(handle.pid, [b"two\n", "three\n"])
    handle.close_stdin()
    assert handle.wait().stdout == "got one\ntwo\nthree\nend\n"
    # Left alone it lives on, and is found again.
    handle = sandbox.commands.run("read a; echo again $a", background=True, stdin=True, timeout=0)
    handle.disconnect()
    again = sandbox.commands.connect(handle.pid, timeout=0)
    sandbox.commands.send_stdin(handle.pid, "x\n")
    assert again.wait().stdout == "again x\n"
    handle = sandbox.commands.run("sleep 1000", background=True, timeout=0)
    assert sandbox.commands.kill(handle.pid) is True
    killed = raises(CommandExitException, handle.wait)
    assert killed.exit_code == -1 and killed.error == "signal: killed", killed
    assert sandbox.commands.kill(handle.pid) is False
    raises(NotFoundException, sandbox.commands.send_stdin, 999999, "x")
    print("  background: stdin, a stream of it, its end, connect, list, kill")


def terminal(sandbox):
    output = bytearray()
    pty = sandbox.pty.create(PtySize(rows=30, cols=100), timeout=0)
    sandbox.pty.send_stdin(pty.pid, b"stty size; echo $TERM\n")
    events = iter(pty)
    while b"30 100" not in output:
        output.extend(next(events)[2] or b"")
    sandbox.pty.resize(pty.pid, PtySize(rows=40, cols=120))
    sandbox.pty.send_stdin(pty.pid, b"stty size; exit 5\n")
    ended = raises(CommandExitException, pty.wait, on_pty=output.extend)
    assert ended.exit_code == 5, ended
    for expected in [b"30 100", b"40 120", b"xterm-256color"]:
        assert expected in output, output
    pty = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=0)
    assert sandbox.pty.kill(pty.pid) is True
    print("  terminal: size, resize, input, kill")


def files(sandbox):
    written = sandbox.files.write("deep/er/hello.txt", "hällo")
    assert (written.path, written.name) == ("/root/deep/er/hello.txt", "hello.txt"), written
    assert sandbox.files.read("/root/deep/er/hello.txt") == "hällo"
    data = bytes(range(256)) * 4096
    sandbox.files.write("/tmp/data", data)
    assert bytes(sandbox.files.read("/tmp/data", format="bytes")) == data
    assert b"".join(sandbox.files.read("/tmp/data", format="stream")) == data
    sandbox.files.write("/tmp/packed", data, gzip=True)
    assert bytes(sandbox.files.read("/tmp/packed", format="bytes")) == data
    sandbox.files.write_files([{"path": f"/tmp/many/{i}", "data": str(i)} for i in range(3)])
    assert [entry.name for entry in sandbox.files.list("/tmp/many")] == ["0", "1", "2"]
    sandbox.files.write("/tmp/owned", "x", user="www-data")
    info = sandbox.files.get_info("/tmp/owned")
    assert (info.owner, info.size, info.permissions) == ("www-data", 1, "-rw-r--r--"), info
    sandbox.commands.run("ln -s data /tmp/link")
    assert sandbox.files.get_info("/tmp/link").symlink_target == "data"
    assert sandbox.files.make_dir("/tmp/new/folder") is True
    assert sandbox.files.make_dir("/tmp/new/folder") is False
    moved = sandbox.files.rename("/tmp/owned", "/tmp/elsewhere/owned")
    assert moved.path == "/tmp/elsewhere/owned" and not sandbox.files.exists("/tmp/owned")
    assert {entry.name for entry in sandbox.files.list("/tmp/new", depth=2)} == {"folder"}
    sandbox.files.remove("/tmp/many")
    assert not sandbox.files.exists("/tmp/many")
    raises(FileNotFoundException, sandbox.files.read, "/tmp/nothing")
    raises(FileNotFoundException, sandbox.files.list, "/tmp/nothing")
    raises(TemplateException, sandbox.files.write, "/tmp/x", "x", metadata={"a": "b"})
    print("  files: text, bytes, streams, gzip, many at once, users, links, folders, moves")


def watch(sandbox):
    sandbox.files.make_dir("/tmp/watched")
    handle = sandbox.files.watch_dir("/tmp/watched", recursive=True)
    sandbox.files.write("/tmp/watched/sub/one", "1")
    sandbox.files.remove("/tmp/watched/sub/one")
    seen = set()

    def both():
        seen.update((event.name, event.type) for event in handle.get_new_events())
        return {("sub/one", FilesystemEventType.CREATE), ("sub/one", FilesystemEventType.REMOVE)} <= seen

    until("changes are told", both)
    handle.stop()
    raises(NotFoundException, sandbox.files.watch_dir, "/tmp/nothing")
    print("  watch: create and remove, below a folder that came to be")


def control(sandbox):
    info = sandbox.get_info()
    assert info.template_id == "base" and info.state == SandboxState.RUNNING, info
    assert info.metadata == {"who": "python", "with": "a b&c=d"} and info.memory_mb == 256, info
    listed = Sandbox.list(SandboxQuery(metadata={"with": "a b&c=d"}), limit=1)
    assert [one.sandbox_id for one in listed.next_items()] == [sandbox.sandbox_id]
    assert not listed.has_next
    assert Sandbox.list(SandboxQuery(metadata={"who": "nobody"})).next_items() == []
    assert Sandbox.list(SandboxQuery(state=[SandboxState.PAUSED])).next_items() == []
    sandbox.set_timeout(1000)
    left = (sandbox.get_info().end_at - info.started_at).total_seconds()
    assert left >= 1000, left
    [metrics] = sandbox.get_metrics()
    assert metrics.mem_total > metrics.mem_used > 0 and 0 <= metrics.cpu_used_pct <= 100, metrics
    # Other ports: the template's server, by the headers.
    request = urllib.request.Request(os.environ["E2B_SANDBOX_URL"] + "/", headers={
        "e2b-sandbox-id": sandbox.sandbox_id, "e2b-sandbox-port": "8000",
        "x-access-token": sandbox._envd_access_token})
    until("a port of the sandbox answers", lambda: answers(request))
    for call in [sandbox.create_snapshot, sandbox.pause, sandbox.fork]:
        assert "501" in str(raises(SandboxException, call)), call
    # Of a plugin, whose guest has no bash; and one without a network.
    rest("POST", "/plugins", SMALL)
    with Sandbox.create("small", allow_internet_access=False, **OPTIONS) as apart:
        links = apart.commands.run("ls /sys/class/net").stdout.split()
        assert "lo" in links and "eth0" not in links, links
        shell = apart.commands.run("readlink /proc/$$/exe; type bash || echo no bash").stdout
        assert "busybox" in shell and shell.endswith("no bash\n"), shell
    rest("DELETE", "/plugins/small")
    missing = raises(SandboxException, Sandbox.create, "no-such-template")
    assert "404" in str(missing) and "not found" in str(missing), missing
    print("  control: info, lists, timeout, metrics, ports, and errors for what is not offered")


def answers(request):
    try:
        return urllib.request.urlopen(request, timeout=60).status == 200
    except OSError:
        return False


def access(sandbox):
    raises(AuthenticationException, Sandbox.create, api_key="wrong")
    read = os.environ["VOLANT_TOKEN_READ"]
    refused = raises(SandboxException, sandbox.kill, api_key=read)
    assert "403" in str(refused), refused
    assert Sandbox.list(api_key=read).next_items()
    seen = Sandbox.get_info(sandbox.sandbox_id, api_key=read)
    assert seen.sandbox_id == sandbox.sandbox_id
    # A sandbox's token is for that sandbox, and for what is in it.
    for headers in [{"x-access-token": "wrong"}, {}]:
        status = asked("GET", "/files?path=/etc/passwd", sandbox, headers)
        assert status == 401, status
    own = {"x-access-token": sandbox._envd_access_token}
    assert asked("GET", "/files?path=/etc/passwd", sandbox, own) == 200
    assert asked("DELETE", f"/sandboxes/{sandbox.sandbox_id}", sandbox, own) == 401
    print("  access: keys, narrow tokens, a sandbox's own token")


def asked(method, path, sandbox, headers):
    headers = {"e2b-sandbox-id": sandbox.sandbox_id, **headers}
    request = urllib.request.Request(os.environ["E2B_SANDBOX_URL"] + path, headers=headers, method=method)
    try:
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


async def asynchronous():
    sandbox = await AsyncSandbox.create("base", timeout=600, envs={"A": "a"}, **OPTIONS)
    ran = await sandbox.commands.run("echo out; echo err >&2; echo $A")
    assert (ran.stdout, ran.stderr) == ("out\na\n", "err\n"), ran
    handle = await sandbox.commands.run("cat; echo end", background=True, stdin=True, timeout=0)
    await sandbox.commands.send_stdin(handle.pid, "in\n")
    await handle.close_stdin()
    assert (await handle.wait()).stdout == "in\nend\n"
    output = bytearray()
    pty = await sandbox.pty.create(PtySize(rows=30, cols=100), on_data=output.extend, timeout=0)
    await sandbox.pty.send_stdin(pty.pid, b"stty size; exit\n")
    await pty.wait()
    assert b"30 100" in output, output
    events = asyncio.Queue()
    await sandbox.files.make_dir("/tmp/watched")
    watching = await sandbox.files.watch_dir("/tmp/watched", on_event=events.put_nowait)
    await sandbox.files.write("/tmp/watched/a", "1")
    event = await asyncio.wait_for(events.get(), 60)
    assert event.name == "a", event
    await watching.stop()
    assert await sandbox.files.read("/tmp/watched/a") == "1"
    assert await sandbox.files.exists("/tmp/watched/b") is False
    again = await AsyncSandbox.connect(sandbox.sandbox_id, timeout=300)
    assert (await again.commands.run("echo again")).stdout == "again\n"
    # Its machine is stopped and its disk stays; whoever connects starts it again.
    await sandbox.files.write("/root/kept", "kept")
    assert await sandbox.pause(mode="filesystem", **OPTIONS) is True
    paused = AsyncSandbox.list(SandboxQuery(state=[SandboxState.PAUSED]))
    assert [one.sandbox_id for one in await paused.next_items()] == [sandbox.sandbox_id]
    assert await sandbox.is_running() is False
    again = await AsyncSandbox.connect(sandbox.sandbox_id, timeout=300, **OPTIONS)
    assert await again.files.read("/root/kept") == "kept"
    # A time that ends.
    await again.set_timeout(3)
    deadline = time.monotonic() + 120
    while await again.is_running():
        assert time.monotonic() < deadline, "a sandbox outlives its time"
        await asyncio.sleep(0.5)
    try:
        while True:
            await again.get_info()
            assert time.monotonic() < deadline, "a sandbox outlives its time"
            await asyncio.sleep(0.5)
    except NotFoundException:
        pass
    try:
        await again.commands.run("echo late")
        raise AssertionError("a command in a sandbox that is gone")
    except SandboxNotRunningException:
        pass
    print("  asynchronous: commands, stdin, terminal, files, watch, pause, connect, a time that ends")


def main():
    with Sandbox.create("base", timeout=600, metadata={"who": "python", "with": "a b&c=d"},
                        envs={"A": "a"}, **OPTIONS) as sandbox:
        assert sandbox.is_running()
        for part in [commands, background, terminal, files, watch, control, access]:
            part(sandbox)
        assert sandbox.kill() is True
        assert sandbox.is_running() is False and sandbox.kill() is False
        raises(SandboxNotRunningException, sandbox.commands.run, "echo late")
        raises(NotFoundException, sandbox.get_info)
    asyncio.run(asynchronous())
    assert Sandbox.list().next_items() == []


main()

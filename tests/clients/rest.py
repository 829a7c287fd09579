"""Who may call what, and REST's conventions, against a running daemon.

VOLANT_URL, VOLANT_TOKEN and VOLANT_TOKEN_READ name the daemon; tests/devvm/clients.sh sets them.
"""

import concurrent.futures
import http.client
import json
import os
import re
import time
import urllib.parse

URL = urllib.parse.urlsplit(os.environ["VOLANT_URL"])
ROOT, READ = os.environ["VOLANT_TOKEN"], os.environ["VOLANT_TOKEN_READ"]
# Routes that need no token, and what a program without one gets there: only a browser is led to the console.
OPEN = {"/healthz": 200, "/readyz": 200, "/openapi.json": 200, "/openapi": 200, "/docs": 200,
        "/": 404, "/ui": 307, "/ui/": 200, "/ui/{file}": 404}
# Nothing there may be changed by the tests of access: names that no VM, token or plugin has.
NAMES = {"name": "nobody", "port": "1", "path": "x", "id": "1", "run": "none", "plugin": "none",
         "action": "none"}


def send(method, path, token=ROOT, body=None, headers=None):
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=120)
    headers = dict(headers or {})
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    if body is not None:
        body = json.dumps(body)
        headers.setdefault("content-type", "application/json")
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    # A stream without end is not read.
    is_stream = "event-stream" in (answer.headers.get("content-type") or "")
    text = b"" if is_stream else answer.read()
    connection.close()
    return answer.status, answer.headers, text


def send_again(method, path, body, headers):
    """The emulator's forwarded port resets some of many connections at once: what a key is for."""
    for _ in range(10):
        try:
            return send(method, path, body=body, headers=headers)
        except ConnectionError:
            continue
    raise AssertionError("no connection")


def operations():
    document = json.loads(send("GET", "/openapi.json", None)[2])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            filled = re.sub(r"\{(\w+)\}", lambda found: NAMES.get(found[1], "none"), path)
            yield method.upper(), path, filled, operation


def tokens_open_what_they_should():
    made = json.loads(send("POST", "/api/v1/tokens", body={"name": "over", "scope": "admin", "expires_in_seconds": 1})[2])
    gone = json.loads(send("POST", "/api/v1/tokens", body={"name": "gone", "scope": "admin"})[2])
    assert send("GET", "/api/v1/tokens", gone["secret"])[0] == 200
    assert send("DELETE", "/api/v1/tokens/gone")[0] == 204
    deadline = time.monotonic() + 30
    while send("GET", "/api/v1/vms", made["secret"])[0] != 401:
        assert time.monotonic() < deadline, "a token that is over still opens"
    assert gone["secret"] not in json.dumps(json.loads(send("GET", "/api/v1/tokens")[2]))
    count = 0
    for method, path, filled, operation in operations():
        # The conformance suite has no token; the fixtures hold nothing, and no release has them.
        if path == "/mcp-fixtures":
            continue
        if path in OPEN:
            assert send(method, filled, None)[0] == OPEN[path], path
            continue
        for token in [None, "wrong", made["secret"], gone["secret"]]:
            status, headers, _ = send(method, filled, token)
            assert (status, headers["www-authenticate"]) == (401, "Bearer"), (method, path, status)
        scope = operation["x-volant-scope"]
        status, _, text = send(method, filled, READ)
        if scope == "read":
            assert status not in (401, 403), (method, path, status)
        else:
            assert status == 403 and b"insufficient_scope" in text, (method, path, status, text)
        for header in ["host", "origin"]:
            evil = {header: "evil.example" if header == "host" else "http://evil.example"}
            assert send(method, filled, ROOT, headers=evil)[0] == 403, (method, path, header)
        count += 1
    assert json.loads(send("GET", "/api/v1/vms")[2]) == [], "something was done"
    assert send("GET", "/.well-known/oauth-protected-resource/mcp", None)[0] == 404
    print(f"  {count} operations: without, wrong, revoked, over and narrow tokens, evil Host and Origin")


def streams_end_with_their_token():
    for name, life_s in [("revoked", None), ("timed", 5)]:
        body = {"name": name, "scope": "read"}
        if life_s:
            body["expires_in_seconds"] = life_s
        secret = json.loads(send("POST", "/api/v1/tokens", body=body)[2])["secret"]
        connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
        connection.request("GET", "/api/v1/events", headers={"authorization": f"Bearer {secret}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        if life_s is None:
            assert send("DELETE", f"/api/v1/tokens/{name}")[0] == 204
        deadline = time.monotonic() + 120
        try:
            while answer.read1(4096):
                assert time.monotonic() < deadline, f"a stream outlives its token, {name}"
        except (http.client.IncompleteRead, ConnectionError):
            pass
        connection.close()
        send("DELETE", f"/api/v1/tokens/{name}")
    print("  event streams end with their token, revoked and over")


def labels_limit_a_token():
    made = {}
    for team in ["a", "b"]:
        body = {"name": f"team-{team}", "scope": "admin", "labels": {"team": team}}
        made[team] = json.loads(send("POST", "/api/v1/tokens", body=body)[2])["secret"]
    vm = {"memory_mb": 96, "start": False}
    status, _, text = send("POST", "/api/v1/vms", made["a"], {**vm, "name": "of-a"})
    assert (status, json.loads(text)["labels"]) == (201, {"team": "a"}), text
    assert send("POST", "/api/v1/vms", body={**vm, "name": "of-none"})[0] == 201
    refused = [{"labels": {"team": "b"}}, {"expose": [{"guest_port": 80}]}]
    for more in refused:
        status, _, text = send("POST", "/api/v1/vms", made["a"], {**vm, "name": "other", **more})
        assert (status, json.loads(text)["code"]) == (403, "outside_labels"), (more, text)
    seen = {team: [vm["name"] for vm in json.loads(send("GET", "/api/v1/vms", made[team])[2])] for team in "ab"}
    assert seen == {"a": ["of-a"], "b": []}, seen
    count = 0
    for method, path, filled, operation in operations():
        if path in OPEN or path == "/mcp-fixtures" or filled == "/api/v1/vms":
            continue
        for name in ["of-a", "of-none"]:
            status, _, text = send(method, filled.replace("nobody", name), made["b"])
            assert status == 403 and b"outside_labels" in text, (method, path, status, text)
        count += 1
    assert send("GET", "/api/v1/vms/of-a", made["a"])[0] == 200
    assert send("POST", "/api/v1/vms/of-a/access", made["a"])[0] == 200
    for name in ["of-a", "of-none"]:
        assert send("DELETE", f"/api/v1/vms/{name}")[0] == 204
    for team in "ab":
        assert send("DELETE", f"/api/v1/tokens/team-{team}")[0] == 204
    print(f"  {count} operations closed to a token with another label; lists show a token's own VMs")


def changes_are_in_the_audit_log():
    send("DELETE", "/api/v1/vms/nobody", headers={"x-request-id": "look-for-me"})
    entries = json.loads(send("GET", "/api/v1/audit?limit=1000")[2])
    mine = [entry for entry in entries if entry["request_id"] == "look-for-me"]
    assert [(e["operation"], e["status"], e["principal"]) for e in mine] == [("destroyVM", 404, "root token")], mine
    refused = [e for e in entries if e["status"] == 403 and e["principal"] == "token clients-read"]
    assert refused, "a refused change is not in the log"
    assert send("GET", "/api/v1/audit", READ)[0] == 403
    print(f"  audit log: {len(entries)} entries")


def a_key_is_used_once():
    body = {"name": "once", "memory_mb": 96, "start": False}
    key = {"idempotency-key": "rest-py-1"}
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: send_again("POST", "/api/v1/vms", body, key), range(20)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) <= {201, 409} and 201 in statuses, statuses
    codes = {json.loads(text)["code"] for status, _, text in answers if status == 409}
    assert codes <= {"idempotency_running"}, codes
    status, headers, text = send("POST", "/api/v1/vms", body=body, headers=key)
    assert (status, headers["idempotency-replayed"]) == (201, "true"), (status, text)
    assert len(json.loads(send("GET", "/api/v1/vms")[2])) == 1
    assert send("POST", "/api/v1/vms", body={**body, "name": "twice"}, headers=key)[0] == 422
    assert send("POST", "/api/v1/vms", body=body, headers={"idempotency-key": "a b"})[0] == 400
    print(f"  one key sent 20 times at once: {statuses.count(201)} answered, {statuses.count(409)} told to wait, one VM")


def changes_of_a_vm_that_goes_are_told_so():
    assert send("POST", "/api/v1/vms", body={"name": "brief", "memory_mb": 96, "start": False})[0] == 201
    body = {"ttl_ms": 1, "on_expiry": "delete"}
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: send_again("PUT", "/api/v1/vms/brief/ttl", body, {}), range(10)))
    assert {status for status, _, _ in answers} <= {200, 404, 409}, answers
    deadline = time.monotonic() + 30
    while send("GET", "/api/v1/vms/brief")[0] != 404:
        assert time.monotonic() < deadline, "a VM whose time is over is still there"
    print("  a VM whose time ends while it is changed: not found, no fault")


def lists_have_pages_and_resources_revisions():
    for name in ["a1", "a2", "a3", "a4"]:
        assert send("POST", "/api/v1/vms", body={"name": name, "memory_mb": 96, "start": False})[0] == 201
    seen, path = [], "/api/v1/vms?limit=2&sort=name&order=desc"
    while path:
        status, headers, text = send("GET", path)
        assert (status, headers["x-total-count"]) == (200, "5"), (path, status, text)
        seen += [vm["name"] for vm in json.loads(text)]
        link = re.fullmatch(r'<([^>]+)>; rel="next"', headers["link"] or "")
        path = link and link[1]
    assert seen == ["once", "a4", "a3", "a2", "a1"], seen
    assert [vm["name"] for vm in json.loads(send("GET", "/api/v1/vms?q=a3&status=stopped")[2])] == ["a3"]
    assert send("GET", "/api/v1/vms?limit=x")[0] == 400
    _, headers, _ = send("GET", "/api/v1/vms/a1")
    assert send("GET", "/api/v1/vms/a1", headers={"if-none-match": headers["etag"]})[0] == 304
    assert send("GET", "/api/v1/vms/a1", headers={"if-none-match": '"other"'})[0] == 200
    for stale in ['"other"', '"other", "another"', f"W/{headers['etag']}"]:
        status, _, text = send("DELETE", "/api/v1/vms/a1", headers={"if-match": stale})
        assert (status, json.loads(text)["code"]) == (412, "precondition_failed"), (stale, status, text)
    assert send("DELETE", "/api/v1/vms/nobody", headers={"if-match": "*"})[0] == 412
    assert send("POST", "/api/v1/vms/a1/stop", headers={"if-match": headers["etag"]})[0] != 412
    assert send("GET", "/api/v1/vms/a1/wait?phase=stopped")[0] == 200
    assert send("GET", "/api/v1/vms/a1/wait?phase=running&timeout_ms=1")[0] == 504
    for name in ["once", "a1", "a2", "a3", "a4"]:
        assert send("DELETE", f"/api/v1/vms/{name}")[0] == 204
    history = json.loads(send("GET", "/api/v1/events/history?since=0&limit=3")[2])
    assert len(history["items"]) == 3 and history["last_id"] == history["items"][-1]["id"], history
    print("  pages, filters, revisions, waits, events in pages")


tokens_open_what_they_should()
streams_end_with_their_token()
labels_limit_a_token()
changes_are_in_the_audit_log()
a_key_is_used_once()
changes_of_a_vm_that_goes_are_told_so()
lists_have_pages_and_resources_revisions()

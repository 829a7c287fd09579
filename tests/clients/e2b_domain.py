"""E2B's SDK for Python, told nothing but a key and a domain: all it does goes by names below it, with TLS.

Arguments: the daemon's certificate, its domain with the port of the proxy's listener, a token, and the address at
which names are asked for. Every name is this machine's there, as a wildcard record would have it.
"""

import os
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request

from e2b import Sandbox

certificate, domain, token, resolver = sys.argv[1:]
os.environ |= {"SSL_CERT_FILE": certificate, "E2B_DOMAIN": domain, "E2B_API_KEY": token}


def answer_names(server):
    """A name server (RFC 1035, 4.1) that knows one address."""
    while True:
        question, peer = server.recvfrom(512)
        end = question.index(b"\0", 12) + 5
        has_address = question[end - 4:end - 2] == b"\0\1"
        head = question[:2] + b"\x85\x80\0\1\0" + bytes([has_address]) + b"\0\0\0\0"
        address = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton("127.0.0.1")
        server.sendto(head + question[12:end] + (address if has_address else b""), peer)


names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind((resolver, 53))
threading.Thread(target=answer_names, args=(names,), daemon=True).start()


def ask(url, **headers):
    context = ssl.create_default_context(cafile=certificate)
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=60, context=context).read()
    except urllib.error.HTTPError as error:
        return error.code


sandbox = Sandbox.create("small", timeout=600, request_timeout=240)
assert sandbox.sandbox_domain == domain, sandbox.sandbox_domain
assert sandbox.commands.run("echo by a name").stdout == "by a name\n"
sandbox.files.write("/tmp/a/hello", "hello")
assert sandbox.files.read("/tmp/a/hello") == "hello"
signed = sandbox.download_url("/tmp/a/hello")
assert signed.startswith(f"https://49983-{sandbox.sandbox_id}.{domain}/"), signed
assert ask(signed) == b"hello"
assert ask(signed.replace("hello", "other")) == 401

# A server in the sandbox has a name as well, and opens to its token alone.
sandbox.commands.run("httpd -f -p 8000 -h /tmp/a", background=True, timeout=0)
url = f"https://{sandbox.get_host(8000)}/hello"
deadline = time.monotonic() + 60
while (seen := ask(url, **{"E2B-Traffic-Access-Token": sandbox.traffic_access_token})) != b"hello":
    assert time.monotonic() < deadline, seen
    time.sleep(0.2)
assert ask(url) == 401
assert sandbox.kill() is True
assert sandbox.is_running() is False
print("content")

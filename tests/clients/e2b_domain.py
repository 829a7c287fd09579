"""E2B's SDK for Python, told nothing but a key and a domain: all it does goes by names below it, with TLS.

Arguments: the daemon's certificate, its domain with the port of the proxy's listener, a token. The names are this
machine's, as a wildcard record in DNS would have it.
"""

import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request

certificate, domain, token = sys.argv[1:]
os.environ |= {"SSL_CERT_FILE": certificate, "E2B_DOMAIN": domain, "E2B_API_KEY": token}
look_up = socket.getaddrinfo


def below_domain(host, *arguments, **options):
    name = host.decode() if isinstance(host, bytes) else host
    here = name is not None and name.endswith("." + domain.split(":")[0])
    return look_up("127.0.0.1" if here else host, *arguments, **options)


socket.getaddrinfo = below_domain

# The address is looked up by what stands above.
from e2b import Sandbox  # noqa: E402


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

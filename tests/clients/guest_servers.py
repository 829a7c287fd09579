"""Servers in a guest, for the tests of the proxy: gRPC, WebSocket, server-sent events, checksums,
datagrams.

Debian's python3-grpcio and python3-websockets; one process, each server on a port of the loopback.
"""

import asyncio
import hashlib
import http
import http.server
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import grpc
import websockets

GRPC, WEBSOCKET, HTTP, DATAGRAM = 50051, 8765, 8000, 5353
CHUNK = 1 << 18


def unary(request, context):
    asked = dict(context.invocation_metadata()).get("x-asked", "")
    context.set_trailing_metadata((("x-answered", asked),))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    return request[::-1]


def down(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def up(requests, context):
    return str(sum(map(len, requests))).encode()


def both(requests, context):
    for request in requests:
        yield request.upper()


def serve_grpc():
    calls = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", calls),))
    assert server.add_insecure_port(f"127.0.0.1:{GRPC}")
    server.start()
    return server


class Handler(http.server.BaseHTTPRequestHandler):
    """GET /events?seconds=N, GET /bytes?mib=N (a digest ends the body), PUT / (its digest)."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def head(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def do_GET(self):
        target = urlsplit(self.path)
        wanted = {key: int(value[0]) for key, value in parse_qs(target.query).items()}
        if target.path == "/events":
            self.head("text/event-stream")
            end = time.monotonic() + wanted["seconds"]
            while time.monotonic() < end:
                self.chunk(b"data: %.6f\n\n" % time.time())
                time.sleep(0.2)
        else:
            self.head("application/octet-stream")
            block, digest = os.urandom(CHUNK), hashlib.sha256()
            for number in range((wanted["mib"] << 20) // CHUNK):
                block = number.to_bytes(8, "big") + block[8:]
                digest.update(block)
                self.chunk(block)
            self.chunk(digest.digest())
        self.chunk(b"")

    def do_PUT(self):
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            data = self.rfile.read(min(left, CHUNK))
            assert data, "the client went away"
            digest.update(data)
            left -= len(data)
        self.head("text/plain")
        self.chunk(digest.hexdigest().encode())
        self.chunk(b"")


async def browser(path, headers):
    """As a browser tells its WebSocket; it refuses pages of others."""
    if path == "/json/version":
        told = b'{"Browser": "Test/1", "webSocketDebuggerUrl": "ws://localhost/devtools/browser/7"}'
        return http.HTTPStatus.OK, [], told
    if path.startswith("/devtools/") and ("Origin" in headers or headers["Host"] != "localhost"):
        return http.HTTPStatus.FORBIDDEN, [], b""
    return None


def answer_datagrams():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", DATAGRAM))
    while True:
        data, sender = server.recvfrom(2048)
        server.sendto(b"got " + data, sender)


async def echo(client):
    async for message in client:
        await client.send(message)


async def main():
    server = serve_grpc()
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", HTTP), Handler)
    for serve in (pages.serve_forever, answer_datagrams):
        threading.Thread(target=serve, daemon=True).start()
    async with websockets.serve(
        echo, "127.0.0.1", WEBSOCKET, max_size=None, process_request=browser
    ):
        open("/run/serving", "w").close()
        await asyncio.Future()
    del server


asyncio.run(main())

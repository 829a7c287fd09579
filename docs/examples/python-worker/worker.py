"""A worker with two actions: one that takes a document and answers, one that tells how far it is."""

import json
import os
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8080
DOCUMENT_LEN_MAX = 1 << 20
STEP_SECONDS = 0.5


class Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {"status": "ok"})
        elif self.path == "/progress":
            self.progress(int(os.environ.get("STEPS", "5")))
        else:
            self.answer(404, {"error": "there is nothing here"})

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/count":
            return self.answer(404, {"error": "there is nothing here"})
        if not 0 < length <= DOCUMENT_LEN_MAX:
            return self.answer(413, {"error": "a document of at most 1 MiB"})
        try:
            text = json.loads(self.rfile.read(length))["text"]
            counted = {"words": len(text.split()), "letters": len(text)}
        except (ValueError, KeyError, TypeError, AttributeError):
            return self.answer(400, {"error": 'a document like {"text": "..."}'})
        self.answer(200, {"vm": socket.gethostname(), **counted})

    def answer(self, status, document):
        body = json.dumps(document).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if 400 <= status:
            # What is left of the request is not read.
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def progress(self, steps):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for step in range(1, steps + 1):
            if 1 < step:
                time.sleep(STEP_SECONDS)
            data = json.dumps({"step": step, "of": steps})
            self.wfile.write(f"event: progress\ndata: {data}\n\n".encode())
            self.wfile.flush()

    def log_request(self, code="-", size="-"):
        if self.path != "/health":
            print(f"{self.command} {self.path} {code}")


print(f"worker ready on port {PORT}")
ThreadingHTTPServer(("", PORT), Worker).serve_forever()

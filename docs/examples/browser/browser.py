"""Actions of a browser: navigate, screenshot, scrape and evaluate on one page that is kept between them.

Headless Chromium is told what to do over a pipe (--remote-debugging-pipe: documents that end with a zero byte), so
that its port for DevTools is left to whoever opens a session through the daemon. It runs in its own sandbox, which
wants a user who is not root and has one here: with --no-sandbox a page that breaks out of its renderer would own
this program and the rest of the guest.

Both ports are on the loopback: the daemon reaches them by the guest's agent, other guests do not.
"""

import base64
import collections
import fcntl
import json
import math
import os
import queue
import re
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8080
DEVTOOLS_PORT = 9222
CHROMIUM = os.environ.get("CHROMIUM", "/usr/lib/chromium/chromium-headless-shell")
FLAGS = [
    "--remote-debugging-pipe",
    f"--remote-debugging-port={DEVTOOLS_PORT}",
    # One page: what it would open beside it is not opened.
    "--block-new-web-contents",
    "--disable-gpu",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    # It speaks to nobody but the servers of its pages.
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-sync",
    # What a VM adds: a proxy, a language, patience on a slow machine.
    *shlex.split(os.environ.get("CHROMIUM_FLAGS", "")),
]
# Of an action that does not say, and of any.
TIMEOUT_MS = int(os.environ.get("TIMEOUT_MS", "30000"))
TIMEOUT_MS_MAX = 300_000
# How long Chromium may take to answer for the first time, and how soon another one is tried.
START_SECONDS = 300
BACKOFF_SECONDS = (0.2, 5)
HEALTH_SECONDS = 10
# A document that is sent here, and an answer of Chromium's: a large screenshot, in base64.
DOCUMENT_LEN_MAX = 1 << 20
MESSAGE_LEN_MAX = 128 << 20
# What scrape and evaluate answer.
ANSWER_LEN_MAX = 8 << 20
ITEMS_MAX = 10_000
ERROR_LEN_MAX = 10_000
# Pixels: of the window, and of a page that is taken whole.
WINDOW = (1280, 720)
WINDOW_MAX = 4096
PAGE_HEIGHT_MAX = 16_384
# Connections, and actions that wait for their turn.
CONNECTIONS_MAX = 64
ACTIONS_MAX = 16
IDLE_SECONDS = 60

URLS = re.compile(r"https?://[^\s/]\S*|about:blank|data:\S.*", re.IGNORECASE | re.DOTALL)
ABOUT_PAGE = """({
    url: location.href, title: document.title,
    status: performance.getEntriesByType("navigation")[0]?.responseStatus || null
})"""
SCRAPE = """((selector, attribute, limit) => {
    const found = document.querySelectorAll(selector);
    const text = element => attribute === null
        ? (element.innerText ?? element.textContent ?? "").trim() : element.getAttribute(attribute);
    return { url: location.href, count: found.length, items: Array.from(found).slice(0, limit).map(text) };
})"""


class Refused(Exception):
    """What an action answers instead, and whether the page is of no more use."""

    def __init__(self, status, code, text, lost=False):
        super().__init__(text)
        self.status, self.code, self.lost = status, code, lost


class Gone(Exception):
    """Chromium has ended."""


class Deadline:
    """The end of an action's time."""

    def __init__(self, milliseconds):
        self.milliseconds = milliseconds
        self.at = time.monotonic() + milliseconds / 1000

    def left(self):
        return max(0.0, self.at - time.monotonic())

    def passed(self, what, lost=False):
        return Refused(504, "timeout", f"{what} took longer than {self.milliseconds} ms", lost)


class Chromium:
    """One process of Chromium, and the pipes to it."""

    def __init__(self, listener):
        self.listener = listener
        self.ended = threading.Event()
        self.waiting = {}
        self.lock = threading.Lock()
        self.number = 0
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        # It reads from 3 and writes to 4: what is moved there must not lie there.
        theirs_in, ours_out = (above(end) for end in os.pipe())
        ours_in, theirs_out = (above(end) for end in os.pipe())
        size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
        argv = [CHROMIUM, *FLAGS, f"--user-data-dir={self.profile}", size]
        moves = [(os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)]
        environment = {**os.environ, "HOME": self.profile}
        self.pid = os.posix_spawn(CHROMIUM, argv, environment, file_actions=moves, setpgroup=0)
        os.close(theirs_in)
        os.close(theirs_out)
        self.out = os.fdopen(ours_out, "wb", buffering=0)
        self.reader = threading.Thread(target=self.read, args=(ours_in,), daemon=True)
        self.reader.start()

    def read(self, pipe):
        """Until it ends."""
        try:
            self.read_all(pipe)
        except Gone:
            pass
        finally:
            os.close(pipe)
            self.kill()
            with self.lock:
                self.ended.set()
                for answer in self.waiting.values():
                    answer.put(None)

    def read_all(self, pipe):
        """Answers go to who waits for them, events to the listener."""
        pending = bytearray()
        while part := os.read(pipe, 1 << 20):
            pending += part
            # The rest of a long message is not looked through again and again.
            if 0 not in part:
                if MESSAGE_LEN_MAX < len(pending):
                    break
                continue
            *whole, rest = pending.split(b"\0")
            pending = bytearray(rest)
            for text in whole:
                message = json.loads(text)
                if "id" in message:
                    if answer := self.waiting.get(message["id"]):
                        answer.put(message)
                else:
                    self.listener(self, message.get("sessionId"), message["method"], message["params"])

    def send(self, method, params, session=None, answer=None):
        """Sends a call; its answer goes into the queue, if there is one."""
        with self.lock:
            if self.ended.is_set():
                raise Gone()
            self.number += 1
            message = {"id": self.number, "method": method, "params": params}
            if session:
                message["sessionId"] = session
            if answer:
                self.waiting[self.number] = answer
            try:
                write_all(self.out, json.dumps(message).encode() + b"\0")
            except OSError as error:
                raise Gone() from error
            return self.number

    def call(self, method, params, deadline, session=None):
        """What Chromium answers to a call."""
        answer = queue.SimpleQueue()
        number = self.send(method, params, session, answer)
        try:
            message = answer.get(timeout=deadline.left())
        except queue.Empty:
            raise deadline.passed(method, lost=True) from None
        finally:
            with self.lock:
                del self.waiting[number]
        if message is None:
            raise Gone()
        if error := message.get("error"):
            raise Refused(502, "browser_error", f"{method}: {error.get('message')}", lost=True)
        return message["result"]

    def kill(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def remove(self):
        """Ends it, and takes away what it leaves."""
        self.kill()
        self.reader.join()
        os.waitpid(self.pid, 0)
        self.out.close()
        shutil.rmtree(self.profile, ignore_errors=True)


def above(end):
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return moved


def write_all(pipe, data):
    left = memoryview(data)
    while left:
        left = left[pipe.write(left) :]


def thrown(told):
    """What an expression came to, unless it threw."""
    if details := told.get("exceptionDetails"):
        exception = details.get("exception", {})
        text = exception.get("description") or exception.get("value") or details.get("text")
        raise Refused(422, "exception", str(text).split("\n    at ")[0][:ERROR_LEN_MAX])
    return told


class Page:
    """The page, as a target of Chromium that a session is attached to."""

    def __init__(self, chromium, deadline):
        self.chromium = chromium
        self.changed = threading.Condition()
        self.gone = False
        # Steps of its main frame since the last order to navigate: (name, document).
        self.steps = collections.deque(maxlen=1000)
        self.session = None
        self.target = chromium.call("Target.createTarget", {"url": "about:blank"}, deadline)["targetId"]
        attach = {"targetId": self.target, "flatten": True}
        self.session = chromium.call("Target.attachToTarget", attach, deadline)["sessionId"]

    def prepare(self, deadline):
        self.call("Page.enable", {}, deadline)
        self.call("Inspector.enable", {}, deadline)
        self.call("Page.setLifecycleEventsEnabled", {"enabled": True}, deadline)

    def call(self, method, params, deadline):
        return self.chromium.call(method, params, deadline, self.session)

    def event(self, method, params):
        """On the reader's thread."""
        with self.changed:
            if method == "Page.lifecycleEvent" and params["frameId"] == self.target:
                self.steps.append((params["name"], params["loaderId"]))
            elif method == "Inspector.targetCrashed":
                self.gone = True
            self.changed.notify_all()
        if method == "Page.javascriptDialogOpening":
            # Nobody is there to answer; the page would stand still, or not be left.
            accept = {"accept": params["type"] == "beforeunload"}
            self.chromium.send("Page.handleJavaScriptDialog", accept, self.session)

    def navigate(self, url, deadline):
        with self.changed:
            self.steps.clear()
        told = self.call("Page.navigate", {"url": url}, deadline)
        if error := told.get("errorText"):
            raise Refused(502, "navigation_failed", error)
        # Without a document of its own it went to another place of the same one.
        document = told.get("loaderId")
        with self.changed:
            done = self.changed.wait_for(
                lambda: self.gone or self.chromium.ended.is_set() or self.loaded(document), deadline.left()
            )
        if self.gone:
            raise Refused(502, "page_crashed", "the page has crashed", lost=True)
        if self.chromium.ended.is_set():
            raise Gone()
        if not done:
            raise deadline.passed("loading the page")

    def loaded(self, document):
        """Whether this document is there, or the one that it has been replaced by."""
        begun = False
        for name, of in self.steps:
            begun = begun or of == document
            if begun and name == "load":
                return True
        return document is None

    def isolated(self, expression, deadline):
        """The value of our own expression, where the page's scripts have changed nothing."""
        world = {"frameId": self.target, "worldName": "volant"}
        context = self.call("Page.createIsolatedWorld", world, deadline)["executionContextId"]
        params = {"expression": expression, "contextId": context, "returnByValue": True}
        return thrown(self.call("Runtime.evaluate", params, deadline))["result"].get("value")

    def evaluate(self, expression, deadline):
        """The value of a client's expression, and its type; of a promise, what it comes to."""
        group = {"objectGroup": "action"}
        # As in DevTools' own console: `let` may say again what it has said, and `await` stands anywhere.
        params = {"expression": expression, "replMode": True, "awaitPromise": True, **group}
        # It is ended before the answer is given up.
        params["timeout"] = max(1, math.floor(deadline.left() * 900))
        awaiting = False
        try:
            result = thrown(self.call("Runtime.evaluate", params, deadline))["result"]
            awaiting = result.get("subtype") == "promise"
            if awaiting:
                params = {"promiseObjectId": result["objectId"], "returnByValue": True}
                result = thrown(self.call("Runtime.awaitPromise", params, deadline))["result"]
            elif "objectId" in result:
                kind = result.get("subtype", result["type"])
                params = {"functionDeclaration": "function() { return this }", "objectId": result["objectId"]}
                params["returnByValue"] = True
                result = {**thrown(self.call("Runtime.callFunctionOn", params, deadline))["result"], "type": kind}
            self.call("Runtime.releaseObjectGroup", group, deadline)
        except Refused as refused:
            if "reference chain is too long" in str(refused):
                raise Refused(422, "not_a_value", "the value is no JSON") from None
            # What Chromium says of a script that it has ended; the page is as it was.
            ended = "Internal error" in str(refused) or "terminated" in str(refused)
            if ended or refused.code == "timeout":
                raise deadline.passed("the expression", lost=not ended and not awaiting) from None
            raise
        return result.get("value", result.get("unserializableValue")), result.get("subtype", result["type"])

    def screenshot(self, options, deadline):
        width, height = options["width"], options["height"]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size, deadline)
        params = {"format": "png"}
        if options["full_page"]:
            content = self.call("Page.getLayoutMetrics", {}, deadline)["cssContentSize"]
            width = min(max(width, math.ceil(content["width"])), WINDOW_MAX)
            height = min(max(height, math.ceil(content["height"])), PAGE_HEIGHT_MAX)
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            params |= {"captureBeyondViewport": True, "clip": clip}
        return base64.b64decode(self.call("Page.captureScreenshot", params, deadline)["data"])


class Browser:
    """Keeps a Chromium running, and one page in it; one action at a time has the page."""

    def __init__(self):
        self.running = threading.Condition()
        self.chromium = None
        self.version = None
        self.page = None
        self.turn = threading.Lock()
        self.places = threading.BoundedSemaphore(ACTIONS_MAX)

    def supervise(self):
        """Starts another Chromium when one has ended. Does not return."""
        backoff = BACKOFF_SECONDS[0]
        while True:
            chromium = Chromium(self.event)
            try:
                deadline = Deadline(START_SECONDS * 1000)
                version = chromium.call("Browser.getVersion", {}, deadline)["product"]
                chromium.call("Browser.setDownloadBehavior", {"behavior": "deny"}, deadline)
                with self.running:
                    self.chromium, self.version = chromium, version
                    self.running.notify_all()
                print(f"{version} runs", flush=True)
                backoff = BACKOFF_SECONDS[0]
                # Sessions of DevTools find the page, and the first action does not wait for it.
                with self.turn:
                    self.current_page(deadline)
                chromium.ended.wait()
            except (Gone, Refused) as error:
                print(f"Chromium does not answer: {error}", flush=True)
            with self.running:
                self.chromium = None
            chromium.remove()
            print(f"Chromium has ended; another one in {backoff} s", flush=True)
            time.sleep(backoff)
            backoff = min(2 * backoff, BACKOFF_SECONDS[1])

    def event(self, chromium, session, method, params):
        page = self.page
        if not page or page.chromium is not chromium:
            return
        if session and session == page.session:
            page.event(method, params)
        elif method == "Target.detachedFromTarget" and params["sessionId"] == page.session:
            # Somebody has closed it, by a session of DevTools perhaps.
            with page.changed:
                page.gone = True
                page.changed.notify_all()

    def health(self):
        """Its version, if it answers now."""
        with self.running:
            chromium = self.chromium
        if not chromium:
            raise Refused(503, "starting", "Chromium does not run yet")
        chromium.call("Browser.getVersion", {}, Deadline(HEALTH_SECONDS * 1000))
        return {"status": "ok", "browser": self.version}

    def act(self, action, options):
        """One action, when it is its turn."""
        deadline = Deadline(options["timeout_ms"])
        if not self.places.acquire(blocking=False):
            raise Refused(503, "busy", f"{ACTIONS_MAX} actions wait already")
        try:
            if not self.turn.acquire(timeout=deadline.left()):
                raise deadline.passed("waiting for the actions before")
            try:
                return self.act_now(action, options, deadline)
            finally:
                self.turn.release()
        finally:
            self.places.release()

    def act_now(self, action, options, deadline):
        try:
            page = self.current_page(deadline)
            if url := options.get("url"):
                page.navigate(url, deadline)
            return action(page, options, deadline)
        except Gone:
            raise Refused(502, "browser_ended", "Chromium has ended, and is started again") from None
        except Refused as refused:
            if refused.lost:
                self.drop()
            raise

    def current_page(self, deadline):
        with self.running:
            if not self.running.wait_for(lambda: self.chromium, deadline.left()):
                raise deadline.passed("the start of Chromium")
            chromium = self.chromium
        if self.page and (self.page.chromium is not chromium or self.page.gone):
            self.drop()
        if not self.page:
            page = Page(chromium, deadline)
            self.page = page
            page.prepare(deadline)
        return self.page

    def drop(self):
        """Closes the page; the next action gets another one."""
        page, self.page = self.page, None
        if page:
            try:
                page.chromium.send("Target.closeTarget", {"targetId": page.target})
            except Gone:
                pass


def navigate(page, _, deadline):
    return page.isolated(ABOUT_PAGE, deadline)


def screenshot(page, options, deadline):
    return page.screenshot(options, deadline)


def scrape(page, options, deadline):
    arguments = [options["selector"], options["attribute"], options["limit"]]
    try:
        return page.isolated(f"{SCRAPE}(...{json.dumps(arguments)})", deadline)
    except Refused as refused:
        if refused.code == "exception" and "SyntaxError" in str(refused):
            text = f"{options['selector']!r} is no selector"
            raise Refused(422, "invalid_selector", text[:ERROR_LEN_MAX]) from None
        raise


def evaluate(page, options, deadline):
    value, kind = page.evaluate(options["expression"], deadline)
    return {"value": value, "type": kind}


def text(length_max, needed=False):
    def check(value):
        return isinstance(value, str) and 0 < len(value) <= length_max

    return (None, needed, check, f"text of 1 to {length_max} characters")


def whole(default, least, most):
    def check(value):
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return (default, False, check, f"a whole number from {least} to {most}")


def address(needed=False):
    def check(value):
        return isinstance(value, str) and URLS.fullmatch(value)

    return (None, needed, check, "an address that begins with http:// or https://, about:blank, or a data: URL")


TIMEOUT = whole(TIMEOUT_MS, 1, TIMEOUT_MS_MAX)
FLAG = (False, False, lambda value: isinstance(value, bool), "true or false")
# What each action takes: default, whether it must be there, whether a value is one, what it is.
ACTIONS = {
    "/navigate": (navigate, {"url": address(needed=True), "timeout_ms": TIMEOUT}),
    "/screenshot": (
        screenshot,
        {
            "url": address(),
            "full_page": FLAG,
            "width": whole(WINDOW[0], 1, WINDOW_MAX),
            "height": whole(WINDOW[1], 1, WINDOW_MAX),
            "timeout_ms": TIMEOUT,
        },
    ),
    "/scrape": (
        scrape,
        {
            "url": address(),
            "selector": text(10_000, needed=True),
            "attribute": text(1_000),
            "limit": whole(1_000, 1, ITEMS_MAX),
            "timeout_ms": TIMEOUT,
        },
    ),
    "/evaluate": (
        evaluate,
        {"url": address(), "expression": text(DOCUMENT_LEN_MAX, needed=True), "timeout_ms": TIMEOUT},
    ),
}


def options_of(document, fields):
    """The document with its defaults; nothing else is in it."""
    if not isinstance(document, dict):
        raise Refused(400, "invalid_document", "the document is no JSON object")
    for name in document:
        if name not in fields:
            raise Refused(400, "invalid_document", f"{name[:100]!r} is none of {', '.join(fields)}")
    options = {}
    for name, (default, needed, check, meaning) in fields.items():
        # Null is the same as left out.
        value = document.get(name)
        if value is None:
            if needed:
                raise Refused(400, f"invalid_{name}", f"{name} is missing: {meaning}")
            options[name] = default
        elif check(value):
            options[name] = value
        else:
            raise Refused(400, f"invalid_{name}", f"{name} is not {meaning}")
    return options


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_GET(self):
        if self.path == "/health":
            self.tell(BROWSER.health)
        else:
            self.tell(lambda: refuse(404, "not_found", "there is nothing here"))

    def do_POST(self):
        self.tell(self.act)

    def act(self):
        # The loopback is the browser's pages', too. From another origin they cannot set the header that the
        # daemon always sets; with a name of their own for the loopback they can, but then they come by that name.
        if self.headers.get("Host") != "localhost" or "X-Forwarded-Proto" not in self.headers:
            refuse(403, "forbidden", "actions are called through the daemon")
        path = self.path.split("?")[0]
        if path not in ACTIONS:
            refuse(404, "not_found", f"the actions are {', '.join(ACTIONS)}")
        body = self.body()
        try:
            document = json.loads(body) if body.strip() else {}
        except (ValueError, RecursionError):
            refuse(400, "invalid_document", "the document is no JSON")
        action, fields = ACTIONS[path]
        return BROWSER.act(action, options_of(document, fields))

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self.chunks())
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal() or DOCUMENT_LEN_MAX < int(length):
            refuse(413, "too_large", f"the document has more than {DOCUMENT_LEN_MAX} bytes")
        return self.rfile.read(int(length))

    def chunks(self):
        total = 0
        while True:
            try:
                length = int(self.rfile.readline(100).split(b";")[0], 16)
            except ValueError:
                refuse(400, "invalid_document", "a chunk without a length")
            total += length
            if length < 0 or DOCUMENT_LEN_MAX < total:
                refuse(413, "too_large", f"the document has more than {DOCUMENT_LEN_MAX} bytes")
            yield self.rfile.read(length)
            if not self.rfile.readline(100).strip() and length == 0:
                return

    def tell(self, what):
        try:
            status, told = 200, what()
        except Gone:
            status, told = 503, {"error": "Chromium has ended", "code": "browser_ended"}
        except Refused as refused:
            status, told = refused.status, {"error": str(refused), "code": refused.code}
        kind = "image/png"
        if not isinstance(told, bytes):
            kind = "application/json"
            told = json.dumps(told).encode() + b"\n"
            if ANSWER_LEN_MAX < len(told):
                status = 422
                told = b'{"error": "the answer has more than 8 MiB", "code": "answer_too_large"}\n'
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(told)))
        if 400 <= status:
            # What is left of the request is not read.
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(told)

    def log_request(self, code="-", size="-"):
        if self.path != "/health":
            print(f"{self.command} {self.path} {int(code)}", flush=True)


def refuse(status, code, text):
    raise Refused(status, code, text)


class Server(ThreadingHTTPServer):
    """With a bound on its threads."""

    connections = threading.BoundedSemaphore(CONNECTIONS_MAX)

    def process_request(self, request, client_address):
        # The next one waits in the kernel's queue until one ends.
        self.connections.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request, client_address):
        # A client that has gone away, or says nothing, is no error of this program.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


BROWSER = Browser()


def main():
    # Chromium ends with the pipe to it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    threading.Thread(target=BROWSER.supervise, daemon=True).start()
    print(f"actions on port {PORT}, DevTools on port {DEVTOOLS_PORT}", flush=True)
    Server(("127.0.0.1", PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()

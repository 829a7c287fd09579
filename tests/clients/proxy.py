"""Real clients through the proxy to real servers in a guest (guest_servers.py).

    proxy.py grpc HOST:PORT AUTHORITY TOKEN
    proxy.py websocket URL TOKEN
    proxy.py devtools URL TOKEN
    proxy.py events URL TOKEN SECONDS
    proxy.py transfer URL TOKEN MIB
"""

import hashlib
import os
import queue
import sys
import time

import grpc
import requests
import websocket

EVENT_LATE_MAX_S = 0.1
STRICT_FROM_S = 120
CHUNK = 1 << 18


def check_grpc(target, authority, token):
    options = [("grpc.default_authority", authority)]
    own = (("volant-token", token),)
    with grpc.insecure_channel(target, options) as channel:
        path = "/test.Echo/"
        unary, down = channel.unary_unary(path + "Unary"), channel.unary_stream(path + "Down")
        up, both = channel.stream_unary(path + "Up"), channel.stream_stream(path + "Both")
        answer, call = unary.with_call(b"abc", metadata=own + (("x-asked", "trailer"),), timeout=60)
        assert answer == b"cba", answer
        assert dict(call.trailing_metadata())["x-answered"] == "trailer"
        large = os.urandom(2 << 20)
        assert unary(large, metadata=own, timeout=60) == large[::-1]
        try:
            unary(b"fail", metadata=own, timeout=60)
            raise AssertionError("an error was lost")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
            assert error.details() == "as asked", error
        seen = [int(message) for message in down(b"1000", metadata=own, timeout=120)]
        assert seen == list(range(1000))
        sent = (b"x" * 1000 for _ in range(1000))
        assert up(sent, metadata=own, timeout=120) == b"1000000"
        # Each message waits for the answer to the one before it: nothing may be held back.
        waiting = queue.Queue()
        answers = both(iter(waiting.get, None), metadata=own, timeout=120)
        for number in range(100):
            waiting.put(b"n%d" % number)
            assert next(answers) == b"N%d" % number
        waiting.put(None)
        assert not list(answers)
        try:
            unary(b"abc", timeout=60)
            raise AssertionError("nobody was asked for the token")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error


def check_websocket(url, token):
    socket = websocket.create_connection(
        url, header=[f"Authorization: Bearer {token}"], timeout=120
    )
    for number in range(1000):
        if number % 2:
            socket.send(f"message {number}")
            assert socket.recv() == f"message {number}"
        else:
            socket.send_binary(number.to_bytes(4, "big"))
            assert socket.recv() == number.to_bytes(4, "big")
    large = os.urandom(16 << 20)
    socket.send_binary(large)
    assert socket.recv() == large, "16 MiB came back changed"
    socket.ping("still there")
    socket.close()


def check_devtools(url, token):
    # With the Origin that a page's script would send.
    socket = websocket.create_connection(url, header=[f"Authorization: Bearer {token}"], timeout=60)
    socket.send('{"id": 1, "method": "Browser.getVersion"}')
    assert socket.recv() == '{"id": 1, "method": "Browser.getVersion"}'
    socket.close()


def check_events(url, token, seconds):
    late, last = [], b""
    with requests.get(
        f"{url}/events?seconds={seconds}",
        headers={"Authorization": f"Bearer {token}"},
        stream=True,
        timeout=60,
    ) as answer:
        assert answer.status_code == 200, answer.text
        for piece in answer.iter_content(None):
            now, last = time.time(), last + piece
            *events, last = last.split(b"\n\n")
            late += [now - float(event.removeprefix(b"data: ")) for event in events]
    # The clocks of host and guest are apart by something that stays the same.
    late = sorted(value - min(late) for value in late)
    median, worst = late[len(late) // 2], late[-1]
    print(f"{len(late)} events in {seconds} s, late by {median:.4f} s in the middle, {worst:.4f} at worst")
    assert seconds * 3 < len(late), "the stream was cut"
    # Each of them in the long run; in the short one, which shares its machine, a pause may cost a few.
    counted = late if STRICT_FROM_S <= seconds else late[: len(late) * 95 // 100 + 1]
    assert counted[-1] < EVENT_LATE_MAX_S, late[-20:]


def check_transfer(url, token, mib):
    headers = {"Authorization": f"Bearer {token}"}
    began, digest, end = time.monotonic(), hashlib.sha256(), b""
    with requests.get(f"{url}/bytes?mib={mib}", headers=headers, stream=True, timeout=120) as answer:
        assert answer.status_code == 200, answer.text
        count = 0
        for piece in answer.iter_content(CHUNK):
            count += len(piece)
            end += piece
            digest.update(end[:-32])
            end = end[-32:]
    assert count == (mib << 20) + 32, count
    assert digest.digest() == end, "what came down has another checksum"
    took = time.monotonic() - began
    print(f"{mib} MiB down in {took:.1f} s")

    began, digest, block = time.monotonic(), hashlib.sha256(), os.urandom(CHUNK)

    class Body:
        """Made as it is sent."""

        left = (mib << 20) // CHUNK

        def __len__(self):
            return mib << 20

        def read(self, _):
            nonlocal block
            if not self.left:
                return b""
            self.left -= 1
            block = self.left.to_bytes(8, "big") + block[8:]
            digest.update(block)
            return block

    # The answer begins after the body's end, and that may be long after the request's head.
    answer = requests.put(url + "/", data=Body(), headers=headers, timeout=3600)
    assert answer.status_code == 200, answer.text
    assert answer.text == digest.hexdigest(), "what went up has another checksum"
    print(f"{mib} MiB up in {time.monotonic() - began:.1f} s")


what, *arguments = sys.argv[1:]
checks = {
    "grpc": check_grpc,
    "websocket": check_websocket,
    "devtools": check_devtools,
    "events": lambda url, token, seconds: check_events(url, token, int(seconds)),
    "transfer": lambda url, token, mib: check_transfer(url, token, int(mib)),
}
checks[what](*arguments)

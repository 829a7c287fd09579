"""The terminal interface, driven as a person would: keys into a real terminal, words on its screen.

VOLANT_URL and VOLANT_TOKEN name a daemon with guests; tests/devvm/clients.sh sets them. It is reached over a relay that
is cut for a while. The pictures of the screen go where VOLANT_PICTURES says.

    tui.py VOLANTD
"""

import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time

import pexpect
import pyte
from PIL import Image, ImageDraw, ImageFont

WAIT_S = 180
FONTS = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono"
PALETTE = {"default": "#d8dee9", "red": "#bf616a", "green": "#a3be8c", "brown": "#ebcb8b", "blue": "#81a1c1",
           "magenta": "#b48ead", "cyan": "#88c0d0", "black": "#3b4252", "white": "#e5e9f0"}
GROUND = "#1c2128"
MANIFEST = os.path.abspath("docs/examples/http-appliance/manifest.yaml")


class Relay:
    """Bytes between the interface and the daemon, until it is cut."""

    def __init__(self, host, port):
        self.there = (host, port)
        self.pairs = []
        self.listener = None
        self.address = None
        self.open()

    def open(self):
        self.listener = socket.create_server(self.address or ("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self.accept, args=[self.listener], daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self.there)
            except OSError:
                return
            self.pairs += [near, far]
            for one, other in [(near, far), (far, near)]:
                threading.Thread(target=self.copy, args=[one, other], daemon=True).start()

    @staticmethod
    def copy(one, other):
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for end in self.pairs:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()
        self.pairs = []


class Terminal:
    def __init__(self, command, columns=80, rows=24, **environment):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        # What a terminal answers when it is asked.
        self.screen.write_process_input = lambda data: self.child.send(data)
        self.all = b""
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TERM": "xterm-256color", **environment}
        self.child = pexpect.spawn(command[0], command[1:], dimensions=(rows, columns), env=environment, timeout=1)

    def read(self):
        try:
            data = self.child.read_nonblocking(1 << 16, timeout=0.2)
            self.all += data
            # pyte has one screen only, and takes no private parameters for these.
            data = data.replace(b"\x1b[?1049l", b"\x1b[2J\x1b[H")
            self.stream.feed(re.sub(rb"\x1b\[[<>?=][0-9;]*[um]", b"", data))
            return True
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def until(self, condition, what):
        deadline = time.monotonic() + WAIT_S
        while not condition(self.text()):
            assert self.read(), f"it ended before {what}:\n{self.text()}"
            assert time.monotonic() < deadline, f"not seen in time: {what}\n{self.text()}"
        return self.text()

    def sees(self, *words):
        return self.until(lambda text: all(word in text for word in words), words)

    def sees_not(self, *words):
        return self.until(lambda text: not any(word in text for word in words), f"no {words}")

    def sees_row(self, *words):
        """All of the words in one line."""
        def found(text):
            return any(all(word in line for word in words) for line in text.splitlines())
        return self.until(found, words)

    def types(self, keys):
        self.child.send(keys)

    def resize(self, columns, rows):
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def click(self, word):
        row, line = next((row, line) for row, line in enumerate(self.screen.display) if word in line)
        at = f"{line.index(word) + 1};{row + 1}"
        self.types(f"\x1b[<0;{at}M\x1b[<0;{at}m")

    def ends(self):
        while self.read():
            pass
        self.child.close()
        return self.child.exitstatus

    def colors(self):
        rows = self.screen.buffer.values()
        return {cell.fg for row in rows for cell in row.values()} - {"default"}


def picture(screen, path):
    size = 15
    plain, bold = (ImageFont.truetype(f"{FONTS}{style}.ttf", size) for style in ["", "-Bold"])
    width, height, edge = round(plain.getlength("M")), 19, 12
    image = Image.new("RGB", (screen.columns * width + 2 * edge, screen.lines * height + 2 * edge), GROUND)
    draw = ImageDraw.Draw(image)
    for row in range(screen.lines):
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            ink, ground = PALETTE.get(cell.fg, "#d8dee9"), GROUND
            if cell.reverse:
                ink, ground = ground, ink
            at = (edge + column * width, edge + row * height)
            draw.rectangle([at, (at[0] + width - 1, at[1] + height - 1)], fill=ground)
            draw.text(at, cell.data, fill=ink, font=bold if cell.bold else plain)
    image.save(path, optimize=True)


def lifecycle(terminal):
    print("  create, load, detail")
    terminal.types(":vms create tui-one --memory 128 --label made-by=terminal\r")
    terminal.sees("> vms create tui-one", "Output")
    terminal.sees_row("tui-one", "running")
    terminal.sees_row("tui-one", "%", "/128M")
    # The whole terminal for the pane, and back.
    terminal.types("d\tz")
    terminal.sees("boots from", "initramfs", "02:", "latest start")
    terminal.types("z\t")
    terminal.sees_row("tui-one", "running")
    print("  console, and its log")
    terminal.types("c")
    terminal.sees("attached to tui-one")
    terminal.types("\recho tui-$((40 + 2))\r")
    terminal.sees("tui-42")
    terminal.types("\x1d")
    terminal.sees("connected", "tui-one")
    terminal.types("l")
    terminal.sees("tui-42")
    print("  a shell, and a command")
    terminal.types("x")
    # Not the prompt in the log, but the shell's own: what is typed before may still be the interface's.
    terminal.until(lambda text: "connected" not in text and "/ #" in text, "the shell's prompt")
    terminal.types("echo shell-$((1 + 1))\r")
    terminal.sees("shell-2")
    terminal.types("exit\r")
    terminal.sees("connected", "tui-one")
    terminal.types("X")
    terminal.sees(":vms exec tui-one --")
    terminal.types("uname -s\r")
    terminal.sees("> vms exec tui-one -- uname -s", "Linux")
    print("  events, AG-UI, stop and start")
    terminal.types("e")
    terminal.types("S")
    terminal.sees_row("tui-one", "stopped")
    terminal.sees("VM_STOPPED")
    terminal.types("a")
    terminal.sees("STATE_SNAPSHOT")
    terminal.types("s")
    terminal.sees_row("tui-one", "running")
    terminal.sees("STATE_DELTA", "VM_RUNNING")


def lists(terminal):
    print("  plugins, images, volumes")
    terminal.types(f":plugins install --manifest {MANIFEST}\r")
    terminal.sees("> plugins install", "http-appliance")
    terminal.types("2")
    terminal.sees_row("http-appliance", "1.0.0", "yes", "page")
    terminal.types("\r")
    terminal.sees("description: The page")
    # The end of it, with the keys of the pane.
    terminal.types("G")
    terminal.sees("exec httpd")
    terminal.types("\tE")
    terminal.sees_row("http-appliance", "no")
    terminal.types("D")
    terminal.sees("Remove the plugin http-appliance?")
    terminal.types("y")
    terminal.sees("No plugins yet")
    terminal.types("3")
    terminal.sees("REFERENCE", "Images")
    terminal.types(":volumes create tui-data --size 64\r")
    terminal.types("4")
    terminal.types("d")
    # In the table too, not in the command's output alone.
    terminal.sees("64 MiB", "1 Volumes")
    terminal.types("D")
    terminal.sees("Remove the volume")
    terminal.types("n")
    terminal.sees("not done")
    terminal.types("Dy")
    terminal.sees("No volumes yet")


def manners(terminal):
    print("  completion, history, wrong commands, filter, help, mouse")
    terminal.types("1:vms sto\ttui\t")
    terminal.sees(":vms stop tui-")
    terminal.types("\x1b:\x1b[A")
    terminal.sees(":volumes create tui-data --size 64")
    terminal.types("\x15vms nosuch\r")
    terminal.sees("unrecognized subcommand")
    terminal.types("/two\r")
    terminal.sees("filter: two", "tui-two")
    terminal.sees_not("tui-one  ")
    terminal.types("\x1b")
    terminal.sees("tui-one", "tui-two")
    terminal.types("?")
    terminal.sees("any key goes on", "its serial console")
    terminal.types(" ")
    terminal.sees_not("any key goes on")
    terminal.types("d")
    terminal.click("tui-two")
    terminal.sees_row("name", "tui-two")
    terminal.click("tui-one")
    terminal.sees_row("name", "tui-one")
    terminal.click("2 Plugins")
    terminal.sees("0 Plugins")
    terminal.types("1")


def main(volantd):
    host, port = os.environ["VOLANT_URL"].removeprefix("http://").split(":")
    pictures = os.environ.get("VOLANT_PICTURES")
    relay = Relay(host, int(port))
    with tempfile.TemporaryDirectory() as folder:
        token = f"{folder}/token"
        with open(token, "w") as file:
            file.write(os.environ["VOLANT_TOKEN"])
        command = [volantd, "ctl", "--host", f"http://127.0.0.1:{relay.address[1]}", "--token-file", token]
        terminal = Terminal(command)
        terminal.sees("● connected", "VMs")
        lifecycle(terminal)
        terminal.types(":vms create tui-two --no-start --memory 128\r")
        terminal.sees_row("tui-two", "stopped")
        lists(terminal)
        manners(terminal)
        print("  resize")
        terminal.resize(120, 32)
        terminal.types("d")
        terminal.sees_row("NAME", "STATUS", "RUNS", "name")
        terminal.sees_row("tui-one", "running", "%")
        if pictures:
            terminal.sees("▁")
            # The rest of the frame.
            for _ in range(5):
                terminal.read()
            picture(terminal.screen, f"{pictures}/tui.png")
        terminal.resize(30, 8)
        terminal.sees("at least 40 x 10")
        terminal.resize(80, 24)
        terminal.sees("● connected", "tui-one")
        print("  a connection that is lost")
        relay.cut()
        terminal.sees("◌ reconnecting", "no daemon answers")
        terminal.types("j")
        relay.open()
        terminal.sees("● connected", "connected again")
        print("  delete, quit")
        for name in ["tui-one", "tui-two"]:
            terminal.click(f"{name}  ")
            terminal.types("D")
            terminal.sees(f"Remove the VM {name}?")
            terminal.types("y")
            terminal.until(lambda text, name=name: f"│{name}" not in text, f"{name} is gone")
        assert terminal.colors(), "colors are missing"
        terminal.types("q")
        assert terminal.ends() == 0
        assert b"\x1b[?1049l" in terminal.all and b"\x1b[?1000l" in terminal.all, "the terminal is not as it was"
        print("  without colors, and ended from outside")
        terminal = Terminal(command, NO_COLOR="1")
        terminal.sees("● connected")
        assert not terminal.colors(), terminal.colors()
        terminal.child.kill(signal.SIGTERM)
        assert terminal.ends() == 0
        assert terminal.all.rstrip().endswith(b"\x1b[?25h"), terminal.all[-60:]


main(sys.argv[1])

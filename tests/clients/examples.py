"""Runs the examples of ctl's help, one after another, as they are written.

VOLANT_URL and VOLANT_TOKEN name a daemon with guests; tests/devvm/clients.sh sets them.

    examples.py VOLANTD
"""

import os
import re
import subprocess
import sys
import tempfile

# Those go on until they are ended, or need a terminal, and are ended here; tui.py has the terminal.
ENDLESS = {"ctl tui", "ctl vms console", "ctl vms files watch", "ctl events", "ctl port-forward", "ctl vms attach"}
# Those need what is not here: a registry, an archive of an image, an image to build over.
ELSEWHERE = {"ctl images pull", "ctl images import", "ctl images inspect", "ctl images rm", "ctl build"}
# A process that was killed; an operation that has ended; a daemon without a listener of the proxy.
ANYWAY = {"ctl vms wait": [0, 137], "ctl operations cancel": [0, 4], "ctl vms url": [0, 4]}


def examples():
    source = open("src/cli/examples.rs").read().split("#[cfg(test)]")[0]
    for command, lines in re.findall(r'\(\s*"(ctl [^"]*)",\s*&\[(.*?)\],?\s*\)', source, re.S):
        for line in re.findall(r'"((?:[^"\\]|\\.)*)"', lines):
            yield command, line.replace('\\"', '"')


def main(volantd):
    seen = 0
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/token", "w") as token:
            token.write(os.environ["VOLANT_TOKEN"])
        # Files that examples write go there, those that they read are the tree's.
        for name in ["docs", "README.md"]:
            os.symlink(os.path.abspath(name), f"{folder}/{name}")
        os.mkdir(f"{folder}/bin")
        os.symlink(os.path.abspath(volantd), f"{folder}/bin/volantd")
        environment = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "VOLANT_HOST": os.environ["VOLANT_URL"],
                       "VOLANT_TOKEN_FILE": f"{folder}/token", "XDG_CONFIG_HOME": folder}
        for command, line in examples():
            if command in ELSEWHERE:
                continue
            shown = f"timeout 3 {line}" if command in ENDLESS else f"timeout 300 {line}"
            if "context" in command:
                environment = {**environment, "VOLANT_HOST": ""}
            ran = subprocess.run(shown, shell=True, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                 capture_output=True, text=True, check=False)
            environment["VOLANT_HOST"] = os.environ["VOLANT_URL"]
            allowed = [0, 2, 124] if command in ENDLESS else ANYWAY.get(command, [0])
            assert ran.returncode in allowed, f"{line}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
            seen += 1
    assert seen > 60, f"only {seen} examples were found"
    print(f"  {seen} examples")


main(sys.argv[1])

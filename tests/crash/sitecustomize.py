"""Ends a process just before one of its acts, for the tests of what a killed command leaves behind.

On Python's path as `sitecustomize` it is armed from the environment; a test that forks arms it by itself. The product
knows nothing of it. An act is what changes something outside of the process: in a folder's files, by another program,
or in the engine.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import Any

FILE_ACTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown"}
REQUEST = re.compile(rb"(POST|DELETE|PUT) (?:/v[0-9.]+)?(\S+)")
MARK = re.compile(r"\b[0-9a-f]{64}\b|\.[0-9a-f]{8}\.part")  # what differs from run to run


def act(event: str, arguments: tuple[Any, ...], folder: str) -> str:
    """Describe an act, the same way in each run; empty for what changes nothing."""
    match event:
        case "open":
            path, _, flags = arguments
            if isinstance(path, str) and path.startswith(folder) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return f"open {path.removeprefix(folder)}"
        case "subprocess.Popen":
            return "start " + " ".join(str(part) for part in arguments[1][1:3])
        case "http.client.send":
            found = REQUEST.match(arguments[1]) if isinstance(arguments[1], bytes) else None
            return f"ask {found[1].decode()} {found[2].decode()}" if found else ""
        case _ if event in FILE_ACTS:
            path = arguments[0]
            if isinstance(path, int) or str(path).startswith(folder):
                return f"{event} {str(path).removeprefix(folder)}"
    return ""


def arm(number: int, folder: str, log: str = "") -> None:
    """Kill this process before its act of this number, counted from one; 0 for never. `log` gets each act's name."""
    done = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        name = act(event, arguments, folder)
        if not name:
            return
        done += 1
        if log:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, (MARK.sub("*", name) + "\n").encode())
            os.close(descriptor)
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if "CRASH_FOLDER" in os.environ:
    arm(int(os.environ.get("CRASH_AT", "0")), os.environ["CRASH_FOLDER"], os.environ.get("CRASH_LOG", ""))

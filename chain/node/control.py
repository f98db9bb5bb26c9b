"""What `docker exec` runs to ask the resident runtime, of the entry or of an exit.

In the entry it has the capability to read secrets that the resident runtime gave up.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.contract import RUN_DIR, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

CONTROL_SOCKET = Path(RUN_DIR, "control.sock")
REPLY_SECONDS = 60.0  # 10,000 clients on a slow machine
WATCH_INTERVAL = 0.2  # seconds between two looks of one watcher, which costs no new process
FOLLOW_INTERVAL = 0.5  # likewise of one who follows events, perhaps for months
WATCH_HEARTBEAT = 2.0  # seconds after which an unchanged answer is printed again, so that the reader can keep time


def call(verb: str, **fields: object) -> int:
    """Ask the resident runtime; print its answer as one line of JSON. 0 when it is no error."""
    question: dict[str, object] = {"verb": verb, **fields}
    further: tuple[bytes, ...] = ()
    if verb == "apply":
        from chain.node.entry import clients_line, load_state

        state = load_state()
        question["state"] = json.loads(to_json(replace(state, clients=())))
        further = (clients_line(state),)
    answer = ask(question, *further)
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


def watch(seconds: float) -> int:
    """Print the status whenever an exit or a group changes, for a bounded time: one process instead of many."""

    def look() -> tuple[object, dict[str, Any]]:
        answer = ask({"verb": "status", "need": True})  # a cold exit dials for who wants to see it
        said = [[item[key] for key in ("name", "state", "cause", "warning")] for item in answer.get("exits", ())]
        return (said, answer.get("groups")), answer

    return _print_news(seconds, WATCH_INTERVAL, look)


def follow(seconds: float) -> int:
    """Print the events that are remembered, and then those that happen, for a bounded time; several in a line."""
    since = 0

    def look() -> tuple[object, dict[str, Any]]:
        nonlocal since
        answer = ask({"verb": "events", "since": since})
        since = max([since, *(event["number"] for event in answer.get("events", ()))])
        return (since, answer.get("error")), answer

    return _print_news(seconds, FOLLOW_INTERVAL, look)


def _print_news(seconds: float, interval: float, look: Callable[[], tuple[object, dict[str, Any]]]) -> int:
    """Look again and again; print the second of what is seen when the first has changed, and now and then.

    It ends with its standard input: the engine keeps its output open when the reader has gone, and each takes 12 MB.
    """
    end, printed, shown = time.monotonic() + seconds, 0.0, None
    while time.monotonic() < end:
        gist, answer = look()
        if gist != shown or time.monotonic() - printed > WATCH_HEARTBEAT:
            shown, printed = gist, time.monotonic()
            try:
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
            except BrokenPipeError:
                return 0
        if select.select([sys.stdin], [], [], interval)[0]:
            return 0
    return 0


def ask(question: dict[str, object], *further: bytes) -> dict[str, Any]:
    """Ask the resident runtime, in one line or with further ones; give its answer, or an object with an `error`."""
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(REPLY_SECONDS)
            channel.connect(str(CONTROL_SOCKET))
            channel.sendall(b"\n".join([json.dumps(question).encode(), *further, b""]))
            with channel.makefile("rb") as stream:
                line = stream.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the runtime hung up"}
    except (OSError, ValueError) as error:
        return {"error": f"the runtime does not answer: {error}"}
    return answer

"""`chain-node`: `run` is the container's main program; the others are called by `docker exec`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chain.contract import CONFIG_DIR, RUN_DIR, STATE_FILE
from chain.errors import ChainError
from chain.node import lock
from chain.node.run import CommandError, nft
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Coroutine

USAGE = """\
usage: chain-node run | apply | status | watch SECONDS | events SINCE | follow SECONDS | switch GROUP [EXIT]
       | drain EXIT | undrain EXIT | measure | check-kernel NAME… | look-at-host"""


def main() -> int:
    match sys.argv[1:]:
        case ["run"]:
            code = _run()
        case ["apply" | "status" as verb]:
            from chain.node import control

            code = control.call(verb)
        case ["switch", group, *exits] if len(exits) <= 1:
            from chain.node import control

            code = control.call("switch", group=group, exit=exits[0] if exits else None)
        case ["drain" | "undrain" as verb, name]:
            from chain.node import control

            code = control.call(verb, exit=name)
        case ["events", since]:
            from chain.node import control

            code = control.call("events", since=int(since))
        case ["watch" | "follow" as verb, seconds]:
            from chain.node import control

            code = (control.watch if verb == "watch" else control.follow)(float(seconds))
        case ["measure"]:
            from chain.node import measure

            code = measure.report()
        case ["check-kernel", *names]:
            from chain.node import kernel

            code = kernel.report(names)
        case ["look-at-host"]:
            from chain.node import host

            code = host.report()
        case _:
            sys.stderr.write(USAGE + "\n")
            code = 2
    return code


def _run() -> int:
    try:
        nft(lock.closed())  # the first act, before anything else is known
    except (CommandError, OSError, subprocess.SubprocessError) as error:
        log("node", f"ends, since the lock can't be loaded: {error}")
        return 1
    try:
        Path(RUN_DIR).mkdir(mode=0o755, exist_ok=True)
        if Path(CONFIG_DIR, STATE_FILE).exists():
            from chain.node.entry import Entry

            main_task = Entry().run()
        else:
            from chain.node import exit as exit_role

            main_task = exit_role.Exit(exit_role.load()).run()
        return asyncio.run(_until_told(main_task))
    except (ChainError, CommandError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        log("node", f"stays locked and ends: {error}")
        return 1


async def _until_told(work: Coroutine[None, None, None]) -> int:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run daemons: their output becomes the container's log, a death is an event with a cause, never a silence."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
LAST_WORDS = 0.2  # seconds from a process's end to that of its output


def log(source: str, text: str) -> None:
    """Write one line to the container's log, flushed, since PID 1 may be killed at any time."""
    sys.stderr.write(f"{source}: {text}\n")
    sys.stderr.flush()


class Daemon:
    """One long-running program. `on_line` sees each line of its output and keeps it from the log by returning True.

    `before` runs in the new process before the program does.
    """

    def __init__(
        self,
        name: str,
        *command: str,
        on_line: Callable[[str], bool] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._on_line = on_line
        self._before = before
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self.ended = asyncio.Event()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        # A pipe of our own: asyncio's would not let a process count as ended while a grandchild holds its other end.
        output, given = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=given,
                stderr=asyncio.subprocess.STDOUT,
                preexec_fn=self._before,  # this process has one thread, so a fork is safe
            )
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(given)
        self.ended.clear()  # not before: a program that could not be started has not begun again
        reading = asyncio.create_task(self._read(output))
        self._tasks = (reading, asyncio.create_task(self._watch(self._process, reading)))

    async def _read(self, output: int) -> None:
        stream = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(output, "rb")
        )
        try:
            while True:
                try:
                    raw = await stream.readline()
                except ValueError:  # a line beyond all measure, which the reader has dropped
                    continue
                if not raw:
                    break
                line = raw.decode(errors="replace").rstrip()
                if line and not (self._on_line and self._on_line(line)):
                    log(self.name, line)
        finally:
            transport.close()

    async def _watch(self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
        code = await process.wait()
        # Its last words come first. Those of a grandchild that keeps the pipe open are not worth waiting for.
        await asyncio.wait({reading}, timeout=LAST_WORDS)
        log(self.name, f"ended with {code}")
        self.ended.set()

    async def stop(self) -> None:
        """End it, first kindly; returns when it is gone."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            for attempt in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(attempt)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), STOP_GRACE)
                    break
        await self.ended.wait()
        for task in self._tasks:
            task.cancel()

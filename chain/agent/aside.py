"""Work that takes long, done by a copy of this process, so that no exit waits for a judgement meanwhile.

A thread would not do: it and the judge would take turns at every look at a socket, five milliseconds each. And what
the copy needs of memory goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
from typing import TYPE_CHECKING, NoReturn

from chain.contract import LINE_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

_DIE_WITH_PARENT = 1  # linux/prctl.h
_NICE = 10
_GIVEN, _END, _FAILED = b"=", b".", b"!"


class WorkError(RuntimeError):
    """Work failed; its own words."""


async def lines(work: Callable[[], Iterable[bytes]]) -> AsyncGenerator[bytes]:
    """Give what `work` gives, each without a line's end. Raises WorkError. Ended early, the work is too."""
    reading, writing = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        raise WorkError(f"no process is left for it: {error.strerror}") from None
    if not pid:
        _be_the_copy(parent, writing, work)
    os.close(writing)
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    transport = None
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
        )
        while (line := await reader.readline())[:1] == _GIVEN:
            yield line[1:-1]
        if line[:1] != _END:
            raise WorkError(line[1:].decode().strip() or "it was ended")
    finally:
        if transport is not None:
            transport.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it is dead, or dies at once


async def line(work: Callable[[], bytes | None]) -> bytes:
    """Give the one line that `work` gives, if it gives any. Raises WorkError."""
    (found,) = [each async for each in lines(lambda: (work() or b"",))]
    return found


def _be_the_copy(parent: int, writing: int, work: Callable[[], Iterable[bytes]]) -> NoReturn:
    """Do the work and end, without a word to what it shares with the parent."""
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.nice(_NICE)
        gc.disable()  # it would touch, and so copy, all that is shared
        with os.fdopen(writing, "wb") as output:
            try:
                for each in work():
                    output.write(_GIVEN + each + b"\n")
            except Exception as error:  # noqa: BLE001 - whoever waits gets every error
                output.write(_FAILED + f"{type(error).__name__}: {error}".replace("\n", " ").encode() + b"\n")
            else:
                output.write(_END + b"\n")
    finally:
        os._exit(0)

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chain.agent import aside

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

LARGE = b"x" * 5_000_000


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def all_of(work: Callable[[], Iterator[bytes]]) -> list[bytes]:
    return [each async for each in aside.lines(work)]


def test_lines_of_any_length_come_back_in_order() -> None:
    assert run(all_of(lambda: iter((b"one", b"", LARGE, b"!")))) == [b"one", b"", LARGE, b"!"]
    assert run(aside.line(lambda: b"one")) == b"one"


def test_what_is_done_there_changes_nothing_here() -> None:
    here: list[int] = []

    def work() -> bytes:
        here.append(os.getpid())
        return str(os.getpid()).encode()

    assert int(run(aside.line(work))) != os.getpid()
    assert not here


def test_failures_are_told_and_so_is_an_early_end() -> None:
    def fails() -> Iterator[bytes]:
        yield b"one"
        raise ValueError("what is wrong\nand why")

    def is_killed() -> Iterator[bytes]:
        yield b"one"
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(aside.WorkError, match="ValueError: what is wrong and why"):
        run(all_of(fails))
    with pytest.raises(aside.WorkError, match="ended"):
        run(all_of(is_killed))


def test_work_that_nobody_waits_for_ends(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def goes_on() -> Iterator[bytes]:
        yield str(os.getpid()).encode() + b"x" * 100_000  # more than a buffer holds, so that it leaves at once
        signal.pause()

    async def scene() -> None:
        async with aclosing(aside.lines(goes_on)) as lines:
            pid.write_bytes((await anext(lines)).rstrip(b"x"))

    run(scene())
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_the_loop_goes_on_meanwhile() -> None:
    def takes_long() -> bytes:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        return b""

    async def scene() -> int:
        turns, working = 0, asyncio.create_task(aside.line(takes_long))
        while not working.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert run(scene()) > 100

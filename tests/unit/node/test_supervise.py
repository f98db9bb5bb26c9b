from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from chain.node import supervise
from chain.node.supervise import Daemon

if TYPE_CHECKING:
    import pytest

SECONDS = 20


def flag(event: asyncio.Event) -> bool:
    event.set()
    return True


def test_lines_go_to_the_log_unless_they_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    def on_line(line: str) -> bool:
        seen.append(line)
        return line.startswith("secret")

    async def scene() -> None:
        daemon = Daemon("talker", "sh", "-c", "echo one; echo secret two >&2; echo; exit 3", on_line=on_line)
        await daemon.start()
        await daemon.ended.wait()
        assert not daemon.running

    asyncio.run(asyncio.wait_for(scene(), SECONDS))
    assert sorted(seen) == ["one", "secret two"]
    assert capsys.readouterr().err == "talker: one\ntalker: ended with 3\n"


def test_a_daemon_is_ended_kindly() -> None:
    code = "import signal,sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready', flush=True)"
    asyncio.run(asyncio.wait_for(_stopped(code + "; signal.pause()"), SECONDS))


def test_a_daemon_that_does_not_listen_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "STOP_GRACE", 0.1)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)"
    asyncio.run(asyncio.wait_for(_stopped(code + "\nwhile True: signal.pause()"), SECONDS))


async def _stopped(code: str) -> None:
    ready = asyncio.Event()
    daemon = Daemon("daemon", sys.executable, "-c", code, on_line=lambda _: flag(ready))
    await daemon.start()
    await ready.wait()
    assert daemon.running
    await daemon.stop()
    assert not daemon.running
    assert daemon.ended.is_set()
    await daemon.stop()  # again, to no effect


def test_a_grandchild_that_keeps_the_output_open_does_not_hold_up_the_end() -> None:
    async def scene() -> float:
        ready = asyncio.Event()
        daemon = Daemon("parent", "sh", "-c", "sleep 15 & echo ready; wait", on_line=lambda _: flag(ready))
        await daemon.start()
        await ready.wait()
        started = time.monotonic()
        await daemon.stop()
        return time.monotonic() - started

    assert asyncio.run(asyncio.wait_for(scene(), SECONDS)) < supervise.STOP_GRACE


def test_a_death_is_known_at_once_though_a_grandchild_keeps_the_output_open() -> None:
    async def scene() -> None:
        daemon = Daemon("parent", "sh", "-c", "sleep 15 & echo $!; exit 1")
        await daemon.start()
        async with asyncio.timeout(supervise.LAST_WORDS + 5):
            await daemon.ended.wait()
        assert not daemon.running
        await daemon.stop()

    asyncio.run(scene())


def test_a_line_beyond_all_measure_is_dropped_and_the_next_one_is_read() -> None:
    seen: list[str] = []

    def on_line(line: str) -> bool:
        seen.append(line)
        return True

    async def scene() -> None:
        code = "import sys; sys.stdout.write('x' * 1_000_000 + chr(10) + 'after' + chr(10))"
        daemon = Daemon("talker", sys.executable, "-c", code, on_line=on_line)
        await daemon.start()
        await daemon.ended.wait()

    asyncio.run(asyncio.wait_for(scene(), SECONDS))
    assert seen[-1] == "after"


def test_it_can_be_stopped_before_it_was_started() -> None:
    asyncio.run(Daemon("never", "true").stop())

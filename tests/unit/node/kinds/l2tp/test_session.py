"""The daemons are shell scripts here; real ones need a kernel with PPP and L2TP."""

from __future__ import annotations

import asyncio
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from chain.node.kinds.base import DialError, Tunnel
from chain.node.kinds.l2tp import session
from chain.node.kinds.l2tp.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Play = Callable[[str, Callable[[Session], Awaitable[Any]]], Any]

SECONDS = 20


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Give a session whose xl2tpd is a shell script; $EVENTS is the FIFO."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("EVENTS", str(tmp_path / session.FIFO))
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setattr(session, "_pids", lambda _: [])  # this machine's own are not to be ended

    def run(script: str, use: Callable[[Session], Awaitable[Any]]) -> Any:
        (programs / "xl2tpd").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "xl2tpd").chmod(0o755)

        async def scene() -> Any:
            made = Session(tmp_path, "ppp0", 7)
            try:
                async with asyncio.timeout(SECONDS):
                    return await use(made)
            finally:
                await made.end(farewell=True)
                await made.end(farewell=True)  # again, to no effect

        return asyncio.run(scene())

    return run


async def dial(made: Session) -> Tunnel:
    return await made.dial("192.0.2.7", "user u\npassword secret\n")


UP = "echo 'up ppp0 10.0.0.9 10.0.0.1 7' >$EVENTS"


def test_it_is_up_when_the_address_is_there(play: Play, tmp_path: Path) -> None:
    script = f"stat -c %a $FOLDER/ppp.options; {UP}; exec sleep 60"
    assert play(script, dial) == Tunnel("10.0.0.9", "10.0.0.1")
    assert "lns = 192.0.2.7" in (tmp_path / "xl2tpd.conf").read_text()


def test_the_password_is_private_while_it_is_needed_and_gone_afterwards(
    play: Play, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play(f"stat -c mode-%a $FOLDER/ppp.options; {UP}; exec sleep 60", dial)
    assert "mode-600" in capsys.readouterr().err
    assert not (tmp_path / "ppp.options").exists()


def test_an_earlier_dials_last_words_count_no_more(play: Play) -> None:
    script = f"echo 'down ppp0 10.0.0.8 10.0.0.1 6' >$EVENTS; echo 'up ppp0 10.0.0.8 10.0.0.1 6' >$EVENTS; {UP}"
    assert play(script + "; exec sleep 60", dial).address == "10.0.0.9"


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (
            "echo 'CHAP authentication failed'; echo 'xl2tpd[5]: pppd exited for call 3 with code 19'; sleep 60",
            "password",
        ),
        ("echo 'xl2tpd[5]: Maximum retries exceeded for tunnel 3.  Closing.'; sleep 60", "does not answer over L2TP"),
        ("exit 1", "does not answer over L2TP"),
    ],
)
def test_a_dial_that_fails_says_why_at_once(play: Play, script: str, cause: str) -> None:
    async def use(made: Session) -> float:
        started = time.monotonic()
        with pytest.raises(DialError, match=cause):
            await dial(made)
        return time.monotonic() - started

    assert play(script, use) < 5


def test_a_server_that_falls_silent_is_given_up(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_DIAL_SECONDS", 0.5)

    async def use(made: Session) -> None:
        with pytest.raises(DialError, match="does not answer over PPP"):
            await dial(made)

    play("echo 'xl2tpd[5]: Call established with 192.0.2.7'; exec sleep 60", use)


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("echo 'No response to 4 echo-requests'; echo 'down ppp0 10.0.0.9 10.0.0.1 7' >$EVENTS; sleep 60", "over PPP"),
        ("echo 'down ppp0 10.0.0.9 10.0.0.1 7' >$EVENTS; echo 'LCP terminated by peer'; sleep 60", "ended the PPP"),
        ("echo 'xl2tpd[5]: Connection closed to 192.0.2.7, serial 1 (gone)'; sleep 60", "L2TP call \\(gone\\)"),
        ("exit 1", "xl2tpd died"),
    ],
)
def test_a_loss_is_known_with_its_cause(play: Play, script: str, cause: str) -> None:
    async def use(made: Session) -> str:
        await dial(made)
        return (await made.lost()).cause

    assert re.search(cause, play(f"{UP}; {script}", use))


def test_what_both_say_goes_to_the_log_under_their_names(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (
        "xl2tpd[5]: Calling on tunnel 3",
        'xl2tpd[5]: "file"',
        "xl2tpd[5]: Written by Mark Spencer",
        "Connect: ppp0",
    )
    talk = "".join(f"echo '{line}'; " for line in lines)
    play(f"{talk}{UP}; exec sleep 60", dial)
    log = capsys.readouterr().err
    assert "xl2tpd: Calling on tunnel 3\npppd: Connect: ppp0\n" in log
    assert "Written by" not in log


def test_a_word_that_pppd_finds_too_long_is_not_logged(play: Play, capfd: pytest.CaptureFixture[str]) -> None:
    async def use(made: Session) -> None:
        with pytest.raises(DialError):
            await made.dial("192.0.2.7", "")

    play('echo "pppd: warning: word in file /run/x too long (hunter2...)"; echo other words; exit 1', use)
    said = capfd.readouterr().err
    assert "other words" in said
    assert "hunter2" not in said

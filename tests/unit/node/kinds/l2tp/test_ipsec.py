"""charon is a script here, which speaks VICI as far as it is asked to; the real one needs a kernel with ESP."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chain.node.kinds.base import DialError
from chain.node.kinds.l2tp import ipsec
from chain.node.kinds.l2tp.ipsec import Ipsec, Traffic
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Play = Callable[[str, Callable[[Ipsec], Awaitable[Any]]], Any]

SECONDS = 20

# `control` is a FIFO: the scene writes there what shall happen. `alive`: whether list-sas finds something.
CHARON = """\
import asyncio, os, re, socket, struct, sys
from pathlib import Path
from chain.node.kinds.l2tp.vici import decode, encode

folder = Path(os.environ["STRONGSWAN_CONF"]).parent
path = re.search("unix://(.*)", Path(os.environ["STRONGSWAN_CONF"]).read_text())[1]
lines = {lines}
alive = True
watchers = []

def packet(body): return struct.pack("!I", len(body)) + body
def event(name, message): return packet(bytes([7, len(name)]) + name.encode() + encode(message))

async def serve(reader, writer):
    while True:
        body = await reader.readexactly(struct.unpack("!I", await reader.readexactly(4))[0])
        name, message = body[2:2 + body[1]].decode(), decode(body[2 + body[1]:])
        if body[0] == 3:
            writer.write(packet(b"\\5"))
            if name == "child-updown": watchers.append(writer)
            continue
        answer = {{"success": "yes"}}
        if name == "load-shared": print("key", message["data"], flush=True)
        if name == "terminate": print("terminated", flush=True)
        if name == "initiate":
            for line in lines: writer.write(event("control-log", {{"msg": line}}))
            if lines: answer = {{"success": "no", "errmsg": "establishing CHILD_SA 'l2tp' failed"}}
        if name == "list-sas" and alive:
            child = {{"l2tp-1": {{"state": "INSTALLED", "bytes-in": "0", "bytes-out": "168", "encap": "yes"}}}}
            writer.write(event("list-sa", {{"l2tp": {{"state": "ESTABLISHED", "child-sas": child}}}}))
        writer.write(packet(b"\\1" + encode(answer)))

async def main():
    global alive
    server = await asyncio.start_unix_server(serve, path)
    word = asyncio.Queue()
    fifo = os.open(folder / "control", os.O_RDWR | os.O_NONBLOCK)
    asyncio.get_running_loop().add_reader(fifo, lambda: word.put_nowait(os.read(fifo, 100).decode().strip()))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    while True:
        match await word.get():
            case "die": os._exit(1)
            case "delete":
                print("07[IKE] received DELETE for IKE_SA l2tp[1]", flush=True)
                alive = False
        for watcher in watchers: watcher.write(event("child-updown", {{}}))

asyncio.run(main())
"""


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[5]))
    monkeypatch.setattr(ipsec, "_flush", lambda: None)  # this machine's own are to stay
    os.mkfifo(tmp_path / "control")

    def run(charon: str, use: Callable[[Ipsec], Awaitable[Any]]) -> Any:
        (programs / "charon-systemd").write_text(f"#!{sys.executable}\n{charon}")
        (programs / "charon-systemd").chmod(0o755)

        async def scene() -> Any:
            made = Ipsec(tmp_path, interface="ppp0", table=101)
            try:
                async with asyncio.timeout(SECONDS):
                    return await use(made)
            finally:
                await made.disconnect()
                await made.disconnect()  # again, to no effect
                if made._charon is not None:
                    await made._charon.stop()

        return asyncio.run(scene())

    return run


async def connect(made: Ipsec) -> None:
    await made.connect({"l2tp": {"version": "1"}}, Secret('a"b'))


def told(folder: Path, word: str) -> None:
    with (folder / "control").open("w") as control:
        control.write(word + "\n")


def test_it_connects_and_the_key_arrives_as_it_is(play: Play, capfd: pytest.CaptureFixture[str]) -> None:
    async def use(made: Ipsec) -> None:
        assert not await made.stands()
        assert await made.traffic() == Traffic()
        await connect(made)
        assert await made.stands()
        assert await made.traffic() == Traffic(0, 168, in_udp=True)

    play(CHARON.format(lines=[]), use)
    log = capfd.readouterr().err
    assert 'charon: key a"b\n' in log
    assert "charon: terminated\n" in log


def test_a_refusal_is_told_by_its_cause(play: Play) -> None:
    async def use(made: Ipsec) -> None:
        for _ in range(2):  # charon stays
            with pytest.raises(DialError, match="NO_PROPOSAL_CHOSEN"):
                await connect(made)

    play(CHARON.format(lines=["initiating", "received NO_PROPOSAL_CHOSEN error notify"]), use)


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("delete", "the server ended the IPsec connection"),
        ("die", "a program of the exit ended by itself: charon died"),
    ],
)
def test_an_end_is_known_with_its_cause(play: Play, tmp_path: Path, word: str, cause: str) -> None:
    async def use(made: Ipsec) -> str:
        await connect(made)
        losing = asyncio.create_task(made.lost())
        told(tmp_path, "rekey")  # an event, after which there is still a connection
        await asyncio.sleep(0.1)
        assert not losing.done()
        told(tmp_path, word)
        return (await losing).cause

    assert play(CHARON.format(lines=[]), use) == cause


def test_after_its_death_charon_is_started_anew(play: Play, tmp_path: Path) -> None:
    async def use(made: Ipsec) -> bool:
        await connect(made)
        told(tmp_path, "die")
        await made.lost()
        await made.disconnect()
        await connect(made)
        return await made.stands()

    assert play(CHARON.format(lines=[]), use)


def test_a_charon_that_does_not_start(play: Play) -> None:
    async def use(made: Ipsec) -> None:
        with pytest.raises(DialError, match="charon does not start"):
            await connect(made)

    play("import sys; sys.exit(3)", use)

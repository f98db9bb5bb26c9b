from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from chain.contract import Client
from chain.node import wireguard
from chain.node.wireguard import Peer, admitted, config, difference, peer

if TYPE_CHECKING:
    from pathlib import Path


def test_an_entrys_configuration() -> None:
    peers = [peer("A=", "P=", ("10.13.13.2/32", "fd00::2/128")), peer("B=", "", ("10.13.13.3/32",))]
    assert config("K=", 51820, 1, peers) == (
        "[Interface]\nPrivateKey = K=\nFwMark = 1\nListenPort = 51820\n"
        "[Peer]\nPublicKey = A=\nAllowedIPs = 10.13.13.2/32, fd00::2/128\nPresharedKey = P=\n"
        "[Peer]\nPublicKey = B=\nAllowedIPs = 10.13.13.3/32\n"
    )


def test_an_exits_configuration_has_no_port_of_its_own() -> None:
    text = config("K=", None, 1, [peer("A=", "", ("0.0.0.0/0",), "203.0.113.7:443", 25)])
    assert text.splitlines()[-3:] == [
        "AllowedIPs = 0.0.0.0/0",
        "Endpoint = 203.0.113.7:443",
        "PersistentKeepalive = 25",
    ]
    assert "ListenPort" not in text


HEAD = "K=\tKPUB=\t51820\t0x1"
LINE_A = "A=\tP=\t198.51.100.1:4\tfd00::2/128,10.13.13.2/32\t0\t0\t0\toff"
A = Peer("A=", "P=", frozenset({"10.13.13.2/32", "fd00::2/128"}))
B = Peer("B=", "", frozenset({"10.13.13.3/32"}))


def test_peers_that_did_not_change_are_left_alone() -> None:
    assert difference(f"{HEAD}\n{LINE_A}\n", "K=", 51820, 1, [A]) == ("", [])
    assert difference(f"{HEAD}\n{LINE_A}\n", "K=", 51820, 1, [A, B]) == (
        "[Peer]\nPublicKey = B=\nAllowedIPs = 10.13.13.3/32\n",
        [],
    )


def test_a_peer_that_is_gone_is_removed_and_one_that_changed_is_set_again() -> None:
    assert difference(f"{HEAD}\n{LINE_A}\n", "K=", 51820, 1, [B])[1] == ["A="]
    moved = Peer("A=", "Q=", A.allowed)
    text, stale = difference(f"{HEAD}\n{LINE_A}\n", "K=", 51820, 1, [moved])
    assert "PresharedKey = Q=" in text
    assert "PrivateKey" not in text
    assert stale == []


def test_a_new_interface_gets_its_key_and_port() -> None:
    text, _ = difference("(none)\t(none)\t0\toff\n", "K=", 51820, 1, [A])
    assert text.startswith("[Interface]\nPrivateKey = K=\nFwMark = 1\nListenPort = 51820\n[Peer]\n")


def test_who_lacks_its_preshared_key_is_not_admitted() -> None:
    clients = (
        Client("phone", "A=", "10.13.13.2", "fd00::2", "default", psk_file="phone"),
        Client("laptop", "C=", "10.13.13.4", "fd00::4", "default", psk_file="laptop"),
        Client("old", "B=", "10.13.13.3", "fd00::3", "default"),
    )
    assert admitted(clients, {"phone": "P="}) == [A, Peer("B=", "", frozenset({"10.13.13.3/32", "fd00::3/128"}))]


def test_a_peer_does_not_print_its_key() -> None:
    assert "P=" not in repr(A)


# Whether wireguard-go is there


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(wireguard, "_CONTROL_SOCKETS", tmp_path)
    return tmp_path


def test_who_does_not_listen_is_gone(sockets: Path) -> None:
    asyncio.run(wireguard.gone("vpn0"))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(sockets / "vpn0.sock"))
    asyncio.run(wireguard.gone("vpn0"))


def test_who_only_ends_a_connection_is_not_gone(sockets: Path) -> None:
    async def play() -> None:
        talks: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        server = await asyncio.start_unix_server(lambda _, writer: talks.put_nowait(writer), sockets / "vpn0.sock")
        waiting = asyncio.create_task(wireguard.gone("vpn0"))
        for _ in range(2):
            (await talks.get()).close()
        last = await talks.get()
        assert not waiting.done()
        server.close()
        last.close()
        await asyncio.wait_for(waiting, 10)

    asyncio.run(play())


@pytest.mark.usefixtures("sockets")
def test_what_can_not_be_asked_is_not_said_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more_files(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(asyncio, "open_unix_connection", no_more_files)
    with pytest.raises(OSError, match="files"):
        asyncio.run(wireguard.gone("vpn0"))

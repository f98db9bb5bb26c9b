from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chain.node.kinds.openvpn.management import Management

if TYPE_CHECKING:
    from pathlib import Path

ANSWERS = {"Auth": ("me", 'pa"ss\\ w#rd'), "Private Key": ("", "open")}


@pytest.fixture
def held() -> list[bool]:
    return []


@pytest.fixture
def management(tmp_path: Path, held: list[bool]) -> Management:
    return Management(tmp_path / "socket", ANSWERS, on_hold=lambda: held.append(True))


def test_it_is_released_once_it_holds(management: Management, held: list[bool]) -> None:
    assert management.heard(">HOLD:Waiting for hold release:0") == b"hold release\n"
    assert held


def test_it_is_given_what_it_asks_for_and_nothing_else(management: Management) -> None:
    assert management.heard(">PASSWORD:Need 'Auth' username/password") == (
        b'username "Auth" "me"\npassword "Auth" "pa\\"ss\\\\ w#rd"\n'
    )
    assert management.heard(">PASSWORD:Need 'Private Key' password") == b'password "Private Key" "open"\n'
    assert management.heard(">PASSWORD:Need 'HTTP Proxy' username/password") == b""
    assert management.heard(">PASSWORD:Auth-Token:xyz") == b""
    assert not management.refused


def test_a_refusal_is_noted(management: Management) -> None:
    assert management.heard(">PASSWORD:Verification Failed: 'Auth'") == b""
    assert management.refused == "Auth"


def test_the_states_are_followed(management: Management) -> None:
    for state in ("WAIT,,,,,", "AUTH,,,,,", "GET_CONFIG,,,,,"):
        management.heard(f">STATE:1795327606,{state}")
        assert management.state == state.partition(",")[0]
    assert not management.connected.is_set()
    management.heard(">STATE:1795327606,CONNECTED,SUCCESS,10.67.1.2,192.0.2.7,1194,,")
    assert management.connected.is_set()
    assert management.address == "10.67.1.2"
    assert not management.ending.is_set()
    management.heard(">STATE:1795327607,RECONNECTING,ping-restart,,,,,")
    management.heard(">STATE:1795327607,EXITING,SIGTERM,,,,,")
    assert management.ending.is_set()
    assert (management.state, management.reason) == ("CONNECTED", "ping-restart")


def test_the_environment_is_taken_as_a_whole(management: Management) -> None:
    for line in ("UP", "ENV,tun_mtu=1500", "ENV,foreign_option_1=dhcp-option DNS 10.0.0.1"):
        management.heard(f">UPDOWN:{line}")
        assert management.environment == {}
    management.heard(">UPDOWN:ENV,END")
    assert management.environment == {"tun_mtu": "1500", "foreign_option_1": "dhcp-option DNS 10.0.0.1"}


@pytest.mark.parametrize("line", ["", ">", ">STATE", ">STATE:", ">UPDOWN:ENV", "SUCCESS: x", ">PASSWORD:'", ">X:Y"])
def test_nothing_makes_it_stumble(management: Management, line: str) -> None:
    assert management.heard(line) == b""


def test_it_speaks_by_its_socket(management: Management, tmp_path: Path) -> None:
    async def scene() -> tuple[bytes, bytes]:
        await management.listen()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        first = await reader.readline()
        writer.write(b">INFO:OpenVPN\r\n>HOLD:Waiting\r\n>FATAL:the end\r\n")
        second = await reader.readline()
        writer.close()
        await writer.wait_closed()
        management.close()
        management.close()
        return first, second

    assert asyncio.run(scene()) == (b"state on\n", b"hold release\n")
    assert not (tmp_path / "socket").exists()

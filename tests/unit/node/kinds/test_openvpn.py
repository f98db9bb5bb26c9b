from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from chain.node import kinds
from chain.node.kinds import openvpn
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chain.contract import ExitSettings
    from chain.topology import Topology

CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
FILE = f"client\nremote a.example 443 tcp\nremote b.example\nauth-user-pass\n<ca>\n{CA}</ca>\n"
LOGIN = {"ovpn_username": Secret("me"), "ovpn_password": Secret("word")}
TEXT = "entry: {endpoint: vpn.example.org}\nexits:\n  rome: {kind: openvpn}\n"


@pytest.fixture
def settings(built: Callable[[str], Topology]) -> ExitSettings:
    return built(TEXT).exits[0].settings


def test_the_first_server_of_the_file_is_dialled(settings: ExitSettings) -> None:
    kind = kinds.create(settings, {"ovpn_config": Secret(FILE), **LOGIN})
    assert kind.server == "a.example"
    assert kind.rules.outgoing == ("tcp dport 443",)
    assert kind.rules.incoming == ("tcp sport 443 ct state established",)


def test_a_name_may_need_a_random_word_before_it(settings: ExitSettings) -> None:
    file = FILE.replace("b.example", "192.0.2.7") + "remote-random-hostname\n"
    kind = kinds.create(settings, {"ovpn_config": Secret(file), **LOGIN})
    names = {kind.server for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"[0-9a-f]{12}\.a\.example", name) for name in names)
    kind.unresolved()
    assert kind.server == "192.0.2.7"


def test_after_one_that_is_mute_comes_the_next(settings: ExitSettings) -> None:
    kind = kinds.create(settings, {"ovpn_config": Secret(FILE), **LOGIN})
    asyncio.run(kind.mute("9.9.9.9", stood=True))
    assert kind.server == "a.example"
    asyncio.run(kind.mute("9.9.9.9", stood=False))
    assert kind.server == "b.example"
    assert kind.rules.outgoing == ("udp dport 1194",)
    assert kind.rules.incoming == ("udp sport 1194",)


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({"ovpn_config": Secret("up hunter2")}, "ovpn_config can't be used: .*`up` is refused"),
        ({"ovpn_config": Secret(FILE + "tls-auth ta.key 1\n")}, "names files that are not there: tls-auth"),
        (
            {"ovpn_config": Secret(FILE + "tls-auth x 1\n"), "ovpn_tls_auth": Secret("hunter2")},
            "the file of `tls-auth`",
        ),
    ],
)
def test_what_can_not_be_used_is_told_without_a_word_of_it(
    settings: ExitSettings, secrets: dict[str, Secret], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        kinds.create(settings, secrets)
    assert "hunter2" not in str(refused.value)


def test_the_file_may_have_many_lines_and_the_password_may_not(
    settings: ExitSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "SECRETS_DIR", str(tmp_path))
    for name, text in (("ovpn_config", FILE), ("ovpn_username", "me\n"), ("ovpn_password", "word\n")):
        (tmp_path / name).write_text(text)
    assert kinds.read_secrets(settings)["ovpn_password"].reveal() == "word"
    (tmp_path / "ovpn_password").write_text("two\nlines\n")
    with pytest.raises(Exception, match="more than one line"):
        kinds.read_secrets(settings)


@pytest.mark.parametrize(
    ("gateway", "environment", "near"),
    [
        ("10.8.0.1", {"foreign_option_1": "dhcp-option DNS 10.9.0.1"}, "10.8.0.1"),
        ("203.0.114.1", {"foreign_option_1": "dhcp-option DNS 10.9.0.1"}, "10.9.0.1"),
        ("", {"ifconfig_remote": "10.8.0.5"}, "10.8.0.5"),
        ("", {"ifconfig_remote": "10.8.0.2"}, ""),  # its own
        ("", {"foreign_option_1": "dhcp-option DNS 9.9.9.9", "foreign_option_2": "dhcp-option DOMAIN x"}, ""),
        ("127.0.0.1", {"foreign_option_1": "dhcp-option DNS"}, ""),
        ("word", {}, ""),
    ],
)
def test_the_far_end_is_asked_if_it_can_only_be_reached_by_the_tunnel(
    gateway: str, environment: dict[str, str], near: str
) -> None:
    assert openvpn.near(gateway, environment, "10.8.0.2") == near


@pytest.mark.parametrize(("told", "mtu"), [("1500", 1399), ("1300", 1300), ("", 1399), ("-1", 1399), ("1", 576)])
def test_a_server_may_make_packets_smaller(told: str, mtu: int) -> None:
    assert openvpn._mtu(told, 1399) == mtu


@pytest.mark.parametrize("told", ["", "fd00::2", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.8.0.2/24"])
def test_an_address_that_no_host_can_have_is_none(told: str) -> None:
    assert openvpn._own_address(told) == ""
    assert openvpn._own_address("10.8.0.2") == "10.8.0.2"

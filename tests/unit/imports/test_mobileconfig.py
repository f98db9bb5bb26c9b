"""Small matters of Apple's profiles; whole ones are in tests/imports."""

from __future__ import annotations

import plistlib
from datetime import UTC, datetime
from typing import Any

import pytest

from chain.imports import Imported, RefusedError
from chain.imports.mobileconfig import MOST_PAYLOADS, read, recognises

NOW = datetime(2026, 9, 1, tzinfo=UTC)


def payload(**changes: Any) -> dict[str, Any]:
    ppp = {"AuthName": "ann", "AuthPassword": "word", "CommRemoteAddress": "vpn.example.com"}
    ipsec = {"AuthenticationMethod": "SharedSecret", "SharedSecret": b"key"}
    base = {"PayloadType": "com.apple.vpn.managed", "VPNType": "L2TP", "PPP": ppp, "IPSec": ipsec}
    for name, change in changes.items():
        base[name] = base[name] | change if isinstance(change, dict) and name in base else change  # type: ignore[operator]
    return base


def profile(*payloads: dict[str, Any], **top: Any) -> str:
    return plistlib.dumps({"PayloadContent": list(payloads), **top}).decode()


def taken(text: str) -> Imported:
    (item,) = read(text, NOW)
    assert isinstance(item.found, Imported), item.found
    return item.found


def refused(text: str) -> str:
    try:
        (item,) = read(text, NOW)
    except RefusedError as error:
        return str(error)
    assert isinstance(item.found, RefusedError)
    return str(item.found)


def test_a_profile_is_told_by_its_beginning() -> None:
    assert recognises(f"\n {profile(payload())}")
    assert recognises("<plist>")
    assert not recognises("<html>")


def test_a_profile_of_two_is_two_exits() -> None:
    found = read(profile(payload(UserDefinedName="a"), payload(UserDefinedName="b", VPNType="IKEv2")), NOW)
    assert [(item.name, isinstance(item.found, Imported)) for item in found] == [("a", True), ("b", False)]


def test_the_key_is_bytes_that_are_text() -> None:
    assert (
        taken(profile(payload(IPSec={"SharedSecret": 's:ö "'.encode()}))).secrets["vpn_ipsec_psk"].reveal() == 's:ö "'
    )
    assert "no UTF-8" in refused(profile(payload(IPSec={"SharedSecret": b"\xff"})))
    assert "no <data>" in refused(profile(payload(IPSec={"SharedSecret": 7})))
    assert "vpn_ipsec_psk" not in taken(profile(payload(IPSec={"SharedSecret": b""}))).secrets


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"VPNType": "PPTP"}, "broken"),
        ({"VPNType": 7}, "unknown type"),
        ({"PPP": {"TokenCard": 1}}, "a number from a card"),
        ({"PPP": {"AuthProtocol": ["EAP"]}}, "another way to log in"),
        ({"PPP": {"AuthProtocol": {"a": 1}}}, "another way to log in"),
        ({"PPP": {"CommRemoteAddress": "a b"}}, "no host name"),
        ({"IPSec": {"AuthenticationMethod": "Certificate"}}, "certificates"),
        ({"IPSec": {"LocalIdentifier": "hunter2"}}, "group name"),
        ({"IPSec": {"XAuthEnabled": 1}}, "Cisco's"),
        ({"IPSec": {"RemoteAddress": "other.example.com"}}, "another server"),
        ({"PPP": "hunter2"}, "no dictionary"),
    ],
)
def test_what_an_exit_can_not_do_is_refused(changes: dict[str, Any], words: str) -> None:
    text = profile(payload(**changes) if changes != {"PPP": "hunter2"} else payload() | changes)
    assert words in refused(text)
    assert "hunter2" not in refused(text)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"OnDemandEnabled": 1}, "OnDemandEnabled"),
        ({"Proxies": {"HTTPEnable": 1}}, "Proxies"),
        ({"DNS": {"ServerAddresses": ["192.0.2.1"]}}, "DNS"),
        ({"IPv4": {"OverridePrimary": 0}}, "OverridePrimary"),
        ({"PPP": {"CCPEnabled": 1}}, "CCPEnabled"),
        ({"hunter2": 1}, "the payload"),
        ({"PPP": {"hunter2": 1}}, "PPP"),
    ],
)
def test_what_does_no_harm_is_left_out_with_a_word(changes: dict[str, Any], where: str) -> None:
    found = taken(profile(payload(**changes)))
    assert [warning.where for warning in found.warnings] == [where]
    assert "hunter2" not in str(found.warnings)


def test_there_are_limits() -> None:
    assert "up to" in refused(profile(*[payload()] * (MOST_PAYLOADS + 1)))
    assert "no list" in refused(plistlib.dumps({"PayloadContent": "x"}).decode())
    assert "entities" in refused('<!DOCTYPE plist [<!ENTITY a "b">]><plist><dict/></plist>')


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<key>AuthName</key>", "<key>AuthName</key><string>x</string><key>AuthName</key>", "a key twice"),
        ("a2V5", "a2!V5", "no base64"),
        ("a2V5", "!!", "no base64"),
        ("a2V5", "a2V", "no property list"),
        ("<key>AuthName</key>", "<key>a<dict><key>b</key></dict></key>", "no property list"),
    ],
)
def test_what_readers_of_property_lists_let_pass_is_refused(old: str, new: str, words: str) -> None:
    text = profile(payload())
    assert text.count(old) == 1
    assert words in refused(text.replace(old, new))


def test_base64_in_lines_is_taken() -> None:
    text = profile(payload()).replace("a2V5", "\n\t\ta2\n\t\tV5\n")
    assert taken(text).secrets["vpn_ipsec_psk"].reveal() == "key"

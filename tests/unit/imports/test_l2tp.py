"""Small matters of what is mailed for L2TP; whole texts are in tests/imports."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chain.imports import Imported, RefusedError
from chain.imports.l2tp import MOST_LINES, read, recognises

NOW = datetime(2026, 9, 1, tzinfo=UTC)
TEXT = "Server: vpn.example.com\nPSK: KEY\nUser: ann\nPassword: WORD\n"


def taken(text: str) -> Imported:
    (item,) = read(text, NOW)
    assert isinstance(item.found, Imported), item.found
    return item.found


def refused(text: str) -> str:
    (item,) = read(text, NOW)
    assert isinstance(item.found, RefusedError)
    return str(item.found)


@pytest.mark.parametrize(
    "label",
    [
        "PSK",
        "psk ",
        "Pre-Shared Key",
        "IPsec pre-shared key",
        "* Shared secret",
        "Pre-shared key (PSK)",
        "VPN_IPSEC_PSK",
    ],
)
@pytest.mark.parametrize("sign", [":", "=", " : ", "\t", "|", "\N{FULLWIDTH COLON}"])
def test_labels_come_in_many_forms(label: str, sign: str) -> None:
    found = taken(TEXT.replace("PSK: ", f"{label}{sign}"))
    assert found.secrets["vpn_ipsec_psk"].reveal() == "KEY"


@pytest.mark.parametrize("value", ["a:b=c|d", "0x6b6579", "0sa2V5", "#x", "%any", "\\", "$(id)", "- x", "User: y", "é"])
def test_a_value_is_the_rest_of_its_line(value: str) -> None:
    assert taken(TEXT.replace("WORD", value)).secrets["vpn_password"].reveal() == value
    assert taken(TEXT.replace("KEY", value)).secrets["vpn_ipsec_psk"].reveal() == value


@pytest.mark.parametrize("sign", ["\u200b", "\u00ad", "\ufeff", "\u202e"])
def test_what_nobody_can_see_is_no_part_of_a_secret(sign: str) -> None:
    assert "can't be seen" in refused(TEXT.replace("WORD", f"wo{sign}rd"))


def test_what_may_arrive_otherwise_than_it_looks_is_told() -> None:
    assert "in quotes" in taken(TEXT.replace("WORD", '"word"')).warnings[0].what
    assert "ASCII" in taken(TEXT.replace("WORD", "wörd")).warnings[0].what


def test_two_of_the_four_make_it_such_a_text() -> None:
    assert recognises("Server: x\nUser: y")
    assert recognises("PSK: x\nPassword: y")
    assert not recognises("User: x\nPassword: y")  # of anything
    assert not recognises("Server: x\nServer: y")
    assert not recognises("")


def test_what_is_left_out_is_lacking_and_no_reason_to_refuse() -> None:
    found = taken("Server: vpn.example.com\nPSK: key\nUser:\nPassword: \n")
    assert set(found.secrets) == {"vpn_ipsec_psk"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Type: PPTP", "not for L2TP"),
        ("Protocol: OpenVPN", "not for L2TP"),
        ("VPN type: IKEv2/IPsec", "not for L2TP"),
        ("Port: 443", "ports of its own"),
        ("Group name: staff", "not supported"),
        ("L2TP secret: hunter2", "not supported"),
        ("MTU: large", "number of bytes"),
    ],
)
def test_what_an_exit_can_not_do_is_refused(line: str, words: str) -> None:
    assert words in refused(TEXT + line)
    assert "hunter2" not in refused(TEXT + line)


@pytest.mark.parametrize(
    "line", ["Type: L2TP/IPsec", "VPN type: IPsec PSK", "Port: 1701", "Group name: (not used)", "IPSec identifier: -"]
)
def test_what_says_nothing_new_is_taken(line: str) -> None:
    assert taken(TEXT + line).warnings == ()


def test_lines_of_prose_are_counted() -> None:
    (warning,) = taken("Hello\n" * 30 + TEXT).warnings
    assert warning.where.startswith("lines 1, 2, 3, ")
    assert warning.where.endswith(", 20, …")
    assert "more than" in refused(TEXT + "\n" * MOST_LINES)

"""How an input's format is found out. What each format says is tested beside its reader, and in tests/imports."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from chain.imports import MOST_BYTES, Imported, RefusedError, read

NOW = datetime(2026, 9, 1, tzinfo=UTC)
KEY = "aEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEs="
FILE = (
    f"[Interface]\nPrivateKey = {KEY}\nAddress = 10.9.0.2/32\n"
    f"[Peer]\nPublicKey = {KEY}\nAllowedIPs = 0.0.0.0/0\nEndpoint = vpn.example.com:51820\n"
)
LINK = "trojan://password@vpn.example.com:443#name"
OPENVPN = f"client\nremote vpn.example.com 1194\nauth-user-pass\npeer-fingerprint {':'.join(['AB'] * 32)}\n"
TEXT = "Server: vpn.example.com\nPSK: key\nUser: ann\nPassword: word\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (FILE, "wireguard"),
        (LINK, "xray"),
        (f"{LINK}\n{LINK}\n", "xray"),
        (base64.b64encode(LINK.encode()).decode(), "xray"),
        (base64.b64encode(f"\ufeff{LINK}".encode()).decode(), "xray"),
        (OPENVPN, "openvpn"),
        (base64.b64encode(OPENVPN.encode()).decode(), "openvpn"),
        (f"# {LINK}\n{OPENVPN}", "openvpn"),
        (TEXT, "l2tp"),
        (
            f"See https://www.example.com/help\n\nhttps://www.example.com\n{TEXT}",
            "l2tp",
        ),  # an address is no link of a server
    ],
)
def test_the_format_is_found_out(text: str, kind: str) -> None:
    found = read(text.encode(), NOW)
    assert {item.found.kind for item in found if isinstance(item.found, Imported)} == {kind}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b" \n", "it is empty"),
        (b"\xff\xff", "no UTF-8"),
        (b"[Interface]\0", "NUL"),
        (b"x" * (MOST_BYTES + 1), "larger than"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"nothing that is known", "in no format"),
        (f'"{LINK}"'.encode(), "a link stands amid other signs"),
        (f"Your link: {LINK}".encode(), "a link stands amid other signs"),
        (base64.b64encode(b"proxies:\n- x\n"), "Clash"),
    ],
)
def test_what_is_of_no_use_is_refused_as_a_whole(data: bytes, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        read(data, NOW)


def test_files_that_an_input_names_are_asked_of_the_caller() -> None:
    asked = []

    def aside(name: str) -> bytes:
        asked.append(name)
        return b"ann\nword\n"

    (item,) = read(OPENVPN.replace("auth-user-pass", "auth-user-pass 'my login'").encode(), NOW, aside)
    assert asked == ["my login"]
    assert isinstance(item.found, Imported)
    assert item.found.secrets["ovpn_password"].reveal() == "word"


def test_base64_in_base64_is_not_unpacked_again() -> None:
    twice = base64.b64encode(base64.b64encode(LINK.encode()))
    with pytest.raises(RefusedError, match="in no format"):
        read(twice, NOW)

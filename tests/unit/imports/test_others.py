"""Which formats are named; each of them is in tests/imports/refused/others.yaml."""

from __future__ import annotations

import pytest

from chain.imports import RefusedError
from chain.imports.others import refuse, refuse_bytes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  proxies:\n", "Clash"),
        ("x\n[Proxy]\n", "Surge"),
        ("#\n-----BEGIN OpenVPN Static key V1-----\n00\n", "a key of OpenVPN's"),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n", "a certificate or a key alone"),
        ('[\n {"outbounds": []}]', "sing-box"),
        ('{"server": "x", "server_port": 1, "method": "y"}', "Shadowsocks"),
        ('{"a": 1', "broken off"),
        ("[{}]", "not known here"),
    ],
)
def test_a_known_format_is_named(text: str, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        refuse(text)


@pytest.mark.parametrize("text", ["remote access is yours", "Server: x", "", "[Peer]"])
def test_what_has_no_name_is_left_to_others(text: str) -> None:
    refuse(text)
    refuse_bytes(text.encode())


def test_what_is_no_text_is_named_by_its_first_bytes() -> None:
    with pytest.raises(RefusedError, match="a picture"):
        refuse_bytes(b"\x89PNG\r\n")

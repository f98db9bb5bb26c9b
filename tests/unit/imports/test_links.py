"""Small matters of links; whole ones are in tests/imports."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from chain.imports import Imported, RefusedError
from chain.imports.links import MOST, OTHERS, read, scheme_of

NOW = datetime(2026, 9, 1, tzinfo=UTC)
UUID = "70bf13e2-c315-4009-a291-23972b410ae3"


def taken(link: str) -> Imported:
    found = read(link, NOW).found
    assert isinstance(found, Imported), found
    return found


def refused(link: str) -> str:
    found = read(link, NOW).found
    assert isinstance(found, RefusedError)
    return str(found)


def vmess(**fields: object) -> str:
    base = {"v": "2", "add": "vpn.example.com", "port": 443, "id": UUID, "net": "tcp", "tls": "tls"}
    return "vmess://" + base64.b64encode(json.dumps(base | fields).encode()).decode()


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("VLESS://x", "vless"),
        ("naive+https://x", "naive+https"),
        ("vless:x", ""),
        ("://x", ""),
        ("a b://", ""),
        ("", ""),
    ],
)
def test_a_link_has_a_scheme(text: str, scheme: str) -> None:
    assert scheme_of(text) == scheme


def test_a_name_is_decoded_and_may_be_anything() -> None:
    assert read("trojan://p@h.example:443#a%20b", NOW).name == "a b"
    assert read("trojan://p@h.example:443#100%", NOW).name == "100%"
    assert read("trojan://p@h.example:443#a#b?c@d", NOW).name == "a#b?c@d"
    assert read("trojan://p@h.example:443#\u200c\N{GRINNING FACE}", NOW).name == "\u200c\N{GRINNING FACE}"
    assert read(vmess(ps="tokyo"), NOW).name == "tokyo"


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("p%40w", "p@w"),
        ("p@w", "p@w"),
        ("p+w", "p+w"),
        ("a:b", "a:b"),
        ("%20a%20", " a "),
        ("%09", "\t"),
        ("{{x}}$y", "{{x}}$y"),
    ],
)
def test_passwords_arrive_as_they_are_meant(written: str, password: str) -> None:
    found = taken(f"trojan://{written}@vpn.example.com:443")
    assert found.secrets["xray_password"].reveal() == password
    assert found.settings["server"] == "vpn.example.com"


def test_what_is_not_known_is_named_by_its_place_alone() -> None:
    found = taken("trojan://p@vpn.example.com:443?security=tls&hunter2=hunter3")
    assert [warning.where for warning in found.warnings] == ["parameter 2"]
    assert "hunter" not in " ".join(map(str, found.warnings))
    assert [warning.where for warning in taken(vmess(hunter2="x")).warnings] == ["key 7"]


def test_one_value_twice_is_said_once() -> None:
    assert taken("trojan://p@vpn.example.com:443?sni=a.example&peer=a.example&sni=a.example").settings["tls"] == {
        "server_name": "a.example"
    }
    assert "twice" in refused("trojan://p@vpn.example.com:443?sni=a.example&peer=b.example")


@pytest.mark.parametrize("scheme", OTHERS)
def test_links_of_other_programs_are_named(scheme: str) -> None:
    assert ", which is not read" in refused(f"{scheme}://hunter2@vpn.example.com:443")
    assert "hunter2" not in refused(f"{scheme}://hunter2@vpn.example.com:443")


def test_a_link_has_an_end() -> None:
    assert "longer than" in refused("trojan://p@vpn.example.com:443?" + "x" * MOST)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"port": "443x"}, "no number between"),
        ({"port": 1e3}, "a text or a number"),
        ({"port": 10**10}, "a text or a number"),
        ({"port": True}, "must be a text or a number"),
        ({"alpn": ["h2", "http/1.1"]}, ""),
        ({"alpn": [1]}, "a text or a number"),
        ({"sni": None}, ""),
        ({"tls": "xtls"}, "first form"),
        ({"extra": {"xPaddingBytes": "1-2"}, "net": "xhttp"}, "not Xray's default"),
        ({"xPaddingBytes": "1-2", "net": "xhttp"}, "not Xray's default"),
        ({"xPaddingBytes": "100-1000", "extra": "[]", "net": "xhttp"}, "no JSON object"),
        ({"xPaddingBytes": "1-2", "extra": {"xPaddingBytes": ""}, "net": "xhttp"}, "twice, with different"),
        ({"mode": "auto", "type": "packet-up", "net": "xhttp"}, "twice, with different"),
        ({"mode": "", "type": "packet-up", "net": "xhttp"}, ""),
        ({"serviceName": "a", "path": "b", "net": "grpc"}, ""),
    ],
)
def test_values_of_vmess_come_in_several_types(fields: dict[str, object], words: str) -> None:
    link = vmess(**fields)
    assert words in refused(link) if words else taken(link)


def test_what_stands_behind_vmess_json_is_told() -> None:
    assert taken(vmess() + "?x=y#name").warnings[0].where == "the link"
    assert read(vmess() + "#name", NOW).name == "name"

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from chain.exits.xray import VISION, Xray, XrayExit, carriers, stream

KIND = Xray()
KEY = "A" * 43
REALITY = {"public_key": KEY, "server_name": "www.example.com", "short_id": "0123abcd"}


def settings(**fields: Any) -> XrayExit:
    return XrayExit.model_validate({"kind": "xray", "server": "vpn.example.org"} | fields)


def test_reality_over_tcp_with_vision_is_what_needs_no_more_than_its_keys() -> None:
    made = settings(reality=REALITY)
    options = KIND.options(made)
    assert (options["protocol"], options["port"], options["flow"]) == ("vless", 443, f"{VISION}-udp443")
    assert options["stream"]["realitySettings"] == {
        "serverName": "www.example.com",
        "publicKey": KEY,
        "shortId": "0123abcd",
        "fingerprint": "chrome",
        "spiderX": "/",
    }
    assert [spec.role for spec in KIND.secrets(made)] == ["xray_id"]


@pytest.mark.parametrize(
    ("fields", "role"),
    [
        ({"protocol": "trojan", "tls": {}}, "xray_password"),
        ({"protocol": "shadowsocks", "cipher": "2022-blake3-aes-128-gcm"}, "xray_password"),
        ({"protocol": "vmess"}, "xray_id"),
        ({"transport": "xhttp", "tls": {}}, "xray_id"),
    ],
)
def test_each_protocol_has_one_secret(fields: dict[str, Any], role: str) -> None:
    assert [spec.role for spec in KIND.secrets(settings(**fields))] == [role]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "nothing would encrypt it"),
        ({"protocol": "trojan"}, "nothing would encrypt it"),
        ({"reality": REALITY, "tls": {}}, "not both"),
        ({"reality": REALITY, "transport": "ws"}, "Reality does not work over ws"),
        ({"tls": {}, "transport": "h2"}, "XHTTP"),
        ({"tls": {}, "transport": "quic"}, "XHTTP over HTTP/3"),
        ({"tls": {}, "transport": "kcp"}, "mKCP"),
        ({"tls": {"allow_insecure": True}}, "allow_insecure"),
        ({"tls": {}, "transport": "xhttp", "download_settings": {}}, "download_settings"),
        ({"tls": {}, "flow": VISION, "transport": "ws"}, "is for vless over tcp"),
        ({"reality": REALITY | {"fingerprint": "android"}}, "has no TLS 1.3"),
        ({"tls": {"fingerprint": "360"}}, "has no TLS 1.3"),
        ({"reality": REALITY | {"spider_x": "x"}}, "spider_x"),
        ({"tls": {"alpn": ["h3"]}}, "alpn h3 is for xhttp"),
        ({"encryption": "mlkem768x25519plus.a.b.c"}, "neither `none` nor"),
        ({"encryption": f"mlkem768x25519plus.native.0rtt.{KEY}x"}, "neither `none` nor"),
        ({"encryption": "mlkem768x25519plus.native.0rtt.100-111-1111"}, "neither `none` nor"),
        ({"encryption": f"mlkem768x25519plus.native.0rtt.99-111-1111.{KEY}"}, "neither `none` nor"),
        ({"encryption": f"mlkem768x25519plus.native.0rtt.100-34-1111.{KEY}"}, "neither `none` nor"),
        ({"encryption": f"mlkem768x25519plus.native.0rtt.100-35-65554.{KEY}"}, "neither `none` nor"),
        ({"protocol": "shadowsocks", "cipher": "aes-128-gcm", "tls": {}}, "its UDP would not be covered"),
        ({"protocol": "shadowsocks"}, "`cipher` is missing"),
        ({"protocol": "shadowsocks", "cipher": "rc4-md5"}, "is not known"),
        ({"protocol": "vmess", "cipher": "none"}, "is not known"),
        ({"tls": {}, "cipher": "aes-128-gcm"}, "is for shadowsocks and vmess"),
        ({"tls": {}, "path": "/x"}, "`path` does not go with transport tcp"),
        ({"tls": {}, "transport": "ws", "service_name": "x"}, "`service_name` does not go with"),
        ({"tls": {}, "transport": "ws", "mode": "auto"}, "`mode` does not go with"),
        ({"tls": {}, "encryption": "rot13"}, "neither `none` nor"),
        ({"tls": {}, "password": {"file": "x"}}, "has `id:` as its secret"),
        ({"protocol": "trojan", "tls": {}, "id": {"file": "x"}}, "has `password:` as its secret"),
        ({"reality": REALITY | {"short_id": "123"}}, "short_id"),
        ({"reality": REALITY | {"public_key": "x"}}, "public_key"),
        ({"tls": {}, "transport": "ws", "path": "/a b"}, "path"),
        ({"tls": {}, "transport": "ws", "path": '/"'}, "path"),
    ],
)
def test_what_would_not_work_is_refused_with_its_reason(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        settings(**fields)


def test_vless_encryption_may_stand_without_tls() -> None:
    made = settings(encryption=f"mlkem768x25519plus.native.0rtt.100-111-1111.75-0-111.50-0-3333.{KEY}")
    assert KIND.options(made)["flow"] == f"{VISION}-udp443"
    assert stream(made) == {"network": "tcp", "security": "none"}
    assert KIND.options(settings(reality=REALITY, flow="none"))["flow"] == ""


@pytest.mark.parametrize(("given", "known"), [("raw", "tcp"), ("splithttp", "xhttp"), ("tcp", "tcp")])
def test_a_transport_may_be_called_by_either_name(given: str, known: str) -> None:
    assert stream(settings(tls={}, transport=given))["network"] == known


def test_a_web_server_is_asked_by_its_name_where_no_tls_says_it() -> None:
    made = settings(protocol="vmess", transport="ws")
    assert stream(made)["wsSettings"] == {"host": made.server, "path": "/"}
    assert stream(settings(protocol="vmess", transport="ws", tls={}))["wsSettings"]["host"] == ""
    assert stream(settings(protocol="vmess", transport="grpc"))["grpcSettings"]["authority"] == made.server


def test_the_server_is_named_to_tls_though_an_address_is_dialled() -> None:
    full = yaml.safe_load((Path(__file__).parents[3] / "config.example" / "full.yaml").read_text())
    authority = full["exits"]["lima"]["tls"]["ca"]
    found = stream(settings(tls={"pinned_sha256": ["ab" * 32], "ca": authority}))["tlsSettings"]
    assert found["serverName"] == "vpn.example.org"
    assert found["certificates"] == [{"usage": "verify", "certificate": authority.splitlines()}]
    assert found["disableSystemRoot"] is True
    assert found["pinnedPeerCertSha256"] == "ab" * 32


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"transport": "xhttp", "path": "/p", "host": "h.example"},
            {"host": "h.example", "path": "/p", "mode": "auto"},
        ),
        ({"transport": "ws"}, {"host": "", "path": "/"}),
        ({"transport": "httpupgrade", "path": "/p"}, {"host": "", "path": "/p"}),
        (
            {"transport": "grpc", "service_name": "s", "mode": "multi"},
            {"serviceName": "s", "authority": "", "multiMode": True},
        ),
    ],
)
def test_each_transport_has_its_settings(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    found = stream(settings(tls={}, **fields))
    assert found[f"{fields['transport']}Settings"] == expected


def test_the_lock_is_told_in_which_protocols_the_server_is_reached() -> None:
    assert carriers(settings(reality=REALITY)) == ("tcp",)
    assert carriers(settings(transport="xhttp", tls={"alpn": ["h3"]})) == ("udp",)
    assert carriers(settings(protocol="shadowsocks", cipher="aes-256-gcm")) == ("tcp", "udp")


def test_a_clients_packet_may_have_any_size() -> None:
    assert KIND.tunnel_mtu(settings(reality=REALITY), 1500) == 1500

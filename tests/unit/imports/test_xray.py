from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chain.imports import Imported, RefusedError
from chain.imports.base import Reading
from chain.imports.xray import EXTRA_KEYS, READ, check_id, exit_of, is_spider_path, json_object

NOW = datetime(2026, 9, 1, tzinfo=UTC)
UUID = "70bf13e2-c315-4009-a291-23972b410ae3"
KEY = "2mT6KYlTI_-K1juMlYyJjdJ9uX1-6n93ZLz-NjnGK1c"
TLS = {"security": "tls"}


def made(protocol: str = "vless", secret: str = UUID, **fields: str) -> Imported:
    return exit_of(Reading(), protocol, ("vpn.example.com", 443), secret, fields, now=NOW)


def refused(protocol: str = "vless", secret: str = UUID, **fields: str) -> str:
    with pytest.raises(RefusedError) as caught:
        made(protocol, secret, **fields)
    return str(caught.value)


def test_a_link_without_a_flow_has_none_and_one_over_another_transport_needs_none() -> None:
    assert made(**TLS).settings["flow"] == "none"
    assert made(**TLS, flow="xtls-rprx-vision-udp443").settings["flow"] == "xtls-rprx-vision"
    assert "flow" not in made(**TLS, type="ws").settings
    assert "flow" not in made("trojan", "p", **TLS).settings


def test_each_thing_that_is_read_is_used_or_said() -> None:
    """No parameter is dropped in silence: each changes the exit, is refused, or is warned of, for some transport."""
    usual = {"type": "tcp", "security": "tls", "encryption": "none"}
    plain = made(**usual)
    silent = set()
    for name in READ - {"udp", "xudp", "outline", *usual}:
        values = ("x", "http", "2048", "1", "h2", "/x", "multi", "{}", "xtls-rprx-vision", "packetaddr", "a.example")
        for value in values:
            try:
                found = made(**usual | {name: value})
            except RefusedError:
                break
            if found.settings != plain.settings or found.warnings:
                break
        else:
            silent.add(name)
    assert silent == set()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('{"xPaddingBytes": 0}', ""),
        ('{"xPaddingBytes": ""}', ""),
        ('{"xPaddingBytes": {"From": 100, "To": 1000}}', ""),
        ('{"xPaddingBytes": "100-1001"}', "xPaddingBytes"),
        ('{"xPaddingBytes": []}', "xPaddingBytes"),
        ('{"scMaxEachPostBytes": "1000000"}', ""),
        ('{"scMaxEachPostBytes": 500000}', "scMaxEachPostBytes"),
        ('{"noGRPCHeader": true}', "noGRPCHeader"),
        ('{"headers": {}}', ""),
        ('{"downloadSettings": {"x": 1}}', "second server"),
        ('{"scMaxBufferedPosts": 7, "xPaddingKey": "k"}', ""),
        ('{"hunter2": 1}', "a key that is not known"),
        ("[]", "no JSON object"),
        ("{", "no JSON object"),
    ],
)
def test_extra_may_say_what_xray_does_anyway(value: str, words: str) -> None:
    fields = {**TLS, "type": "xhttp", "extra": value}
    if words:
        assert words in refused(**fields)
        assert "hunter2" not in refused(**fields)
    else:
        assert made(**fields).settings["transport"] == "xhttp"


def test_keys_of_extra_are_told_from_all_others() -> None:
    assert not set(EXTRA_KEYS) & READ


@pytest.mark.parametrize(
    ("text", "well"),
    [
        (UUID, True),
        (UUID.upper(), True),
        (UUID.replace("-", ""), True),
        ("-" + UUID.replace("-", ""), True),
        ("-" + UUID, False),
        ("a" * 30, True),
        ("ä" * 15, True),
        ("a" * 31, False),
        ("ä" * 16, False),
        (UUID[:-1], False),
        ("g" + UUID[1:], False),
        ("", False),
    ],
)
def test_ids_are_those_that_xray_takes(text: str, well: bool) -> None:  # noqa: FBT001 - a parameter
    reading = Reading()
    check_id(reading, text)
    assert bool(reading.problems) != well


@pytest.mark.parametrize(
    ("cipher", "password", "well"),
    [
        ("2022-blake3-aes-128-gcm", "UVCCx0zcITNxKpZarGU3Gg==", True),
        ("2022-blake3-aes-128-gcm", "UVCCx0zcITNxKpZarGU3Gg==:HVpXp5d89TgqRkNzp2/QWQ==", True),
        ("2022-blake3-aes-128-gcm", "UVCCx0zcITNxKpZarGU3Gg", False),  # Xray wants the padding
        ("2022-blake3-aes-128-gcm", "HVpXp5d89TgqRkNzp2_QWQ==", False),  # and the usual alphabet
        ("2022-blake3-aes-128-gcm", "UVCCx0zcITNxKpZarGU3Gg =", False),
        ("2022-blake3-aes-256-gcm", "UVCCx0zcITNxKpZarGU3Gg==", False),
        ("2022-blake3-chacha20-poly1305", "ZnWlxGQDlJcopM5ylyjWvaSatpc3ZPi9wZ9plMvEtrk=", True),
        ("aead_aes_256_gcm", "anything: at all", True),
    ],
)
def test_keys_of_shadowsocks_are_those_that_xray_starts_with(cipher: str, password: str, well: bool) -> None:  # noqa: FBT001
    if well:
        assert made("shadowsocks", password, encryption=cipher).secrets["xray_password"].reveal() == password
    else:
        assert "keys of" in refused("shadowsocks", password, encryption=cipher)


@pytest.mark.parametrize(
    ("text", "well"),
    [
        ("/", True),
        ("/a?p=1-2#x", True),
        ("/%41", True),
        ("/%", False),
        ("//host:x", False),
        ("x", False),
        ("/%zz", False),
    ],
)
def test_spider_paths_are_those_that_xray_survives(text: str, well: bool) -> None:  # noqa: FBT001 - a parameter
    assert is_spider_path(text) == well


def test_the_name_that_is_asked_for_is_the_one_that_programs_take() -> None:
    assert made(**TLS, type="ws", host="cdn.example").settings["tls"] == {"server_name": "cdn.example"}
    assert made(**TLS, type="ws", host="cdn.example", sni="a.example").settings["tls"] == {"server_name": "a.example"}
    assert made(**TLS, host="cdn.example").settings["tls"] == {}
    assert made("trojan", "p").settings["tls"] == {}  # which is what trojan is made for
    assert "nothing would encrypt it" in refused("trojan", "p", security="none")


def test_json_is_read_strictly() -> None:
    assert json_object('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for text in ("[]", "1", "", "{", '{"a": 1, "a": 1}', '{"a": NaN}', '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}"):
        assert json_object(text) is None


def test_an_unknown_fingerprint_is_refused_with_one_that_does() -> None:
    assert made(**TLS, fp="Firefox").settings["tls"] == {"fingerprint": "firefox"}
    assert "`fp=chrome` does with any server" in refused(**TLS, fp="randomizednoalpn")

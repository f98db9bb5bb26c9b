from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chain.exits.base import SecretSpec
from chain.imports.base import AsideError, Imported, Reading, RefusedError, expiry, flaw, nothing_aside

TEXT = SecretSpec("vpn_password", about="the password", limit=8)
KEY = SecretSpec("wg_private_key", about="the key", form="wireguard-key")


def imported(kind: str = "l2tp", secrets: dict[str, str] | None = None, **settings: object) -> Imported:
    return Reading().imported(kind, settings, secrets or {}, {"server": "Gateway", "vpn_password": "Password"})


def refused(kind: str = "l2tp", secrets: dict[str, str] | None = None, **settings: object) -> str:
    with pytest.raises(RefusedError) as caught:
        imported(kind, secrets, **settings)
    return str(caught.value)


def test_what_is_imported_shows_no_secret() -> None:
    found = imported(server="vpn.example.com", secrets={"vpn_password": "hunter2"})
    assert found.secrets["vpn_password"].reveal() == "hunter2"
    assert "hunter2" not in repr(found)


def test_refusals_name_what_the_input_calls_it_and_repeat_no_value() -> None:
    assert refused(server="hunter2 hunter2").startswith("Gateway: ")
    assert "hunter2" not in refused(server="hunter2 hunter2")
    assert refused(secrets={"vpn_password": "a\nb"}).startswith("Password: it has a line break")
    assert refused("xray", server="h").startswith("vless without `reality:` or `tls:`: nothing would encrypt it")
    assert "ike: " in refused(ike="hunter2")
    assert "hunter2" not in refused(ike="hunter2")


def test_all_that_is_noted_is_said_at_once_before_anything_else() -> None:
    reading = Reading()
    reading.refuse("line 1", "one")
    reading.refuse("line 2", "two", "do that")
    with pytest.raises(RefusedError) as caught:
        reading.imported("l2tp", {"server": "no server"}, {}, {})
    assert str(caught.value) == "line 1: one\nline 2: two\n    → do that"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "empty"),
        ("a\rb", "line break"),
        ("a\x7f", "can't be typed"),
        ("a\ud800", "can't be typed"),
        (" CHANGE-ME", "CHANGE-ME"),
        ("123456789", "longer than 8 bytes"),
        ("ääääé", "longer than 8 bytes"),
        ("a b\t\"'\\", ""),
    ],
)
def test_secrets_that_would_not_arrive_are_flawed(value: str, words: str) -> None:
    assert words in flaw(value, TEXT)
    assert bool(words) == bool(flaw(value, TEXT))


def test_documents_have_lines_and_a_limit() -> None:
    document = SecretSpec("ovpn_ca", about="the file", form="document", limit=8)
    assert flaw("a\r\nb\n", document) == ""
    assert "longer than 8 bytes" in flaw("a\nb\nc\nd\ne", document)
    assert "empty" in flaw("", document)


def test_an_input_without_a_folder_has_no_file_beside_it() -> None:
    with pytest.raises(AsideError, match="without a folder"):
        nothing_aside("ca.crt")


def test_keys_have_their_form() -> None:
    assert flaw("aEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEs=", KEY) == ""
    assert "no WireGuard key" in flaw("aEt2", KEY)


@pytest.mark.parametrize(
    ("text", "port"),
    [("443", 443), ("1", 1), ("65535", 65535), ("0", 0), ("65536", 0), ("", 0), ("٤٤٣", 0), ("+1", 0), ("1_0", 0)],
)
def test_ports_are_digits(text: str, port: int) -> None:
    reading = Reading()
    assert reading.port("x", text) == port
    assert bool(reading.problems) == (port == 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vpn.example.com", ""),
        ("192.0.2.1", ""),
        ("2001:db8::1", "over IPv4 only"),
        ("[2001:db8::1]", "over IPv4 only"),
        ("bücher.example", "other characters"),
        ("a b", "no host name"),
        ("l2tp://vpn.example.com", "no host name"),
        ("192.0.2.256", "no host name"),
        ("", "no host name"),
    ],
)
def test_servers_are_what_an_exit_can_reach(text: str, words: str) -> None:
    reading = Reading()
    reading.server("x", text)
    assert [words in problem.what for problem in reading.problems] == ([True] if words else [])


def test_certificates_expire() -> None:
    dates = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    assert expiry(*dates, datetime(2025, 6, 1, tzinfo=UTC)) == ""
    assert "expired on 2026-01-01" in expiry(*dates, datetime(2026, 6, 1, tzinfo=UTC))
    assert "from 2025-01-01 on only" in expiry(*dates, datetime(2024, 6, 1, tzinfo=UTC))

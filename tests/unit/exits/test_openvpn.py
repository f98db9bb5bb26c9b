from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from chain.exits.openvpn import OVERHEAD, OpenVpn, OpenVpnExit

KIND = OpenVpn()
NOW = datetime(2026, 6, 1, tzinfo=UTC)
PRIVATE = "-----BEGIN {}PRIVATE KEY-----\nAAAA\n-----END {}PRIVATE KEY-----\n"


def settings(**fields: Any) -> OpenVpnExit:
    return OpenVpnExit.model_validate({"kind": "openvpn", **fields})


def certificate(begins: int, ends: int) -> str:
    """Give a certificate that is valid from so many days after now to so many."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.example")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(NOW + timedelta(days=begins))
        .not_valid_after(NOW + timedelta(days=ends))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


GOOD, OLD, FUTURE = certificate(-9, 9), certificate(-9, -2), certificate(2, 9)


def file(*lines: str, ca: str = GOOD, login: bool = True) -> str:
    asked = ["auth-user-pass"] if login else []
    return "\n".join(["client", "dev tun", "remote vpn.example.org", *asked, *lines, "<ca>", ca + "</ca>", ""])


def told(text: str, **fields: Any) -> list[str]:
    spec = KIND.secrets(settings(**fields))[0]
    assert spec.role == "ovpn_config"
    assert spec.examine
    return [fault.what for fault in spec.examine(text, NOW)]


def test_secrets_are_the_file_and_a_login() -> None:
    assert [spec.role for spec in KIND.secrets(settings())] == ["ovpn_config", "ovpn_username", "ovpn_password"]
    assert [spec.role for spec in KIND.secrets(settings(login=False))] == ["ovpn_config"]
    fields = {"login": False, "key_password": True, "ca": {"file": "secrets/x"}, "tls_crypt_v2": True, "key": False}
    found = [(spec.role, spec.override, spec.form) for spec in KIND.secrets(settings(**fields))]
    assert found == [
        ("ovpn_config", None, "document"),
        ("ovpn_ca", "secrets/x", "document"),
        ("ovpn_tls_crypt_v2", None, "document"),
        ("ovpn_key_password", None, "text"),
    ]
    assert KIND.options(settings()) == {}


def test_the_kind_can_be_asked_without_settings() -> None:
    assert KIND.secrets(OpenVpnExit.model_construct(kind="openvpn"))


def test_a_key_itself_is_refused() -> None:
    with pytest.raises(ValidationError):
        settings(key="-----BEGIN")


def test_the_tunnel_leaves_room_for_the_outer_packet() -> None:
    assert KIND.tunnel_mtu(settings(), 1500) == 1500 - OVERHEAD == 1399


def test_it_may_send_both_protocols() -> None:
    assert set(settings().sends()) == {"udp", "tcp"}


def test_a_good_file_has_no_fault() -> None:
    assert told(file()) == []
    assert told(file(login=False).replace("dev tun", "<auth-user-pass>\na\nb\n</auth-user-pass>"), login=False) == []


@pytest.mark.parametrize(
    ("text", "fields", "what"),
    [
        (file("up x"), {}, "`up` is refused: it runs a program"),
        (file(login=False), {"login": False}, "nothing says who the client is"),
        (file(), {"login": False}, "it asks for a user name and a password"),
        (
            file().replace("auth-user-pass", "<auth-user-pass>\na\nb\n</auth-user-pass>"),
            {},
            "user name and password stand in it as <auth-user-pass>",
        ),
        (
            file(f"<cert>\n{GOOD}</cert>\n<key>\n{PRIVATE}</key>".replace("{}", ""), login=False),
            {},
            "it has no `auth-user-pass`: no user name is asked for",
        ),
        (file("tls-auth ta.key 1"), {}, "its `tls-auth` stands in a file of its own"),
        (file(), {"tls_crypt": True}, "it names no file in `tls-crypt`"),
        (file(ca=OLD), {}, "ca: the certificate expired on 2026-05-30"),
        (file(ca=OLD + OLD), {}, "ca: the certificate expired on 2026-05-30"),
        (file(ca=FUTURE), {}, "ca: the certificate is not valid before 2026-06-03"),
        (
            file(ca="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            {},
            "ca: no certificate can be read there",
        ),
        (
            file(f"<cert>\n{OLD}</cert>\n<key>\n{PRIVATE}</key>".replace("{}", "")),
            {},
            "cert: the certificate expired on 2026-05-30",
        ),
        (
            file(f"<cert>\n{GOOD}</cert>\n<key>\n{PRIVATE}</key>".replace("{}", "ENCRYPTED ")),
            {},
            "<key> asks for a password",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text: str, fields: dict[str, Any], what: str) -> None:
    assert told(text, **fields) == [what]


def test_of_several_authorities_one_may_have_expired() -> None:
    assert told(file(ca=OLD + GOOD)) == []


def test_a_file_beside_it_is_examined_too() -> None:
    spec = next(spec for spec in KIND.secrets(settings(ca=True)) if spec.role == "ovpn_ca")
    assert spec.examine
    assert [fault.what for fault in spec.examine(OLD, NOW)] == ["ca: the certificate expired on 2026-05-30"]
    assert [fault.what for fault in spec.examine("word", NOW)] == ["ca: nothing in it says -----BEGIN CERTIFICATE-----"]
    assert not list(spec.examine(GOOD, NOW))

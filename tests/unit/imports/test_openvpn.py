"""What becomes of a file's parts; whose files were tried, and what is refused, is in tests/imports."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from corpus import expanded

from chain.imports import AsideError, Imported, RefusedError
from chain.imports.base import nothing_aside
from chain.imports.openvpn import MOST_LISTED, read, recognises

NOW = datetime(2026, 9, 1, tzinfo=UTC)
PRINT = "peer-fingerprint " + ":".join(["AB"] * 32)
KEY = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"
SEALED = KEY.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
SEAL = "-----BEGIN OpenVPN Static key V1-----\nhunter2\n-----END OpenVPN Static key V1-----"
LEAST = f"client\nremote vpn.example.com 1194\nremote-cert-tls server\nauth-user-pass\n{PRINT}\n"
FILES = {
    "login": b"ann\r\nhunter2 \r\n",
    "user": b"ann\n",
    "notes": b"ann\nhunter2\nhunter3\n",
    "ta.key": f"\ufeff{SEAL}\r\n".encode(),
    "binary": b"\xff\xfe",
    "key": SEALED.encode(),
    "pass": b"hunter2\n",
}


def aside(name: str) -> bytes:
    try:
        return FILES[name]
    except KeyError:
        raise AsideError("it is not beside the input") from None


def taken(text: str) -> Imported:
    (item,) = read(text, NOW, aside)
    assert isinstance(item.found, Imported), item.found
    assert "hunter" not in "".join(map(str, item.found.warnings))
    return item.found


def secrets(found: Imported) -> dict[str, str]:
    return {role: value.reveal() for role, value in found.secrets.items() if role != "ovpn_config"}


def refused(text: str) -> str:
    try:
        (item,) = read(text, NOW, aside)
    except RefusedError as error:
        found = error
    else:
        assert isinstance(item.found, RefusedError)
        found = item.found
    assert "hunter" not in str(found)
    return str(found)


@pytest.mark.parametrize(
    "line",
    [
        "remote vpn.example.com 1194",
        "  --remote\t192.0.2.1  443 tcp # x",
        "auth-user-pass",
        "auth-user-pass x",
        "dev tun",
        "dev tap0",
        "<ca>\r",
        "<tls-crypt-v2>",
        "tls-client",
    ],
)
def test_a_file_is_recognised_by_what_only_openvpn_has(line: str) -> None:
    assert recognises(f"# a provider's\n{line}\n")


@pytest.mark.parametrize("line", ["remote access 24/7", "client", "device tun", "remote_addrs = x", "", "PSK: <ca>"])
def test_other_texts_are_not(line: str) -> None:
    assert not recognises(f"Server: a\n{line}\n")


def test_a_file_is_kept_as_it_is() -> None:
    text = f"; hunter1\r\n{LEAST}\n\tverb  3 # x\r\n\n"
    found = taken(text)
    assert found.kind == "openvpn"
    assert found.settings == {}
    assert found.secrets["ovpn_config"].reveal() == text.rstrip("\r\n")
    assert secrets(found) == {}


def test_an_exit_is_called_by_its_first_server() -> None:
    (item,) = read(LEAST + "remote b.example 7 tcp\n", NOW)
    assert item.name == "vpn.example.com:1194"


def test_files_beside_it_become_secrets() -> None:
    found = taken(LEAST + "tls-auth ta.key 1\n")
    assert found.settings == {"tls_auth": True}
    assert secrets(found) == {"ovpn_tls_auth": SEAL}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tls-auth none.key 1", "line 6: `tls-auth` names a file, and it is not beside the input"),
        ("tls-crypt binary", "line 6: `tls-crypt` names a file, and it is no UTF-8 text"),
        ("tls-auth login", "line 6: tls-auth: nothing in it says -----BEGIN OpenVPN Static key V1-----"),
    ],
)
def test_files_that_can_not_be_had_are_named_by_their_line(line: str, words: str) -> None:
    assert refused(f"{LEAST}{line}\n").startswith(words)


def test_by_standard_input_it_is_said_what_to_give() -> None:
    (item,) = read(f"{LEAST}tls-auth ta.key 1\n", NOW, nothing_aside)
    assert isinstance(item.found, RefusedError)
    assert "came without a folder" in str(item.found)
    assert "as <tls-auth>" in str(item.found)


@pytest.mark.parametrize(
    ("file", "given", "warned"),
    [
        ("", {}, ""),
        ("stdin", {}, ""),
        (
            "login",
            {"ovpn_username": "ann", "ovpn_password": "hunter2 "},
            "are the first two lines of the file beside it",
        ),
        ("user", {"ovpn_username": "ann"}, "the user name is the first line of the file"),
        ("notes", {"ovpn_username": "ann", "ovpn_password": "hunter2"}, "the others are left out"),
        ("none", {}, "what it would hold is asked for"),
        ("binary", {}, "it is no UTF-8 text: what it would hold is asked for"),
    ],
)
def test_a_login_is_read_as_openvpn_reads_it(file: str, given: dict[str, str], warned: str) -> None:
    found = taken(LEAST.replace("auth-user-pass", f"auth-user-pass {file}"))
    assert found.settings == {}
    assert secrets(found) == given
    assert [each.where for each in found.warnings] == (["line 4"] if warned else [])
    assert warned in "".join(map(str, found.warnings))


def test_a_login_inside_the_file_stays_there() -> None:
    block = "<auth-user-pass>\nann\nhunter2\n</auth-user-pass>"
    found = taken(LEAST.replace("auth-user-pass", block))
    assert found.settings == {"login": False}
    assert secrets(found) == {}
    assert "stands there as a block too" in refused(f"{LEAST}{block}\nauth-user-pass login\n")


def test_a_key_that_is_sealed_has_a_password_of_its_own() -> None:
    text = expanded(f"{LEAST}<cert>\n@CERT@\n</cert>\nkey key\n")
    found = taken(text)
    assert found.settings == {"key": True, "key_password": True}
    assert secrets(found) == {"ovpn_key": SEALED}
    assert secrets(taken(f"{text}askpass pass\n"))["ovpn_key_password"] == "hunter2"
    assert "ovpn_key_password" not in secrets(taken(f"{text}askpass none\n"))


def test_a_password_for_no_key_is_left_out() -> None:
    found = taken(f"{LEAST}askpass pass\n")
    assert found.settings == {}
    assert [str(each) for each in found.warnings] == [
        "line 6: left out: `askpass`: the private key asks for no password"
    ]


def test_what_is_left_out_is_said_with_its_reason_and_together() -> None:
    found = taken(f"{LEAST}verb 3\nnobind\nverb 4\nroute 10.0.0.0\n")
    assert [str(each) for each in found.warnings] == [
        "lines 6, 7, 8: left out: `verb`, `nobind`: the chain decides this",
        "line 9: left out: `route`: which packets go into the tunnel is decided by the chain, never by a provider",
    ]


def test_what_is_wrong_in_the_same_way_is_said_once() -> None:
    said = refused(LEAST + "hunter2\n" * (MOST_LISTED + 1))
    assert said.startswith("lines 6, 7, 8,")
    assert said.count("this directive is unknown") == 1
    assert f"{5 + MOST_LISTED}, …: " in said


def test_a_blank_is_no_server() -> None:
    assert "still a blank" in refused(LEAST.replace("vpn.example.com", "YOUR_SERVER_IP"))

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chain.node.kinds import causes
from chain.node.kinds.openvpn import lines
from chain.ovpn import Note

if TYPE_CHECKING:
    from chain.node.kinds.causes import Cause

# As OpenVPN 2.6.14 says it.
REPLY = (
    "PUSH: Received control message: 'PUSH_REPLY,redirect-gateway def1,route-gateway 10.67.1.1,topology subnet,"
    "ifconfig 10.67.1.2 255.255.255.0,peer-id 0,cipher AES-256-GCM'"
)
TOKEN = "PUSH: Received control message: 'PUSH_REPLY,ping 5,auth-tokenSESS_ID,cipher AES-256-GCM'\n"
GOODBYE = "exit-with-notification"
TLS = [
    "OpenSSL: error:0A000086:SSL routines::certificate verify failed:",
    "TLS_ERROR: BIO read tls_read_plaintext error",
    "TLS Error: TLS handshake failed",
]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (["VERIFY ERROR: depth=0, error=certificate has expired: CN=a, serial=1", *TLS], causes.OPENVPN_EXPIRED),
        (["VERIFY ERROR: depth=1, error=self-signed certificate in certificate chain: CN=a"], causes.OPENVPN_AUTHORITY),
        (["VERIFY ERROR: depth=0, error=certificate revoked: CN=a"], causes.OPENVPN_REVOKED),
        (["VERIFY ERROR: depth=0, error=CRL has expired: CN=a"], causes.OPENVPN_REVOKED),
        (["VERIFY ERROR: depth=1, error=CA signature digest algorithm too weak: CN=a"], causes.OPENVPN_WEAK),
        (["VERIFY ERROR: depth=0, error=EE certificate key too weak: CN=a"], causes.OPENVPN_WEAK),
        (["VERIFY X509NAME ERROR: CN=openvpn.example, must be other.example", *TLS], causes.OPENVPN_NAME),
        (["VERIFY EKU ERROR", *TLS], causes.OPENVPN_NAME),
        (
            ["AUTH: Received control message: AUTH_FAILED,Data channel cipher negotiation failed (no shared cipher)"],
            causes.OPENVPN_CIPHER,
        ),
        (["OPTIONS ERROR: failed to negotiate cipher with server."], causes.OPENVPN_CIPHER),
        (
            ["OpenSSL: error:0A000415:SSL routines::sslv3 alert certificate expired:SSL alert number 45"],
            causes.OPENVPN_OWN_CERTIFICATE,
        ),
        (["TLS Error: incoming packet authentication failed from [AF_INET]192.0.2.7:1194"], causes.OPENVPN_CONTROL_KEY),
        (["tls-crypt unwrap error: packet authentication failed"], causes.OPENVPN_CONTROL_KEY),
        (["ERROR: Cannot open TUN/TAP dev /dev/net/tun: No such file or directory (errno=2)"], causes.OPENVPN_NO_TUN),
        (TLS, causes.OPENVPN_TLS),
    ],
)
def test_a_cause_is_read_with_its_line(said: list[str], cause: Cause) -> None:
    found = lines.told(["VERIFY OK: depth=1, CN=a", *said])
    assert found is not None
    assert found.key == cause.key
    assert said[0].removesuffix(", serial=1") in found.cause
    assert "serial" not in found.cause


def test_lines_that_say_nothing_say_nothing() -> None:
    assert lines.told(["VERIFY OK: depth=1, CN=a", REPLY]) is None


def test_the_servers_own_words_are_passed_on() -> None:
    found = lines.credentials(["AUTH: Received control message: AUTH_FAILED,Your account has ended\x1b[2J"])
    assert "(Your account has ended\N{REPLACEMENT CHARACTER}[2J)" in found.cause
    assert "no reason given" in lines.credentials(["AUTH: Received control message: AUTH_FAILED"]).cause


@pytest.mark.parametrize(
    ("said", "reason", "key", "words"),
    [
        ("Connection reset command was pushed by server ('')", "server-pushed", "openvpn-ended", "(it restarts)"),
        ("Halt command was pushed by server ('bye')", "x", "openvpn-ended", "(it sends this exit away: bye)"),
        ("Connection reset, restarting [0]", "connection-reset", "openvpn-ended", "(the TCP connection was reset)"),
        ("Inactivity timeout (--ping-restart), restarting", "ping-restart", "openvpn-lost", "(ping-restart)"),
        ("AUTH: Received control message: AUTH_FAILED", GOODBYE, "openvpn-credentials", "no reason given"),
        (f"{TOKEN}AUTH: Received control message: AUTH_FAILED", GOODBYE, "openvpn-ended", "session's token no more"),
        ("No reply from server to push requests in 60s", GOODBYE, "openvpn-ended", "(it gave this exit no settings)"),
        ("TLS Error: TLS key negotiation failed to occur within 30 seconds", GOODBYE, "openvpn-lost", "negotiation"),
        ("[a] Inactivity timeout (--ping-restart), restarting", GOODBYE, "openvpn-lost", "(ping-restart)"),
        ("anything", GOODBYE, "openvpn-ended", "(no reason given)"),
        ("anything", "", "openvpn-ended", "(no reason given)"),
        ("VERIFY ERROR: depth=0, error=certificate has expired", "x", "openvpn-expired", "expired"),
    ],
)
def test_an_end_is_told(said: str, reason: str, key: str, words: str) -> None:
    found = lines.ended([REPLY, *said.splitlines()], reason)
    assert found.key == key
    assert words in found.cause


def test_a_server_that_asks_for_more_is_told_and_its_session_is_not() -> None:
    line = "AUTH: Received control message: AUTH_FAILED,CRV1:R,E:c2Vzc2lvbg:dXNlcg==:Enter the code: now"
    found = lines.credentials([line])
    assert found.key == "openvpn-code"
    assert "(Enter the code: now)" in found.cause
    assert "c2Vzc2lvbg" not in found.cause + found.advice
    assert lines.NOT_LOGGED.match(line)
    assert "no words" in lines.credentials(["AUTH_FAILED,CRV1:R"]).cause
    assert lines.credentials(["AUTH_FAILED,TEMP[backoff 7]:later"]).key == "openvpn-busy"


@pytest.mark.parametrize(
    ("said", "key", "shown"),
    [
        # A key that is not the certificate's, and none at all: OpenSSL's word comes first, and says less.
        (["no certificate assigned:", "Private key does not match the certificate"], "openvpn-refuses", 1),
        (["unsupported:No supported data", "Cannot load private key file [[INLINE]]"], "openvpn-refuses", 1),
        (["ca md too weak:", "Cannot load inline certificate file"], "openvpn-weak", 0),
    ],
)
def test_why_keys_are_not_taken_is_told_by_the_line_that_says_most(said: list[str], key: str, shown: int) -> None:
    heard = [f"OpenSSL: error:0A0000B1:SSL routines::{said[0]}", said[1], "Exiting due to fatal error"]
    found = lines.told(heard)
    assert found is not None
    assert found.key == key
    assert heard[shown] in found.cause


def test_what_openvpn_does_not_take_is_told() -> None:
    said = ["Options error: Unrecognized option or missing parameter(s) in x:1", "Use --help for more information."]
    assert said[0] in lines.refusal(said, "").cause
    assert "word" in lines.refusal(["a"], "word").cause
    assert "no word" in lines.refusal([], "").cause


def test_the_servers_address_in_the_tunnel_is_read() -> None:
    assert lines.gateway(["x", REPLY], "10.67.1.2") == "10.67.1.1"
    assert lines.gateway([REPLY.replace("route-gateway", "gateway")], "10.67.1.2") == ""
    assert lines.gateway([], "10.67.1.2") == ""


@pytest.mark.parametrize(
    ("routes", "found"),
    [
        ("route 192.168.3.4,route 10.67.1.1,topology net30", "10.67.1.1"),
        ("route 10.67.1.0 255.255.255.0,topology net30", "10.67.1.1"),  # its clients may reach each other
        ("route 10.67.1.1 255.255.255.255 vpn_gateway 7", "10.67.1.1"),
        ("route 192.168.3.0 255.255.255.0", ""),
        ("route 0.0.0.0 0.0.0.0", ""),
        ("route 10.67.1.9 255.255.255.0,route,route remote_host,route-gateway", ""),
        ("route-gateway 10.9.9.9,route 10.67.1.1", "10.9.9.9"),
    ],
)
def test_where_two_share_a_network_the_routes_tell_the_servers_address(routes: str, found: str) -> None:
    line = f"PUSH: Received control message: 'PUSH_REPLY,ping 5,{routes},ifconfig 10.67.1.6 10.67.1.5'"
    assert lines.gateway([line], "10.67.1.6") == found


def test_what_is_left_out_is_told_by_reasons() -> None:
    notes = [Note(0, "remote-cert-tls", "anybody"), Note(3, "dev", "x"), Note(5, "route", "y"), Note(7, "verb", "x")]
    assert lines.left_out(notes) == [
        "warning: anybody",
        "lines that are not followed: 3 (`dev`), 7 (`verb`): x",
        "lines that are not followed: 5 (`route`): y",
    ]
    assert lines.left_out([]) == []

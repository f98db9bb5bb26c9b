"""From what OpenVPN prints to a row of the table of causes. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from chain.contract import printable
from chain.node.kinds import causes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chain.node.kinds.causes import Cause, Diagnosis
    from chain.ovpn import Note

_WORDS = 160  # characters of a line that people are shown
_SERIAL = re.compile(r", serial=\d+$")
# Lines that stand in each log whatever happens: lists of what it was built with, and advice to its makers' customers.
NOT_LOGGED = re.compile(
    r"^(library versions:|OpenVPN \d|DCO version|NOTE: the current --script-security|Pushed option removed by filter"
    r"|Note: --cipher is not set"
    r"|WARNING: this configuration may cache passwords|MANAGEMENT: (CMD|>)|event_wait : Interrupted"
    r"|AUTH: Received control message: AUTH_FAILED,CRV1:)"  # with what a session is known by
)
_PUSHED = re.compile(r"'PUSH_REPLY,(?P<options>.*)'$")
_LARGEST = 16  # length of the prefix of the largest network that may be all of the tunnel's
# The first row that fits any line is the cause: those that say more stand before those that follow from them.
_SIGNS: tuple[tuple[str, Cause], ...] = (
    (r"AUTH: Received control message: AUTH_FAILED,.*(cipher|Data channel)", causes.OPENVPN_CIPHER),
    (r"failed to negotiate cipher", causes.OPENVPN_CIPHER),
    (r"(md|key|algorithm) too (weak|small)", causes.OPENVPN_WEAK),
    (r"VERIFY ERROR: .*(certificate has expired|certificate is not yet valid)", causes.OPENVPN_EXPIRED),
    (r"VERIFY ERROR: .*(certificate revoked|CRL)", causes.OPENVPN_REVOKED),
    (r"VERIFY ERROR: ", causes.OPENVPN_AUTHORITY),
    (r"VERIFY (X509NAME|KU|EKU|nsCertType) ERROR|Certificate does not have .*usage", causes.OPENVPN_NAME),
    (r"alert (certificate (expired|revoked|unknown)|bad certificate|unknown ca)", causes.OPENVPN_OWN_CERTIFICATE),
    (r"(tls-crypt unwrap error|incoming packet authentication failed|cannot locate HMAC)", causes.OPENVPN_CONTROL_KEY),
    (r"[Cc]ompression (framing|or compression stub)|compress.*not (allowed|compatible)", causes.OPENVPN_COMPRESSION),
    (r"(OPTIONS ERROR|Failed to (apply push|import options)|Options error:.*PUSH)", causes.OPENVPN_OPTIONS),
    (r"(Cannot (open|ioctl) TUN|Cannot allocate TUN|/dev/net/tun)", causes.OPENVPN_NO_TUN),
    (r"^(Cannot load |Private key does not match)", causes.OPENVPN_REFUSES),
    (r"(OpenSSL: error|TLS_ERROR: BIO read)", causes.OPENVPN_TLS),
)
_REFUSALS = re.compile(r"^Options error: ")
_AUTH_FAILED = re.compile(r"AUTH_FAILED(?:,(?P<reason>.*))?")
# How a server ends a connection, with words of its own or without.
_ENDS = (
    (re.compile(r"Connection reset command was pushed by server \('(?P<words>.*)'\)"), "it restarts"),
    (re.compile(r"Halt command was pushed by server \('(?P<words>.*)'\)"), "it sends this exit away"),
    (re.compile(r"Connection reset, (?P<words>)restarting"), "the TCP connection was reset"),
    (re.compile(r"No reply from server (?P<words>)(?:to|after sending) .*push req"), "it gave this exit no settings"),
)
# Over UDP, OpenVPN's short word for any end is that it says goodbye; its lines say why.
_GOODBYE = "exit-with-notification"
_SILENCE = re.compile(r"Inactivity timeout \(--(?P<timer>ping-\w+)\)|(?P<tls>TLS key negotiation failed)")
_TOKEN = re.compile(r"PUSH_REPLY,(?:.*,)?auth-token")


def told(lines: Iterable[str]) -> Diagnosis | None:
    """Give the cause that these lines say, if they say one."""
    seen = list(lines)
    for pattern, cause in _SIGNS:
        if line := next((line for line in seen if re.search(pattern, line)), ""):
            return cause.found(line=short(line))
    return None


def refusal(lines: Iterable[str], fatal: str) -> Diagnosis:
    """Say why OpenVPN gave up by itself."""
    seen = list(lines)
    line = next((line for line in seen if _REFUSALS.match(line)), fatal or (seen[-1] if seen else "no word"))
    return causes.OPENVPN_REFUSES.found(line=short(line))


def credentials(lines: Iterable[str]) -> Diagnosis:
    """Say with the server's own words, if it has any, that it refused them, or asks for more."""
    found = [match["reason"] for line in lines if (match := _AUTH_FAILED.search(line)) and match["reason"]]
    reason = found[-1] if found else "no reason given"
    if reason.startswith("CRV1:"):  # flags, the session's name, user name, words
        return causes.OPENVPN_CODE.found(words=short((reason.split(":", 4) + [""] * 4)[4]) or "no words")
    if reason.startswith("TEMP"):
        return causes.OPENVPN_BUSY.found(words=short(reason))
    return causes.OPENVPN_CREDENTIALS.found(reason=short(reason))


def ended(lines: Iterable[str], reason: str) -> Diagnosis:
    """Say how a connection that stood came to its end; `reason` is OpenVPN's short word for it."""
    seen = list(lines)
    for pattern, meaning in _ENDS:
        if match := next((match for line in seen if (match := pattern.search(line))), None):
            words = short(match["words"])
            return causes.OPENVPN_ENDED.found(reason=f"{meaning}: {words}" if words else meaning)
    if match := next((match for line in seen if (match := _SILENCE.search(line))), None):
        return causes.OPENVPN_LOST.found(reason=match["timer"] or match["tls"])
    if any(_AUTH_FAILED.search(line) for line in seen):
        if any(_TOKEN.search(line) for line in seen):
            return causes.OPENVPN_ENDED.found(reason="it takes this session's token no more")
        return credentials(seen)
    why = "" if reason == _GOODBYE else short(reason)
    return told(seen) or causes.OPENVPN_ENDED.found(reason=why or "no reason given")


def gateway(lines: Iterable[str], own: str) -> str:
    """Give the server's own address in the tunnel, which it sends and OpenVPN tells nobody; empty: it sent none.

    In networks of two (net30, p2p) the other address may be nobody's, but the last route leads to the server, or to the
    network in which it has the first address.
    """
    found = [match["options"].split(",") for line in lines if (match := _PUSHED.search(line))]
    pushed = [(name, rest.split()) for options in found for name, _, rest in (each.partition(" ") for each in options)]
    gateways = [rest[0] for name, rest in pushed if name == "route-gateway" and rest]
    routes = [_first(rest[:2], own) for name, rest in reversed(pushed) if name == "route"]
    return next(filter(None, [*gateways, *routes]), "")


def _first(route: list[str], own: str) -> str:
    """Give the address to which a route leads, or the first one of a network that the own address is in."""
    try:
        network = ipaddress.IPv4Network("/".join(route))
    except ValueError:
        return ""
    if network.num_addresses == 1:
        return str(network[0])
    return str(network[1]) if network.prefixlen >= _LARGEST and ipaddress.IPv4Address(own) in network else ""


def left_out(notes: Iterable[Note]) -> list[str]:
    """Say which lines of a file are not followed, those with the same reason together."""
    reasons: dict[str, list[str]] = {}
    for note in notes:
        reasons.setdefault(note.why, []).extend([f"{note.line} (`{note.directive}`)"] if note.line else [])
    return [
        f"lines that are not followed: {', '.join(shown)}: {why}" if shown else f"warning: {why}"
        for why, shown in reasons.items()
    ]


def short(line: str) -> str:
    return printable(_SERIAL.sub("", line.strip()), _WORDS)

"""Formats that are not read, by name: whoever has one learns what it is, and what to ask for instead."""

from __future__ import annotations

import json
import re

from chain.errors import Problem
from chain.imports.base import SPACES, RefusedError

_LINKS = "ask for the subscription in the form of v2rayN: links, in base64 or not"
_FILE = "give the provider's file for WireGuard's app or OpenVPN, a link, or the four fields of L2TP"
_OVPN = "name the .ovpn file that goes with it, with this one beside it"

# How the bytes of what is no text begin.
_MAGIC = (
    (b"PK\x03\x04", "a ZIP archive", "unpack it, and give one of the files in it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\x89PNG", "a picture", "read the QR code in it, and give the text that it holds"),
    (b"\xff\xd8\xff", "a picture", "read the QR code in it, and give the text that it holds"),
    (b"%PDF", "a PDF", "give what stands in it as text"),
    (b"bplist", "a binary property list", "`plutil -convert xml1` writes it as text"),
    (
        b"\x30\x82",
        "a signed or encrypted file",
        "`openssl smime -verify -noverify -inform DER -in FILE` prints a profile",
    ),
    (
        b"\x30\x80",
        "a signed or encrypted file",
        "`openssl smime -verify -noverify -inform DER -in FILE` prints a profile",
    ),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
)
# A line of its own that only this format has, and what that is.
_LINES = tuple(
    (re.compile(pattern), what, hint)
    for pattern, what, hint in (
        (r"(?:proxies|proxy-groups|proxy-providers):", "Clash's (mihomo's) configuration", _LINKS),
        (r"\[proxy\]", "a configuration for Surge, Loon or Shadowrocket", _LINKS),
        (r"\[server_local\]", "a configuration for Quantumult X", _LINKS),
        (r"<(?:!doctype )?html.*", "a web page", "the address asks for a login, or is not the right one"),
        (r"-----begin openvpn (?:static key v1|tls-crypt-v2 client key)-----", "a key of OpenVPN's", _OVPN),
        (r"-----begin (?:certificate|(?:\S+ )?private key)-----", "a certificate or a key alone", _OVPN),
        (r"\[connection\]", "a connection of NetworkManager", _FILE),
        (
            r"pbversion=.*|vpnstrategy=.*",
            "a phone book of Windows",
            "give its four fields as lines such as `Server: …`",
        ),
        (r"conn \S+", "a file for strongSwan or libreswan", "give its four fields as lines such as `Server: …`"),
        (r"connections \{", "a file for strongSwan", "give its four fields as lines such as `Server: …`"),
        (r"-----begin age encrypted file-----", "a subscription encrypted with age", "decrypt it first"),
        (
            r"-----begin pkcs7-----",
            "a signed profile",
            "`openssl smime -verify -noverify -inform PEM -in FILE` prints it",
        ),
        (r"/interface.*", "commands for a MikroTik router", _FILE),
        (r"set interfaces wireguard.*", "commands for a VyOS or EdgeOS router", _FILE),
        (r"config (?:interface|wireguard_\S+).*", "a configuration of OpenWrt", _FILE),
    )
)
_JSON = re.compile(r"\[?\s*\{")
_MOST_LINES = 1000
_LONGEST = 200  # characters of a line that is looked at


def refuse_bytes(data: bytes) -> None:
    """Raise RefusedError for what is no text."""
    for beginning, what, hint in _MAGIC:
        if data.startswith(beginning):
            raise RefusedError(Problem("the input", f"this is {what}", hint))


def refuse(text: str) -> None:
    """Raise RefusedError for a format that has a name."""
    bare = text.strip(SPACES)
    if _JSON.match(bare):
        what, hint = _json(bare)
        raise RefusedError(Problem("the input", f"this is {what}", hint))
    for line in bare.split("\n")[:_MOST_LINES]:
        low = line.strip(SPACES)[:_LONGEST].lower()
        for pattern, what, hint in _LINES:
            if pattern.fullmatch(low):
                raise RefusedError(Problem("the input", f"this is {what}", hint))


def _json(text: str) -> tuple[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return "JSON, but broken off", _FILE
    first = found[0] if isinstance(found, list) and found else found
    keys = set(first) if isinstance(first, dict) else set()
    outbounds = first.get("outbounds") if keys else None
    outbound = outbounds[0] if isinstance(outbounds, list) and outbounds and isinstance(outbounds[0], dict) else {}
    if "protocol" in outbound:
        return "a configuration of Xray in JSON", _LINKS
    if outbounds is not None or "inbounds" in keys:
        return "a configuration of sing-box in JSON", _LINKS
    if "servers" in keys or {"server", "server_port", "method"} <= keys:
        return "Shadowsocks' own JSON (SIP008, or a program's configuration)", _LINKS
    if {"uuid", "remote", "type"} <= keys:
        return "a profile of strongSwan's app", _FILE
    return "JSON of a form that is not known here", _FILE

"""What providers, routers and panels write, written by us with made-up values, and what is to be made of it.

In the files, `@NAME@` stands for a value below, and `<<std:TEXT>>` for TEXT in base64: `std` and `url` name the
alphabet, `std-bare` and `url-bare` leave out the padding, `lines` breaks the lines. They may stand in one another.
In what is to be made of an input, `@INPUT@` stands for the whole of it.
"""

from __future__ import annotations

import base64
import posixpath
import re
import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import made
import yaml

from chain import ovpn
from chain.imports import MOST_BYTES, AsideError, Imported, Item, RefusedError, read

HERE = Path(__file__).parent
NOW = datetime(2026, 9, 1, tzinfo=UTC)
EXPIRED = """\
-----BEGIN CERTIFICATE-----
MIIBEDCBt6ADAgECAgECMAoGCCqGSM49BAMCMBIxEDAOBgNVBAMMB2V4YW1wbGUw
HhcNMjQwMTAxMDAwMDAwWhcNMjUwMTAxMDAwMDAwWjASMRAwDgYDVQQDDAdleGFt
cGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEL7yxS4RBM528NHyeT3DppzY+
rPQyqMVV+wSAahb+He11QCFvPJ/2XRu4pVMvorPbWnpL/yjpTsmSKuaWvfnPHDAK
BggqhkjOPQQDAgNIADBFAiBu0uYiPyV4JS4wcoNToz/ugFX0aUKOO1iVdh2I8Nl9
ZwIhANBdLP7MuBzDkhQDeaJsaXQER/VorFbYZBOeCwe5fe5N
-----END CERTIFICATE-----
"""
VALUES = {
    "PRIVATE": "cL3AQGIWK0Z+a80P6/nox/1izi34dwqI0PLCOoQxIEU=",
    "PUBLIC": "wTcdrXgs/mpIIBP6Y0vp45K22kVRMaC2/WWeTLaRJHA=",
    "PUBLIC2": "4j0qZnL+8k/DPjfnQOEu8cm46XMaZRnkOTdsAgu63S8=",
    "SHARED": "sHwGl69wiBHYgsCY1VnKO1UNZ1KZOwbCr1ffdkfR5NA=",
    "UUID": "70bf13e2-c315-4009-a291-23972b410ae3",
    "UUID2": "72c7ae89-e330-48cc-b1e1-17090f93aa3c",
    "PBK": "2mT6KYlTI_-K1juMlYyJjdJ9uX1-6n93ZLz-NjnGK1c",
    "KEY16": "UVCCx0zcITNxKpZarGU3Gg==",
    "KEY16B": "HVpXp5d89TgqRkNzp2/QWQ==",
    "KEY32": "1SkjkzARKza4TvlMIGEIR67FPZmzprsB/2sfEFhbrNw=",
    "KEY32B": "ZnWlxGQDlJcopM5ylyjWvaSatpc3ZPi9wZ9plMvEtrk=",
    "PASSWORD": "zebra-Lamp7.quartz",
    "PSK": "0xDecaf&Coffee",
    "USER": "ann.example",
    "PIN": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "EXPIRED": quote(EXPIRED, safe=""),
    "LONG": "x" * 20_000,
    "HUGE": "x" * (MOST_BYTES + 1),
    "DEEP": '{"a":' * 50_000,
    "MANY": "trojan://x@vpn.example.com:443\n" * 1001,
}
VALUES |= made.values(VALUES["PASSWORD"])
# What no message may repeat: the values that are secret, as they are and as links have them.
SECRETS = (
    *(VALUES[name] for name in ("PRIVATE", "SHARED", "UUID", "UUID2", "KEY16", "KEY16B", "KEY32", "PASSWORD", "PSK")),
    *(line for name in ("KEY", "STATIC", "WRAPPED") for line in VALUES[name].splitlines() if "-" not in line),
)
# What stands beside each input that names files.
ASIDE = {
    "ca.crt": "@CA@\n",
    "client.crt": "@CERT@\r\n",
    "client.key": "@KEY@\n",
    "sealed.key": "@SEALEDKEY@\n",
    "ta.key": "#\n# 2048 bit OpenVPN static key\n#\n@STATIC@\n",
    "wrapped.key": "@WRAPPED@\n",
    "keys/my ta.key": "@STATIC@\n",
    "login.txt": "@USER@\r\n@PASSWORD@\r\n",
    "user.txt": "@USER@\n",
    "notes.txt": "@USER@\n@PASSWORD@\nmy bank: @PSK@\n",
    "key.pass": "@PASSWORD@\n",
    "old.crt": "@OLDCERT@\n",
    "new.crt": "@NEWCERT@\n",
    "empty.crt": "\n",
    "broken.crt": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "closing.crt": "@CA@\n</ca>\nup /bin/sh\n",
    "control.txt": "@USER@\nzebra\x1b[2J\n",
    "long.txt": "@USER@\n@LONG@\n",
    "blank.txt": "\n@PASSWORD@\n",
}
_MACRO = re.compile(r"<<(std|url|std-bare|url-bare|lines):((?:(?!<<|>>).)*)>>", re.DOTALL)


def _encoded(dialect: str, text: str) -> str:
    raw = text.encode()
    found = (base64.urlsafe_b64encode if dialect.startswith("url") else base64.b64encode)(raw).decode()
    if dialect.endswith("bare"):
        return found.rstrip("=")
    return "\r\n".join(textwrap.wrap(found, 76)) + "\r\n" if dialect == "lines" else found


def expanded(text: str) -> str:
    """Put values and base64 in their places, the innermost first."""
    for name, value in VALUES.items():
        text = text.replace(f"@{name}@", value)
    while found := _MACRO.search(text):
        text = text[: found.start()] + _encoded(found[1], found[2]) + text[found.end() :]
    return text


def _deep(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        return {key: _deep(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [_deep(item, text) for item in value]
    return expanded(value).replace("@INPUT@", text) if isinstance(value, str) else value


@dataclass(frozen=True)
class Case:
    """One input; `exits` says what is in it, where it is to be taken."""

    name: str
    data: bytes = field(repr=False)
    shape: str = ""
    exits: tuple[dict[str, Any], ...] = ()


def cases(folder: str) -> list[Case]:
    """Give all cases of a folder, `accepted` or `refused`."""
    found = []
    for path in sorted((HERE / folder).glob("*.yaml")):
        for name, given in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            data = bytes.fromhex(given["bytes"]) if "bytes" in given else expanded(given["input"]).encode()
            text = data.decode(errors="replace").removeprefix("\ufeff").rstrip("\r\n")
            exits = tuple(_deep(exit_, text) for exit_ in given.get("exits", ()))
            found.append(Case(f"{path.stem}/{name}", data, given.get("shape", ""), exits))
    return found


def aside(name: str) -> bytes:
    """Give a file from beside the inputs."""
    name = posixpath.normpath(name)
    if name not in ASIDE:
        raise AsideError("it is not beside the input")
    return expanded(ASIDE[name]).encode()


def items(data: bytes) -> list[Item]:
    """Read an input; one that is refused as a whole gives one item."""
    try:
        return read(data, NOW, aside)
    except RefusedError as error:
        return [Item("", error)]


def told(item: Item) -> dict[str, Any]:
    """Say of an item what a case says of it."""
    if isinstance(item.found, Imported):
        found: dict[str, Any] = {"kind": item.found.kind, "settings": item.found.settings}
        found["secrets"] = {role: value.reveal() for role, value in item.found.secrets.items()}
        if "ovpn_config" in item.found.secrets:
            found["file"] = _followed(item.found.secrets["ovpn_config"].reveal())
        if item.found.warnings:
            found["warnings"] = [warning.where for warning in item.found.warnings]
    else:
        found = {"refused": [problem.where for problem in item.found.problems]}
    return ({"name": item.name} if item.name else {}) | found


def _followed(text: str) -> dict[str, Any]:
    """Say what of an OpenVPN file is followed."""
    profile = ovpn.parse(text)
    found: dict[str, Any] = {
        "remotes": [f"{each.host} {each.port} {each.protocol}" for each in profile.remotes],
        "directives": [" ".join(words) for words in profile.directives],
        "blocks": sorted(profile.blocks),
    }
    if profile.ciphers:
        found["ciphers"] = list(profile.ciphers)
    if profile.shuffled:
        found["shuffled"] = True
    if profile.prefixed:
        found["prefixed"] = True
    return found

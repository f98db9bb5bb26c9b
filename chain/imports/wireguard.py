"""A provider's file for WireGuard's app (wg-quick) → an exit.

wg-quick, a bash script, takes the lines that it knows out of `[Interface]`, and hands all others to `wg`, which has
rules of its own: both are followed here, so that a line means what it means there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, collapse_addresses
from typing import TYPE_CHECKING, Any

from chain.errors import Problem
from chain.exits.wireguard import is_private
from chain.imports.base import SPACES, Imported, Item, Reading, RefusedError, nothing_aside
from chain.secret import is_wireguard_key

if TYPE_CHECKING:
    from datetime import datetime

    from chain.imports.base import Aside

MOST_NETWORKS = 1000  # in one peer's AllowedIPs
MOST_PEERS = 256
MOST_LINES = 5000
EVERYTHING = IPv4Network("0.0.0.0/0")

NAMES = {
    "endpoint": "Endpoint",
    "public_key": "PublicKey",
    "address": "Address",
    "dns": "DNS",
    "mtu": "MTU",
    "keepalive": "PersistentKeepalive",
    "wg_private_key": "PrivateKey",
    "wg_preshared_key": "PresharedKey",
}
_QUICK = ("address", "mtu", "dns", "table", "preup", "predown", "postup", "postdown", "saveconfig")
_SCRIPTS = {"preup": "PreUp", "predown": "PreDown", "postup": "PostUp", "postdown": "PostDown"}
_OF_INTERFACE = ("listenport", "fwmark", "privatekey")
_OF_PEER = ("endpoint", "publickey", "allowedips", "persistentkeepalive", "presharedkey")
# AmneziaWG's, and the values with which it is plain WireGuard.
_DISGUISE = {
    **dict.fromkeys(("jc", "jmin", "jmax", "s1", "s2", "s3", "s4", "itime"), ("0",)),
    **{f"h{number}": (str(number),) for number in range(1, 5)},
    **dict.fromkeys((f"{letter}{number}" for letter in "ij" for number in range(1, 6)), ("",)),
    "advancedsecurity": ("off",),
}
_APPS = ("includedapplications", "excludedapplications", "allowedapps", "disallowedapps")

_ADDRESS = re.compile("[0-9.]+(/[0-9]{1,2})?")
_WORDS = re.compile("[, \t]+")  # the shell's, once commas are spaces
_NUMBER = re.compile("[0-9]{1,10}")


@dataclass
class _Section:
    """Values by their names in small letters, each with the number of its line."""

    line: int
    values: dict[str, tuple[str, int]] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class _File:
    interface: _Section
    peers: list[_Section]
    reading: Reading


def recognises(text: str) -> bool:
    return any(line.strip(SPACES).lower() == "[interface]" for line in text.split("\n"))


def read(text: str, now: datetime, aside: Aside = nothing_aside) -> list[Item]:
    """Read a file: the exit that it means, or one for each peer where it could mean several. Raises RefusedError."""
    del now, aside
    if text.count("\n") > MOST_LINES:
        raise RefusedError(Problem("the file", f"it has more than {MOST_LINES} lines", "is it the right one?"))
    found = _parse(text)
    peers = found.peers
    if not peers:
        found.reading.refuse("[Peer]", "the file has no such section", "is it whole? It is where the server stands")
    if len(peers) > MOST_PEERS:
        found.reading.refuse("[Peer]", f"there are more than {MOST_PEERS}")
    if not 0 < len(peers) <= MOST_PEERS:
        return [Item("", RefusedError(*found.reading.problems))]
    everywhere = [peer for peer in peers if EVERYTHING in _networks(peer, Reading())]
    meant = everywhere if len(everywhere) == 1 else peers
    for peer in peers:
        if not any(peer is each for each in meant):
            what = "it is not used: an exit has one server, which here is the one with AllowedIPs 0.0.0.0/0"
            found.reading.warn(f"[Peer] in line {peer.line}", what)
    return [Item(peer.values.get("endpoint", ("", 0))[0], _exit(found, peer)) for peer in meant]


def _parse(text: str) -> _File:
    found = _File(_Section(0), [], Reading())
    section: _Section | None = None
    quick = False  # whether wg-quick is in its [Interface]
    for number, line in enumerate(text.split("\n"), start=1):
        bare = line.partition("#")[0]
        key, value = _key_and_value(bare)
        if key.startswith("["):
            quick = key == "[interface]"
        if quick and key in _QUICK:
            _quick_line(found, key, value, number)
            continue
        joined = bare.translate(_NO_SPACES)
        match joined.lower():
            case "":
                pass
            case "[interface]":
                section = found.interface
            case "[peer]":
                section = _Section(number)
                found.peers.append(section)
            case _:
                _line(found, section, joined, number)
    return found


_NO_SPACES = dict.fromkeys(map(ord, SPACES))


def _key_and_value(line: str) -> tuple[str, str]:
    """Cut a line as wg-quick does; where it has no `=`, both are the whole of it."""
    key, sign, value = line.partition("=")
    return key.strip(SPACES).lower(), (value if sign else line).strip(SPACES)


def _quick_line(found: _File, key: str, value: str, number: int) -> None:
    where = f"line {number}"
    if key in _SCRIPTS:
        what = f"{_SCRIPTS[key]} has a program run, as root, which a file from elsewhere may not"
        hint = "take the line out: the chain sets its own routes and firewall, and nothing leaves beside a tunnel"
        found.reading.refuse(where, what, hint)
    elif key in ("address", "dns"):
        found.interface.lists.setdefault(key, []).extend(part for part in _WORDS.split(value) if part)
    else:
        _keep(found, found.interface, key, value, number)


def _line(found: _File, section: _Section | None, joined: str, number: int) -> None:
    """Read a line as `wg` does, to which white space means nothing."""
    key, _, value = joined.partition("=")
    key = key.lower()
    where = f"line {number}"
    known = () if section is None else _OF_INTERFACE if section is found.interface else _OF_PEER
    if section is None or key.startswith("["):
        what = "no program for WireGuard knows this section" if key.startswith("[") else "it stands in no section"
        found.reading.refuse(where, what, "is the file whole, and a provider's for WireGuard?")
    elif key in _DISGUISE:
        what = "here AmneziaWG's settings begin, which hide WireGuard; a server with them takes no plain packets"
        if value not in _DISGUISE[key] and what not in {problem.what for problem in found.reading.problems}:
            found.reading.refuse(where, what, "ask the provider for a plain WireGuard file")
    elif key == "reserved":
        found.reading.refuse(where, "Reserved changes bytes that are zero in WireGuard: not supported")
    elif key in _APPS:
        found.reading.warn(where, "it names apps of the device, of which the chain knows nothing: it is left out")
    elif key not in known:
        found.reading.refuse(where, "neither wg-quick nor wg knows such a line there", "is it spelt right?")
    elif not value:
        if key != "privatekey":  # which some providers leave to be filled in
            found.reading.refuse(where, "it has no value")
    elif key == "allowedips":
        section.lists.setdefault(key, []).extend(value.split(","))
        section.values.setdefault(key, ("", number))
    else:
        _keep(found, section, key, value, number)


def _keep(found: _File, section: _Section, key: str, value: str, number: int) -> None:
    if section.values.get(key, (value, 0))[0] != value:
        found.reading.warn(f"line {number}", "it was said before, with another value: this one counts, as with wg")
    section.values[key] = (value, number)


def _exit(found: _File, peer: _Section) -> Imported | RefusedError:
    reading = Reading(list(found.reading.problems), list(found.reading.warnings))
    settings: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    settings |= _server(reading, peer)
    settings |= _own(reading, found.interface)
    _left_out(reading, found.interface)
    _coverage(reading, peer)
    for section, key, role in (
        (found.interface, "privatekey", "wg_private_key"),
        (peer, "presharedkey", "wg_preshared_key"),
    ):
        if key in section.values:
            secrets[role] = section.values[key][0]
    if "wg_preshared_key" in secrets:
        settings["preshared_key"] = True
    try:
        return reading.imported("wireguard", settings, secrets, NAMES)
    except RefusedError as error:
        return error


def _server(reading: Reading, peer: _Section) -> dict[str, Any]:
    read: dict[str, Any] = {}
    where = f"[Peer] in line {peer.line}"
    endpoint, number = peer.values.get("endpoint", ("", 0))
    if endpoint:
        # The last colon counts, as it does for wg; only an IPv6 address has more than one.
        host, sign, port = (endpoint, "", "") if endpoint.endswith("]") else endpoint.rpartition(":")
        host, port = (host, port) if sign else (endpoint, "")
        reading.server(f"line {number}", host)
        read["endpoint"] = f"{host}:{reading.port(f'line {number}', port)}"
    else:
        reading.refuse(where, "it has no Endpoint: nobody could be dialled", "is it the server's own file?")
    key, number = peer.values.get("publickey", ("", 0))
    if not is_wireguard_key(key):
        what = "this is no WireGuard key" if key else "it has no PublicKey"
        reading.refuse(f"line {number}" if key else where, what, "44 characters of base64, the last one '='")
    read["public_key"] = key
    keepalive, number = peer.values.get("persistentkeepalive", ("", 0))
    if keepalive.lower() == "off":
        read["keepalive"] = 0
    elif keepalive and not (_NUMBER.fullmatch(keepalive) and int(keepalive) <= 65535):  # noqa: PLR2004 - what fits there
        reading.refuse(f"line {number}", "this must be a number of seconds up to 65535, or off")
    elif keepalive:
        read["keepalive"] = int(keepalive)
    return read


def _own(reading: Reading, interface: _Section) -> dict[str, Any]:
    """Read what [Interface] says of this end."""
    read: dict[str, Any] = {}
    given = interface.lists.get("address", [])
    own = [address for address in given if ":" not in address]
    if not all(_is_ipv6(address) for address in given if ":" in address):
        reading.refuse("Address", "this is no IPv6 address")
    elif not own:
        reading.refuse("Address", "there is no IPv4 one, and exits carry IPv4 only, for now")
    elif len(set(own)) > 1:
        reading.refuse("Address", "there are several IPv4 ones, and an exit has one", "leave one in the file")
    elif not _is_interface(own[0]):
        reading.refuse("Address", "this is no IPv4 address, such as 10.64.0.2/32")
    else:
        read["address"] = own[0]
    if len(own) < len(given):
        reading.warn("Address", "the IPv6 one is left out: exits carry no IPv6 yet, and clients' is refused at once")
    mtu, number = interface.values.get("mtu", ("", 0))
    if mtu and not _NUMBER.fullmatch(mtu):
        reading.refuse(f"line {number}", "this must be a number of bytes")
    elif mtu:
        read["mtu"] = int(mtu)
    return read | _resolver(reading, interface.lists.get("dns", []))


def _resolver(reading: Reading, given: list[str]) -> dict[str, Any]:
    """Take the resolver that is inside the tunnel; for all others the chain has its own."""
    addresses = [each for each in given if re.fullmatch("[0-9.]+", each)]
    if wrong := [each for each in addresses if not _is_address(each)]:
        reading.refuse("DNS", "this is no IPv4 address")
        addresses = [each for each in addresses if each not in wrong]
    inside = next((each for each in addresses if is_private(IPv4Address(each))), None)
    if len(given) > (1 if inside else 0):
        what = "clients ask the chain's own resolver, through the exit"
        what += "; the private one is kept, by which it is seen whether the tunnel lives" if inside else ""
        reading.warn("DNS", what, "`dns: {upstreams: […]}` has others asked")
    return {"dns": inside} if inside else {}


def _left_out(reading: Reading, interface: _Section) -> None:
    """Say what of [Interface] does no harm when it is left out, because the chain sees to it in its own way."""
    reasons = {
        "table": ("auto", "the chain has routes of its own"),
        "fwmark": ("off", "the chain marks packets in its own way"),
        "saveconfig": ("false", "nothing is written back to the file"),
        "listenport": ("", "an exit is called by nobody, and sends from any port"),
    }
    for key, (nothing, why) in reasons.items():
        value, number = interface.values.get(key, (nothing, 0))
        if key == "saveconfig" and value.lower() not in ("true", "false"):
            reading.refuse(f"line {number}", "this must be true or false")
        elif value.lower() != nothing:
            reading.warn(f"line {number}", f"it is left out: {why}")


def _coverage(reading: Reading, peer: _Section) -> None:
    """Compare what the file sends to the server with all, which is what an exit sends."""
    number = peer.values.get("allowedips", ("", peer.line))[1]
    where = f"line {number}"
    given = _networks(peer, reading)
    if reading.problems:
        return
    if not any(not network.is_private for network in given):
        what = "AllowedIPs has no public IPv4 network: by this server nobody reaches the internet"
        reading.refuse(where, what, "an exit is for all of clients' traffic; ask for a file that sends all of it")
    elif EVERYTHING not in given:
        reading.warn(where, "AllowedIPs leaves networks out; an exit sends all of its clients' traffic to the server")


def _networks(peer: _Section, reading: Reading) -> list[IPv4Network]:
    """Read AllowedIPs' IPv4 networks, joined where they lie side by side."""
    number = peer.values.get("allowedips", ("", peer.line))[1]
    given = peer.lists.get("allowedips", [])
    if len(given) > MOST_NETWORKS:
        reading.refuse(f"line {number}", f"AllowedIPs has more than {MOST_NETWORKS} networks")
        return []
    found = []
    for text in given:
        if ":" in text:
            continue
        if not _is_interface(text):
            reading.refuse(f"line {number}", "AllowedIPs has something that is no network, such as 0.0.0.0/0")
            return []
        found.append(IPv4Interface(text).network)
    return list(collapse_addresses(found))


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_interface(text: str) -> bool:
    """Tell whether this is an IPv4 address, with the length of its network or not, as all programs read one."""
    try:
        return bool(_ADDRESS.fullmatch(text) and IPv4Interface(text))
    except ValueError:
        return False


def _is_ipv6(text: str) -> bool:
    try:
        return bool("%" not in text and IPv6Interface(text))
    except ValueError:
        return False

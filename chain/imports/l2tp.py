"""What a provider mails for L2TP/IPsec, lines such as `Server: …`, → an exit.

A label is whatever stands before the first colon, equals sign, tab or bar of a line, without regard to case, spaces and
dashes; a value is the rest of the line, and is never taken apart: passwords hold any character.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from chain.imports.base import SPACES, Imported, Item, Reading, RefusedError, nothing_aside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from chain.imports.base import Aside

MOST_LINES = 2000
MOST_LISTED = 20  # numbers of lines in a warning

NAMES = {
    "server": "the text",
    "mtu": "MTU",
    "vpn_ipsec_psk": "the pre-shared key",
    "vpn_username": "the user name",
    "vpn_password": "the password",
}
_ROLES = ("vpn_ipsec_psk", "vpn_username", "vpn_password")
_SERVER = (
    *("server", "serverip", "serveraddress", "servername", "servernameoraddress", "serverhostname", "serverhost"),
    *("vpnserver", "vpnserverip", "vpnserveraddress", "vpngateway", "gateway", "gatewayip", "host", "hostname", "ip"),
    *("address", "remoteaddress", "remotegateway", "remotehost", "internetaddress", "hostnameoripaddress", "ipaddress"),
    *("l2tpserver", "l2tpserveraddress", "vpnhost", "vpnaddress", "connectto", "serveripaddress", "serveriporhostname"),
)
_KEY = (
    *(
        "psk",
        "presharedkey",
        "presharekey",
        "presharedkeypsk",
        "ipsecpresharedkeypsk",
        "pskpresharedkey",
        "ipsecpsk",
        "ipseckey",
        "ipsecsecret",
    ),
    *("ipsecpresharedkey", "ipsecsharedsecret", "ipsecsharedkey", "sharedsecret", "sharedkey", "secret", "secretkey"),
    *("vpnipsecpsk", "l2tppsk", "l2tpipsecpsk", "l2tppresharedkey", "presharedsecret", "vpnpsk", "key", "l2tpkey"),
)
_USER = (
    *("user", "username", "userid", "login", "loginname", "account", "accountname", "vpnuser", "vpnusername"),
    *("vpnlogin", "pppuser", "pppusername", "l2tpuser", "l2tpusername", "usernameoptional", "authname"),
)
_PASSWORD = (
    *("password", "pass", "passwd", "passphrase", "vpnpassword", "vpnpass", "userpassword", "accountpassword"),
    *("ppppassword", "l2tppassword", "passwordoptional", "userauthenticationpassword", "loginpassword", "authpassword"),
)
_LABELS = {
    **dict.fromkeys(_SERVER, "server"),
    **dict.fromkeys(_KEY, "vpn_ipsec_psk"),
    **dict.fromkeys(_USER, "vpn_username"),
    **dict.fromkeys(_PASSWORD, "vpn_password"),
    **dict.fromkeys(("type", "vpntype", "protocol", "vpnprotocol", "connectiontype", "tunneltype"), "type"),
    **dict.fromkeys(("l2tpsecret", "l2tptunnelsecret", "tunnelpassword"), "L2TP secret"),
    **dict.fromkeys(("ipsecidentifier", "ipsecid", "groupname", "group", "localid", "groupid", "identifier"), "group"),
    **dict.fromkeys(("port", "serverport", "udpport"), "port"),
    "mtu": "mtu",
}
_NOTHING = (
    "",
    "-",
    "none",
    "n/a",
    "empty",
    "blank",
    "notused",
    "(notused)",
    "leaveblank",
    "(leaveblank)",
    "leaveempty",
)
_L2TP_PORTS = ("1701", "500", "4500")
_TYPES = ("pptp", "sstp", "ikev2", "openvpn", "wireguard", "anyconnect", "xauth")
_SEPARATOR = re.compile("[:=\N{FULLWIDTH COLON}\t|]")
_DECORATION = SPACES + "-=*_#>"
_NO_LETTERS = re.compile("[^a-z0-9]+")
_POLITE = re.compile("^(your|the|my)|is$")  # around a label, as in: Your password is
_NUMBER = re.compile("[0-9]{1,5}")


def recognises(text: str) -> bool:
    """Tell whether at least two of the four are there, of which one is the server or the key."""
    found = {label for line in text.split("\n")[:MOST_LINES] if (label := _labelled(line)[0])}
    return len(found & {"server", *_ROLES}) > 1 and bool(found & {"server", "vpn_ipsec_psk"})


def read(text: str, now: datetime, aside: Aside = nothing_aside) -> list[Item]:
    del now, aside
    reading = Reading()
    values: dict[str, str] = {}
    unread: list[int] = []
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        reading.refuse("the text", f"it has more than {MOST_LINES} lines")
    for number, line in enumerate(lines[:MOST_LINES], start=1):
        label, value = _labelled(line)
        if label in values and value and values[label] != value:
            what = "it is said twice, with different values"
            reading.refuse(f"line {number}", what, "leave one of them in the text")
        elif label and value:
            values[label] = value
        elif not label and line.strip(_DECORATION):
            unread.append(number)
    if unread:
        shown = ", ".join(map(str, unread[:MOST_LISTED])) + (", …" if len(unread) > MOST_LISTED else "")
        reading.warn(f"line{'s' if len(unread) > 1 else ''} {shown}", "nothing that an exit needs was recognised there")
    try:
        return [Item("", _exit(reading, values))]
    except RefusedError as error:
        return [Item("", error)]


def _labelled(line: str) -> tuple[str, str]:
    """Give what a line is about, and its value as it stands; nothing where it has no known label."""
    found = _SEPARATOR.search(line[:100])
    if not found:
        return "", ""
    label = _NO_LETTERS.sub("", line[: found.start()].lower())
    value = line[found.end() :].strip(SPACES)
    return _LABELS.get(label) or _LABELS.get(_POLITE.sub("", label), ""), value


def _exit(reading: Reading, values: Mapping[str, str]) -> Imported:
    settings: dict[str, Any] = {}
    if not values.get("server"):
        reading.refuse("the text", "it names no server", "add a line such as `Server: vpn.example.com`")
    else:
        reading.server("the text", values["server"], "its name alone is wanted: no port, no web address, no remark")
        settings["server"] = values["server"]
    _others(reading, values, settings)
    secrets = {role: values[role] for role in _ROLES if values.get(role)}
    for role, value in secrets.items():
        if value != value.strip():
            reading.refuse(NAMES[role], "it begins or ends with an unusual space, as mail programs put in", "remove it")
    return exit_of(reading, settings, secrets)


def exit_of(reading: Reading, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> Imported:
    """Give the exit, with a word about what may arrive otherwise than it looks. Raises RefusedError."""
    for role, value in secrets.items():
        if any(unicodedata.category(sign) == "Cf" for sign in value):
            what = "it has a character that can't be seen, as mail programs and web pages put in"
            reading.refuse(NAMES[role], what, "type it anew")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
            reading.warn(NAMES[role], "it stands in quotes, which are taken for a part of it")
    if not secrets.get("vpn_password", "").isascii():
        what = "it has other characters than ASCII, which servers of Windows' kind read otherwise with MS-CHAPv2"
        reading.warn(NAMES["vpn_password"], what)
    return reading.imported("l2tp", settings, secrets, NAMES)


def _others(reading: Reading, values: Mapping[str, str], settings: dict[str, Any]) -> None:
    kind = _NO_LETTERS.sub("", values.get("type", "").lower())
    if kind and "l2tp" not in kind and ("ipsec" not in kind or any(other in kind for other in _TYPES)):
        reading.refuse("the text", "it is not for L2TP/IPsec", "exits of other kinds have formats of their own")
    for label, why in (
        ("L2TP secret", "a secret of L2TP's own, beside IPsec's, is not supported"),
        ("group", "an IPsec identifier or group name is not supported"),
    ):
        if "".join(values.get(label, "").lower().split()) not in _NOTHING:
            reading.refuse(label, why, "leave it out, if the provider says that it may be")
    if values.get("port", "1701") not in _L2TP_PORTS:
        reading.refuse("the text", "it names a port: L2TP/IPsec has ports of its own (500, 4500, 1701), and no others")
    if mtu := values.get("mtu"):
        if _NUMBER.fullmatch(mtu):
            settings["mtu"] = int(mtu)
        else:
            reading.refuse("MTU", "this must be a number of bytes")

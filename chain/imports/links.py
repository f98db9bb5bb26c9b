"""Share links of Xray servers: `vless://`, `trojan://`, `ss://` and `vmess://`, in the forms that programs write.

They are read as the programs do that read them, and not as URLs in general: those of v2rayN and v2rayNG, libXray,
NekoBox and Hiddify, the standard of XTLS (Xray-core, discussion 716), and SIP002 for Shadowsocks. Where these differ,
and the link could mean two things, it is refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from chain.errors import Problem
from chain.exits.xray import VISION
from chain.imports import xray
from chain.imports.base import CONTROL, SPACES, Imported, Item, Reading, RefusedError
from chain.imports.encoding import from_base64, from_percent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

MOST = 16384  # characters of one link
SCHEMES = ("vless", "trojan", "ss", "vmess")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://")
_PROTOCOLS = {"ss": "shadowsocks"}
_CUT = "was the link cut off, or changed, when it was copied?"
_TWICE = ("it stands there twice, with different values", "leave one")
_NO_LINK = "what stands between `://` and the question mark is in no form that programs write"

# Links to what exits don't do, or not by a link.
OTHERS = {
    **dict.fromkeys(("http", "https"), "a web address, such as a subscription has"),
    **dict.fromkeys(("hysteria", "hysteria2", "hy2"), "a link for Hysteria"),
    **dict.fromkeys(("wireguard", "wg"), "a link for WireGuard"),
    **dict.fromkeys(("awg", "amneziawg", "vpn"), "a link for AmneziaVPN"),
    **dict.fromkeys(("socks", "socks4", "socks5", "socks5h"), "a link for a SOCKS proxy, which encrypts nothing"),
    **dict.fromkeys(("naive", "naive+https", "naive+quic"), "a link for NaïveProxy"),
    **dict.fromkeys(("mieru", "mierus"), "a link for mieru"),
    **dict.fromkeys(("clash", "sing-box", "sub", "v2rayng", "hiddify"), "a link that has a program fetch something"),
    "tuic": "a link for TUIC",
    "ssr": "a link for ShadowsocksR",
    "ssconf": "a link to Outline's key, which is at another place and changes",
    "anytls": "a link for AnyTLS",
    "juicity": "a link for Juicity",
    "snell": "a link for Snell",
    "ssh": "a link for SSH",
    "sn": "NekoBox's own form of a link",
    "warp": "a link for Cloudflare's WARP",
    "tg": "a link for Telegram's proxies",
}
_OTHERS_HINTS = {
    "http": "chain fetches nothing by itself: fetch it, and give what comes as a file or by standard input",
    "wireguard": "give the file for WireGuard's own app; most programs can export it",
    "sn": "export a standard link instead",
}
_OTHERS_HINTS |= {"https": _OTHERS_HINTS["http"], "wg": _OTHERS_HINTS["wireguard"]}

OF_SERVERS = frozenset((*SCHEMES, *OTHERS)) - {"http", "https"}

# Under which other names programs have what the standard names otherwise.
_ALIASES = {
    **dict.fromkeys(("insecure", "allow_insecure", "skip-cert-verify", "allowinsecure"), "allowInsecure"),
    "peer": "sni",
}


@dataclass(frozen=True)
class _Parts:
    """A link, cut up but not decoded."""

    scheme: str
    user: str | None  # before the @
    place: str  # behind it
    query: str
    name: str


def scheme_of(text: str) -> str:
    """Give the scheme in small letters, or nothing where this is no link."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def read(link: str, now: datetime) -> Item:
    """Read one link."""
    text = link.strip(SPACES)
    scheme, name = scheme_of(text), ""
    try:
        if len(text) > MOST:
            _refuse("the link", f"it is longer than {MOST} characters")
        if scheme not in SCHEMES:
            _refuse("the link", _other(scheme), _OTHERS_HINTS.get(scheme, "vless, trojan, ss and vmess links are read"))
        if CONTROL.search(text):
            _refuse("the link", "it has a line break, or another character that can't be typed", _CUT)
        parts = _cut(scheme, text)
        name = _shown(parts.name)
        if scheme == "vmess":
            name, found = _vmess(parts, now, name)
        elif scheme == "ss":
            found = _shadowsocks(parts, now)
        elif parts.user is None and scheme == "vless":
            name, found = _shadowrocket(parts, now, name)
        else:
            found = _standard(parts, now)
    except RefusedError as error:
        return Item(name, error)
    return Item(name, found)


def _refuse(where: str, what: str, hint: str = "") -> NoReturn:
    raise RefusedError(Problem(where, what, hint))


def _other(scheme: str) -> str:
    known = OTHERS.get(scheme)
    return f"this is {known}, which is not read" if known else "this is a link of an unknown kind"


def _shown(name: str) -> str:
    return from_percent(name) or name


def _cut(scheme: str, text: str) -> _Parts:
    rest = text[len(scheme) + 3 :]
    rest, _, name = rest.partition("#")
    rest, _, query = rest.partition("?")
    user, at, place = rest.rpartition("@")
    return _Parts(scheme, user if at else None, place, query, name)


def _query(parts: _Parts, reading: Reading) -> dict[str, str]:
    """Read the parameters, by the standard's names. A `+` is a space to some programs and itself to others."""
    fields: dict[str, str] = {}
    for number, part in enumerate((part for part in parts.query.split("&") if part), start=1):
        raw_key, _, raw = part.partition("=")
        key = _ALIASES.get(raw_key, raw_key)
        if raw_key.startswith("amp;"):
            reading.refuse("the link", "it has `&amp;` in it, as web pages write `&`", "replace each by `&`")
            return fields
        where = key if key in xray.READ else f"parameter {number}"
        value = from_percent(raw.replace("+", " ") if key in ("extra", "fm") else raw)
        if value is None:
            reading.refuse(where, "a percent sign begins no %XX there, or the text is no UTF-8", _CUT)
        elif "+" in raw and key in ("path", "host", "serviceName", "spx", "authority"):
            what = "some programs read a bare `+` as a space, and some as itself"
            reading.refuse(where, what, "write %2B for a plus")
        elif fields.setdefault(key, value) != value:
            reading.refuse(where, *_TWICE)
        elif key not in xray.READ:
            _unknown(reading, where, key)
    return fields


def _unknown(reading: Reading, where: str, key: str) -> None:
    """Leave out, with a word, what no program is known to read; but not what is a name in other letters."""
    near = next((name for name in xray.READ if name.lower() == key.lower()), None)
    if near:
        reading.refuse(where, f"`{near}` is written so, in large and small letters", "correct it")
    else:
        reading.warn(where, "it is not known here, and is left out")


def _place(text: str, reading: Reading) -> tuple[str, int]:
    """Read host and port."""
    place, _, path = text.partition("/")
    if path:
        reading.refuse("the link", "something stands between the port and the question mark", _CUT)
    host, _, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    if not host and ":" not in place:
        host, port = place, ""
    return host, reading.port("the link", port)


def _secret(text: str, where: str, reading: Reading) -> str:
    value = from_percent(text)
    if value is None:
        hint = "write %25 for a percent sign" if "%" in text else _CUT
        reading.refuse(where, "a percent sign begins no %XX there, or the text is no UTF-8", hint)
    if "/" in text:
        reading.refuse(where, "a bare `/` ends it for some programs and not for others", "write %2F for it")
    return value or ""


def _standard(parts: _Parts, now: datetime) -> Imported:
    """Read SCHEME://SECRET@HOST:PORT?…#NAME."""
    reading = Reading()
    where = "the password" if parts.scheme == "trojan" else "the id"
    if parts.user is None:
        _refuse("the link", f"{where} is missing: nothing stands before an `@`", _CUT)
    secret = _secret(parts.user, where, reading)
    fields = _query(parts, reading)
    place = _place(parts.place, reading)
    return xray.exit_of(reading, parts.scheme, place, secret, fields, now=now)


def _shadowsocks(parts: _Parts, now: datetime) -> Imported:
    """Read SIP002 (userinfo in base64, or percent-encoded), or the old form, all of it in base64."""
    reading = Reading()
    fields = _query(parts, reading)
    place = parts.place
    if parts.user is None:
        # Not percent-encoded inside: everything up to the last @ is method and password, whatever is in them.
        inner = from_base64(place.rstrip("/"))
        if inner is None or "@" not in inner:
            _refuse("the link", _NO_LINK, _CUT)
        user, _, place = inner.rpartition("@")
        method, colon, password = user.partition(":")
    else:
        method, colon, password = _method_and_password(parts.user, reading)
    if not colon:
        _refuse("the link", "no method and password stand before the `@`", _CUT)
    fields["encryption"] = method
    return xray.exit_of(reading, "shadowsocks", _place(place, reading), password, fields, now=now)


def _method_and_password(text: str, reading: Reading) -> tuple[str, str, str]:
    decoded = from_percent(text)
    if decoded is None:
        reading.refuse("the password", "a percent sign begins no %XX there, or the text is no UTF-8", _CUT)
        return "", ":", ""
    if ":" not in decoded:  # which base64 never has
        decoded = from_base64(decoded) or ""
    return decoded.partition(":")


def _vmess(parts: _Parts, now: datetime, name: str) -> tuple[str, Imported]:
    """Read v2rayN's JSON in base64, the standard's form, or Shadowrocket's."""
    if parts.user is not None:
        return name, _standard(parts, now)
    inner = from_base64(parts.place)
    if inner is None:
        _refuse("the link", _NO_LINK, _CUT)
    if inner.lstrip(SPACES).startswith("{"):
        return _from_json(inner, parts, now)
    if "= vmess" in inner or "=vmess" in inner:
        _refuse("the link", "this is Quantumult's own form", "export it for v2rayN")
    return _shadowrocket(parts, now, name)


def _shadowrocket(parts: _Parts, now: datetime, name: str) -> tuple[str, Imported]:
    """Read base64 of METHOD:ID@HOST:PORT, with parameters by names of its own."""
    reading = Reading()
    user, at, place = (from_base64(parts.place) or "").rpartition("@")
    method, colon, secret = user.partition(":")
    if not at or not colon:
        _refuse("the link", _NO_LINK, _CUT)
    plain = Reading()
    given = _query(parts, plain)  # its warnings are about names that are known here
    reading.problems += plain.problems
    fields = {"encryption": method if parts.scheme == "vmess" else "none"}
    for key, value in given.items():
        _rocket_field(reading, fields, key, value)
    if given.get("pbk") and fields.get("security") == "tls":
        fields["security"] = "reality"
    found = xray.exit_of(reading, parts.scheme, _place(place, reading), secret, fields, now=now)
    return given.get("remarks") or given.get("remark") or name, found


_ROCKET_OBFS = {"none": "tcp", "websocket": "ws", "ws": "ws", "grpc": "grpc", "xhttp": "xhttp", "h2": "h2"}
_ROCKET_FLOWS = {"0": "", "1": "xtls-rprx-direct", "2": VISION}


def _rocket_field(reading: Reading, fields: dict[str, str], key: str, value: str) -> None:
    match key:
        case "remarks" | "remark":
            pass
        case "tls":
            fields["security"] = "tls" if value in ("1", "true", "tls") else ""
        case "obfs" if value == "http":
            fields["headerType"] = "http"
        case "obfs":
            fields["type"] = _ROCKET_OBFS.get(value or "none", value)
        case "obfsParam":
            host = xray.json_object(value) if value.startswith("{") else {"Host": value}
            fields["host"] = str((host or {}).get("Host", ""))
        case "xtls":
            fields["flow"] = _ROCKET_FLOWS.get(value, value)
        case "alterId":
            _old_vmess(reading, value)
        case _ if key in xray.READ:
            fields[key] = value
        case _:
            reading.warn("a parameter", "it is not known here, and is left out")


_CHECKED = "verify_cert"
# v2rayN's names → the standard's. What `type`, `path` and `host` are depends on the transport.
_JSON_NAMES = {
    **{name: name for name in ("sni", "alpn", "fp", "pbk", "sid", "spx", "pqv", "ech", "vcn", "pcs", "fm", "mode")},
    **{name: name for name in ("host", "path", "extra", "authority", "fragment", "heartbeatPeriod", "x_padding_bytes")},
    **{name: name for name in ("packetEncoding", "flow", "mtu", "tti", "seed", "udp", "tfo", "mux", "serviceName")},
    **dict.fromkeys(("insecure", "allowInsecure", "allow_insecure", "skip-cert-verify"), "allowInsecure"),
    "net": "type",
    "tls": "security",
    "scy": "encryption",
    "security": "encryption",
    "type": "headerType",
}
_JSON_OTHER = (
    *("v", "ps", "add", "port", "id", "aid", "remark", "remarks", "class", "group", "file", "protocol"),
    _CHECKED,
)


def _from_json(text: str, parts: _Parts, now: datetime) -> tuple[str, Imported]:
    reading = Reading()
    found = xray.json_object(text)
    if found is None:
        _refuse("the link", "the text in it is no JSON object, or one that says something twice", _CUT)
    if parts.query:
        reading.warn("the link", "what stands behind the question mark means nothing here, and is left out")
    flat = {key: _plain(reading, key, value) for key, value in found.items() if key not in xray.EXTRA_KEYS}
    fields: dict[str, str] = {}
    for number, (key, value) in enumerate(flat.items(), start=1):
        name = _JSON_NAMES.get(key)
        if name and fields.setdefault(name, value) != value:
            reading.refuse(name, *_TWICE)
        elif not name and key not in _JSON_OTHER:
            reading.warn(f"key {number}", "it is not known here, and is left out")
    if flat.get(_CHECKED) == "0":
        fields["allowInsecure"] = "1"
    extra = {key: value for key, value in found.items() if key in xray.EXTRA_KEYS}
    if extra:
        fields["extra"] = _joined(reading, fields.get("extra", ""), extra)
    _sort_out(reading, fields, flat)
    _old_vmess(reading, flat.get("aid", ""))
    place = (flat.get("add", ""), reading.port("port", flat.get("port", "")))
    made = xray.exit_of(reading, "vmess", place, flat.get("id", ""), fields, now=now)
    return flat.get("ps", "") or flat.get("remark", "") or flat.get("remarks", "") or _shown(parts.name), made


def _plain(reading: Reading, key: str, value: Any) -> str:
    """Give a value as text: programs write numbers as such or in quotes."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool) and key != "port":
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9:
        return str(value)
    if isinstance(value, list) and key in ("alpn", "pcs") and all(isinstance(item, str) for item in value):
        return ",".join(value)
    if isinstance(value, dict) and key in ("extra", "fm"):
        return json.dumps(value)
    where = key if key in _JSON_NAMES or key in _JSON_OTHER else "the link"
    reading.refuse(where, "this must be a text or a number")
    return ""


def _joined(reading: Reading, extra: str, more: Mapping[str, Any]) -> str:
    """Put XHTTP's settings that stand outside `extra`, as 3x-ui writes them, to those inside it."""
    inside = xray.json_object(extra or "{}")
    if inside is None:
        reading.refuse("extra", "it is no JSON object, or one that says something twice")
        return ""
    for key in more.keys() & inside.keys():
        if more[key] != inside[key]:
            reading.refuse(f"extra: {key}", *_TWICE)
    return json.dumps({**more, **inside})


def _sort_out(reading: Reading, fields: dict[str, str], flat: Mapping[str, str]) -> None:
    """Give v2rayN's shared fields the standard's names."""
    network = fields.get("type", "").lower()
    if ";" in flat.get("host", "") or flat.get("v", "2") == "1":
        reading.refuse("the link", "this is the first version of v2rayN's form", "export it with a program of today")
    if network in ("grpc", "gun"):
        fields["serviceName"] = fields.get("serviceName") or fields.pop("path", "")
        fields["authority"] = fields.get("authority") or fields.pop("host", "")
    if network in ("grpc", "gun", "xhttp", "splithttp"):
        mode = fields.pop("headerType", "")
        if mode not in ("", "none") and (fields.get("mode") or mode) != mode:
            reading.refuse("mode", *_TWICE)
        elif mode not in ("", "none"):
            fields["mode"] = mode


def _old_vmess(reading: Reading, text: str) -> None:
    if text not in ("", "0"):
        what = "Xray took VMess' first way to log in out; servers since 2020 take the other one, which is used, as well"
        reading.warn("aid", what)

"""What a link says of an Xray server → the settings of an exit.

`fields` has the names of the links' standard (XTLS/Xray-core, discussion 716), whatever form the link itself has.
What every program that reads links ignores is a warning here; what would change where, or how well covered, traffic
goes is honoured or refused.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

from chain.exits.xray import SHADOWSOCKS_2022, SHADOWSOCKS_OLD, VISION, VMESS_CIPHERS, Fingerprint
from chain.imports.base import expiry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from chain.imports.base import Imported, Reading

# What the link calls what chain.yaml calls otherwise, for messages.
NAMES = {
    "": "the link",
    "server": "the link",
    "port": "the link",
    "transport": "type",
    "reality.public_key": "pbk",
    "reality.server_name": "sni",
    "reality.short_id": "sid",
    "reality.fingerprint": "fp",
    "reality.spider_x": "spx",
    "tls.server_name": "sni",
    "tls.alpn": "alpn",
    "tls.fingerprint": "fp",
    "tls.pinned_sha256": "pcs",
    "tls.ca": "cert",
    "service_name": "serviceName",
    "xray_id": "the id",
    "xray_password": "the password",
}
_TRANSPORTS = {"": "tcp", "raw": "tcp", "websocket": "ws", "gun": "grpc", "splithttp": "xhttp"}
_KNOWN_TRANSPORTS = ("tcp", "xhttp", "grpc", "ws", "httpupgrade", "h2", "http", "quic", "kcp", "mkcp")
_WITH_PATH = ("ws", "httpupgrade", "xhttp")
_OLD_FLOWS = ("xtls-rprx-origin", "xtls-rprx-direct", "xtls-rprx-splice")
_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")

PINS = "name the certificate by its SHA-256 instead: `pcs` in a link, `tls: {pinned_sha256: […]}` in chain.yaml"
# What would change how, or how well covered, traffic goes, and has no field: for any value but those named.
_REFUSED: dict[str, tuple[tuple[str, ...], str, str]] = {
    "allowInsecure": (
        ("", "0", "false"),
        "Xray took this out: anybody on the way could show a certificate of his own",
        PINS,
    ),
    "ech": (("",), "there is no field for it, and without it the hidden name would be sent in clear", ""),
    "fm": (("", "{}"), "there is no field for it: the server expects masked packets (FinalMask)", ""),
    "plugin": (("", "none"), "a plugin is another program, and a server that has one expects it", ""),
    "obfs": (("", "none"), "there is no field for it: the server expects packets that look otherwise", ""),
}
# What is left out with a word: why it does no harm.
_IGNORED = {
    "pqv": "the server's second, post-quantum signature is not checked; its first one, by `pbk`, is",
    "fragment": "the first packet is not cut into pieces; a network that insists on it lets nothing through",
    "heartbeatPeriod": "no WebSocket pings are sent",
    "mux": "connections are not bundled",
    "muxtype": "connections are not bundled",
    "uot": "UDP goes as UDP",
    "prefix": "connections don't begin with these bytes; a network that insists on them lets nothing through",
    "tfo": "TCP Fast Open is not used",
}
_OFF = ("", "0", "false", "none")
_MARKS = ("outline", "udp", "xudp")  # which program wrote the link, and that UDP is carried, as it always is
# What XHTTP's `extra` may say without being needed: Xray's defaults, under older and newer names.
_EXTRA_RANGES = {
    "xPaddingBytes": (100, 1000),
    "scMaxEachPostBytes": (1000000, 1000000),
    "scMinPostsIntervalMs": (30, 30),
    "uplinkChunkSize": (0, 0),
}
_EXTRA_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "xPaddingObfsMode": (False,),
    "noGRPCHeader": (False,),
    "uplinkHTTPMethod": ("", "POST"),
    "sessionPlacement": ("", "path"),
    "sessionIDPlacement": ("", "path"),
    "sessionKey": ("",),
    "sessionIDKey": ("",),
    "sessionIDTable": ("",),
    "sessionIDLength": ("", "0", 0),
    "seqPlacement": ("", "path"),
    "seqKey": ("",),
    "uplinkDataPlacement": ("", "auto", "body"),
    "uplinkDataKey": ("",),
    "headers": (None, {}),
    "downloadSettings": (None, {}),
}
# What the client alone decides, what only servers read, and what goes with xPaddingObfsMode.
_EXTRA_IDLE = (
    *("xmux", "keepAlivePeriod", "hKeepAlivePeriod", "scMaxConcurrentPosts"),
    *("noSSEHeader", "scMaxBufferedPosts", "scStreamUpServerSecs", "serverMaxHeaderBytes"),
    *("xPaddingKey", "xPaddingHeader", "xPaddingPlacement", "xPaddingMethod"),
)
_EXTRA_TWICE = ("host", "path", "mode", "extra")  # Xray takes these from outside `extra`
EXTRA_KEYS = (*_EXTRA_RANGES, *_EXTRA_DEFAULTS, *_EXTRA_IDLE)
_OF_TRANSPORTS = (
    *("path", "host", "ed", "eh", "mode", "extra", "x_padding_bytes", "serviceName", "authority", "headerType"),
    *("seed", "key", "quicSecurity", "mtu", "tti"),
)
_OF_COVER = ("sni", "fp", "alpn", "pbk", "sid", "spx", "pcs", "vcn", "cert")
READ = frozenset(
    (
        *("type", "security", "encryption", "flow", "packetEncoding"),
        *(*_OF_TRANSPORTS, *_OF_COVER, *_REFUSED, *_IGNORED, *_MARKS),
    )
)
FINGERPRINTS = get_args(Fingerprint)
_MODES = ("cfb", "cfb8", "ctr", "ofb", "cbc")
_STREAM_CIPHERS = frozenset(
    (
        *(f"{name}-{size}-{mode}" for name in ("aes", "camellia") for size in (128, 192, 256) for mode in _MODES),
        *("rc4", "rc4-md5", "bf-cfb", "chacha20", "chacha20-ietf", "xchacha20", "salsa20", "table", "des-cfb"),
    )
)
ID_TEXT, UUID_MOST = 30, 36  # bytes of text, of which Xray makes an id, and of a UUID itself
_KEY = re.compile("[A-Za-z0-9+/]+={0,2}")  # the one alphabet of base64 that Xray reads keys of Shadowsocks in
_UUID = re.compile("-?[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}")


def exit_of(
    reading: Reading,
    protocol: str,
    place: tuple[str, int],
    secret: str,
    fields: Mapping[str, str],
    *,
    now: datetime,
) -> Imported:
    """Give the exit. Raises RefusedError."""
    server, port = place
    reading.server("the link", server)
    settings: dict[str, Any] = {"server": server, "port": port, "protocol": protocol}
    transport = _transport(reading, fields)
    settings["transport"] = transport
    settings |= _carried(reading, transport, fields)
    covered = _cover(reading, protocol, transport, fields, now)
    settings |= covered
    settings |= _of_protocol(reading, protocol, transport, fields, covered=bool(covered))
    _leave_out(reading, fields)
    if protocol in ("vless", "vmess"):
        check_id(reading, secret)
        return reading.imported("xray", settings, {"xray_id": secret}, NAMES)
    if protocol == "shadowsocks":
        _check_keys(reading, settings.get("cipher", ""), secret)
    return reading.imported("xray", settings, {"xray_password": secret}, NAMES)


def _transport(reading: Reading, fields: Mapping[str, str]) -> str:
    given = fields.get("type", "").lower()
    transport = _TRANSPORTS.get(given, given)
    if transport not in _KNOWN_TRANSPORTS:
        reading.refuse("type", "an unknown transport", "tcp, xhttp, grpc, ws and httpupgrade are what exits have")
    return transport


def _carried(reading: Reading, transport: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """Read what belongs to the transport, and say what belongs to another one."""
    read: dict[str, Any] = {}
    used = {"type"}
    if transport in _WITH_PATH:
        used |= {"path", "host"}
        read |= {key: fields[key] for key in ("path", "host") if fields.get(key)}
    if transport == "ws":
        used |= {"ed", "eh"}
        _early_data(reading, fields, read)
    if transport == "xhttp":
        used |= {"mode", "extra", "x_padding_bytes"}
        _extra(reading, fields)
    if transport == "grpc":
        used |= {"serviceName", "authority", "mode"}
        pairs = {"service_name": "serviceName", "host": "authority"}
        read |= {key: fields[name] for key, name in pairs.items() if fields.get(name)}
    if transport in ("grpc", "xhttp") and fields.get("mode"):
        read["mode"] = fields["mode"]
    if transport == "tcp":
        used.add("headerType")
        if fields.get("headerType", "none") not in ("", "none"):
            what = "plain TCP behind a made-up HTTP header is not supported"
            reading.refuse("headerType", what, "ask for a link of another transport")
    for name in _OF_TRANSPORTS:
        if name not in used and fields.get(name, "") not in ("", "none"):
            reading.warn(name, f"it means nothing with type {transport}, and is left out")
    return read


def _early_data(reading: Reading, fields: Mapping[str, str], read: dict[str, Any]) -> None:
    """Put NekoBox's own parameters where Xray looks for them: behind the path."""
    size = fields.get("ed", "")
    if fields.get("eh", "") not in ("", "Sec-WebSocket-Protocol"):
        reading.refuse("eh", "Xray sends early data in Sec-WebSocket-Protocol only", "")
    elif size and re.fullmatch("[0-9]{1,5}", size):
        path = read.get("path", "/")
        if "ed=" not in path:
            read["path"] = f"{path}{'&' if '?' in path else '?'}ed={size}"
    elif size:
        reading.refuse("ed", "this must be a number of bytes")


def _extra(reading: Reading, fields: Mapping[str, str]) -> None:
    """Take XHTTP's `extra` where it says no more than what Xray does anyway."""
    _extra_key(reading, "xPaddingBytes", fields.get("x_padding_bytes", ""))
    if fields.get("extra"):
        found = json_object(fields["extra"])
        if found is None:
            reading.refuse("extra", "it is no JSON object, or one that says something twice")
        for key, value in (found or {}).items():
            _extra_key(reading, key, value)


def _extra_key(reading: Reading, key: str, value: Any) -> None:
    if key in _EXTRA_RANGES:
        usual = _range(value) in ((0, 0), _EXTRA_RANGES[key])
    elif key in _EXTRA_DEFAULTS:
        usual = value in _EXTRA_DEFAULTS[key]
    elif key in (*_EXTRA_IDLE, *_EXTRA_TWICE):
        if key == "xmux" and value:
            reading.warn("extra: xmux", "connections are bundled as Xray does by itself")
        return
    else:
        reading.refuse("extra", "it has a key that is not known here, and the server may insist on it")
        return
    if not usual and key == "downloadSettings":
        reading.refuse(f"extra: {key}", "it leads to a second server, and an exit has one")
    elif not usual:
        what = "there is no field for it, and it is not Xray's default, so that the server may insist on it"
        reading.refuse(f"extra: {key}", what)


def _range(value: Any) -> tuple[int, int] | None:
    """Read a range as Xray does: a number, two with a dash between, or its own object."""
    if isinstance(value, dict):
        value = f"{value.get('From', '')}-{value.get('To', '')}"
    found = re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", str(value) or "0")
    return (int(found[1]), int(found[2] or found[1])) if found else None


def _cover(reading: Reading, protocol: str, transport: str, fields: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """Read TLS or Reality; an empty mapping where there is neither."""
    security = fields.get("security", "").lower()
    if protocol == "trojan" and not security:
        security = "tls"  # what trojan was made for, and what each program takes it for
    if security == "reality":
        return {"reality": _reality(reading, fields)}
    if security == "tls":
        return {"tls": _tls(reading, transport, fields, now)}
    if security == "xtls":
        hint = f"its heir is the flow {VISION} over `security=tls` or `reality`: ask for such a link"
        reading.refuse("security", "Xray took XTLS's first form out", hint)
    elif security not in ("", "none"):
        reading.refuse("security", "this must be tls, reality or none")
    for name in _OF_COVER:
        if fields.get(name):
            reading.warn(name, "it means nothing without TLS or Reality, and is left out")
    return {}


def _reality(reading: Reading, fields: Mapping[str, str]) -> dict[str, Any]:
    for name in ("pbk", "sni"):
        if not fields.get(name):
            reading.refuse(name, "it is missing, and Reality needs it", "was the link cut off when it was copied?")
    for name in ("alpn", "pcs", "cert"):
        if fields.get(name):
            reading.warn(name, "it means nothing with Reality, and is left out")
    _verified_name(reading, fields, fields.get("sni", ""))
    spider = fields.get("spx", "")
    if not is_spider_path(spider or "/"):
        reading.refuse("spx", "Xray can't read it: it is to be a path, with %XX for what is no letter or digit")
    pairs = {"public_key": "pbk", "server_name": "sni", "short_id": "sid", "spider_x": "spx"}
    found = {key: fields[name] for key, name in pairs.items() if fields.get(name)}
    return found | _fingerprint(reading, fields)


def _tls(reading: Reading, transport: str, fields: Mapping[str, str], now: datetime) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if fields.get("pbk"):
        # The handshake with the site that Reality borrows would succeed, and the id be sent there.
        what = "it belongs to Reality, and the link says TLS: some programs read the one, and some the other"
        reading.refuse("pbk", what, "where Reality is meant: `security=reality`")
    for name in ("sid", "spx"):
        if fields.get(name):
            reading.warn(name, "it means nothing without Reality, and is left out")
    # The standard takes the server's own name where no other is given; programs take the Host before it.
    name = fields.get("sni", "") or (fields.get("host", "") if transport in _WITH_PATH else "")
    if name:
        found["server_name"] = name
    _verified_name(reading, fields, name)
    alpn = [part.strip() for part in fields.get("alpn", "").split(",") if part.strip()]
    if transport != "xhttp" and "h3" in alpn:
        alpn.remove("h3")
        reading.warn("alpn", f"h3 is HTTP/3, which {transport} is not: it is left out")
    if alpn:
        found["alpn"] = alpn
    pins = [part.strip() for part in fields.get("pcs", "").split(",") if part.strip()]
    if pins:
        found["pinned_sha256"] = pins
    if fields.get("cert"):
        certificates = _certificates(reading, fields["cert"], now)
        if certificates:
            found["ca"] = certificates
    return found | _fingerprint(reading, fields)


def _fingerprint(reading: Reading, fields: Mapping[str, str]) -> dict[str, str]:
    name = fields.get("fp", "").lower()
    if name and name not in FINGERPRINTS:
        what = f"an unknown fingerprint; one of {', '.join(FINGERPRINTS)}"
        reading.refuse("fp", what, "it is the client's own choice: `fp=chrome` does with any server")
    return {"fingerprint": name} if name else {}


def _verified_name(reading: Reading, fields: Mapping[str, str], name: str) -> None:
    if fields.get("vcn") and fields["vcn"] != name:
        what = "there is no field for it: the certificate is to show another name than the one that is asked for"
        reading.refuse("vcn", what, PINS)


def _certificates(reading: Reading, text: str, now: datetime) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        reading.refuse("cert", "no certificate in PEM form stands there")
        return ""
    for certificate in found:
        if flaw := expiry(certificate.not_valid_before_utc, certificate.not_valid_after_utc, now):
            reading.refuse("cert", flaw, "ask for a link with the present one")
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in found)


def _of_protocol(
    reading: Reading, protocol: str, transport: str, fields: Mapping[str, str], *, covered: bool
) -> dict[str, Any]:
    """Read what belongs to the protocol itself: encryption, ciphers, flow."""
    encryption, flow = fields.get("encryption", ""), fields.get("flow", "")
    found: dict[str, Any] = {}
    if protocol == "vless":
        if encryption not in ("", "none"):
            found["encryption"] = encryption
        found |= _flow(reading, transport, flow, covered=covered or "encryption" in found)
    elif flow:
        reading.refuse("flow", f"there is none with {protocol}; Xray took it out", "ask for a link without it")
    if protocol == "trojan" and encryption not in ("", "none"):
        reading.refuse("encryption", "only trojan-go has a second encryption inside trojan, and Xray has not")
    if protocol == "vmess":
        found |= _vmess_cipher(reading, encryption)
    if protocol == "shadowsocks":
        found |= _method(reading, encryption)
    if fields.get("packetEncoding", "") not in ("", "none", "xudp"):
        reading.warn("packetEncoding", "Xray speaks XUDP, which servers that know the other one know too")
    return found


def _flow(reading: Reading, transport: str, flow: str, *, covered: bool) -> dict[str, str]:
    if flow in (VISION, f"{VISION}-udp443"):  # the second says what the client does; the server sees no difference
        return {"flow": VISION}
    if flow in _OLD_FLOWS:
        reading.refuse("flow", "Xray took it out with XTLS's first form", f"its heir is {VISION}: ask for such a link")
    elif flow not in ("", "none"):
        reading.refuse("flow", f"an unknown flow; {VISION} is the only one that there is")
    return {"flow": "none"} if transport == "tcp" and covered else {}


def _vmess_cipher(reading: Reading, cipher: str) -> dict[str, str]:
    low = cipher.lower()
    if low in ("none", "zero"):
        reading.warn("scy", "nothing would be encrypted by VMess itself: `auto` is used, which servers take as well")
    elif low in VMESS_CIPHERS:
        return {"cipher": low} if low != "auto" else {}
    elif low:
        reading.refuse("scy", f"an unknown cipher; one of {', '.join(VMESS_CIPHERS)}")
    return {}


def _method(reading: Reading, method: str) -> dict[str, str]:
    low = method.lower()
    if low.startswith("aead_"):  # as the standard's own list has them
        low = low.removeprefix("aead_").replace("_", "-")
    if low in ("none", "plain"):
        reading.refuse("method", "nothing would be encrypted")
    elif low in (*SHADOWSOCKS_2022, *SHADOWSOCKS_OLD):
        return {"cipher": low}
    elif low in _STREAM_CIPHERS:
        what = "Xray took the old stream ciphers out: what they carry can be changed on its way"
        reading.refuse("method", what, "ask for a link with an AEAD or a 2022 cipher")
    else:
        reading.refuse("method", f"an unknown cipher; one of {', '.join((*SHADOWSOCKS_2022, *SHADOWSOCKS_OLD))}")
    return {}


def check_id(reading: Reading, text: str) -> None:
    """Refuse what Xray takes for no id: it reads 32 hexadecimal digits, or makes an id of up to 30 bytes of text."""
    size = len(text.encode(errors="replace"))
    if not text or (size > ID_TEXT and not (size <= UUID_MOST and _UUID.fullmatch(text))):
        reading.refuse("the id", "this is neither a UUID nor a text of up to 30 bytes, of which Xray would make one")


def _check_keys(reading: Reading, cipher: str, password: str) -> None:
    """Refuse keys of the 2022 ciphers that Xray would not start with."""
    if cipher not in SHADOWSOCKS_2022:
        return
    size = 16 if "128" in cipher else 32
    keys = password.split(":")
    if len(keys) > 1 and "aes" not in cipher:
        reading.refuse("the password", f"{cipher} has one key, and here are several")
    if not all(_KEY.fullmatch(key) and len(key) % 4 == 0 and len(b64decode(key)) >= size for key in keys):
        what = f"{cipher} has keys of {size} bytes in base64, and this is none"
        reading.refuse("the password", what, "was the link cut off when it was copied?")


def is_spider_path(text: str) -> bool:
    """Tell whether Xray can read spiderX: it ends by a fault of its own where that is no URL's path."""
    if not text.startswith("/") or text.startswith("//") or _PERCENT.search(text):
        return False
    try:
        return not urlsplit(text).netloc
    except ValueError:
        return False


def _leave_out(reading: Reading, fields: Mapping[str, str]) -> None:
    for name, (harmless, why, hint) in _REFUSED.items():
        if fields.get(name, "").lower() not in harmless:
            reading.refuse(name, why, hint)
    for name, why in _IGNORED.items():
        if fields.get(name, "").lower() not in _OFF:
            reading.warn(name, why)


def json_object(text: str) -> dict[str, Any] | None:
    """Read a JSON object; None where it is none, has a key twice, or a number that JSON does not know."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError
        return found

    def refuse(_: str) -> Any:
        raise ValueError

    try:
        found = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

"""Xray exit, host side: VLESS, Trojan, Shadowsocks and VMess, each over the transports that Xray has, from fields.

Settings name one server and nothing else: what could make Xray reach a second one, or leave by another interface or
mark (XHTTP's downloadSettings, sockopt, dialerProxy), is not among them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from chain.config.models import Certificates, ExitConfig, Host, Model, Port, SecretFile, Server
from chain.exits.base import KernelNeed, SecretSpec, ServiceNeeds

VISION = "xtls-rprx-vision"
# At most, of Shadowsocks: nonce, two numbers, type, time, session, padding's length, address, tag. The outer IP and UDP
# headers are as large as the inner ones, which it does not carry.
DATAGRAM_OVERHEAD = 24 + 16 + 1 + 8 + 8 + 2 + 7 + 16
SHADOWSOCKS_2022 = ("2022-blake3-aes-128-gcm", "2022-blake3-aes-256-gcm", "2022-blake3-chacha20-poly1305")
SHADOWSOCKS_OLD = (
    *("aes-128-gcm", "aes-256-gcm", "chacha20-ietf-poly1305", "xchacha20-ietf-poly1305"),
    *("chacha20-poly1305", "xchacha20-poly1305"),
)
VMESS_CIPHERS = ("auto", "aes-128-gcm", "chacha20-poly1305")

_PLAIN = "nothing would encrypt it on its way: name `reality:` or `tls:`"
_OLD_HANDSHAKES = ("android", "360")  # fingerprints without TLS 1.3, which Reality and the flow stand on
_OTHER_NAMES = {"raw": "tcp", "splithttp": "xhttp"}
_GONE_TRANSPORTS = {
    "h2": "Xray took HTTP/2 out; XHTTP (`transport: xhttp`) is what servers offer in its place",
    "http": "Xray took HTTP/2 out; XHTTP (`transport: xhttp`) is what servers offer in its place",
    "quic": "Xray took QUIC out; XHTTP over HTTP/3 (`transport: xhttp`, `tls: {alpn: [h3]}`) is its heir",
    "kcp": "mKCP's header and seed are gone from Xray, and plain mKCP hides nothing: not supported",
    "mkcp": "mKCP's header and seed are gone from Xray, and plain mKCP hides nothing: not supported",
}

Transport = Literal["tcp", "xhttp", "grpc", "ws", "httpupgrade"]
# What stands in an HTTP request: printable ASCII, no quotes or spaces to argue about.
HttpText = Annotated[str, StringConstraints(pattern=r"^[!#-\[\]-~]{1,512}$")]
Fingerprint = Literal["chrome", "firefox", "safari", "ios", "android", "edge", "360", "qq", "random", "randomized"]


def _transport(value: object) -> object:
    """Say what became of transports that Xray no longer has; take those with two names under either."""
    if not isinstance(value, str):
        return value
    if value in _GONE_TRANSPORTS:
        raise ValueError(_GONE_TRANSPORTS[value])
    return _OTHER_NAMES.get(value, value)


# How it looks, how it begins, what is added to hide lengths, and keys: of X25519, or of ML-KEM-768.
_ENCRYPTION = re.compile(
    r"mlkem768x25519plus\.(native|xorpub|random)\.(0rtt|1rtt)"
    r"(?P<padding>(\.[0-9]{1,5}-[0-9]{1,5}-[0-9]{1,5})*)(\.([A-Za-z0-9_-]{43}|[A-Za-z0-9_-]{1579}))+"
)
PADDING_LEAST, PADDING_MOST = 35, 65553  # bytes


def _encryption(value: str) -> str:
    """Accept VLESS's own encryption as servers give it, where Xray starts with it."""
    found = _ENCRYPTION.fullmatch(value)
    if value != "none" and not (found and _padding_fits(found["padding"])):
        raise ValueError("neither `none` nor of the form mlkem768x25519plus.native.0rtt.KEY")
    return value


def _padding_fits(text: str) -> bool:
    """Tell whether Xray takes this padding: chance, least and most of lengths and gaps in turn."""
    parts = [tuple(map(int, part.split("-"))) for part in text.split(".")[1:]]
    if not parts:
        return True
    chance, *lengths = parts[0]
    longest = sum(max(part[1:]) for part in parts[::2])
    return chance >= 100 and min(lengths) >= PADDING_LEAST and longest <= PADDING_MOST  # noqa: PLR2004 - percent


Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]  # 32 bytes, base64 for URLs, no padding
Alpn = Literal["h3", "h2", "http/1.1"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$")]


class RealityConfig(Model):
    """Reality: the server borrows another site's TLS handshake. The fields of its share link."""

    public_key: Key = Field(description="pbk: the server's public key.")
    server_name: Host = Field(description="sni: the name of the site that is borrowed.")
    short_id: Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{2}){0,8}$")] = Field(
        default="", description="sid: up to 16 hexadecimal digits."
    )
    fingerprint: Fingerprint = Field(default="chrome", description="fp: whose TLS handshake is imitated.")
    spider_x: Annotated[HttpText, StringConstraints(pattern=r"^/")] = Field(
        default="/", description="spx: the path with which a crawl of the site begins."
    )


class TlsConfig(Model):
    """TLS, with a certificate that is checked."""

    server_name: Host | None = Field(
        default=None, description="sni: the name in the certificate; the server's own when not given."
    )
    alpn: list[Alpn] = Field(default_factory=list, description="alpn: what is offered; the transport's own if empty.")
    fingerprint: Fingerprint = Field(default="chrome", description="fp: whose TLS handshake is imitated.")
    pinned_sha256: list[Sha256] = Field(
        default_factory=list,
        description="SHA-256 of the certificates that will do, in hexadecimal: for one that no authority has signed.",
    )
    ca: Certificates | None = Field(
        default=None, description="Certificates, in PEM form, of an authority of the server's own."
    )


class XrayExit(ExitConfig):
    """An exit through a server that speaks one of Xray's protocols."""

    carries: ClassVar[frozenset[str]] = frozenset({"tcp", "udp"})

    kind: Literal["xray"]
    server: Server = Field(description="The server's name or IPv4 address.")
    port: Port = Field(default=443, description="The server's port.")
    protocol: Literal["vless", "trojan", "shadowsocks", "vmess"] = Field(
        default="vless", description="What is spoken with the server."
    )
    transport: Annotated[Transport, BeforeValidator(_transport)] = Field(
        default="tcp", description="type: what the protocol is carried by; tcp is called raw too."
    )
    reality: RealityConfig | None = Field(default=None, description="security=reality.")
    tls: TlsConfig | None = Field(default=None, description="security=tls.")
    flow: Literal["xtls-rprx-vision", "none"] | None = Field(
        default=None, description="VLESS's flow; xtls-rprx-vision over tcp, when not given."
    )
    encryption: Annotated[str, AfterValidator(_encryption)] = Field(
        default="none", description="VLESS's own encryption, as the server gives it."
    )
    cipher: str | None = Field(
        default=None, description="Shadowsocks' method, which has no default; VMess' cipher, auto when not given."
    )
    path: HttpText | None = Field(default=None, description="The path of ws, httpupgrade and xhttp; / when not given.")
    host: Host | None = Field(default=None, description="The Host of ws, httpupgrade and xhttp; grpc's authority.")
    service_name: HttpText | None = Field(default=None, description="serviceName of grpc.")
    mode: Literal["auto", "packet-up", "stream-up", "stream-one", "gun", "multi"] | None = Field(
        default=None, description="mode of xhttp (auto when not given), or of grpc (gun)."
    )
    id: SecretFile | None = Field(default=None, description="The file of VLESS's or VMess' id; else NAME_xray_id.")
    password: SecretFile | None = Field(
        default=None, description="The file of Trojan's or Shadowsocks' password; else NAME_xray_password."
    )

    def sends(self) -> dict[str, str]:
        return dict.fromkeys(carriers(self), "")

    @model_validator(mode="after")
    def _fits_together(self) -> XrayExit:
        for problem in (self._security_problem(), self._cipher_problem(), *self._unused()):
            if problem:
                raise ValueError(problem)
        return self

    def _security_problem(self) -> str:
        if self.reality and self.tls:
            return "either `reality:` or `tls:`, not both"
        if self.reality and self.transport in ("ws", "httpupgrade"):
            return f"Reality does not work over {self.transport}; tcp, xhttp and grpc are what it works over"
        bare = not (self.reality or self.tls)
        encrypted = self.protocol == "vless" and self.encryption != "none"
        if bare and (self.protocol == "trojan" or (self.protocol == "vless" and not encrypted)):
            return f"{self.protocol} without `reality:` or `tls:`: {_PLAIN}"
        if self.protocol == "shadowsocks" and (not bare or self.transport != "tcp"):
            return "shadowsocks goes over plain tcp and udp only: its UDP would not be covered by anything else"
        if self.flow == VISION and (self.protocol != "vless" or self.transport != "tcp" or (bare and not encrypted)):
            return f"flow {VISION} is for vless over tcp with `reality:`, `tls:` or `encryption`"
        return self._handshake_problem()

    def _handshake_problem(self) -> str:
        """Find what no server will take. TLS 1.3 is what both Reality and the flow stand on."""
        shown = self.reality or self.tls
        if shown and shown.fingerprint in _OLD_HANDSHAKES and (self.reality or self.has_vision):
            return f"fingerprint {shown.fingerprint} has no TLS 1.3, which Reality and {VISION} need: try chrome"
        if self.tls and "h3" in self.tls.alpn and self.transport != "xhttp":
            return f"alpn h3 is for xhttp, not for {self.transport}"
        return ""

    @property
    def has_vision(self) -> bool:
        """Tell whether VLESS's flow is used: where it can be, unless chain.yaml says otherwise."""
        fitting = self.protocol == "vless" and self.transport == "tcp"
        covered = self.reality or self.tls or self.encryption != "none"
        return bool(fitting and covered and self.flow != "none")

    def _cipher_problem(self) -> str:
        known = {"shadowsocks": (*SHADOWSOCKS_2022, *SHADOWSOCKS_OLD), "vmess": VMESS_CIPHERS}.get(self.protocol)
        if known is None:
            return f"`cipher` is for shadowsocks and vmess, not for {self.protocol}" if self.cipher else ""
        if self.cipher is None:
            return "" if self.protocol == "vmess" else f"`cipher` is missing; one of {', '.join(known)}"
        return "" if self.cipher in known else f"cipher {self.cipher!r} is not known; one of {', '.join(known)}"

    def _unused(self) -> list[str]:
        """Name what is given and would have no effect: it is a mistake, and not ignored."""
        http = self.transport in ("ws", "httpupgrade", "xhttp")
        modes = {"grpc": ("gun", "multi"), "xhttp": ("auto", "packet-up", "stream-up", "stream-one")}
        secret, other = ("id", self.password) if self.protocol in ("vless", "vmess") else ("password", self.id)
        of_transport = {
            "path": bool(self.path) and not http,
            "host": bool(self.host) and not (http or self.transport == "grpc"),
            "service_name": bool(self.service_name) and self.transport != "grpc",
            "mode": bool(self.mode) and self.mode not in modes.get(self.transport, ()),
        }
        of_vless = {
            "encryption": self.encryption != "none" and self.protocol != "vless",
            "flow": bool(self.flow) and self.protocol != "vless",
        }
        problems = [
            f"`{name}` does not go with transport {self.transport}" for name, is_so in of_transport.items() if is_so
        ]
        problems += [f"`{name}` is for vless, not for {self.protocol}" for name, is_so in of_vless.items() if is_so]
        return [*problems, *([f"{self.protocol} has `{secret}:` as its secret"] if other else [])]


class Xray:
    name = "xray"
    settings = XrayExit
    # Xray answers clients under the addresses that they asked, from any port.
    needs = ServiceNeeds(memory="192m", sysctls={"net.ipv4.ip_unprivileged_port_start": "0"})
    kernel: tuple[KernelNeed, ...] = (KernelNeed("tproxy", ("nft_tproxy",), "the way of clients' packets into Xray"),)

    def secrets(self, settings: XrayExit) -> tuple[SecretSpec, ...]:
        if settings.protocol in ("vless", "vmess"):
            about = f"the id of {settings.protocol}, as a rule a UUID"
            return (SecretSpec("xray_id", about=about, override=settings.id.file if settings.id else None),)
        about = f"the password of {settings.protocol}"
        override = settings.password.file if settings.password else None
        return (SecretSpec("xray_password", about=about, override=override),)

    def options(self, settings: XrayExit) -> dict[str, Any]:
        return {
            "server": settings.server,
            "port": settings.port,
            "carriers": list(carriers(settings)),
            "protocol": settings.protocol,
            # Without the last part HTTP/3 of clients would be refused without a word; the server sees no difference.
            "flow": f"{VISION}-udp443" if settings.has_vision else "",
            "encryption": settings.encryption,
            "cipher": settings.cipher or "auto",
            "stream": stream(settings),
        }

    def tunnel_mtu(self, settings: XrayExit, link_mtu: int) -> int:
        """Xray ends connections and carries what is in them: the size of a client's packet does not matter to it.

        But for UDP of Shadowsocks, which is a datagram for each.
        """
        return link_mtu - DATAGRAM_OVERHEAD if settings.protocol == "shadowsocks" else link_mtu


def carriers(settings: XrayExit) -> tuple[str, ...]:
    """Name the protocols in which the server is reached: Shadowsocks sends UDP as UDP, and HTTP/3 is UDP alone."""
    if settings.protocol == "shadowsocks":
        return ("tcp", "udp")
    http3 = settings.transport == "xhttp" and settings.tls is not None and settings.tls.alpn == ["h3"]
    return ("udp",) if http3 else ("tcp",)


def stream(settings: XrayExit) -> dict[str, Any]:
    """Give Xray's `streamSettings`, but for the socket options, which are the runtime's."""
    found: dict[str, Any] = {"network": settings.transport, "security": "none"}
    if settings.reality:
        reality = settings.reality
        found["security"] = "reality"
        found["realitySettings"] = {
            "serverName": reality.server_name,
            "publicKey": reality.public_key,
            "shortId": reality.short_id,
            "fingerprint": reality.fingerprint,
            "spiderX": reality.spider_x,
        }
    elif settings.tls:
        tls = settings.tls
        found["security"] = "tls"
        found["tlsSettings"] = {
            # Always named: what is dialled is an address.
            "serverName": tls.server_name or settings.server,
            "alpn": list(tls.alpn),
            "fingerprint": tls.fingerprint,
            "pinnedPeerCertSha256": ",".join(tls.pinned_sha256),
        }
        if tls.ca:
            certificate = {"usage": "verify", "certificate": tls.ca.splitlines()}
            found["tlsSettings"] |= {"certificates": [certificate], "disableSystemRoot": True}
    # What is dialled is an address, which no web server knows: without TLS, whose name it is, the server's own.
    host = settings.host or ("" if settings.tls or settings.reality else settings.server)
    http = {"host": host, "path": settings.path or "/"}
    match settings.transport:
        case "xhttp":
            found["xhttpSettings"] = http | {"mode": settings.mode or "auto"}
        case "ws":
            found["wsSettings"] = http
        case "httpupgrade":
            found["httpupgradeSettings"] = http
        case "grpc":
            found["grpcSettings"] = {
                "serviceName": settings.service_name or "",
                "authority": host,
                "multiMode": settings.mode == "multi",
            }
    return found

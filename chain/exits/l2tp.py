"""L2TP/IPsec exit, host side: strongSwan and xl2tpd settings, their safe defaults, and the legacy set."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from chain.config.models import Duration, ExitConfig, Model, SecretFile, Server, seconds
from chain.exits.base import KernelNeed, SecretSpec, ServiceNeeds

LEAST_LIFETIME, MOST_LIFETIME = 15, 24 * 3600  # seconds
PPP_LIMIT = 255  # bytes of a user name or password: PAP tells the length in one byte, and pppd takes no more

_PROPOSAL = re.compile(r"[a-z0-9]+(-[a-z0-9_]+)*")


def _proposal(value: str) -> str:
    """Let only strongSwan's own form through; it ends up in its configuration."""
    if not _PROPOSAL.fullmatch(value):
        raise ValueError(f"{value!r} is no proposal; write it as aes256-sha256-modp2048")
    return value


Proposal = Annotated[str, AfterValidator(_proposal)]


def _lifetime(value: str) -> str:
    """Leave room for the new keys to be agreed on before the old ones end."""
    if not LEAST_LIFETIME <= seconds(value) <= MOST_LIFETIME:
        raise ValueError(f"{value} is not between {LEAST_LIFETIME}s and {MOST_LIFETIME // 3600}h")
    return value


Lifetime = Annotated[Duration, AfterValidator(_lifetime)]
PppAuth = Literal["pap", "chap", "mschap-v2"]
Encapsulation = Literal["auto", "udp"]

# Offered by default: what servers of the last ten years accept and nobody has broken.
MODERN_IKE = ("aes256-sha256-modp2048", "aes128-sha256-modp2048", "aes256-sha256-ecp256", "aes256-sha384-ecp384")
MODERN_ESP = ("aes256gcm16", "aes128gcm16", "aes256-sha256", "aes128-sha256")
# `crypto: legacy` adds what old appliances insist on. SHA1 and 3DES are weak, modp1024 is within reach of states.
LEGACY_IKE = (
    "aes256-sha1-modp2048",
    "aes128-sha1-modp2048",
    "aes256-sha1-modp1024",
    "aes128-sha1-modp1024",
    "3des-sha1-modp2048",
    "3des-sha1-modp1024",
)
LEGACY_ESP = ("aes256-sha1", "aes128-sha1", "3des-sha1")

# What a packet of the tunnel carries outside the inner IP packet.
IPV4, UDP = 20, 8
L2TP_PPP = 6 + 4  # L2TP data header as Linux sends it, without length or sequence numbers; PPP header uncompressed
ESP_HEADER, ESP_TRAILER = 8, 2


class EspShape(Model):
    """How one ESP cipher frames a packet, in bytes."""

    iv: int
    block: int
    icv: int

    def largest(self, room: int) -> int:
        """Give the largest ESP payload that fits `room` bytes of outer IP payload."""
        padded = room - ESP_HEADER - self.iv - self.icv
        return padded - padded % self.block - ESP_TRAILER


def esp_shape(proposal: str) -> EspShape:
    """Read cipher and integrity from a proposal such as aes256-sha1 or aes128gcm16."""
    if "gcm" in proposal or "ccm" in proposal:
        return EspShape(iv=8, block=4, icv=16)
    cipher = EspShape(iv=8, block=8, icv=0) if proposal.startswith("3des") else EspShape(iv=16, block=16, icv=0)
    icv = next((size for name, size in (("sha512", 32), ("sha384", 24), ("sha256", 16)) if name in proposal), 12)
    return EspShape(iv=cipher.iv, block=cipher.block, icv=icv)


class IkeConfig(Model):
    """IPsec's negotiation."""

    version: Literal[1, 2] = Field(default=1, description="L2TP/IPsec servers speak 1 as a rule, some speak 2.")
    proposals: list[Proposal] | None = Field(
        default=None,
        min_length=1,
        description="In place of what `crypto` offers, in strongSwan's words, such as aes256-sha256-modp2048.",
    )
    lifetime: Lifetime = Field(
        default="8h", description="How long one set of IKE keys serves; new ones come in the last eighth of it."
    )
    remote_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9@.:_%-]+$")] | None = Field(
        default=None, description="Who the server must say it is. Any, when not named."
    )


class EspConfig(Model):
    """IPsec's packets."""

    proposals: list[Proposal] | None = Field(
        default=None,
        min_length=1,
        description="In place of what `crypto` offers, in strongSwan's words, such as aes256gcm16 or aes256-sha256.",
    )
    lifetime: Lifetime = Field(
        default="1h", description="How long one set of packet keys serves; new ones come in the last third of it."
    )
    encapsulation: Encapsulation = Field(
        default="auto",
        description="udp sends ESP inside UDP port 4500, for networks that block it by itself (IP protocol 50); auto"
        " does so only behind a NAT.",
    )


class PppConfig(Model):
    """PPP, which carries the traffic inside L2TP."""

    auth: list[PppAuth] = Field(
        default=["mschap-v2", "chap"],
        min_length=1,
        description="What may be used to log in. pap sends the password itself, inside IPsec.",
    )


class L2tpExit(ExitConfig):
    """An exit through an L2TP/IPsec provider, with a pre-shared key, a user name and a password."""

    kind: Literal["l2tp"]
    server: Server | None = Field(
        default=None, description="The server's name or IPv4 address; without it, the secret vpn_server_ip."
    )
    crypto: Literal["modern", "legacy"] = Field(
        default="modern",
        description="legacy adds SHA1, 3DES and 1024-bit groups, which are weak, for servers that insist on them.",
    )
    ike: IkeConfig = IkeConfig()
    esp: EspConfig = EspConfig()
    ppp: PppConfig = PppConfig()
    psk: SecretFile | None = Field(default=None, description="The pre-shared key's file; else NAME_vpn_ipsec_psk.")
    username: SecretFile | None = Field(default=None, description="The user name's file; else NAME_vpn_username.")
    password: SecretFile | None = Field(default=None, description="The password's file; else NAME_vpn_password.")

    def sends(self) -> dict[str, str]:
        if self.esp.encapsulation == "udp":
            return {"udp": ""}
        return {"udp": "", "esp": "`esp: {encapsulation: udp}` on this exit hides ESP in UDP"}

    def crowds(self) -> str:
        return self.server or ""


class L2tp:
    name = "l2tp"
    settings = L2tpExit
    # charon insists on the capability for IKE's port 500, though Docker lets everybody bind it.
    needs = ServiceNeeds(devices=("/dev/ppp",), capabilities=("NET_BIND_SERVICE",), memory="128m")
    kernel: tuple[KernelNeed, ...] = (
        KernelNeed("ppp", ("ppp_generic",), "PPP, which carries the traffic inside L2TP"),
        KernelNeed("l2tp", ("l2tp_ppp", "l2tp_netlink"), "L2TP in the kernel"),
        KernelNeed("xfrm", ("xfrm_user",), "IPsec's policies and keys"),
        KernelNeed("esp", ("esp4", "authenc", "echainiv", "cbc", "gcm"), "IPsec's ESP"),
    )

    def secrets(self, settings: L2tpExit) -> tuple[SecretSpec, ...]:
        specs = [
            SecretSpec("vpn_ipsec_psk", about="the IPsec pre-shared key", override=_file(settings.psk)),
            SecretSpec("vpn_username", about="the user name", override=_file(settings.username), limit=PPP_LIMIT),
            SecretSpec("vpn_password", about="the password", override=_file(settings.password), limit=PPP_LIMIT),
        ]
        if settings.server is None:
            specs.insert(0, SecretSpec("vpn_server_ip", form="host", about="the server's address or name"))
        return tuple(specs)

    def options(self, settings: L2tpExit) -> dict[str, Any]:
        return {
            "server": settings.server or "",
            "ike_version": settings.ike.version,
            "ike_proposals": list(ike_proposals(settings)),
            "esp_proposals": list(esp_proposals(settings)),
            "ike_lifetime": seconds(settings.ike.lifetime),
            "esp_lifetime": seconds(settings.esp.lifetime),
            "remote_id": settings.ike.remote_id or "",
            "encapsulation": settings.esp.encapsulation,
            "ppp_auth": list(settings.ppp.auth),
        }

    def tunnel_mtu(self, settings: L2tpExit, link_mtu: int) -> int:
        """Take the smallest over all offered ciphers, NAT traversal assumed: which one the server picks is open."""
        room = link_mtu - IPV4 - UDP
        framing = UDP + L2TP_PPP
        return min(esp_shape(proposal).largest(room) for proposal in esp_proposals(settings)) - framing


def ike_proposals(settings: L2tpExit) -> tuple[str, ...]:
    legacy = LEGACY_IKE if settings.crypto == "legacy" else ()
    return tuple(settings.ike.proposals) if settings.ike.proposals else MODERN_IKE + legacy


def esp_proposals(settings: L2tpExit) -> tuple[str, ...]:
    legacy = LEGACY_ESP if settings.crypto == "legacy" else ()
    return tuple(settings.esp.proposals) if settings.esp.proposals else MODERN_ESP + legacy


def _file(secret: SecretFile | None) -> str | None:
    return secret.file if secret else None

"""WireGuard exit, host side: plain fields, as they stand in any provider's file."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from chain.config.models import ExitConfig, PublicKey, SecretFile, ServerEndpoint
from chain.exits.base import KernelNeed, SecretSpec, ServiceNeeds

DEFAULT_PORT = 51820
OVERHEAD = {4: 60, 6: 80}  # outer IP, UDP, and WireGuard's 32 bytes of header and tag
SERVERS_MTU = 1420  # what the other end is set to as a rule, whatever the way to it could carry


def _usual_name(value: object) -> object:
    """Read `true` as: the provider gave one, and it is in the file of the usual name."""
    if isinstance(value, bool):
        return SecretFile.model_construct(file="") if value else None
    return value


class WireGuardExit(ExitConfig):
    """An exit through a WireGuard provider: the fields of the file that it gives for WireGuard's app."""

    kind: Literal["wireguard"]
    endpoint: ServerEndpoint = Field(
        description="Endpoint: the server's name or IPv4 address, with its port; 51820 where it names none."
    )
    public_key: PublicKey = Field(description="PublicKey, the server's.")
    address: IPv4Interface = Field(description="Address, the IPv4 one.")
    dns: IPv4Address | None = Field(
        default=None,
        description="DNS: the provider's resolver inside the tunnel. A private one is also what the exit's health is"
        " judged by.",
    )
    keepalive: Annotated[int, Field(ge=0, le=65535, strict=True)] = Field(
        default=25,
        description="Seconds between two packets on a quiet tunnel, which keep a NAT's mapping open; 0 for none.",
    )
    private_key: SecretFile | None = Field(
        default=None, description="The file of PrivateKey; else NAME_wg_private_key."
    )
    preshared_key: Annotated[
        SecretFile | None, BeforeValidator(_usual_name, json_schema_input_type=SecretFile | bool | None)
    ] = Field(
        default=None,
        description="The file of PresharedKey; true: there is one, in NAME_wg_preshared_key.",
    )


class WireGuard:
    name = "wireguard"
    settings = WireGuardExit
    needs = ServiceNeeds(devices=("/dev/net/tun",))
    kernel: tuple[KernelNeed, ...] = (
        KernelNeed("tun", ("tun",), "WireGuard in user space, where the kernel has none of its own"),
    )

    def secrets(self, settings: WireGuardExit) -> tuple[SecretSpec, ...]:
        private = SecretSpec(
            "wg_private_key",
            form="wireguard-key",
            about="the private key that the provider's file shows as PrivateKey",
            override=settings.private_key.file if settings.private_key else None,
        )
        if settings.preshared_key is None:
            return (private,)
        preshared = SecretSpec(
            "wg_preshared_key",
            form="wireguard-key",
            about="the key that the provider's file shows as PresharedKey",
            override=settings.preshared_key.file or None,
        )
        return (private, preshared)

    def options(self, settings: WireGuardExit) -> dict[str, Any]:
        return {
            "server": settings.endpoint.host,
            "port": settings.endpoint.port or DEFAULT_PORT,
            "public_key": settings.public_key,
            "address": str(settings.address),
            "keepalive": settings.keepalive,
            # A resolver with a public address would be no evidence that *this* tunnel's far end lives.
            "near": str(settings.dns) if settings.dns and is_private(settings.dns) else "",
        }

    def tunnel_mtu(self, settings: WireGuardExit, link_mtu: int) -> int:
        """Take no more than a server sends back whole: what it cuts in pieces may be another exit's tunnel."""
        return min(link_mtu - OVERHEAD[6 if ":" in settings.endpoint.host else 4], SERVERS_MTU)


def is_private(address: IPv4Address) -> bool:
    """Tell RFC 1918 and RFC 6598 addresses from all others; providers' tunnels use both."""
    networks = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
    return any(address in IPv4Network(network) for network in networks)

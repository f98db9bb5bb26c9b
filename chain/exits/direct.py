"""Direct exit, host side: no tunnel and no provider, for those of a group that need none."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from chain.config.models import ExitConfig, Network4
from chain.exits.base import KernelNeed, SecretSpec, ServiceNeeds

if TYPE_CHECKING:
    from collections.abc import Iterable

# What is somebody's own, this machine's and its neighbours' first: RFC 1122, 1918, 2544, 3927, 5771, 6598, 6890,
# loopback, and the one public address under which a cloud (Azure) talks to its machines.
PRIVATE = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/3",
    )
)


class DirectExit(ExitConfig):
    """An exit through nobody: clients' traffic leaves by this machine's own uplink, under its own address."""

    carries: ClassVar[frozenset[str]] = frozenset()
    hides: ClassVar[bool] = False

    kind: Literal["direct"]
    allow: Annotated[list[Network4], Field(max_length=32)] = Field(
        default_factory=list,
        description="Private networks that clients may reach by it, such as 192.168.178.0/24; all others are refused.",
    )

    @field_validator("allow")
    @classmethod
    def _are_private(cls, value: list[IPv4Network]) -> list[IPv4Network]:
        for network in value:
            if not any(network.subnet_of(private) for private in PRIVATE):
                raise ValueError(f"{network} is no part of a private network; what is public is reached without this")
        return value

    @model_validator(mode="after")
    def _stands_alone(self) -> DirectExit:
        if self.via:
            raise ValueError("a direct exit runs through nobody: name the other exit itself in the group")
        return self

    def sends(self) -> dict[str, str]:
        return {}

    def lets_to(self) -> list[IPv4Network]:
        return self.allow


class Direct:
    name = "direct"
    settings = DirectExit
    needs = ServiceNeeds()
    kernel: tuple[KernelNeed, ...] = ()

    def secrets(self, settings: DirectExit) -> tuple[SecretSpec, ...]:
        del settings
        return ()

    def options(self, settings: DirectExit) -> dict[str, Any]:
        return {"refused": [str(network) for network in without(PRIVATE, settings.allow)]}

    def tunnel_mtu(self, settings: DirectExit, link_mtu: int) -> int:
        del settings
        return link_mtu


def without(networks: Iterable[IPv4Network], taken: Iterable[IPv4Network]) -> list[IPv4Network]:
    """Give what is left of networks when others are taken out of them."""
    left = list(networks)
    for each in taken:
        kept: list[IPv4Network] = []
        for network in left:
            if each.subnet_of(network):
                kept += network.address_exclude(each)
            elif not network.subnet_of(each):
                kept.append(network)
        left = kept
    return sorted(left)

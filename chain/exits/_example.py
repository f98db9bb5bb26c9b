"""A kind to copy, host side: IP packets in UDP, by socat. It encrypts nothing, so that no chain.yaml can name it.

docs/adding-an-exit-kind.md goes through it step by step.
"""

from __future__ import annotations

from ipaddress import IPv4Interface  # noqa: TC003 - the model is made of it
from typing import Any, Literal

from pydantic import Field

from chain.config.models import ExitConfig, Port, SecretFile, Server
from chain.exits.base import KernelNeed, SecretSpec, ServiceNeeds

OVERHEAD = 20 + 8 + 4  # outer IP, UDP, and the four bytes that a TUN device puts before each packet


class ExampleExit(ExitConfig):
    """An exit through a server that unpacks IP packets from UDP."""

    kind: Literal["_example"]
    server: Server = Field(description="The server's name or IPv4 address.")
    port: Port = Field(default=11443, description="The server's UDP port.")
    address: IPv4Interface = Field(description="The own address in the tunnel, such as 10.9.0.2/24.")
    word: SecretFile | None = Field(default=None, description="The file of the password; else NAME_example_word.")


class Example:
    name = "_example"
    settings = ExampleExit
    # Beyond what every exit has: what the daemon opens, may do, writes to, and needs of memory.
    needs = ServiceNeeds(devices=("/dev/net/tun",))
    kernel: tuple[KernelNeed, ...] = (KernelNeed("tun", ("tun",), "the tunnel's interface"),)

    def secrets(self, settings: ExampleExit) -> tuple[SecretSpec, ...]:
        override = settings.word.file if settings.word else None
        return (SecretSpec("example_word", about="the password that the provider gave you", override=override),)

    def options(self, settings: ExampleExit) -> dict[str, Any]:
        """Give what the other half needs, as JSON; it ends up in a file that is no secret."""
        return {"server": settings.server, "port": settings.port, "address": str(settings.address)}

    def tunnel_mtu(self, settings: ExampleExit, link_mtu: int) -> int:
        del settings
        return link_mtu - OVERHEAD

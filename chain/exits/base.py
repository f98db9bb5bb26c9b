"""What a kind of exit tells the host side. A kind is one module here, one line in the registry, and its container."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from chain.config.models import ExitConfig


@dataclass(frozen=True)
class Fault:
    """What is wrong with a secret, without a word of it; in which line (0: in none), and what to do."""

    line: int
    what: str
    hint: str


@dataclass(frozen=True)
class SecretSpec:
    """A credential of an exit: `role` is its file's name and its name inside the container.

    A `document` has many lines. `examine` finds what is wrong with a value that has its form, at a time.
    """

    role: str
    about: str
    form: Literal["text", "wireguard-key", "host", "document"] = "text"
    override: str | None = None  # the file that chain.yaml names instead
    limit: int = 1024  # bytes
    examine: Callable[[str, datetime], Iterable[Fault]] | None = None


@dataclass(frozen=True)
class KernelNeed:
    """Something the engine's kernel must offer; `check` is what the runtime's own check calls it."""

    check: str
    modules: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class ServiceNeeds:
    """What a kind's container gets beyond what every exit's has."""

    devices: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    memory: str = "96m"


class ExitKind(Protocol):
    """One kind of exit, on the host side. All of it is pure."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> type[ExitConfig]: ...

    @property
    def needs(self) -> ServiceNeeds: ...

    @property
    def kernel(self) -> tuple[KernelNeed, ...]: ...

    def secrets(self, settings: Any) -> tuple[SecretSpec, ...]:
        """Name the credentials these settings call for."""

    def options(self, settings: Any) -> dict[str, Any]:
        """Give what the kind's runtime needs to know, without secrets, as JSON."""

    def tunnel_mtu(self, settings: Any, link_mtu: int) -> int:
        """Compute the largest inner packet, in bytes, whose outer packet fits `link_mtu`."""

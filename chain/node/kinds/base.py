"""The cut between the exit's runtime and a kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from chain.node.kinds.causes import Diagnosis
from chain.node.probe import connect, ping

if TYPE_CHECKING:
    from chain.node.lock import UplinkRules
    from chain.node.probe import Stream


class DialError(RuntimeError):
    """The tunnel did not come up, or is lost; `found` is what people will read."""

    def __init__(self, found: Diagnosis | str) -> None:
        self.found = Diagnosis(found) if isinstance(found, str) else found
        super().__init__(self.found.cause)


@dataclass(frozen=True)
class Tunnel:
    """A tunnel that is up as far as its own protocol can tell."""

    address: str
    near: str = ""  # an address at the tunnel's own far end that answers pings; empty: none is known


class Interface:
    """What kinds have in common whose tunnel is an interface."""

    interface: str
    capture = 0
    patience = 1.0
    refused: tuple[str, ...] = ()

    async def ask(self, target: str, sequence: int, timeout: float) -> float | None:  # noqa: ASYNC109 - the caller's budget
        return await ping(target, self.interface, sequence, timeout)

    async def connect(self, address: str, port: int) -> Stream:
        return await connect(address, port, self.interface)

    def unresolved(self) -> None:
        """Nothing to do for one that knows of one server only."""


class Kind(Protocol):
    """One exit's tunnel. The runtime resolves, locks, routes, probes and reports; a kind dials."""

    interface: str  # the tunnel's interface, by the name it will have; empty: none, so a program, or the uplink itself
    capture: int  # the port on the loopback where a program takes clients' packets; 0 where there is an interface
    refused: tuple[str, ...]  # networks that clients may not reach by it
    patience: float  # seconds that an answer to a question may take on a way that nothing is known of yet
    # Of the next dial: a kind may know of several servers, and try them in turn.
    server: str  # name or address of the far end; empty: there is none
    rules: UplinkRules  # what may pass between the uplink and the server

    async def dial(self, server: str) -> Tunnel:
        """Bring the tunnel up; `server` is an address. Bounded in time. Raises DialError."""

    async def ask(self, target: str, sequence: int, timeout: float) -> float | None:  # noqa: ASYNC109 - the caller's budget
        """Ask through the tunnel whether anybody is there; give the seconds to an answer from beyond, or None."""

    async def connect(self, address: str, port: int) -> Stream:
        """Open a TCP connection through the tunnel, which another object may have dialled. Raises OSError."""

    def unresolved(self) -> None:
        """Be told that the name of `server` can't be resolved: there will be no dial to it now."""

    async def revive(self) -> None:
        """Do what may help without dialling again, after a probe that went unanswered."""

    async def mute(self, asked: str, *, stood: bool) -> Diagnosis:
        """Say why those that were asked through the tunnel do not answer. `stood`: they did before."""

    async def lost(self) -> Diagnosis:
        """Wait until the tunnel is known to be lost; give the cause."""

    async def hang_up(self) -> None:
        """End the tunnel and its daemons, telling the far end where the protocol can. Repeatable."""

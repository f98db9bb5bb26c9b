"""What the agent tells the kernel, and finds there: which exits are open, and where groups and clients go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.agent import choice, sockets
from chain.contract import CLIENT_INTERFACE, HEALTH_FILE
from chain.node import lock, netlink
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from chain.contract import DesiredState

HEALTH = Path(HEALTH_FILE)


class Datapath:
    def __init__(self, connect: Callable[[], Any]) -> None:
        """`connect`: by Debian's binding to libnftables."""
        self._connect, self._nft = connect, connect()
        self._resolvers: Mapping[int, int] | None = None  # by a group's mark, the exit of its resolver

    def found(self, state: DesiredState) -> choice.Before:
        """Give what a former agent decided, as far as it still holds."""
        listed = {name: self._list(f"set {lock.TABLE} {name}") for name in ("up_pairs", "open_marks", "suspect_marks")}
        return choice.before(
            state,
            dict(self._list(f"map {lock.TABLE} bucket_exit")),
            up={pair["concat"][0] for pair in listed["up_pairs"]},
            opened=listed["open_marks"],
            suspect=listed["suspect_marks"],
        )

    def switch(
        self,
        state: DesiredState,
        links: Mapping[str, str],
        opened: Collection[str],
        chosen: lock.Choice,
        *,
        up: Collection[str],
        suspects: frozenset[int],
    ) -> None:
        """Make the kernel agree, in one transaction; closing comes first."""
        code, _, error = self._nft.cmd(ruleset(state, links, opened, chosen, up=up, suspects=suspects))
        if code:
            # The supervisor closes all exits, by the lock as it was at first, and a new agent opens them again.
            log("agent", f"nftables: {error}")
            os._exit(lock.UNKNOWN)
        switches = {interface: name in opened for name, interface in links.items()}
        for interface, on in (switches | {CLIENT_INTERFACE: bool(opened)}).items():
            try:
                netlink.set_forwarding(interface, on=on)
            except OSError as error:  # its network was disconnected; the other exits are not to suffer
                log("agent", f"{interface}: {error.strerror}")
        if chosen.buckets:  # an exit that only others run through is no way out
            HEALTH.touch()
        else:
            HEALTH.unlink(missing_ok=True)
        self._hurry_resolvers(state, chosen.groups)

    def load(self, text: str) -> None:
        """Load a ruleset, in a copy of this process, which needs a connection of its own. Raises RuntimeError."""
        code, _, error = self._connect().cmd(text)
        if code:
            raise RuntimeError(f"nftables: {error}")

    def _hurry_resolvers(self, state: DesiredState, exits: Mapping[int, int]) -> None:
        """Have resolvers ask anew where another exit is used now.

        A connection that is always busy would stay with the former one: it may be dead, or in another country.
        """
        before, self._resolvers = self._resolvers, exits
        if before is None:  # nobody knows since when it is so
            return
        for group in state.groups:
            if exits.get(group.mark) not in (before.get(group.mark), None):
                try:
                    sockets.end(group.resolver_address)
                except OSError as error:  # they are reset when they next send
                    log("agent", f"the resolver of group {group.name} is slow to notice: {error.strerror}")

    def _list(self, what: str) -> list[Any]:
        """Give the elements of a set or a map."""
        return [element for item in self._listed(what) for element in item.get("elem", ())]

    def _listed(self, what: str) -> list[dict[str, Any]]:
        """Give what nftables has of that kind and name."""
        self._nft.set_json_output(True)
        _, output, _ = self._nft.cmd(f"list {what}")
        self._nft.set_json_output(False)
        kind = what.partition(" ")[0]
        return [item[kind] for item in json.loads(output)["nftables"] if kind in item] if output else []


def ruleset(
    state: DesiredState,
    links: Mapping[str, str],
    opened: Collection[str],
    chosen: lock.Choice,
    *,
    up: Collection[str],
    suspects: frozenset[int],
) -> str:
    """Say in marks which exits are up and open, and who goes where."""
    marks = {exit_.name: exit_.mark for exit_ in state.exits}
    exits = lock.Exits(
        up={marks[name]: links[name] for name in sorted(up)},
        open=frozenset(marks[name] for name in opened),
        suspect=suspects,
    )
    members = ((group.mark, marks[name]) for group in state.groups for name in group.exits)
    return lock.entry_switch(exits, chosen, members)

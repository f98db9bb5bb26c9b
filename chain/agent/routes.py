"""A routing table per exit, over netlink. Repeating it changes nothing."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute, NetlinkError

from chain.node.run import WORST_METRIC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import DesiredState

RULE_EXIT = 200  # after the tunnel's own and the clients' rules, before the resolvers'


class Routes:
    def __init__(self) -> None:
        self._netlink = IPRoute()

    def install(self, state: DesiredState, links: Mapping[str, str]) -> None:
        """Lead each exit's mark to a table whose only way out is that exit. Raises NetlinkError.

        Rules of exits that are no longer there go first: their mark may be another exit's by now.
        """
        self._forget({(exit_.mark, exit_.table) for exit_ in state.exits if exit_.name in links})
        for exit_ in state.exits:
            if exit_.name not in links:
                continue
            to = {"family": socket.AF_INET, "dst": "default", "table": exit_.table}
            self._netlink.route("replace", **to, type="unreachable", priority=WORST_METRIC)
            index = self._index(links[exit_.name])
            self._netlink.route("replace", **to, gateway=exit_.link.exit_address, oif=index)
            self._rule(exit_.mark, exit_.table)

    def _rule(self, mark: int, table: int) -> None:
        try:
            self._netlink.rule("add", family=socket.AF_INET, priority=RULE_EXIT, fwmark=mark, table=table)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise

    def _forget(self, wanted: set[tuple[int, int]]) -> None:
        """Remove those of our rules that lead elsewhere than `wanted`, and what their tables held."""
        for rule in self._netlink.get_rules(family=socket.AF_INET):
            mark, table = rule.get_attr("FRA_FWMARK"), rule.get_attr("FRA_TABLE")
            if rule.get_attr("FRA_PRIORITY") == RULE_EXIT and (mark, table) not in wanted:
                self._netlink.rule("del", family=socket.AF_INET, priority=RULE_EXIT, fwmark=mark, table=table)
                self._netlink.flush_routes(family=socket.AF_INET, table=table)

    def _index(self, name: str) -> int:
        found: list[Any] = self._netlink.link_lookup(ifname=name)
        if not found:
            raise NetlinkError(errno.ENODEV, name)
        return int(found[0])

"""A routing table per exit. Repeating it changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chain.node.run import WORST_METRIC, ip_batch, run

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chain.contract import DesiredState

RULE_EXIT = 200  # after the tunnel's own and the clients' rules, before the resolvers'


def install(state: DesiredState, links: Mapping[str, str]) -> None:
    """Lead each exit's mark to a table whose only way out is that exit. Raises CommandError."""
    rules = json.loads(run("ip", "-json", "-4", "rule", "show"))
    present = {(int(rule.get("fwmark", "0"), 0), rule["table"]) for rule in rules if rule.get("priority") == RULE_EXIT}
    if wanted := commands(state, links, present):
        ip_batch(wanted)


def commands(state: DesiredState, links: Mapping[str, str], present: Collection[tuple[int, str]]) -> list[str]:
    """Say it to iproute2. `present`: marks and tables of our rules that are there.

    Rules of exits that are no longer there go first, with what their tables held: their mark may be another exit's by
    now.
    """
    exits = {(exit_.mark, str(exit_.table)): exit_ for exit_ in state.exits if exit_.name in links}
    stale, lines = sorted(set(present) - exits.keys()), []
    for mark, table in stale:
        # To flush a table that is not there is an error.
        lines += [f"rule del priority {RULE_EXIT} fwmark {mark} table {table}", _nowhere(table)]
        lines.append(f"route flush table {table}")
    for (mark, table), exit_ in exits.items():
        link = links[exit_.name]
        lines += [_nowhere(table), f"route replace default via {exit_.link.exit_address} dev {link} table {table}"]
        if (mark, table) not in present:
            lines.append(f"rule add priority {RULE_EXIT} fwmark {mark} table {table}")
    return lines


def _nowhere(table: str) -> str:
    return f"route replace unreachable default table {table} metric {WORST_METRIC}"

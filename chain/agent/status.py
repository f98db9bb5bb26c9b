"""What `chain status --json` shows, as far as the entry knows it. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from chain.agent import choice
from chain.agent.verdict import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from chain.agent.clients import Placed
    from chain.agent.failover import Failover
    from chain.agent.watch import Watch
    from chain.contract import DesiredState, ExitLink, ExitReport


def silent(exit_: ExitLink, since: float | None, *, drained: Sequence[str]) -> dict[str, Any]:
    """Show an exit that does not report."""
    return {
        "name": exit_.name,
        "kind": exit_.kind,
        "state": "silent",
        "since": since,
        "cause": "the exit's container does not report",
        "advice": f"`chain logs exit-{exit_.name}` shows why",
        "warning": "",
        "open": False,
        "health": State.DEAD,
        "drained": drained,
    }


def reporting(
    exit_: ExitLink, report: ExitReport, watch: Watch | None, *, is_open: bool, drained: Sequence[str]
) -> dict[str, Any]:
    """Show an exit by what it says, and by what is found beside that."""
    return {
        "name": exit_.name,
        "kind": exit_.kind,
        "state": report.state,
        "since": report.since,
        # Clients' packets tell the agent sooner than the exit itself notices.
        "cause": (watch.complaint if watch and report.state == "up" else "") or report.cause,
        "advice": report.advice,
        "warning": report.warning or ("" if watch is None else watch.warning),
        "open": is_open,
        "health": report.state if report.state == "resting" else State.DEAD if watch is None else watch.state,
        "tunnel_address": report.tunnel_address or None,
        "latency_ms": round(watch.latency * 1e3, 2) if watch and watch.latency else report.latency_ms,
        "loss": 0.0 if watch is None else round(watch.loss, 3),
        "drained": drained,
        "rx_bytes": report.rx_bytes,
        "tx_bytes": report.tx_bytes,
    }


def groups(state: DesiredState, failover: Failover, chosen: Mapping[tuple[str, int], str]) -> list[dict[str, Any]]:
    """Show each group with the share of its clients that each exit has; none where they are blocked."""
    found = []
    for group in state.groups:
        key = choice.key(group.name)
        used = Counter(exit_ for (of, _), exit_ in chosen.items() if of == key)
        shares = {exit_: round(number / failover.buckets[key], 3) for exit_, number in used.most_common()}
        found.append(
            {
                "name": group.name,
                "exit": next(iter(shares), None),
                "shares": shares,
                "exits": list(group.exits),
                "policy": group.policy,
                "pinned": failover.pinned(key),
            }
        )
    return found


def clients(placed: Iterable[Placed], going: Mapping[int, str], dump: str) -> list[dict[str, Any]]:
    """Show all clients. `going`: by a bucket's mark, the exit of new connections; `dump`: what WireGuard knows."""
    peers = dict(_peers(dump))
    found = []
    for client in placed:
        endpoint, handshake, received, sent = peers.get(client.public_key, ("(none)", 0, 0, 0))
        found.append(
            {
                "name": client.name,
                "address": client.address,
                "group": client.group,
                "exit": going.get(client.mark),
                "endpoint": None if endpoint == "(none)" else endpoint,
                "last_handshake": handshake or None,
                "rx_bytes": received,
                "tx_bytes": sent,
            }
        )
    return found


def _peers(dump: str) -> Iterator[tuple[str, tuple[str, int, int, int]]]:
    for line in dump.splitlines()[1:]:
        public_key, _, endpoint, _, *numbers, _ = line.split("\t")
        handshake, received, sent = map(int, numbers)
        yield public_key, (endpoint, handshake, received, sent)

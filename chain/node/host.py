"""What the engine's host is like, for the checks before a start: routes, ports, limits. Looks, changes nothing.

Runs in a container of its own in the host's network namespace, with NET_ADMIN, which reading nftables asks for. What
this host or kernel does not have is None, and no reason to fail: each fact is worth something without the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute, NetlinkError

from chain.contract import HostAddress, HostFacts, HostRoute, to_json
from chain.node.run import CommandError, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PROC = Path("/proc")
_UFW_CHAIN = "ufw-user-input"
_UNICAST, _MAIN = 1, 254  # linux/rtnetlink.h


@dataclass(frozen=True)
class Route:
    network: str  # empty: the default
    device: str
    table: int
    metric: int


@dataclass(frozen=True)
class Network:
    routes: tuple[Route, ...]  # IPv4, those that lead anywhere
    addresses: tuple[HostAddress, ...]
    mtus: Mapping[str, int]  # by interface


def report() -> int:
    """Print one JSON object."""
    sys.stdout.write(to_json(look(_PROC)) + "\n")
    return 0


def look(proc: Path) -> HostFacts:
    """Gather all facts."""
    network = _network()
    uplink = default_device(network.routes) if network else None
    sysctls = proc / "sys" / "net"
    rp_filter = {name: _number(sysctls / "ipv4" / "conf" / name / "rp_filter") for name in ("all", "default")}
    return HostFacts(
        time=time.time(),
        routes=usable_routes(network.routes) if network else None,
        addresses=network.addresses if network else None,
        udp_ports=udp_ports(proc / "net"),
        uplink_device=uplink,
        uplink_mtu=network.mtus[uplink] if network and uplink else None,
        ip_forward=_number(sysctls / "ipv4" / "ip_forward"),
        rp_filter={name: value for name, value in rp_filter.items() if value is not None} or None,
        conntrack_max=_number(sysctls / "netfilter" / "nf_conntrack_max"),
        conntrack_count=_number(sysctls / "netfilter" / "nf_conntrack_count"),
        firewalls=firewalls(_ruleset(), _text(proc / "net" / "ip_tables_names")),
    )


def usable_routes(routes: Sequence[Route]) -> tuple[HostRoute, ...]:
    """Leave out the defaults, which name no network."""
    return tuple(HostRoute(route.network, route.device) for route in routes if route.network)


def default_device(routes: Sequence[Route]) -> str | None:
    """Name the interface of the default route: the main table's best one, or another table's where it has none."""
    found = [route for route in routes if not route.network and route.device]
    best = min(found, key=lambda route: (route.table != _MAIN, route.metric), default=None)
    return None if best is None else best.device


def _network() -> Network | None:
    try:
        with IPRoute() as kernel:
            links = {link["index"]: link for link in kernel.get_links()}
            names = {index: str(link.get_attr("IFLA_IFNAME")) for index, link in links.items()}
            routes = [_route(each, names) for each in kernel.get_routes(family=AF_INET) if each["type"] == _UNICAST]
            found = [
                HostAddress(f"{address}/{each['prefixlen']}", names.get(each["index"], ""))
                for each in kernel.get_addr()
                # The own end of a link between two; IPv6 has no other word for it.
                if (address := each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"))
            ]
    except (NetlinkError, OSError):
        return None
    mtus = {names[index]: int(link.get_attr("IFLA_MTU")) for index, link in links.items()}
    return Network(tuple(routes), tuple(found), mtus)


def _route(found: Any, names: Mapping[int, str]) -> Route:
    """Read a route of the kernel's; of several ways the first."""
    hop = found.get_attr("RTA_OIF") or next((each["oif"] for each in found.get_attr("RTA_MULTIPATH") or ()), 0)
    network = f"{found.get_attr('RTA_DST')}/{found['dst_len']}" if found["dst_len"] else ""
    return Route(network, names.get(hop, ""), found.get_attr("RTA_TABLE"), found.get_attr("RTA_PRIORITY") or 0)


def udp_ports(net: Path) -> tuple[int, ...] | None:
    """List the UDP ports that something has bound, the kernel's own sockets included, IPv4 and IPv6."""
    texts = [text for text in (_text(net / "udp"), _text(net / "udp6")) if text is not None]
    if not texts:
        return None
    lines = [line for text in texts for line in text.splitlines()[1:]]
    return tuple(sorted({int(line.split()[1].rpartition(":")[2], 16) for line in lines}))


def firewalls(ruleset: list[dict[str, Any]] | None, legacy_tables: str | None) -> tuple[str, ...] | None:
    """Name the managers of firewalls that have left their marks. Rules of the old iptables are not looked into."""
    if ruleset is None and legacy_tables is None:
        return None
    chains = [item["chain"] for item in ruleset or [] if "chain" in item]
    marks = {
        "firewalld": any(chain["table"] == "firewalld" for chain in chains),
        "ufw": any(chain["name"] == _UFW_CHAIN for chain in chains),
        "iptables-legacy": bool((legacy_tables or "").strip()),
    }
    return tuple(name for name, seen in marks.items() if seen)


def _ruleset() -> list[dict[str, Any]] | None:
    try:
        found: list[dict[str, Any]] = json.loads(run("nft", "-j", "list", "chains"))["nftables"]
    except (CommandError, OSError, ValueError, KeyError, subprocess.SubprocessError):
        return None
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.strip().isdigit() else None

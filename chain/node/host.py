"""What the engine's host is like, for the checks before a start: routes, ports, limits. Looks, changes nothing.

Runs in a container of its own in the host's network namespace, with NET_ADMIN, which reading nftables asks for. What
this host or kernel does not have is None, and no reason to fail: each fact is worth something without the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chain.contract import HostAddress, HostFacts, HostRoute, to_json
from chain.node.run import CommandError, run

_PROC = Path("/proc")
_UFW_CHAIN = "ufw-user-input"


def report() -> int:
    """Print one JSON object."""
    sys.stdout.write(to_json(look(_PROC)) + "\n")
    return 0


def look(proc: Path) -> HostFacts:
    """Gather all facts."""
    routes = _listed("ip", "-json", "-4", "route", "show", "table", "all")
    links = _listed("ip", "-json", "address", "show")
    uplink = default_device(routes or [])
    sysctls = proc / "sys" / "net"
    rp_filter = {name: _number(sysctls / "ipv4" / "conf" / name / "rp_filter") for name in ("all", "default")}
    return HostFacts(
        time=time.time(),
        routes=None if routes is None else usable_routes(routes),
        addresses=None if links is None else addresses(links),
        udp_ports=udp_ports(proc / "net"),
        uplink_device=uplink,
        uplink_mtu=next((link["mtu"] for link in links or [] if link.get("ifname") == uplink), None),
        ip_forward=_number(sysctls / "ipv4" / "ip_forward"),
        rp_filter={name: value for name, value in rp_filter.items() if value is not None} or None,
        conntrack_max=_number(sysctls / "netfilter" / "nf_conntrack_max"),
        conntrack_count=_number(sysctls / "netfilter" / "nf_conntrack_count"),
        firewalls=firewalls(_ruleset(), _text(proc / "net" / "ip_tables_names")),
    )


def usable_routes(routes: list[dict[str, Any]]) -> tuple[HostRoute, ...]:
    """Leave out what names no network or leads nowhere: the default, the host's own addresses, refusals."""
    return tuple(
        HostRoute(route["dst"], _device(route))
        for route in routes
        if route.get("type", "unicast") == "unicast" and route.get("dst", "default") != "default"
    )


def default_device(routes: list[dict[str, Any]]) -> str | None:
    """Name the interface of the default route: the main table's best one, or another table's where it has none."""
    found = [route for route in routes if route.get("dst") == "default" and _device(route)]
    best = min(found, key=lambda route: ("table" in route, route.get("metric", 0)), default=None)
    return None if best is None else _device(best)


def _device(route: dict[str, Any]) -> str:
    """Name a route's interface, the first of several; empty where it has none, as a refusal."""
    hop = next((hop for hop in [route, *route.get("nexthops", ())] if "dev" in hop), {"dev": ""})
    return str(hop["dev"])


def addresses(links: list[dict[str, Any]]) -> tuple[HostAddress, ...]:
    return tuple(
        HostAddress(f"{entry['local']}/{entry['prefixlen']}", link["ifname"])
        for link in links
        for entry in link.get("addr_info", ())
        if "local" in entry
    )


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


def _listed(*command: str) -> list[dict[str, Any]] | None:
    """Give a list that iproute2 prints; it prints nothing where there is nothing."""
    try:
        found: list[dict[str, Any]] = json.loads(run(*command) or "[]")
    except (CommandError, OSError, ValueError, subprocess.SubprocessError):
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

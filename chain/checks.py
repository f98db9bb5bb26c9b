"""Facts about an engine and its host → findings, each with why it matters and how to mend it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Literal

from chain.errors import ChainError, ExitCode, Problem
from chain.topology import LINK_MTU, WIREGUARD_OVERHEAD, networks, tunnel_mtus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chain.config.models import Config
    from chain.contract import HostFacts
    from chain.exits.base import ExitKind, KernelNeed
    from chain.topology import Exit, Topology

Level = Literal["ok", "warn", "fail", "unchecked"]

# A route wider than this is a way to everywhere, such as a VPN's 0.0.0.0/1, and no network to keep clear of.
WIDEST_NETWORK = 8
# Where a free network is looked for. The first is where the default pool lies.
PRIVATE = tuple(IPv4Network(text) for text in ("10.208.0.0/12", "172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"))
# Private or not, these reach nobody's server.
DOCUMENTATION = tuple(
    ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)
POOL_PREFIX = 20  # of network.pool, whose first network is the front
CLOCK_LIMIT = 60.0  # seconds between two clocks
EARLIEST_TIME = 1735689600.0  # 2025-01-01: before there was this program
MTU_MIN = 1280
PACKAGES_DAYS = 60
CONNTRACK_SMALL = 16384
CONNTRACK_FULL = 0.9
LISTED = 3  # of many alike, how many are named


@dataclass(frozen=True)
class Finding:
    """What one check says. `name` stays the same for scripts; the rest is for people."""

    name: str
    level: Level
    found: str
    why: str = ""
    fix: str = ""
    code: ExitCode = ExitCode.ENGINE  # what a command answers that this stops

    def public(self) -> dict[str, str]:
        """Give it as scripts get it."""
        return {"name": self.name, "level": self.level, "found": self.found, "why": self.why, "fix": self.fix}


@dataclass(frozen=True)
class DockerNetwork:
    """Any network of the engine."""

    name: str
    project: str  # of Compose; empty: made otherwise
    subnets: tuple[IPv4Network, ...]
    device: str  # the bridge's name, where it is one


@dataclass(frozen=True)
class Publisher:
    """A container that has a port of the host."""

    name: str
    project: str


def refuse(findings: Iterable[Finding]) -> None:
    """Raise ChainError with all that failed; a wrong configuration's code goes before the engine's."""
    failed = [finding for finding in findings if finding.level == "fail"]
    if failed:
        raise ChainError([Problem(each.name, each.found, each.fix) for each in failed], verdict(failed))


def verdict(findings: Iterable[Finding]) -> ExitCode:
    """Give the exit code: 0 when nothing failed."""
    return min((finding.code for finding in findings if finding.level == "fail"), default=ExitCode.OK)


def failures(name: str, error: ChainError, why: str) -> list[Finding]:
    """Give what was raised as findings."""
    return [
        Finding(
            name,
            "fail",
            f"{problem.where}: {problem.what}" if problem.where else problem.what,
            why,
            problem.hint,
            error.code,
        )
        for problem in error.problems
    ]


def unchecked(name: str, reason: str) -> Finding:
    return Finding(name, "unchecked", reason)


# What stops a chain from being started


def kernel(needs: Iterable[KernelNeed], users: Mapping[str, list[str]], answers: Mapping[str, bool]) -> list[Finding]:
    """Compare what the configured kinds need (`users`: check → exits) with what the kernel answered."""
    wanted = list(needs)
    lacking = [need for need in wanted if not answers.get(need.check)]
    if not lacking:
        names = ", ".join(need.check for need in wanted)
        return [Finding("kernel", "ok", f"it has what the exits need: {names}" if names else "any will do")]
    return [
        Finding(
            "kernel",
            "fail",
            f"the kernel of the engine's host lacks {need.why}; exit {', '.join(users[need.check])} needs it",
            "without it the exit's tunnel can't be built",
            f"there: `modprobe -a {' '.join(need.modules)}`; where modprobe does not find them, install the"
            " distribution's full kernel (Debian: linux-image-amd64, not the cloud one; Ubuntu:"
            " linux-modules-extra-$(uname -r)); to load them at boot, write them to /etc/modules-load.d/chain.conf",
        )
        for need in lacking
    ]


def exit_test(projects: Iterable[str]) -> Finding:
    """Judge the Compose projects of tests of this chain's exits."""
    name, found = "exit test", sorted(projects)
    if not found:
        return Finding(name, "ok", "no exit is being tested by itself, and nothing is left of a test")
    return Finding(
        name,
        "warn",
        f"an exit is being tested, or its test was killed: {', '.join(found)}",
        "what a killed test has left may hold a session with the provider, who may allow but one",
        "wait for the end of the test; what was left goes with the next `chain exit test`, `chain up` or `chain down`",
    )


def port(built: Topology, publishers: Iterable[Publisher], host: HostFacts | None) -> list[Finding]:
    """Find out who else has the port on which clients come in."""
    name, what = "entry.port", f"{built.port}/udp of the engine's host"
    why = "clients reach the entry by this port"
    another = "choose another with `entry: {port: …}` (clients' configurations change with it)"
    found = list(publishers)
    others = [publisher.name for publisher in found if publisher.project != built.project]
    if others:
        fix = f"end that container, or {another}"
        return [Finding(name, "fail", f"{what} is taken by container {', '.join(others)}", why, fix)]
    if found:
        return [Finding(name, "ok", f"{what} is this chain's own")]
    if host is None or host.udp_ports is None:
        return [unchecked(name, "the ports in use on the engine's host are not known")]
    if built.port in host.udp_ports:
        fix = f"there, `ss -ulpn 'sport = :{built.port}'` names the program; end it, or {another}"
        return [Finding(name, "fail", f"{what} is taken by another program", why, fix)]
    return [Finding(name, "ok", f"{what} is free")]


@dataclass(frozen=True)
class _Taken:
    """Addresses that somebody has."""

    what: str
    network: IPv4Network
    docker: str = ""  # the Docker network's name


def overlaps(built: Topology, docker_networks: Iterable[DockerNetwork], host: HostFacts | None) -> list[Finding]:
    """Compare this chain's addresses with those of the engine's host and of its other Docker networks."""
    taken = _taken(built, list(docker_networks), host)
    found = [*_pool_overlaps(built, taken), *_client_overlaps(built, taken)]
    if found:
        return found
    if host is None or host.routes is None:
        return [unchecked("network.pool", "the routes of the engine's host are not known; Docker's networks are clear")]
    return [Finding("network.pool", "ok", "no network of the engine or its host has this chain's addresses")]


def _pool_overlaps(built: Topology, taken: list[_Taken]) -> list[Finding]:
    found = []
    others = [*(each.network for each in taken), IPv4Network(built.state.clients_subnet)]
    for each in taken:
        ours = [f"{own.key} {own.subnet}" for own in networks(built) if own.subnet.overlaps(each.network)]
        if ours:
            free = free_network(POOL_PREFIX, others)
            found.append(
                Finding(
                    "network.pool",
                    "fail",
                    f"{each.what} overlaps this chain's {_some(ours)}",
                    "Docker refuses a network whose addresses another one has; a host's route would lead astray",
                    _choose("network: {pool", free),
                )
            )
    return found


def _client_overlaps(built: Topology, taken: list[_Taken]) -> list[Finding]:
    """Clients' addresses live inside the containers alone, so that only an exit's own uplink is in their way."""
    clients = IPv4Network(built.state.clients_subnet)
    inside = {"entry.subnet": clients, "network.pool": IPv4Network(built.state.resolvers_subnet)}
    uplinks = {exit_.external_uplink: exit_.name for exit_ in built.exits if exit_.external_uplink}
    pool = IPv4Network((built.front.subnet.network_address, POOL_PREFIX))
    found = []
    for each in taken:
        for name, network in inside.items():
            if not network.overlaps(each.network):
                continue
            others = [*(other.network for other in taken), pool, clients]
            free = free_network(clients.prefixlen if network == clients else POOL_PREFIX, others)
            key = "entry: {subnet" if network == clients else "network: {pool"
            fix = _choose(key, free)
            if each.docker in uplinks:
                what = f"{each.what}, the uplink of exit {uplinks[each.docker]}, overlaps {network} inside the chain"
                why = "the exit can't tell the chain's own addresses from its uplink's"
                found.append(Finding(name, "fail", what, why, fix))
            elif network == clients:
                why = "a device that is in that network itself may not reach the entry, which has the addresses inside"
                found.append(Finding(name, "warn", f"{each.what} overlaps the clients' {network}", why, fix))
    return found


def _taken(built: Topology, docker_networks: list[DockerNetwork], host: HostFacts | None) -> list[_Taken]:
    """List whose addresses are whose: not this chain's own, and each network once."""
    found = [
        _Taken(f"Docker network {each.name} ({subnet})", subnet, each.name)
        for each in docker_networks
        if each.project != built.project
        for subnet in each.subnets
    ]
    bridges = {each.device for each in docker_networks}
    routes = [
        _Taken(f"the host's route to {network} (dev {route.device})", network)
        for route in (host.routes if host else None) or ()
        if route.device not in bridges
        for network in [IPv4Network(route.network)]
        if network.prefixlen >= WIDEST_NETWORK
    ]
    routed = {route.network for route in routes}
    addresses = [
        _Taken(f"the host's address {each.address} (dev {each.device})", network)
        for each in (host.addresses if host else None) or ()
        if each.device not in bridges
        for network in [ip_interface(each.address).network]
        if isinstance(network, IPv4Network) and network not in routed
    ]
    return [*found, *dict.fromkeys(routes), *addresses]


def free_network(prefix: int, taken: Iterable[IPv4Network]) -> IPv4Network | None:
    """Find the first private network of this size that is clear of all these."""
    kept = list(taken)
    for space in PRIVATE:
        for candidate in space.subnets(new_prefix=prefix) if prefix >= space.prefixlen else ():
            if not any(candidate.overlaps(network) for network in kept):
                return candidate
    return None


def _choose(key: str, free: IPv4Network | None) -> str:
    return f"choose another: `{key}: {free}}}` is free there" if free else "choose other addresses for one of the two"


def _some(names: list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


# What is good to know


def endpoint(host_name: str, port_number: int, resolved: list[str], host: HostFacts | None) -> list[Finding]:
    """Judge the name or address that clients are given. `resolved`: its addresses as this machine sees them."""
    name, why = "entry.endpoint", "it stands in every client's configuration: devices reach the entry by it"
    if not resolved:
        fix = "make the name at your DNS provider, or name an address"
        return [Finding(name, "warn", f"{host_name} does not resolve on this machine", why, fix)]
    addresses = [ip_address(text.partition("%")[0]) for text in resolved]
    shown = host_name if host_name in resolved else f"{host_name} ({', '.join(resolved)})"
    fix = "name the address or name under which the internet reaches this machine"
    for address in addresses:
        if address.is_loopback or address.is_unspecified:
            return [Finding(name, "warn", f"{shown} is a machine's own address for itself", why, fix)]
        if any(address in network for network in DOCUMENTATION if network.version == address.version):
            return [Finding(name, "warn", f"{shown} is an address for documentation, nobody's", why, fix)]
    if not any(address.is_global for address in addresses):
        fix = f"fine where all devices are inside that network; else {fix}"
        return [Finding(name, "warn", f"{shown} is private: only devices inside that network reach it", why, fix)]
    own = {ip_interface(each.address).ip for each in (host.addresses if host else None) or ()}
    if own and not own & set(addresses):
        what = f"{shown} is not on the host: forward {port_number}/udp to it, where there is NAT in front"
        return [Finding(name, "ok", what)]
    return [Finding(name, "ok", shown)]


def neighbours(config: Config, servers: Mapping[str, str]) -> list[list[str]]:
    """Find exits with one server and one way to it. `servers`: of those exits that are in each other's way there."""
    at: dict[tuple[str, ...], list[str]] = {}
    for name, server in servers.items():
        exit_ = config.exits[name]
        way = (exit_.via or "", exit_.uplink.network if exit_.uplink else "")
        at.setdefault((server.lower().rstrip("."), *way), []).append(name)
    return [names for names in at.values() if len(names) > 1]


def crowded(names: list[str]) -> Finding:
    """Warn of exits that `neighbours` found."""
    return Finding(
        "servers",
        "warn",
        f"exits {', '.join(names[:-1])} and {names[-1]} dial one server from one address",
        "behind a NAT many L2TP/IPsec servers can't tell two tunnels apart: the second fails, or ends the first",
        "give one of them another server of the provider's, or let it run through an exit of another kind (`via`)",
    )


def clock(host_time: float, before: float, after: float) -> Finding:
    """Compare the host's clock with this machine's: the times before it was looked at, and after."""
    ahead = host_time - min(max(host_time, before), after)
    why = "providers refuse WireGuard handshakes that are older than the last, and certificates that are not yet valid"
    fix = "set it by NTP: `timedatectl set-ntp true`"
    if host_time < EARLIEST_TIME:
        return Finding("clock", "warn", "the clock of the engine's host is years behind", why, fix)
    if abs(ahead) > CLOCK_LIMIT:
        side = "ahead of" if ahead > 0 else "behind"
        what = f"the clock of the engine's host is {abs(ahead):.0f} s {side} this machine's"
        return Finding("clock", "warn", what, f"one of the two is wrong; {why}", fix)
    return Finding("clock", "ok", "the engine's host and this machine agree" + (f" within {abs(ahead):.0f} s"))


def rp_filter(host: HostFacts) -> Finding:
    if host.rp_filter is None:
        return unchecked("rp_filter", "the host does not show it")
    values = ", ".join(f"{name} {value}" for name, value in host.rp_filter.items())
    return Finding("rp_filter", "ok", f"{values}: any value does, the containers set their own")


def packages(times: Mapping[str, float], now: float) -> Finding:
    """Judge the age of what the images carry. `times`: when each one's packages were installed."""
    if not times:
        return unchecked("packages", "no image is built yet")
    days = {name: int((now - then) / 86400) for name, then in times.items()}
    old = [f"{name} ({age} days)" for name, age in days.items() if age > PACKAGES_DAYS]
    if not old:
        return Finding("packages", "ok", f"the images' packages are at most {max(0, *days.values())} days old")
    return Finding(
        "packages",
        "warn",
        f"images with old packages: {', '.join(old)}",
        "Debian's security updates come into an image only when it is built anew",
        "`chain build --fresh`, then `chain up`",
    )


def conntrack(host: HostFacts) -> Finding:
    """Judge the table of connections: a full one drops every new connection of the whole host."""
    size, used = host.conntrack_max, host.conntrack_count
    if not size or used is None:
        return unchecked("conntrack", "the kernel follows no connections yet, or does not show it")
    what = f"{used} of {size} connections in use"
    why = "every connection through the chain takes an entry of this table; a full one drops new connections"
    fix = "there: `sysctl -w net.netfilter.nf_conntrack_max=262144`, and the same in /etc/sysctl.d/"
    if used > CONNTRACK_FULL * size:
        return Finding("conntrack", "fail", what, why, fix)
    if size < CONNTRACK_SMALL:
        return Finding("conntrack", "warn", f"{what}: a small table", why, fix)
    return Finding("conntrack", "ok", what)


def uplink(host: HostFacts, config: Config | None, built: Topology | None, kinds: Mapping[str, ExitKind]) -> Finding:
    """Judge the host's way to the internet. Without a configuration, for the usual settings."""
    if host.routes is None:
        return unchecked("uplink", "the host's routes are not known")
    if host.uplink_device is None:
        why = "exits reach their providers by it, unless they have uplinks of their own"
        fix = "connect the host, or give each exit an `uplink:`"
        return Finding("uplink", "warn", "the engine's host has no default route", why, fix)
    if host.uplink_mtu is None:
        return unchecked("uplink", f"the MTU of {host.uplink_device} is not known")
    fitting = fitting_mtus(host.uplink_mtu, config, built, kinds) if config and built else None
    return _uplink_mtu(host.uplink_device, host.uplink_mtu, fitting)


def _uplink_mtu(device: str, mtu: int, fitting: list[str] | None) -> Finding:
    """Judge the MTU. `fitting`: the settings to change for it; None: not known."""
    what = f"{device}, the host's way out, carries packets of {mtu} bytes"
    why = f"tunnels are made for {LINK_MTU}; larger packets are cut in pieces, or lost where pieces are not let through"
    if mtu < MTU_MIN:
        fix = f"there: `ip link set dev {device} mtu {LINK_MTU}`, where the network carries that"
        return Finding("uplink", "fail", f"{what}, fewer than the {MTU_MIN} that any link has to carry", why, fix)
    if mtu >= LINK_MTU or fitting == []:
        return Finding("uplink", "ok", what if mtu >= LINK_MTU else f"{what}, and the configured MTUs fit")
    fix = f"set in chain.yaml: {', '.join(fitting or ['a fitting `mtu:` for entry and exits'])}"
    return Finding("uplink", "warn", what, why, fix)


def fitting_mtus(mtu: int, config: Config, built: Topology, kinds: Mapping[str, ExitKind]) -> list[str]:
    """List the settings to change for a host's uplink of this MTU. Other networks, as uplinks, have their own."""
    unset = {name: exit_.model_copy(update={"mtu": None}) for name, exit_ in config.exits.items()}
    here = tunnel_mtus(config.model_copy(update={"exits": unset}), kinds, mtu)
    fits = {exit_.name: exit_.mtu if _elsewhere(exit_, built) else here[exit_.name] for exit_ in built.exits}
    larger = [f"{exit_.name}: {{mtu: {fits[exit_.name]}}}" for exit_ in built.exits if exit_.mtu > fits[exit_.name]]
    used = {member for group in built.state.groups for member in group.exits}
    carrying = [min(exit_.mtu, fits[exit_.name]) for exit_ in built.exits if exit_.name in used]
    clients = min([mtu - WIREGUARD_OVERHEAD, *carrying])
    return [
        *([f"`exits: {{{', '.join(larger)}}}`"] if larger else []),
        *([f"`entry: {{mtu: {clients}}}`"] if built.client_mtu > clients else []),
    ]


def _elsewhere(exit_: Exit, built: Topology) -> bool:
    """Tell whether an exit's outermost packets leave by a network that is not chain's own."""
    hops = {hop.name: hop for hop in built.exits}
    while exit_.via:
        exit_ = hops[exit_.via]
    return bool(exit_.external_uplink)


def forwarding(host: HostFacts) -> Finding:
    if host.ip_forward is None:
        return unchecked("ip_forward", "the host does not show it")
    if not host.ip_forward:
        return Finding(
            "ip_forward",
            "fail",
            "the engine's host does not forward packets (net.ipv4.ip_forward is 0)",
            "the exits' packets have to pass it; Docker turns it on at its start, and something turned it off again",
            "there: `sysctl -w net.ipv4.ip_forward=1`, and the same in /etc/sysctl.d/",
        )
    return Finding("ip_forward", "ok", "on")


def firewalls(host: HostFacts, port_number: int | None) -> list[Finding]:
    """Say what managers of firewalls mean for a chain."""
    if host.firewalls is None:
        return [unchecked("firewall", "the host's rules can't be read")]
    udp = f"{port_number}/udp" if port_number else "the entry's port"
    known = {
        "firewalld": (
            "its reload or restart can drop Docker's rules: then nothing passes",
            f"`firewall-cmd --permanent --add-port={udp}`; after a change of it: `systemctl restart docker`",
        ),
        "ufw": (
            "Docker's rules come before its own for IPv4; clients over IPv6 may need its leave",
            f"`ufw allow {udp}`; to keep somebody out use the chain DOCKER-USER, since `ufw deny` does not",
        ),
        "iptables-legacy": (
            "rules of the old and the new iptables are both in force, and only one kind is shown at a time",
            "look at both: `iptables-legacy-save` and `nft list ruleset`; let Docker and the rest use the same",
        ),
    }
    return [
        Finding("firewall", "warn", f"{name} has rules on the engine's host", *known[name])
        for name in host.firewalls
        if name in known
    ] or [Finding("firewall", "ok", "no manager of a firewall was seen")]

"""Config → names, subnets, addresses, tables, marks, MTUs. Pure, and the one home of the host side's numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

from chain.config.models import milliseconds, seconds, time_of_week
from chain.contract import (
    MARK_EXIT,
    MARK_GROUP,
    Carried,
    Client,
    DesiredState,
    Dns,
    ExitLink,
    ExitSettings,
    Front,
    Group,
    Link,
    Maintenance,
    Member,
    Sensitivity,
    Uplink,
    to_json,
)
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from chain.config.models import Config, ExitConfig
    from chain.exits.base import ExitKind

# The pool, a /20, is cut into 256 slots of 16 addresses. Slot 0 holds the front network, slots 1 to 239 one exit each
# (its link in the lower half, its uplink in the upper), and the last 16 slots the sources of the groups' DNS queries.
SLOT_SIZE = 16
EXIT_SLOTS = range(1, 240)
RESOLVER_SLOT = 240
GROUP_SLOTS = range(1, 256)
NETWORK_PREFIX = 29
# Inside each /29: .1 is the bridge's (taken even where Docker leaves it unset), then the containers.
GATEWAY, FIRST, SECOND = 1, 2, 3

TABLE_FRONT = 100  # entry: where its own WireGuard packets go
TABLE_UPLINK = 100  # exit: where its tunnel's outer packets go
TABLE_TUNNEL = 101  # exit: where everything from the entry goes
TABLE_EXIT = 1000  # entry: + slot of the exit

LINK_MTU = 1500  # Docker's bridges, and what uplinks are taken for unless chain.yaml says otherwise
WIREGUARD_OVERHEAD = 80  # outer IPv6, UDP, WireGuard: clients may come over IPv6
CLIENT_MTU_MAX = LINK_MTU - WIREGUARD_OVERHEAD
WIREGUARD_PORT = 51820  # inside the entry, where the published one is taken by a resolver
RESOLVER_PORT = 5300  # + slot of the group

DEFAULT_GROUP = "default"
FAIL_BACK = {"never": -1, "when-better": 0}

ENTRY_MEMORY, ENTRY_PIDS = 160, 128  # MiB, and processes, that an entry may take for what its groups have in common
RESOLVER_MEMORY = 20  # MiB for each further group's resolver: one process, 5 MB when it starts, 13 with full caches
GROUPS_STEP = 6  # further groups at a time: other limits make the entry's container anew, which cuts clients off


@dataclass(frozen=True)
class Network:
    """A Docker network of ours."""

    key: str
    subnet: IPv4Network
    gateway: IPv4Address


@dataclass(frozen=True)
class ExternalNetwork:
    """A Docker network that is not ours, as the engine shows it."""

    subnet: IPv4Network
    gateway: IPv4Address | None


@dataclass(frozen=True)
class SecretMount:
    """One credential of one exit: its role, and its file relative to the project folder.

    `stamp` changes when the file is written anew, and says nothing of what is in it: a mounted file stays the old one
    until its container is made anew.
    """

    role: str
    path: str
    stamp: str = ""


@dataclass(frozen=True)
class Exit:
    name: str
    kind: str
    slot: int
    link: Network
    uplink: Network | None  # None: `external_uplink` names an existing network
    external_uplink: str
    via: str  # the exit that it runs through, to which its `uplink` leads; empty: none
    settings: ExitSettings
    secrets: tuple[SecretMount, ...]
    mtu: int


@dataclass(frozen=True)
class Topology:
    name: str
    project: str  # Compose project name
    port: int  # published
    front: Network
    exits: tuple[Exit, ...]
    state: DesiredState
    has_entry: bool = True  # False: exits by themselves, to try one of them

    @property
    def client_mtu(self) -> int:
        return self.state.mtu

    @property
    def entry_memory(self) -> int:
        """Give the entry's limit of memory, in MiB."""
        return ENTRY_MEMORY + RESOLVER_MEMORY * self._further_groups

    @property
    def entry_pids(self) -> int:
        return ENTRY_PIDS + self._further_groups

    @property
    def _further_groups(self) -> int:
        """Count the groups beyond the first, rounded up; a second one is reckoned with, for it often comes later."""
        return -((1 - max(2, len(self.state.groups))) // GROUPS_STEP) * GROUPS_STEP


def assign_slots(
    names: Iterable[str], used: Collection[int] = (), *, slots: Sequence[int] = EXIT_SLOTS, what: str = "exits"
) -> dict[str, int]:
    """Give each name a slot that depends on the name alone, but for the rare collision; none of those that are used.

    So that adding or removing one exit renumbers no other, which would recreate its networks; nor one group another,
    which would cut off its clients. Raises ChainError where there are more of them (`what`: of which) than slots.
    """
    taken: dict[int, str] = {}
    for name in sorted(names):
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % len(slots)
        for step in range(len(slots)):
            slot = slots[(start + step) % len(slots)]
            if slot not in taken and slot not in used:
                taken[slot] = name
                break
        else:
            raise ChainError(Problem(what, f"more than {len(slots)} {what}", "split the chain in two"), ExitCode.CONFIG)
    return {name: slot for slot, name in taken.items()}


def client_prefix6(chain: str) -> IPv6Network:
    """Derive the clients' ULA /64 from the chain's name, so that it needs no storing."""
    digest = hashlib.sha256(f"chain/{chain}".encode()).digest()
    return IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))


def address6(prefix: IPv6Network, subnet: IPv4Network, address: IPv4Address) -> IPv6Address:
    """Map a client's IPv4 address to its IPv6 one: the same host number in the ULA prefix."""
    return prefix.network_address + (int(address) - int(subnet.network_address))


def build(
    config: Config,
    kinds: Mapping[str, ExitKind],
    external: Mapping[str, ExternalNetwork] | None = None,
    slots: Mapping[str, int] | None = None,
) -> Topology:
    """Compute the whole chain. `external` describes the existing networks that exits name as uplinks.

    `slots`: others than the usual ones.
    Raises ChainError (ENGINE) when such a network is not described and chain.yaml names no gateway for it.
    """
    pool = config.network.pool
    slots = slots or assign_slots(config.exits)
    subnet, prefix6 = config.entry.subnet, client_prefix6(config.name)
    front = _network("front", pool, 0, upper=False)
    resolvers = IPv4Network((pool.network_address + RESOLVER_SLOT * SLOT_SIZE, 24))
    mtus = tunnel_mtus(config, kinds)
    exits = tuple(
        _exit(
            name,
            exit_config,
            kinds[exit_config.kind],
            config,
            slots=slots,
            resolvers=resolvers,
            external=external or {},
            mtus=mtus,
        )
        for name, exit_config in config.exits.items()
    )
    groups = _groups(config, resolvers)
    used = {member for group in groups for member in group.exits}
    clients = tuple(
        Client(
            name=name,
            public_key=client.public_key,
            address=str(client.address),
            address6=str(address6(prefix6, subnet, client.address)),
            group=client.group or DEFAULT_GROUP,
            psk_file=name,
        )
        for name, client in config.clients.items()
    )
    state = DesiredState(
        chain=config.name,
        generation="",
        address=f"{subnet.network_address + 1}/{subnet.prefixlen}",
        address6=f"{prefix6.network_address + 1}/64",
        clients_subnet=str(subnet),
        clients_subnet6=str(prefix6),
        resolvers_subnet=str(resolvers),
        port=_port_inside(config.entry.port),
        mtu=config.entry.mtu or min([CLIENT_MTU_MAX, *(exit_.mtu for exit_ in exits if exit_.name in used)]),
        front=Front(address=str(front.subnet.network_address + FIRST), gateway=str(front.gateway), table=TABLE_FRONT),
        dns=Dns(
            upstreams=tuple(map(str, config.dns.upstreams)),
            tls=bool(config.dns.upstreams[0].name),  # they are all of one kind
            ca=config.dns.ca or "",
            dnssec=config.dns.dnssec,
            trust_anchors=tuple(config.dns.trust_anchors),
            redirect=config.dns.redirect,
        ),
        sensitivity=Sensitivity(
            **{
                name: milliseconds(getattr(config.failover, name)) / 1000
                for name in ("suspect_after", "dead_after", "hold_down")
            }
        ),
        maintenance=tuple(
            Maintenance(name, *time_of_week(text))
            for name, exit_config in sorted(config.exits.items())
            for text in exit_config.maintenance
        ),
        groups=groups,
        exits=tuple(
            ExitLink(
                name=exit_.name,
                kind=exit_.kind,
                mark=MARK_EXIT + exit_.slot,
                table=TABLE_EXIT + exit_.slot,
                link=exit_.settings.link,
                cold=exit_.settings.cold,
                via=config.exits[exit_.name].via or "",
                identity=_identity(config.exits[exit_.name]),
            )
            for exit_ in exits
        ),
        clients=clients,
    )
    return Topology(
        name=config.name,
        project=f"chain-{config.name}",
        port=config.entry.port,
        front=front,
        exits=exits,
        state=sealed(state),
    )


def line_of(config: Config, name: str) -> tuple[str, ...]:
    """Name an exit, the one that it runs through, and so on to the outermost one."""
    line = [name]
    while via := config.exits[line[-1]].via:
        line.append(via)
    return tuple(line)


def through(config: Config, name: str) -> tuple[str, ...]:
    """Name an exit, and those that run through it: its fate is theirs."""
    return name, *(each for each in config.exits if name in line_of(config, each)[1:])


def alone(
    config: Config,
    kinds: Mapping[str, ExitKind],
    name: str,
    external: Mapping[str, ExternalNetwork] | None = None,
    taken: Iterable[IPv4Network] = (),
) -> Topology:
    """Compute one exit, with those that it runs through, and no entry: to try it beside the chain, or without that.

    Its networks are in the chain's pool, clear of the chain's own, whether these are there or not, and of those that
    are `taken`. Raises ChainError as `build` does.
    """
    line = line_of(config, name)
    pool = [(slot, _slot(config.network.pool, slot)) for slot in EXIT_SLOTS]
    others = list(taken)
    used = {slot for slot, network in pool if any(network.overlaps(other) for other in others)}
    slots = assign_slots(line, used.union(assign_slots(config.exits).values()))
    exits = {each: config.exits[each] for each in line}
    built = build(config.model_copy(update={"exits": exits, "groups": {}, "clients": {}}), kinds, external, slots)
    # No chain can have this name, so that neither commands nor Docker take one for the other.
    return replace(built, name=f"{built.name}_test", project=f"{built.project}_test", has_entry=False)


def _slot(pool: IPv4Network, slot: int) -> IPv4Network:
    return IPv4Network((int(pool.network_address) + slot * SLOT_SIZE, 32 - (SLOT_SIZE - 1).bit_length()))


def _identity(config: ExitConfig) -> str:
    """Give a hash of what leads to a provider, and who it is."""
    found = config.model_dump(mode="json", exclude={"maintenance", "mtu", "standby"})
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]


def _port_inside(published: int) -> int:
    """Give the entry's own WireGuard port: the published one, so that what the entry begins comes from there too."""
    return WIREGUARD_PORT if RESOLVER_PORT <= published <= RESOLVER_PORT + GROUP_SLOTS[-1] else published


def sealed(state: DesiredState) -> DesiredState:
    """Give a state its generation: a hash of all but the clients, a dash, a hash of these."""
    parts = (replace(state, generation="", clients=()), state.clients)
    return replace(
        state, generation="-".join(hashlib.sha256(to_json(part).encode()).hexdigest()[:12] for part in parts)
    )


def settings_of(generation: str) -> str:
    """Give the part of a generation that stays the same while only clients come and go."""
    return generation.partition("-")[0]


def networks(built: Topology) -> tuple[Network, ...]:
    """List the Docker networks that are ours."""
    own = (network for exit_ in built.exits for network in (exit_.link, exit_.uplink) if network is not None)
    return (*([built.front] if built.has_entry else []), *own)


def members_of(config: Config) -> dict[str, tuple[str, ...]]:
    """Give each group's exits, in order of preference; there is always one called `default`."""
    members = {name: tuple(dict.fromkeys(_leaves(config, name))) for name in config.groups}
    hops = {exit_.via for exit_ in config.exits.values()}
    usual = (name for name, exit_ in config.exits.items() if exit_.hides and name not in hops)
    members.setdefault(DEFAULT_GROUP, tuple(usual))
    return members


def _leaves(config: Config, group: str) -> Iterable[str]:
    """Name the exits of a group, and of the groups in it. Groups run in no circle: the loader has seen to that."""
    for name in config.groups[group].exits:
        yield from (name,) if name in config.exits else _leaves(config, name)


def _groups(config: Config, resolvers: IPv4Network) -> tuple[Group, ...]:
    members = members_of(config)
    slots = assign_slots(members, slots=GROUP_SLOTS, what="groups")
    return tuple(
        Group(
            name=name,
            mark=MARK_GROUP + slots[name],
            exits=members[name],
            **_policy(config, name, members[name]),
            resolver_address=str(resolvers.network_address + slots[name]),
            resolver_port=RESOLVER_PORT + slots[name],
        )
        for name in sorted(members)
    )


def _policy(config: Config, name: str, exits: tuple[str, ...]) -> dict[str, Any]:
    """Give a group's policy, as the contract has it; `exits` make up the implied group."""
    group = config.groups.get(name)
    if group is None:
        return {"policy": "failover", "sticky": "client", "members": tuple(map(Member, exits)), "fail_back": 0.0}
    return {
        "policy": group.policy,
        "sticky": group.sticky,
        "members": tuple(
            Member(member, group.weights.get(member, 1), is_group=member not in config.exits) for member in group.exits
        ),
        "fail_back": float(FAIL_BACK[group.fail_back] if group.fail_back in FAIL_BACK else seconds(group.fail_back)),
    }


def _network(key: str, pool: IPv4Network, slot: int, *, upper: bool) -> Network:
    base = pool.network_address + slot * SLOT_SIZE + (SLOT_SIZE // 2 if upper else 0)
    return Network(key, IPv4Network((base, NETWORK_PREFIX)), base + GATEWAY)


def tunnel_mtus(config: Config, kinds: Mapping[str, ExitKind], link_mtu: int = LINK_MTU) -> dict[str, int]:
    """Compute what fits in each exit's tunnel: in that of one which runs through another, what fits in that one's.

    `link_mtu`: of the networks that the outermost packets leave by.
    """
    found: dict[str, int] = {}

    def fits(name: str) -> int:
        if name not in found:
            exit_ = config.exits[name]
            way = fits(exit_.via) if exit_.via else link_mtu
            found[name] = exit_.mtu or kinds[exit_.kind].tunnel_mtu(exit_, way)
        return found[name]

    return {name: fits(name) for name in config.exits}


def _link(subnet: IPv4Network, number: str) -> Link:
    """Lay out a transit network. `number` tells its hardware addresses from all others."""
    return Link(
        subnet=str(subnet),
        sender_address=str(subnet.network_address + FIRST),
        exit_address=str(subnet.network_address + SECOND),
        # Locally administered, and not Docker's 02:42, so that a container that still has Docker's own address, because
        # it has not locked itself yet, can't be reached under the one that is expected.
        sender_mac=f"02:63:68:{number}:01",
        exit_mac=f"02:63:68:{number}:02",
    )


def _exit(
    name: str,
    config: ExitConfig,
    kind: ExitKind,
    chain: Config,
    *,
    slots: Mapping[str, int],
    resolvers: IPv4Network,
    external: Mapping[str, ExternalNetwork],
    mtus: Mapping[str, int],
) -> Exit:
    pool, slot = chain.network.pool, slots[name]
    link = _network(f"link-{name}", pool, slot, upper=False)
    own = None if config.uplink else _network(f"{'via' if config.via else 'uplink'}-{name}", pool, slot, upper=True)
    if own is None:
        uplink = Uplink(gateway=_gateway(name, config, external), table=TABLE_UPLINK)
    elif config.via:
        way = _way(pool, slot)
        uplink = Uplink(
            gateway=way.exit_address,
            table=TABLE_UPLINK,
            address=way.sender_address,
            via=config.via,
            link=way,
            mtu=mtus[config.via],
        )
    else:
        uplink = Uplink(gateway=str(own.gateway), table=TABLE_UPLINK, address=str(own.subnet.network_address + FIRST))
    specs = kind.secrets(config)
    return Exit(
        name=name,
        kind=config.kind,
        slot=slot,
        link=link,
        uplink=own,
        external_uplink=config.uplink.network if config.uplink else "",
        via=config.via or "",
        settings=ExitSettings(
            chain=chain.name,
            name=name,
            kind=config.kind,
            link=_link(link.subnet, f"61:{slot:02x}"),
            uplink=uplink,
            routed=(str(chain.entry.subnet), str(resolvers)),
            carried=tuple(
                Carried(other, _way(pool, slots[other])) for other, each in chain.exits.items() if each.via == name
            ),
            tunnel_table=TABLE_TUNNEL,
            mtu=mtus[name],
            bootstrap_dns=tuple(str(address) for address in chain.bootstrap_dns),
            probe_targets=tuple(str(address) for address in config.probe.targets),
            public_targets=tuple(str(address) for address in config.probe.public),
            cold=config.standby == "cold",
            options=kind.options(config),
            secrets={spec.role: spec.role for spec in specs},
        ),
        # `EXIT_role` is the usual name; the caller replaces it by the plain one where that is the file that is there.
        secrets=tuple(SecretMount(spec.role, spec.override or f"secrets/{name}_{spec.role}") for spec in specs),
        mtu=mtus[name],
    )


def _way(pool: IPv4Network, slot: int) -> Link:
    """Give the link between the exit of this slot and the one that it runs through."""
    return _link(_network("", pool, slot, upper=True).subnet, f"62:{slot:02x}")


def _gateway(name: str, config: ExitConfig, external: Mapping[str, ExternalNetwork]) -> str:
    uplink = config.uplink
    if uplink is None:  # for the type checker: the caller asked because there is one
        raise ValueError(name)
    if uplink.gateway:
        return str(uplink.gateway)
    known = external.get(uplink.network)
    if known is None or known.gateway is None:
        what = "has no gateway" if known else "does not exist on this engine"
        raise ChainError(
            Problem(
                f"exits.{name}.uplink",
                f"the network {uplink.network!r} {what}",
                "create it first, or name its `gateway:` here",
            ),
            ExitCode.ENGINE,
        )
    return str(known.gateway)

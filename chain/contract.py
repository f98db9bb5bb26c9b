"""What host and containers say to each other: dataclasses ↔ JSON. Stdlib only; imported by both sides.

`CONTRACT` is the version, which every document carries. An image's name is a hash of this file among others, so that a
host never starts an image that speaks another one.
Constants that both sides must agree on stand here; every other number has its home in `topology.py`.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

CONTRACT = 5

T = TypeVar("T")
_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}

# Paths inside every container.
RUN_DIR = "/run/chain"  # tmpfs: sockets, the health file, daemons' configuration with secrets in it
HEALTH_FILE = f"{RUN_DIR}/healthy"  # there while traffic may flow; Docker's health check looks for it
CONFIG_DIR = "/etc/chain"  # read-only directory mount with the one JSON document of that container
MEMORY_DIR = "/var/lib/chain"  # entry only: a volume with where clients were last seen, which outlives restarts
SECRETS_DIR = "/run/secrets"  # Compose secrets
PEERS_DIR = "/run/peers"  # entry only: one preshared key per client

STATE_FILE = "state.json"
SETTINGS_FILE = "settings.json"

LINE_LIMIT = 64 * 1024 * 1024  # bytes; a DesiredState of 10,000 clients is one line of 3 MB

CLIENT_INTERFACE = "wg0"  # the entry's WireGuard interface

REPORT_PORT = 7411  # TCP on the entry's end of every link: where exits report
HEARTBEAT = 1.0  # seconds between two lines on a quiet report connection
SILENCE = 3.5  # seconds without a line after which either end gives the connection up

# Packet marks. The ranges are disjoint: a miss in the second stage of the choice leaves the first stage's value in the
# mark, which then is no exit's.
MARK_TUNNEL = 0x1  # a tunnel's own outer packets, in entry and exits; the only ones that may use an uplink
MARK_PROBE = 0x2  # the runtime's own probes, which must leave by the tunnel
MARK_CAPTURED = 0x3  # clients' packets that an exit hands over to a program instead of forwarding them
MARK_CAPTURED_REPLY = 0x4  # what that program sends back to clients, under the addresses that they asked
MARK_NUDGE = 0x5  # what the entry sends to clients so that they notice that a connection has ended
MARK_GROUP = 0x100  # + slot of the group
MARK_EXIT = 0x1000  # + slot of the exit
MARK_BUCKET = 0x10000  # + index of the group times BUCKETS + a bucket of its clients
BUCKETS = 256  # that a group may have, at most
MARK_GROUP_OF_BUCKET = 0xFFFFFF00  # the bits that all buckets of a group have in common


BY_HAND = "by hand"  # why an exit is drained, of what was ordered


@dataclass(frozen=True)
class Client:
    name: str
    public_key: str
    address: str
    address6: str
    group: str
    psk_file: str = ""  # name below PEERS_DIR; empty: no preshared key


@dataclass(frozen=True)
class Member:
    """What a group is made of."""

    name: str
    weight: int = 1  # of its share in a balance
    is_group: bool = False


@dataclass(frozen=True)
class Group:
    name: str
    mark: int
    exits: tuple[str, ...]  # all that it may use, in order of preference
    policy: str  # failover, balance
    sticky: str  # what keeps its share in a balance: client, flow
    members: tuple[Member, ...]
    fail_back: float  # seconds that a better exit has to be good before it is used again; negative: never
    resolver_address: str  # source of this group's DNS queries; each group has its own
    resolver_port: int


@dataclass(frozen=True)
class Link:
    """A transit network: from who hands packets over, the entry or an exit that runs through another, to an exit."""

    subnet: str
    sender_address: str
    exit_address: str
    sender_mac: str
    exit_mac: str


@dataclass(frozen=True)
class ExitLink:
    """What the entry knows of an exit."""

    name: str
    kind: str
    mark: int
    table: int
    link: Link
    cold: bool = False  # it is connected only while it is needed
    via: str = ""  # the exit that it runs through
    identity: str = ""  # another one, where another provider's may be behind the name


@dataclass(frozen=True)
class Front:
    """The entry's network towards its clients' encrypted packets."""

    address: str
    gateway: str
    table: int


@dataclass(frozen=True)
class Dns:
    """How the groups' resolvers ask and check."""

    upstreams: tuple[str, ...]  # address@port, and #name when they are asked by TLS
    tls: bool
    ca: str  # certificates in PEM form; empty: the image's own authorities
    dnssec: bool
    trust_anchors: tuple[str, ...]  # DS records beside the image's root anchor; one for `.` takes its place
    redirect: bool  # whatever clients send to port 53 goes to their group's resolver


@dataclass(frozen=True)
class Sensitivity:
    """How soon an exit counts as lost, and when it may be used again, in seconds."""

    suspect_after: float
    dead_after: float
    hold_down: float


@dataclass(frozen=True)
class Maintenance:
    """A time of the week in which an exit is drained, in UTC and in minutes of a day; `end` may be the next day's."""

    exit: str
    begin: int
    end: int
    days: tuple[int, ...]  # on which it begins; 0 is Monday


@dataclass(frozen=True)
class DesiredState:
    """All the entry has to know; `generation` is made of hashes of the rest."""

    chain: str
    generation: str
    address: str  # the entry's inside clients' network, with its prefix length
    address6: str
    clients_subnet: str
    clients_subnet6: str
    resolvers_subnet: str
    port: int
    mtu: int
    front: Front
    dns: Dns
    sensitivity: Sensitivity
    maintenance: tuple[Maintenance, ...]
    groups: tuple[Group, ...]
    exits: tuple[ExitLink, ...]
    clients: tuple[Client, ...]
    version: int = CONTRACT


# What a running entry takes over when it is told to `apply`. The rest of its state it reads at its start alone: a
# change of it makes the container anew.
APPLIED = ("generation", "dns", "sensitivity", "maintenance", "groups", "exits", "clients")


@dataclass(frozen=True)
class Uplink:
    """The exit's network towards its provider. `address` is empty where Docker chooses it.

    With `via` it is the link to another exit, and the name of that one; `link` then says all of it.
    """

    gateway: str
    table: int
    address: str = ""
    via: str = ""
    link: Link | None = None
    mtu: int = 0  # of what is sent by it; 0: the network's own


@dataclass(frozen=True)
class Carried:
    """An exit that runs through this one."""

    name: str
    link: Link


@dataclass(frozen=True)
class ExitSettings:
    """All an exit has to know, but for its secrets."""

    chain: str
    name: str
    kind: str
    link: Link
    uplink: Uplink
    routed: tuple[str, ...]  # networks behind the entry: clients and resolvers
    carried: tuple[Carried, ...]
    tunnel_table: int
    mtu: int
    bootstrap_dns: tuple[str, ...]
    probe_targets: tuple[str, ...]  # asked through the tunnel; empty: the kind's own choice, then public ones
    public_targets: tuple[str, ...]  # strangers, who are asked seldom, and in bursts when something seems wrong
    cold: bool = False  # it dials only while one who sends to it needs it
    options: dict[str, Any] = field(default_factory=dict)  # what this kind alone understands
    secrets: dict[str, str] = field(default_factory=dict)  # role → name below SECRETS_DIR
    version: int = CONTRACT


@dataclass(frozen=True)
class ExitReport:
    """One line on the report connection, exit → entry."""

    exit: str
    state: str  # locked, dialling, up, down; resting, if it is cold and not needed
    since: float  # Unix time
    cause: str
    advice: str = ""  # what to try about the cause, or about the warning while there is one
    warning: str = ""  # what is not as it should be though the exit is up
    tunnel_address: str = ""
    near: tuple[str, ...] = ()  # who answers probes at the tunnel's own far end, or was named for it
    public: tuple[str, ...] = ()  # strangers that may be asked beside or instead
    names: bool = False  # probes have to be questions for names, since the tunnel carries no pings
    latency_ms: float | None = None
    rx_bytes: int = 0
    tx_bytes: int = 0
    version: int = CONTRACT


@dataclass(frozen=True)
class Need:
    """One line on the report connection, the other way: whether a cold exit has to be connected; None: as before."""

    dial: bool | None = None
    version: int = CONTRACT


@dataclass(frozen=True)
class Order:
    """What is to be measured through an exit's tunnel."""

    asked: int  # how often it is asked whether somebody is there
    whoami: str  # the name whose text records say who asks
    whoami_server: str  # of whom that is asked
    chaos: bool  # in class CHAOS, not in that of the internet
    url: str = ""  # of a file to download; empty: none
    resolvers: tuple[str, ...] = ()  # address@port, for the name in it
    seconds: float = 0.0  # that a download may take
    most: int = 0  # bytes that it may have
    version: int = CONTRACT


@dataclass(frozen=True)
class Measurement:
    """What was measured. A text is empty where there is nothing to say."""

    target: str  # who was asked whether somebody is there, and for large packets
    answers_ms: tuple[float, ...]  # the time to each answer
    outside: str  # the address that the outside sees
    outside_why: str  # why that is not known
    mtu: int | None  # of the tunnel as it stands; None: it has none
    fits: int | None  # bytes of the largest packet that passes; None: not known
    fits_why: str  # why not
    bytes: int  # downloaded, in so many seconds
    seconds: float
    download_why: str  # why nothing was
    version: int = CONTRACT


@dataclass(frozen=True)
class HostRoute:
    """A way of the engine's host to an IPv4 network: to use it, not to refuse it."""

    network: str
    device: str


@dataclass(frozen=True)
class HostAddress:
    address: str  # with its prefix length
    device: str


@dataclass(frozen=True)
class HostFacts:
    """The engine's host, as seen from its network namespace. None: this could not be found out there."""

    time: float  # Unix time of its clock
    routes: tuple[HostRoute, ...] | None = None
    addresses: tuple[HostAddress, ...] | None = None
    udp_ports: tuple[int, ...] | None = None
    uplink_device: str | None = None  # of the default route
    uplink_mtu: int | None = None
    ip_forward: int | None = None
    rp_filter: dict[str, int] | None = None  # of `all` and `default`
    conntrack_max: int | None = None
    conntrack_count: int | None = None
    firewalls: tuple[str, ...] | None = None  # firewalld, ufw, iptables-legacy
    version: int = CONTRACT


def printable(text: str, limit: int) -> str:
    """Make text of others fit to be shown: what could steer a terminal is replaced, what is too long is cut."""
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return (
        cut
        if cut.isprintable()
        else "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in cut)
    )


def to_json(value: Any) -> str:
    """One line, keys in order, so that equal values are equal text."""
    # Not dataclasses.asdict, whose copies take ten times as long as the rest.
    return json.dumps(value, default=vars, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def from_json(cls: type[T], text: str | bytes) -> T:
    """Build `cls` from JSON; raises ValueError that names the field. Another contract version is refused."""
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError(f"{cls.__name__}: too deep") from None
    return from_data(cls, data)


def from_data(cls: type[T], data: Any) -> T:
    """Build `cls` from what JSON's reader gave, likewise."""
    if isinstance(data, dict) and data.get("version") != CONTRACT:
        raise ValueError(f"{cls.__name__}: contract version {data.get('version')}, this runtime speaks {CONTRACT}")
    return typing.cast("T", _build(cls, data, cls.__name__))


def _build(kind: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _object(kind, data, where)
    match typing.get_origin(kind), typing.get_args(kind):
        case builtins.tuple, (item, *_):
            return tuple(
                _build(item, value, f"{where}[{index}]") for index, value in enumerate(_checked(list, data, where))
            )
        case builtins.dict, (_, item):
            return {key: _build(item, value, f"{where}.{key}") for key, value in _checked(dict, data, where).items()}
        case types.UnionType, (item, _):  # the contract knows but one: this, or None
            return None if data is None else _build(item, data, where)
    return data if kind is Any else _checked(kind, data, where)


_hints = functools.cache(typing.get_type_hints)  # which evaluates text, for each of 10,000 clients otherwise


def _object(kind: Any, data: Any, where: str) -> Any:
    given = _checked(dict, data, where)
    hints = _hints(kind)
    for name in sorted(given.keys() - hints.keys()):
        raise ValueError(f"{where}: unknown field {name}")
    for field_ in dataclasses.fields(kind):
        optional = field_.default is not dataclasses.MISSING or field_.default_factory is not dataclasses.MISSING
        if field_.name not in given and not optional:
            raise ValueError(f"{where}: {field_.name} is missing")
    return kind(**{name: _build(hints[name], value, f"{where}.{name}") for name, value in given.items()})


def _checked(kind: type, data: Any, where: str) -> Any:
    if kind is float and type(data) is int:
        try:
            return float(data)
        except OverflowError:
            raise ValueError(f"{where}: not a number") from None
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise ValueError(f"{where}: not {_JSON_NAMES.get(kind, kind.__name__)}")
    if isinstance(data, float) and not math.isfinite(data):  # which JSON does not know, and Python's reader takes
        raise ValueError(f"{where}: not a number")
    return data

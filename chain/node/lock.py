"""The lock: nftables rulesets of both roles, as text. Pure.

Everything is dropped, v4 and v6, but for what stands here; docs/states.md says what that is in each state.
All rules are always replaced in one transaction, so that no state lies between two locks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chain.contract import (
    CLIENT_INTERFACE,
    MARK_CAPTURED,
    MARK_CAPTURED_REPLY,
    MARK_GROUP_OF_BUCKET,
    MARK_NUDGE,
    MARK_PROBE,
    MARK_TUNNEL,
    REPORT_PORT,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chain.contract import DesiredState, ExitSettings, Link

TABLE = "inet vpn"  # `chain` is a reserved word there
DNS_PORT = 53
UNKNOWN = 70  # how an agent ends that could not load what it wanted: nobody knows what the kernel holds
DOCKERS_RESOLVER = "127.0.0.11"  # asks from the host's network where the host's own resolver is a loopback one

_AGENTS_CHAIN = "by_flow"
_OF_GROUPS = ("resolver_group", "group_port")  # maps of the entry that come with the lock

# Packets too big, unreachable, expired: without these, path-MTU discovery and quick failure die.
_ICMP_ERRORS = "icmp type { destination-unreachable, time-exceeded, parameter-problem }"


@dataclass(frozen=True)
class UplinkRules:
    """What a kind lets through its uplink, as nft statements. The uplink and the server are added by the lock."""

    outgoing: tuple[str, ...]  # the tunnel's mark is required of these
    incoming: tuple[str, ...]
    unmarked: tuple[str, ...] = ()  # outgoing too, of senders that can't mark: each must be proof enough by itself


def _replace(body: str) -> str:
    return f"add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{body}}}\n"


def _names(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def _elements(items: Iterable[str]) -> str:
    text = ", ".join(items)
    return f"elements = {{ {text} }}; " if text else ""


def closed() -> str:
    """Let nothing in, out or through: the supervisor's very first act, before it knows anything."""
    hooks = "".join(
        f"  chain {hook} {{ type filter hook {hook} priority filter; policy drop; }}\n"
        for hook in ("forward", "output")
    )
    return _replace(
        f"  chain input {{ type filter hook input priority filter; policy drop; iifname lo accept; }}\n{hooks}"
    )


@dataclass(frozen=True)
class Way:
    """How clients' packets get out: forwarded into an interface, or handed over to a program on the loopback."""

    interface: str = ""
    port: int = 0
    refused: tuple[str, ...] = ()  # networks that they may not get to


@dataclass(frozen=True)
class Sender:
    """Who hands over what an exit carries: the entry, or an exit that runs through this one."""

    interface: str
    link: Link
    networks: tuple[str, ...]  # what may come in from there
    open: bool = False  # it has said that it is locked

    @property
    def behind(self) -> str:
        """Its networks, as a set of nft's."""
        return f"{{ {', '.join(self.networks)} }}"


def exit_lock(
    settings: ExitSettings,
    *,
    senders: Sequence[Sender],
    uplink: str,
    way: Way,
    server: str | None,
    rules: UplinkRules | None,
    ready: bool = False,
) -> str:
    """Lock one exit. `server` is the tunnel's far end, when it is known.

    `ready`: the exit that this one runs through, if it does, says that it is locked and up.
    """
    resolvers = ", ".join(settings.bootstrap_dns)
    via = settings.uplink.link
    # Only the encrypted packets of the tunnel are meant for that exit; one that is not there may be anybody.
    out = f"oifname {uplink} oifname @ready" if via else f"oifname {uplink}"
    outgoing = incoming = ""
    if server and rules:
        family = "ip6" if ":" in server else "ip"
        outgoing = "".join(
            f"    {out} meta mark {MARK_TUNNEL} {family} daddr {server} {statement} accept\n"
            for statement in rules.outgoing
        ) + "".join(f"    {out} {family} daddr {server} {statement} accept\n" for statement in rules.unmarked)
        incoming = "".join(
            f"    iifname {uplink} {family} saddr {server} {statement} accept\n" for statement in rules.incoming
        )
    passing = _forwarded(way, senders) if way.interface else _captured(way.port, senders)
    talking = [_talk(sender) for sender in senders]
    if via:
        talking.append(_listen(uplink, via))
    return _replace(f"""\
  # Interfaces towards peers that have said they are locked; nothing is sent to one that has not.
  set open {{ type ifname; {_elements(f'"{sender.interface}"' for sender in senders if sender.open)}}}
{_ready_set(uplink, ready=ready) if via else ""}\
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname lo accept
{_lines(rule for rules_in, _ in talking for rule in rules_in)}\
{incoming}\
    iifname {uplink} ip saddr {{ {resolvers} }} udp sport {DNS_PORT} ct state established accept
    iifname {uplink} {_ICMP_ERRORS} ct state related accept
{passing.input}\
  }}
{passing.chains}\
  chain output {{
    type filter hook output priority filter; policy drop;
    ip daddr {DOCKERS_RESOLVER} drop
    oifname lo accept
{_lines(rule for _, rules_out in talking for rule in rules_out)}\
{outgoing}\
    {out} meta mark {MARK_TUNNEL} ip daddr {{ {resolvers} }} udp dport {DNS_PORT} accept
{passing.output}\
  }}
""")


def _talk(sender: Sender) -> tuple[list[str], list[str]]:
    """Give the rules for what the exit itself and a sender say to each other, in and out."""
    name, there, own = sender.interface, sender.link.sender_address, sender.link.exit_address
    behind = f"oifname {name} oifname @open ip daddr {sender.behind}"
    return [
        f"iifname {name} ip saddr {there} ip daddr {own} tcp sport {REPORT_PORT} ct state established accept",
        f"iifname {name} ip saddr {there} ip daddr {own} icmp type echo-request accept",
    ], [
        f"oifname {name} ip saddr {own} ip daddr {there} tcp dport {REPORT_PORT} accept",
        f"oifname {name} ip saddr {own} ip daddr {there} icmp type echo-reply accept",
        f"{behind} {_ICMP_ERRORS} accept",
        f"{behind} tcp flags & rst == rst accept",
    ]


def _listen(uplink: str, via: Link) -> tuple[list[str], list[str]]:
    """Give the rules for the reports of the exit that this one runs through, in and out."""
    own, there = via.sender_address, via.exit_address
    return [f"iifname {uplink} ip saddr {there} ip daddr {own} tcp dport {REPORT_PORT} accept"], [
        f"oifname {uplink} ip saddr {own} ip daddr {there} tcp sport {REPORT_PORT} ct state established accept"
    ]


def _lines(rules: Iterable[str]) -> str:
    return "".join(f"    {rule}\n" for rule in rules)


def _ready_set(uplink: str, *, ready: bool) -> str:
    elements = _elements([f'"{uplink}"'] if ready else [])
    return (
        f"  # The uplink, while the exit that it leads to is locked and up.\n  set ready {{ type ifname; {elements}}}\n"
    )


def opened(name: str, interface: str, *, on: bool) -> str:
    """Put an interface into one of the sets `open` and `ready`, or take it out; repeats harmlessly."""
    element = f'element {TABLE} {name} {{ "{interface}" }}'
    # To delete what is not there is an error, and to add what is there is none.
    return f"add {element}\n" if on else f"add {element}\ndelete {element}\n"


@dataclass(frozen=True)
class _Passing:
    """The rules that let packets of others through: in the chains for input and output, and in chains of their own."""

    input: str
    output: str
    chains: str


def _forwarded(way: Way, senders: Sequence[Sender]) -> _Passing:
    tunnel = way.interface
    refused = [f"iifname @open ip daddr {{ {', '.join(way.refused)} }} reject with icmpx admin-prohibited"]
    there = _lines(
        f"iifname {sender.interface} iifname @open oifname {tunnel} ip saddr {sender.behind} jump outbound"
        for sender in senders
    )
    back = _lines(
        f"iifname {tunnel} oifname {sender.interface} oifname @open ip daddr {sender.behind}"
        " ct state established,related accept"
        for sender in senders
    )
    return _Passing(
        f"    iifname {tunnel} ct state established,related accept\n",
        f"    oifname {tunnel} meta mark {MARK_PROBE} accept\n",
        f"""\
  chain forward {{
    type filter hook forward priority filter; policy drop;
    # What belongs to no known connection passes NAT unchanged, with the client's own address.
    iifname @open ct state invalid drop
{_lines(refused) if way.refused else ""}\
{there}{back}\
    iifname @open meta l4proto tcp reject with tcp reset
    iifname @open reject with icmpx admin-prohibited
  }}
  chain outbound {{
    tcp flags syn / syn,rst tcp option maxseg size set rt mtu
    accept
  }}
  chain hide {{
    type nat hook postrouting priority srcnat;
    oifname {tunnel} masquerade
  }}
""",
    )


def _captured(port: int, senders: Sequence[Sender]) -> _Passing:
    """Hand TCP and UDP over to a program; refuse all else at once, before routing: nothing is ever forwarded."""
    strangers = _lines(f"iifname {sender.interface} ip saddr != {sender.behind} drop" for sender in senders)
    # Answers alone: a server could have the program send to any port of a client, under any address.
    replies = _lines(
        f"oifname {sender.interface} oifname @open meta mark {MARK_CAPTURED_REPLY} ip daddr {sender.behind}"
        " ct state established,related accept"
        for sender in senders
    )
    return _Passing(
        f"    iifname @open meta mark {MARK_CAPTURED} meta l4proto {{ tcp, udp }} accept\n",
        replies,
        f"""\
  # The links, while what comes in by them is handed over.
  set captured {{ type ifname; }}
  chain capture {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != {{ {_names(sender.interface for sender in senders)} }} accept
    # Nobody else may bring this mark along.
    meta mark set 0
    fib daddr type local accept
{strangers}\
    ct state invalid drop
    iifname @open iifname @captured meta l4proto {{ tcp, udp }} tproxy ip to 127.0.0.1:{port} \
meta mark set {MARK_CAPTURED} accept
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
  }}
""",
    )


def capture(links: Iterable[str], *, on: bool) -> str:
    """Say whether what comes in by these links is handed over, without replacing the lock."""
    return f"add element {TABLE} captured {{ {_names(links)} }}\n" if on else f"flush set {TABLE} captured\n"


def entry_lock(state: DesiredState, *, front: str, links: Mapping[str, str]) -> str:
    """Lock the entry, all exits closed. `links` maps an exit's name to the interface of its link.

    The agent alone fills the sets and maps that begin empty; without it they stay as they are, but for exits that go,
    which the supervisor closes.
    """
    return _replace(_entry(state, front, links))


def entry_frame(state: DesiredState, *, front: str, links: Mapping[str, str]) -> str:
    """Give what two states' locks must have in common for `entry_relock` to make one of the other: all but groups."""
    return _entry(replace(state, groups=(), dns=replace(state.dns, redirect=False)), front, links)


def entry_relock(state: DesiredState, *, front: str, links: Mapping[str, str]) -> str:
    """Make another state's lock of the one that is there, in one transaction. What the agent filled in stays.

    Who is in a group that stays goes on as if nothing had happened: with empty sets, all connections would be reset.
    """
    body = _entry(state, front, links)
    chains = (name for name in re.findall(r"^  chain (\w+) ", body, re.MULTILINE) if name != _AGENTS_CHAIN)
    flushed = [*(f"chain {TABLE} {name}" for name in chains), *(f"map {TABLE} {name}" for name in _OF_GROUPS)]
    return "".join(f"flush {each}\n" for each in flushed) + f"table {TABLE} {{\n{body}}}\n"


def _entry(state: DesiredState, front: str, links: Mapping[str, str]) -> str:
    client, address = CLIENT_INTERFACE, state.address.partition("/")[0]
    reporters = ", ".join(
        f'"{links[exit_.name]}" . {exit_.link.exit_address} . {exit_.link.sender_address}'
        for exit_ in state.exits
        if exit_.name in links
    )
    here = [exit_ for exit_ in state.exits if exit_.name in links]
    names = (name for exit_ in here for name in (sent_by(exit_.mark), came_by(exit_.mark)))
    counters = "".join(f"  counter {name} {{ }}\n" for name in names)
    sent = ", ".join(f'{exit_.mark} : "{sent_by(exit_.mark)}"' for exit_ in here)
    came = ", ".join(f'"{links[exit_.name]}" : "{came_by(exit_.mark)}"' for exit_ in here)
    ports = [str(group.resolver_port) for group in state.groups]
    resolver_marks = ", ".join(f"{group.resolver_address} : {group.mark}" for group in state.groups)
    group_ports = ", ".join(f"{group.mark} : {group.resolver_port}" for group in state.groups)
    to_port = f"meta l4proto {{ tcp, udp }} th dport {DNS_PORT}"
    # Before NAT every packet of such a flow still has the address that the client asked, the later ones too.
    foreign = f"    {to_port} goto to_resolver\n" if state.dns.redirect else ""
    asked = "meta nfproto ipv4" if state.dns.redirect else f"ip daddr {address}"
    return f"""\
  map client_group {{ type ipv4_addr : mark; }}
  # A client's new connections go where its bucket of the group goes; its resolver's questions, where the group's do.
  map client_bucket {{ type ipv4_addr : mark; }}
  map bucket_exit {{ type mark : mark; }}
  map group_exit {{ type mark : mark; }}
  # Exits that have said they are locked and up: their marks, and where each one's packets may go and come from.
  set open_marks {{ type mark; }}
  set open_links {{ type ifname; }}
  set open_pairs {{ type mark . ifname; }}
  # Exits that say that they are up, used or not: whom the agent may ask through.
  set up_pairs {{ type mark . ifname; }}
  # Open exits that may be dead: of what goes by them, only TCP stays, which could not go on elsewhere.
  set suspect_marks {{ type mark; }}
  # Which open exits a group's connections may stay with: its own, chosen for new ones or not.
  set open_members {{ type mark . mark; }}
  # The same for its resolver's, which lose nothing by beginning anew: none that may be dead, if another is chosen.
  set resolver_members {{ type mark . mark; }}
  map resolver_group {{ type ipv4_addr : mark; {_elements([resolver_marks])}}}
  map group_port {{ type mark : inet_service; {_elements([group_ports])}}}
  set reporters {{ type ifname . ipv4_addr . ipv4_addr; {_elements([reporters] if reporters else [])}}}
  counter refused {{ }}
{counters}\
  # Clients' packets to each exit, and from it.
  map sent_by {{ type mark : counter; {_elements([sent] if sent else [])}}}
  map came_by {{ type ifname : counter; {_elements([came] if came else [])}}}

  chain prerouting {{
    type filter hook prerouting priority mangle;
    iifname {client} jump from_client
  }}
  chain from_client {{
    # A packet may not come in with a mark, least of all a tunnel's.
    meta mark set 0
    fib daddr type local meta mark set ip saddr map @client_group accept
    fib daddr type local accept
    meta nfproto ipv6 goto refuse
    # A reset for a stray or late packet would end a connection that is well.
    ct state invalid drop
{foreign}\
    meta mark set ip saddr map @client_group
    ct state new goto choose
    # An error of a client's about a connection goes with that, or nowhere: it is not to lead it elsewhere.
    ct state related meta mark . ct mark @open_members meta mark set ct mark accept
    ct state related drop
    meta l4proto != tcp ct mark @suspect_marks goto choose
    meta mark . ct mark @open_members meta mark set ct mark accept
    # Another exit means another address outside, which UDP and ICMP can live with and TCP can't.
    meta l4proto != tcp goto choose
    goto refuse
  }}
  # For groups that share by flow and not by client: rules of the agent's.
  chain {_AGENTS_CHAIN} {{
  }}
  chain choose {{
    meta mark set ip saddr map @client_bucket
    jump {_AGENTS_CHAIN}
    meta mark set meta mark map @bucket_exit
    ct mark set meta mark
    meta mark != @open_marks goto refuse
    meta l4proto tcp ct state new tcp flags & (syn | ack | rst) == ack reject with tcp reset
  }}
  chain to_resolver {{
    # Refused like all else of a client whose group has no exit: an answer from memory would hide that.
    meta mark set ip saddr map @client_group
    meta mark set meta mark map @group_exit
    meta mark != @open_marks goto refuse
    meta mark set ip saddr map @client_group
  }}
  chain refuse {{
    counter name refused
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}
  chain client_dns {{
    type nat hook prerouting priority dstnat;
    iifname {client} {asked} {to_port} redirect to :meta mark map @group_port
  }}
  chain resolver {{
    type route hook output priority mangle;
    ip saddr {state.resolvers_subnet} goto from_resolver
  }}
  chain from_resolver {{
    meta mark set ip saddr map @resolver_group
    meta l4proto tcp meta mark . ct mark @resolver_members meta mark set ct mark accept
    # With the group's own mark it is reset below, so that the resolver asks again at once, by another connection.
    meta l4proto tcp ct state != new accept
    meta mark set meta mark map @group_exit
    ct mark set meta mark
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname lo accept
    iifname {front} udp dport {state.port} accept
    iifname {front} {_ICMP_ERRORS} ct state related accept
    iifname {client} ip daddr {address} meta l4proto {{ tcp, udp }} th dport {{ {", ".join(ports)} }} \
ct original proto-dst {DNS_PORT} accept
    iifname {client} ip daddr {address} icmp type echo-request accept
    iifname {client} icmpv6 type echo-request accept
    iifname . ip saddr . ip daddr @reporters tcp dport {REPORT_PORT} accept
    iifname @open_links ip daddr {state.resolvers_subnet} ct state established,related accept
    ct mark . iifname @up_pairs ip daddr {address} meta l4proto {{ icmp, udp }} ct state established accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname {client} meta mark . oifname @open_pairs jump outbound
    iifname @open_links oifname {client} ct state established,related jump inbound
  }}
  chain inbound {{
    counter name iifname map @came_by
    accept
  }}
  chain outbound {{
    counter name meta mark map @sent_by
    tcp flags syn / syn,rst tcp option maxseg size set rt mtu
    accept
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    ip daddr {DOCKERS_RESOLVER} drop
    oifname lo accept
    oifname {front} meta mark {MARK_TUNNEL} udp sport {state.port} accept
    oifname {client} ip saddr {address} ct state established,related accept
    oifname {client} meta l4proto ipv6-icmp ct state established,related accept
    oifname {client} {_ICMP_ERRORS} accept
    oifname {client} icmpv6 type destination-unreachable accept
    oifname {client} tcp flags & rst == rst accept
    oifname {client} meta mark {MARK_NUDGE} tcp flags & (fin | syn | rst | ack) == ack accept
    ip saddr {address} meta mark . oifname @up_pairs jump asked
    oifname . ip daddr . ip saddr @reporters tcp sport {REPORT_PORT} ct state established accept
    ip saddr {state.resolvers_subnet} meta mark @open_marks accept
    ip saddr {state.resolvers_subnet} meta l4proto tcp ct state != new reject with tcp reset
  }}
  chain asked {{
    icmp type echo-request ct mark set meta mark accept
    udp dport {DNS_PORT} ct mark set meta mark accept
  }}
  chain untracked {{
    type filter hook output priority raw;
    meta mark {MARK_NUDGE} notrack
  }}
  chain leaving {{
    # The output hook still sees the interface from before the mark chose another; this one sees the real one.
    type filter hook postrouting priority filter;
    ip saddr {state.resolvers_subnet} meta mark . oifname != @open_pairs drop
  }}
"""


@dataclass(frozen=True)
class Exits:
    """What the entry thinks of its exits, by their marks."""

    up: Mapping[int, str]  # those that say so, with the interfaces of their links
    open: frozenset[int]  # those of them that clients may use
    suspect: frozenset[int] = frozenset()  # those of the latter that may be dead

    @classmethod
    def well(cls, up: Mapping[int, str]) -> Exits:
        """Open all that are up."""
        return cls(up, frozenset(up))


@dataclass(frozen=True)
class Choice:
    """Which exit is used, by the mark of it."""

    groups: Mapping[int, int]  # by a group's mark: for its resolver's questions
    buckets: Mapping[int, int]  # by a bucket's mark: for new connections of the clients in it


def entry_switch(exits: Exits, choice: Choice, members: Iterable[tuple[int, int]]) -> str:
    """Say which exits are open and which exit each group uses, in one transaction that repeats harmlessly.

    `members`: group's mark and exit's mark of every exit in a group; those not open are left out here.
    Its cost depends on exits and groups only, never on clients.
    """
    sets = ("open_marks", "open_links", "open_pairs", "open_members", "resolver_members", "up_pairs", "suspect_marks")
    lines = [f"flush set {TABLE} {name}" for name in sets]
    lines += [f"flush map {TABLE} group_exit", f"flush map {TABLE} bucket_exit"]
    if exits.up:
        lines.append(f"add element {TABLE} up_pairs {{ {_pairs(exits.up)} }}")
    if exits.suspect:
        lines.append(f"add element {TABLE} suspect_marks {{ {', '.join(map(str, sorted(exits.suspect)))} }}")
    opened = {mark: interface for mark, interface in exits.up.items() if mark in exits.open}
    if opened:
        lines += [
            f"add element {TABLE} open_marks {{ {', '.join(map(str, opened))} }}",
            f"add element {TABLE} open_links {{ {_names(opened.values())} }}",
            f"add element {TABLE} open_pairs {{ {_pairs(opened)} }}",
        ]
    staying = [(group, exit_) for group, exit_ in members if exit_ in opened]
    asking = [
        (group, exit_) for group, exit_ in staying if exit_ not in exits.suspect or choice.groups.get(group) == exit_
    ]
    for name, pairs in (("open_members", staying), ("resolver_members", asking)):
        if pairs:
            text = ", ".join(f"{group} . {exit_}" for group, exit_ in pairs)
            lines.append(f"add element {TABLE} {name} {{ {text} }}")
    for name, map_ in (("group_exit", choice.groups), ("bucket_exit", choice.buckets)):
        if map_:
            text = ", ".join(f"{mark} : {exit_}" for mark, exit_ in map_.items())
            lines.append(f"add element {TABLE} {name} {{ {text} }}")
    return "\n".join(lines) + "\n"


def _pairs(exits: Mapping[int, str]) -> str:
    return ", ".join(f'{mark} . "{interface}"' for mark, interface in exits.items())


def sent_by(mark: int) -> str:
    """Name the counter of clients' packets to an exit."""
    return f"sent_{mark}"


def came_by(mark: int) -> str:
    """Name the counter of packets from an exit to clients."""
    return f"came_{mark}"


def entry_close(exits: Mapping[int, str], groups: Iterable[int]) -> str:
    """Close exits, whatever was open, in one transaction that repeats harmlessly.

    `exits`: their marks, with the interfaces of their links; one at least. `groups`: all groups' marks.
    """
    elements = [
        f"open_marks {{ {', '.join(map(str, exits))} }}",
        f"open_links {{ {_names(exits.values())} }}",
        f"open_pairs {{ {_pairs(exits)} }}",
        f"up_pairs {{ {_pairs(exits)} }}",
        *(
            f"{name} {{ {', '.join(f'{group} . {mark}' for mark in exits)} }}"
            for name in ("open_members", "resolver_members")
            for group in groups
        ),
    ]
    # To delete what is not there is an error, and to add what is there is none.
    return "".join(f"add element {TABLE} {each}\ndelete element {TABLE} {each}\n" for each in elements)


def entry_clients(state: DesiredState, buckets: Mapping[str, int], by_flow: Mapping[int, int]) -> str:
    """Say which group each client is in, replacing what was said before, in one transaction.

    `buckets`: a client's name → the mark of its bucket of the group.
    `by_flow`: of groups whose flows are shared out each by itself, the mark of the first bucket → their number.
    """
    marks = {group.name: group.mark for group in state.groups}
    flushed = ("map", "client_group"), ("map", "client_bucket"), ("chain", _AGENTS_CHAIN)
    lines = [f"flush {kind} {TABLE} {name}" for kind, name in flushed]
    for first, count in by_flow.items():
        rule = f"add rule {TABLE} {_AGENTS_CHAIN} meta mark & {MARK_GROUP_OF_BUCKET:#x} == {first:#x}"
        ends, place = "ip saddr . ip daddr", f"mod {count} offset {first} return"
        ports = "th sport . th dport"
        lines.append(f"{rule} meta l4proto {{ tcp, udp }} meta mark set jhash {ends} . {ports} {place}")
        lines.append(f"{rule} meta mark set jhash {ends} {place}")
    if state.clients:
        pairs = ", ".join(f"{client.address} : {marks[client.group]}" for client in state.clients)
        lines.append(f"add element {TABLE} client_group {{ {pairs} }}")
        pairs = ", ".join(f"{client.address} : {buckets[client.name]}" for client in state.clients)
        lines.append(f"add element {TABLE} client_bucket {{ {pairs} }}")
    return "\n".join(lines) + "\n"

"""The lock: nftables rulesets of both roles, as text. Pure.

Everything is dropped, v4 and v6, but for what stands here; docs/states.md says what that is in each state.
A table is always replaced whole, in one transaction, so that no state lies between two locks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chain.contract import (
    CLIENT_INTERFACE,
    MARK_CAPTURED,
    MARK_CAPTURED_REPLY,
    MARK_PROBE,
    MARK_TUNNEL,
    REPORT_PORT,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chain.contract import DesiredState, ExitSettings

TABLE = "inet vpn"  # `chain` is a reserved word there
DNS_PORT = 53
DOCKERS_RESOLVER = "127.0.0.11"  # asks from the host's network where the host's own resolver is a loopback one

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


def exit_lock(
    settings: ExitSettings,
    *,
    link: str,
    uplink: str,
    way: Way,
    server: str | None,
    rules: UplinkRules | None,
    entry_open: bool,
) -> str:
    """Lock one exit. `server` is the tunnel's far end, when it is known; `entry_open`: the entry says it is locked."""
    entry, own = settings.link.entry_address, settings.link.exit_address
    routed = ", ".join(settings.routed)
    resolvers = ", ".join(settings.bootstrap_dns)
    quoted = f'"{link}"'
    outgoing = incoming = ""
    if server and rules:
        family = "ip6" if ":" in server else "ip"
        outgoing = "".join(
            f"    oifname {uplink} meta mark {MARK_TUNNEL} {family} daddr {server} {statement} accept\n"
            for statement in rules.outgoing
        ) + "".join(
            f"    oifname {uplink} {family} daddr {server} {statement} accept\n" for statement in rules.unmarked
        )
        incoming = "".join(
            f"    iifname {uplink} {family} saddr {server} {statement} accept\n" for statement in rules.incoming
        )
    passing = _forwarded(way.interface, routed) if way.interface else _captured(way.port, link, routed)
    return _replace(f"""\
  # Interfaces towards peers that have said they are locked; nothing is sent to one that has not.
  set open {{ type ifname; {_elements([quoted] if entry_open else [])}}}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname lo accept
    iifname {link} ip saddr {entry} ip daddr {own} tcp sport {REPORT_PORT} ct state established accept
    iifname {link} ip saddr {entry} ip daddr {own} icmp type echo-request accept
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
    oifname {link} ip saddr {own} ip daddr {entry} tcp dport {REPORT_PORT} accept
    oifname {link} ip saddr {own} ip daddr {entry} icmp type echo-reply accept
    oifname @open ip daddr {{ {routed} }} {_ICMP_ERRORS} accept
    oifname @open ip daddr {{ {routed} }} tcp flags & rst == rst accept
{outgoing}\
    oifname {uplink} meta mark {MARK_TUNNEL} ip daddr {{ {resolvers} }} udp dport {DNS_PORT} accept
{passing.output}\
  }}
""")


@dataclass(frozen=True)
class _Passing:
    """The rules that let clients' packets through: in the chains for input and output, and in chains of their own."""

    input: str
    output: str
    chains: str


def _forwarded(tunnel: str, routed: str) -> _Passing:
    return _Passing(
        f"    iifname {tunnel} ct state established,related accept\n",
        f"    oifname {tunnel} meta mark {MARK_PROBE} accept\n",
        f"""\
  chain forward {{
    type filter hook forward priority filter; policy drop;
    # What belongs to no known connection passes NAT unchanged, with the client's own address.
    iifname @open ct state invalid drop
    iifname @open oifname {tunnel} ip saddr {{ {routed} }} jump outbound
    iifname {tunnel} oifname @open ip daddr {{ {routed} }} ct state established,related accept
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


def _captured(port: int, link: str, routed: str) -> _Passing:
    """Hand TCP and UDP over to a program; refuse all else at once, before routing: nothing is ever forwarded."""
    return _Passing(
        f"    iifname @open meta mark {MARK_CAPTURED} meta l4proto {{ tcp, udp }} accept\n",
        f"    oifname @open meta mark {MARK_CAPTURED_REPLY} ip daddr {{ {routed} }} accept\n",
        f"""\
  # The link, while what comes in by it is handed over.
  set captured {{ type ifname; }}
  chain capture {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != {link} accept
    # Nobody else may bring this mark along.
    meta mark set 0
    fib daddr type local accept
    ip saddr != {{ {routed} }} drop
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


def capture(link: str, *, on: bool) -> str:
    """Say whether what comes in by the link is handed over, without replacing the lock."""
    return f'add element {TABLE} captured {{ "{link}" }}\n' if on else f"flush set {TABLE} captured\n"


def entry_lock(state: DesiredState, *, front: str, links: Mapping[str, str]) -> str:
    """Lock the entry, all exits closed. `links` maps an exit's name to the interface of its link.

    The agent alone fills `open_*`, `group_exit` and `client_group`; without it they stay as they are.
    """
    client, address = CLIENT_INTERFACE, state.address.partition("/")[0]
    reporters = ", ".join(
        f'"{links[exit_.name]}" . {exit_.link.exit_address} . {exit_.link.entry_address}'
        for exit_ in state.exits
        if exit_.name in links
    )
    ports = [str(group.resolver_port) for group in state.groups]
    resolver_marks = ", ".join(f"{group.resolver_address} : {group.mark}" for group in state.groups)
    group_ports = ", ".join(f"{group.mark} : {group.resolver_port}" for group in state.groups)
    to_port = f"meta l4proto {{ tcp, udp }} th dport {DNS_PORT}"
    # Before NAT every packet of such a flow still has the address that the client asked, the later ones too.
    foreign = f"    {to_port} goto to_resolver\n" if state.dns.redirect else ""
    asked = "meta nfproto ipv4" if state.dns.redirect else f"ip daddr {address}"
    return _replace(f"""\
  map client_group {{ type ipv4_addr : mark; }}
  map group_exit {{ type mark : mark; }}
  # Exits that have said they are locked and up: their marks, and where each one's packets may go and come from.
  set open_marks {{ type mark; }}
  set open_links {{ type ifname; }}
  set open_pairs {{ type mark . ifname; }}
  # Which open exits a group's connections may stay with: its own, chosen for new ones or not.
  set open_members {{ type mark . mark; }}
  map resolver_group {{ type ipv4_addr : mark; {_elements([resolver_marks])}}}
  map group_port {{ type mark : inet_service; {_elements([group_ports])}}}
  set reporters {{ type ifname . ipv4_addr . ipv4_addr; {_elements([reporters] if reporters else [])}}}
  counter refused {{ }}

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
    meta mark . ct mark @open_members meta mark set ct mark accept
    # Another exit means another address outside, which UDP and ICMP can live with and TCP can't.
    meta l4proto != tcp goto choose
    goto refuse
  }}
  chain choose {{
    meta mark set meta mark map @group_exit
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
    ip saddr {state.resolvers_subnet} meta mark set ip saddr map @resolver_group
    ip saddr {state.resolvers_subnet} meta mark set meta mark map @group_exit
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
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname {client} meta mark . oifname @open_pairs jump outbound
    iifname @open_links oifname {client} ct state established,related accept
  }}
  chain outbound {{
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
    oifname . ip daddr . ip saddr @reporters tcp sport {REPORT_PORT} ct state established accept
    ip saddr {state.resolvers_subnet} meta mark @open_marks accept
  }}
  chain leaving {{
    # The output hook still sees the interface from before the mark chose another; this one sees the real one.
    type filter hook postrouting priority filter;
    ip saddr {state.resolvers_subnet} meta mark . oifname != @open_pairs drop
  }}
""")


def entry_switch(exits: Mapping[int, str], groups: Mapping[int, int], members: Iterable[tuple[int, int]]) -> str:
    """Say which exits are open and which exit each group uses, in one transaction that repeats harmlessly.

    `exits`: mark → interface of each open exit. `groups`: group's mark → its exit's mark. `members`: group's mark and
    exit's mark of every exit in a group; those not open are left out here.
    Its cost depends on exits and groups only, never on clients.
    """
    lines = [f"flush set {TABLE} {name}" for name in ("open_marks", "open_links", "open_pairs", "open_members")]
    lines.append(f"flush map {TABLE} group_exit")
    if exits:
        pairs = ", ".join(f'{mark} . "{interface}"' for mark, interface in exits.items())
        lines += [
            f"add element {TABLE} open_marks {{ {', '.join(str(mark) for mark in exits)} }}",
            f"add element {TABLE} open_links {{ {_names(exits.values())} }}",
            f"add element {TABLE} open_pairs {{ {pairs} }}",
        ]
    if staying := [f"{group} . {exit_}" for group, exit_ in members if exit_ in exits]:
        lines.append(f"add element {TABLE} open_members {{ {', '.join(staying)} }}")
    if groups:
        pairs = ", ".join(f"{group} : {exit_}" for group, exit_ in groups.items())
        lines.append(f"add element {TABLE} group_exit {{ {pairs} }}")
    return "\n".join(lines) + "\n"


def entry_clients(state: DesiredState) -> str:
    """Say which group each client is in, replacing what was said before, in one transaction."""
    marks = {group.name: group.mark for group in state.groups}
    lines = [f"flush map {TABLE} client_group"]
    if state.clients:
        pairs = ", ".join(f"{client.address} : {marks[client.group]}" for client in state.clients)
        lines.append(f"add element {TABLE} client_group {{ {pairs} }}")
    return "\n".join(lines) + "\n"

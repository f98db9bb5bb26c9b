"""The lock against the real kernel: client — entry — exit — provider, and packets that are counted on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chain import topology
from chain.config import loader
from chain.contract import MARK_PROBE, MARK_TUNNEL, Client, ExitSettings
from chain.exits import REGISTRY, SETTINGS
from chain.node import lock
from tests.choices import all_by, buckets
from tests.netns.ground import TRAFFIC, Namespace, acquaint, eventually, join, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chain.topology import Topology

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "config.example").glob("*.yaml"))
RULES = lock.UplinkRules(("udp dport 51820",), ("udp sport 51820",))

CLIENT, INTERNET, PORT = "10.13.13.2", "203.0.113.9", 7
CLIENT6, INTERNET6 = "fd00:c::2", "2001:db8::9"
SERVER, UPLINK = "192.0.2.1", "192.0.2.2"
FAR, NEAR = "10.64.0.1", "10.64.0.2"
COUNT = 20


def example(path: Path) -> Topology:
    config = loader.load(path, SETTINGS)
    return topology.build(config, REGISTRY)


def exit_lock(
    settings: ExitSettings,
    *,
    server: str | None = SERVER,
    entry_open: bool = False,
    rules: lock.UplinkRules = RULES,
) -> str:
    entry = lock.Sender("link0", settings.link, settings.routed, open=entry_open)
    return lock.exit_lock(settings, senders=[entry], uplink="up0", way=lock.Way("vpn0"), server=server, rules=rules)


# Loading


@pytest.fixture(scope="module")
def bare() -> Iterator[Namespace]:
    with namespaces("bare") as (namespace,):
        yield namespace


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_rulesets_of_every_example_load_and_repeating_them_changes_nothing(bare: Namespace, path: Path) -> None:
    found = example(path)
    links = {exit_.name: f"eth{index}" for index, exit_ in enumerate(found.exits, start=1)}
    state = found.state
    entry = lock.entry_lock(state, front="eth0", links=links)
    clients = lock.entry_clients(state, buckets(state), {})
    marks = {exit_.mark: links[exit_.name] for exit_ in state.exits}
    chosen = all_by(state, {group.name: state.exits[0].name for group in state.groups})
    switch = lock.entry_switch(lock.Exits.well(marks), chosen, [])
    shut = lock.entry_switch(lock.Exits.well({}), all_by(state, {}), [])
    exits = [
        exit_lock(exit_.settings, server=server, entry_open=entry_open)
        for exit_ in found.exits
        for server in (None, SERVER, "2001:db8::1")
        for entry_open in (False, True)
    ]
    for rulesets in ([lock.closed()], [entry, clients, switch, shut], *([text] for text in exits)):
        listed = []
        for _ in range(2):
            for text in rulesets:
                bare.nft(text)
            listed.append(bare.run("nft", "list", "ruleset"))
        assert listed[0] == listed[1]
        assert listed[0].count("policy drop") == 3
        assert listed[0].count("table ") == 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_lock_made_of_another_states_is_the_same_as_a_new_one_and_keeps_what_was_filled_in(
    bare: Namespace, path: Path
) -> None:
    found = example(path)
    front, links = "eth0", {exit_.name: f"eth{index}" for index, exit_ in enumerate(found.exits, start=1)}
    state = found.state
    first = state.groups[0]
    more = replace(first, name="more", mark=0x1FE, resolver_address="10.255.0.9", resolver_port=5999)
    other = replace(
        state, groups=(*state.groups[1:], more), dns=replace(state.dns, redirect=not state.dns.redirect), clients=()
    )
    assert lock.entry_frame(state, front=front, links=links) == lock.entry_frame(other, front=front, links=links)
    by_flow = f"add rule {lock.TABLE} by_flow meta mark 7 return\n"
    full = f"add element {lock.TABLE} client_group {{ 10.13.13.77 : {first.mark} }}\n{by_flow}"
    bare.nft(lock.entry_lock(other, front=front, links=links) + full)
    anew = bare.run("nft", "list", "ruleset")
    bare.nft(lock.entry_lock(state, front=front, links=links) + full)
    assert bare.run("nft", "list", "ruleset") != anew
    bare.nft(lock.entry_relock(other, front=front, links=links))
    assert bare.run("nft", "list", "ruleset") == anew


def test_a_broken_ruleset_leaves_the_lock_as_it_was(bare: Namespace) -> None:
    bare.nft(lock.closed())
    before = bare.run("nft", "list", "ruleset")
    with pytest.raises(AssertionError, match="syntax error"):
        bare.nft(lock.closed().replace("policy drop", "policy maybe", 1))
    assert bare.run("nft", "list", "ruleset") == before


def test_ten_thousand_clients_load(bare: Namespace) -> None:
    state = example(EXAMPLES[0]).state
    clients = tuple(
        Client(f"c{n}", "", f"10.13.{n // 250}.{n % 250 + 1}", "", state.groups[0].name) for n in range(10_000)
    )
    bare.nft(lock.entry_lock(state, front="eth0", links={}))
    bare.nft(lock.entry_clients(full := replace(state, clients=clients), buckets(full), {}))
    for name in ("client_group", "client_bucket"):
        assert bare.run("nft", "list", "map", "inet", "vpn", name).count(" : 0x") == 10_000


# Packets


class Way:
    """A client's way out: the entry, an exit with a link, a tunnel and an uplink, and what lies beyond."""

    def __init__(self, entry: Namespace, exit_: Namespace, provider: Namespace) -> None:
        self.entry, self.exit, self.provider = entry, exit_, provider
        self.settings = example(Path(EXAMPLES[0].parent, "wireguard.yaml")).exits[0].settings
        link = self.settings.link
        join(entry, "link0", exit_, "link0")
        join(exit_, "vpn0", provider, "tun0")
        join(exit_, "up0", provider, "wan0")
        acquaint(entry, "link0", exit_, "link0", (link.sender_address, link.exit_address), ("fd00:1::2", "fd00:1::3"))
        acquaint(exit_, "vpn0", provider, "tun0", (NEAR, FAR), ("fd00:2::2", "fd00:2::1"))
        acquaint(exit_, "up0", provider, "wan0", (UPLINK, SERVER))
        entry.ip(
            f"address add {CLIENT}/32 dev lo",
            f"address add {CLIENT6}/128 dev lo",
            f"route add default via {link.exit_address}",
            "route add default via fd00:1::3",
        )
        exit_.ip(
            f"route add 10.13.13.0/24 via {link.sender_address}",
            f"route add 203.0.113.0/24 via {FAR}",
            "route add fd00:c::/64 via fd00:1::2",
            "route add 2001:db8::/32 via fd00:2::1",
        )
        provider.ip(
            f"address add {INTERNET}/32 dev lo",
            f"address add {INTERNET6}/128 dev lo",
            f"route add 10.13.13.0/24 via {NEAR}",  # a provider that would reach its customer's clients, if it could
            "route add fd00:c::/64 via fd00:2::2",
        )
        for namespace in (entry, exit_, provider):
            namespace.sysctl(ipv4__conf__all__rp_filter=0, ipv6__conf__all__forwarding=1)
        provider.sysctl(ipv4__ip_forward=1)
        exit_.sysctl(ipv4__ip_forward=0)
        provider.serve("serve", INTERNET, PORT)
        provider.serve("serve", INTERNET6, PORT)
        entry.serve("serve", CLIENT, PORT)
        entry.serve("serve", CLIENT6, PORT)
        exit_.watch(
            before_link="iifname link0 meta l4proto udp",
            before_tunnel="iifname vpn0 meta l4proto udp",
            asked_link="iifname link0 meta l4proto udp",
            asked_tunnel="iifname vpn0 meta l4proto udp",
            after_link="oifname link0 meta l4proto udp",
            after_tunnel=f"oifname vpn0 {TRAFFIC}",
            after_uplink=f"oifname up0 {TRAFFIC}",
        )
        provider.watch(before_clients="ip saddr 10.13.13.0/24", before_v6=f"meta nfproto ipv6 {TRAFFIC}")

    def forward(self, *, on: bool) -> None:
        """Switch as the runtime does."""
        code = "from chain.node.netlink import set_forwarding as set; [set(name, on={}) for name in ('link0', 'vpn0')]"
        self.exit.python(code.format(on))

    def lock(self, *, entry_open: bool) -> None:
        self.exit.nft(exit_lock(self.settings, entry_open=entry_open))

    def open(self) -> None:
        self.exit.nft(f'add element {lock.TABLE} open {{ "link0" }}')

    def close(self) -> None:
        self.exit.nft(f"flush set {lock.TABLE} open")

    def arrive(self, counter: str, by: Namespace, source: str, target: str) -> None:
        """Send some datagrams, and wait until the exit has seen them all at one place."""
        before = self.exit.seen(counter)
        assert by.talk("send", source, target, PORT, COUNT) == str(COUNT)
        eventually(lambda: self.exit.seen(counter) >= before + COUNT, f"the packets at {counter}")

    def ask(self) -> str:
        return self.entry.talk("ask", CLIENT, INTERNET, PORT)


@pytest.fixture
def way() -> Iterator[Way]:
    with namespaces("entry", "exit", "provider") as found:
        yield Way(*found)


def test_without_a_lock_everything_passes_which_shows_that_these_tests_can_fail(way: Way) -> None:
    way.forward(on=True)
    assert way.ask() == CLIENT
    assert way.entry.talk("ask", CLIENT6, INTERNET6, PORT) == CLIENT6
    assert way.provider.talk("ask", INTERNET, CLIENT, PORT) == INTERNET
    way.exit.ip("route replace 203.0.113.0/24 via 192.0.2.1")
    way.arrive("after_uplink", way.entry, CLIENT, INTERNET)
    assert way.provider.seen("before_clients") > 0
    assert way.provider.seen("before_v6") > 0


def test_the_first_lock_lets_nothing_through(way: Way) -> None:
    way.exit.nft(lock.closed())
    way.forward(on=True)
    way.arrive("asked_link", way.entry, CLIENT, INTERNET)
    way.arrive("asked_tunnel", way.provider, INTERNET, CLIENT)
    way.arrive("before_link", way.entry, CLIENT, way.settings.link.exit_address)
    assert (way.exit.seen("after_tunnel"), way.exit.seen("after_link"), way.exit.seen("after_uplink")) == (0, 0, 0)


def test_nothing_is_forwarded_for_an_entry_that_has_not_said_that_it_is_locked(way: Way) -> None:
    way.lock(entry_open=False)
    way.forward(on=True)
    way.arrive("asked_link", way.entry, CLIENT, INTERNET)
    assert (way.exit.seen("after_tunnel"), way.exit.seen("after_uplink")) == (0, 0)


def test_nothing_is_forwarded_while_forwarding_is_off(way: Way) -> None:
    way.lock(entry_open=True)
    way.forward(on=False)
    way.arrive("before_link", way.entry, CLIENT, INTERNET)
    assert (way.exit.seen("asked_link"), way.exit.seen("after_tunnel")) == (0, 0)


def test_an_open_entry_is_forwarded_and_hidden_behind_the_tunnels_address(way: Way) -> None:
    way.lock(entry_open=False)
    way.forward(on=True)
    way.open()
    assert way.ask() == NEAR
    assert way.entry.talk("connect", CLIENT, INTERNET, PORT) == NEAR
    assert way.provider.seen("before_clients") == 0
    assert way.exit.seen("after_uplink") == 0


def test_segments_of_no_known_connection_do_not_show_a_clients_address(way: Way) -> None:
    way.forward(on=True)
    way.exit.watch(before_any="iifname link0 meta l4proto tcp")
    way.provider.watch(before_hidden=f"ip saddr {NEAR} meta l4proto tcp")

    def send() -> None:
        before = way.exit.seen("before_any")
        way.entry.talk("segments", CLIENT, "203.0.113.77", PORT)  # who answers none of them
        eventually(lambda: way.exit.seen("before_any") == before + 7, "all segments at the exit")

    send()
    eventually(lambda: way.provider.seen("before_clients") == 7, "all of them at the provider, as there is no lock yet")
    way.lock(entry_open=True)
    send()
    eventually(lambda: way.provider.seen("before_hidden") >= 1, "a segment that begins a connection")
    assert way.provider.seen("before_clients") == 7


def test_nobody_in_the_exit_can_ask_dockers_resolver(way: Way) -> None:
    way.exit.ip("address add 127.0.0.11/32 dev lo")
    assert way.exit.talk("send", "127.0.0.1", "127.0.0.11", 53, COUNT) == str(COUNT)
    way.lock(entry_open=True)
    assert way.exit.talk("send", "127.0.0.1", "127.0.0.11", 53, COUNT) == "0"


def test_closing_ends_flows_that_are_old(way: Way) -> None:
    way.lock(entry_open=True)
    way.forward(on=True)
    assert way.ask() == NEAR
    way.close()
    before = way.exit.seen("after_tunnel")
    way.arrive("asked_link", way.entry, CLIENT, INTERNET)
    assert way.exit.seen("after_tunnel") == before
    way.open()
    assert way.ask() == NEAR


def test_only_clients_and_resolvers_are_forwarded(way: Way) -> None:
    way.lock(entry_open=True)
    way.forward(on=True)
    way.entry.ip("address add 10.99.99.9/32 dev lo")
    way.exit.ip(f"route add 10.99.99.0/24 via {way.settings.link.sender_address}")
    way.arrive("asked_link", way.entry, "10.99.99.9", INTERNET)
    way.arrive("asked_link", way.entry, way.settings.link.sender_address, INTERNET)
    assert way.exit.seen("after_tunnel") == 0


def test_what_the_provider_begins_never_reaches_a_client(way: Way) -> None:
    way.lock(entry_open=True)
    way.forward(on=True)
    way.arrive("asked_tunnel", way.provider, INTERNET, CLIENT)
    assert way.exit.seen("after_link") == 0
    assert way.provider.talk("connect", INTERNET, CLIENT, PORT, 0.3) == "silence"


def test_nothing_is_forwarded_by_the_uplink_when_the_tunnel_is_gone(way: Way) -> None:
    way.lock(entry_open=True)
    way.forward(on=True)
    way.exit.ip("link delete dev vpn0", f"route add default via {SERVER}")
    answer = way.entry.talk("connect", CLIENT, INTERNET, PORT)
    assert answer == "ECONNREFUSED"  # at once, so that a client does not wait for nothing
    way.arrive("asked_link", way.entry, CLIENT, INTERNET)
    assert way.exit.seen("after_uplink") == 0


def test_an_error_from_beyond_the_tunnel_reaches_the_client(way: Way) -> None:
    way.lock(entry_open=True)
    way.forward(on=True)
    join(way.provider, "far0", way.provider, "far1")
    way.provider.ip(
        "link set dev far0 mtu 1200",
        "address add 198.51.100.1/24 dev far0",
        "neighbour add 198.51.100.9 lladdr 02:00:00:00:00:09 dev far0",
    )
    way.exit.ip(f"route add 198.51.100.0/24 via {FAR}")
    assert way.entry.talk("path-mtu", CLIENT, "198.51.100.9", PORT, 1400) == "1200"


def test_the_exits_own_word_that_a_packet_is_too_large_reaches_the_client(way: Way) -> None:
    way.lock(entry_open=True)
    way.forward(on=True)
    way.exit.ip("link set dev vpn0 mtu 1300")
    assert way.entry.talk("path-mtu", CLIENT, INTERNET, PORT, 1400) == "1300"


def test_ipv6_passes_nowhere(way: Way) -> None:
    way.lock(entry_open=True)
    way.forward(on=True)
    way.arrive("asked_link", way.entry, CLIENT6, INTERNET6)
    way.arrive("asked_tunnel", way.provider, INTERNET6, CLIENT6)
    way.arrive("before_link", way.entry, CLIENT6, "fd00:1::3")
    assert way.exit.talk("send", "fd00:2::2", INTERNET6, PORT, COUNT) == "0"
    assert way.exit.seen("after_tunnel") == 0
    assert way.exit.seen("after_link") == 0
    assert way.provider.seen("before_v6") == 0


def test_on_the_uplink_only_the_tunnels_mark_may_speak_and_to_its_server_alone(way: Way) -> None:
    way.lock(entry_open=True)
    assert way.exit.talk("send", UPLINK, SERVER, 51820, COUNT) == "0"
    assert way.exit.talk("send", UPLINK, SERVER, 51820, COUNT, MARK_TUNNEL) == str(COUNT)
    assert way.exit.talk("send", UPLINK, SERVER, 51821, COUNT, MARK_TUNNEL) == "0"
    assert way.exit.talk("send", UPLINK, "192.0.2.77", 51820, COUNT, MARK_TUNNEL) == "0"
    assert way.exit.seen("after_uplink") == COUNT


@pytest.mark.parametrize(("protocol", "statement"), [("", "udp {}port 51820"), ("50", "meta l4proto esp")])
def test_an_error_about_the_tunnels_own_packets_reaches_the_kernel(way: Way, protocol: str, statement: str) -> None:
    """Or a router's word that they are too large would be lost, and so would they, for ever."""
    server = "198.51.100.9"
    join(way.provider, "far0", way.provider, "far1")
    way.provider.ip(
        "link set dev far0 mtu 1200",
        "address add 198.51.100.1/24 dev far0",
        f"neighbour add {server} lladdr 02:00:00:00:00:09 dev far0",
    )
    way.exit.ip(f"route add 198.51.100.0/24 via {SERVER}")
    ask = ("path-mtu", UPLINK, server, 51820, 1400, MARK_TUNNEL, protocol)
    way.exit.nft(exit_lock(way.settings, server=server, rules=rules_of(statement)))
    assert way.exit.talk(*ask) == "1200"


def rules_of(statement: str) -> lock.UplinkRules:
    return lock.UplinkRules((statement.format("d"),), (statement.format("s"),))


def test_in_the_tunnel_only_a_probe_may_speak(way: Way) -> None:
    way.lock(entry_open=True)
    assert way.exit.talk("send", NEAR, FAR, PORT, COUNT) == "0"
    assert way.exit.talk("send", NEAR, FAR, PORT, COUNT, MARK_TUNNEL) == "0"
    assert way.exit.talk("send", NEAR, FAR, PORT, COUNT, 2) == str(COUNT)


CONNECT = """\
import asyncio, sys
from chain.node.probe import connect
async def scene():
    reader, writer = await asyncio.wait_for(connect(sys.argv[1], int(sys.argv[2]), sys.argv[3]), 2)
    print((await reader.read(100)).decode())
    writer.close()
try:
    asyncio.run(scene())
except OSError as error:
    print(type(error).__name__)
"""


def test_what_a_test_of_the_exit_asks_goes_into_the_tunnel_and_nowhere_else(way: Way) -> None:
    way.lock(entry_open=True)
    way.provider.serve("serve", SERVER, PORT)
    way.exit.watch(
        after_tunnel=f"oifname vpn0 meta mark {MARK_PROBE} meta l4proto tcp",
        after_other=f"oifname != {{ vpn0, lo }} {TRAFFIC}",
    )
    assert way.exit.python(CONNECT, INTERNET, str(PORT), "vpn0") == f"{NEAR}\n"
    assert way.exit.seen("after_tunnel") > 0
    # By the uplink, to the tunnel's own server.
    assert way.exit.python(CONNECT, SERVER, str(PORT), "up0") in ("PermissionError\n", "TimeoutError\n")
    assert way.exit.python(CONNECT, SERVER, str(PORT), "") in ("PermissionError\n", "TimeoutError\n")
    # To those that it serves.
    assert way.exit.python(CONNECT, CLIENT, str(PORT), "") in ("PermissionError\n", "TimeoutError\n")
    assert way.exit.seen("after_other") == 0
    # Without the mark.
    assert way.exit.talk("connect", NEAR, INTERNET, PORT, 0.3) in ("EPERM", "silence")

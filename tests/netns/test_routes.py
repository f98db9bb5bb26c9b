"""The entry's choice in a real kernel: rules, tables, marks, and packets that arrive at one exit or another."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chain import topology
from chain.config.models import Config
from chain.contract import to_json
from chain.exits import REGISTRY
from chain.node import lock
from tests.choices import all_by, buckets
from tests.netns.ground import TRAFFIC, Namespace, acquaint, eventually, join, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chain.contract import DesiredState

CLIENT, INTERNET, PORT, COUNT = "10.13.13.2", "203.0.113.9", 9, 20
DNS = 53
CLIENT6, INTERNET6 = "fd00:c::2", "2001:db8::9"
KEY = "posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ="
INSTALL = """\
import json, sys
from chain.agent.routes import Routes
from chain.contract import DesiredState, from_json
state, links = from_json(DesiredState, sys.argv[1]), json.loads(sys.argv[2])
routes = Routes()
routes.install(state, links)
routes.install(state, links)
"""


def state_with(*exits: str) -> DesiredState:
    config = {
        "entry": {"endpoint": "vpn.example.org"},
        "exits": {name: REGISTRY["l2tp"].settings.model_validate({"kind": "l2tp"}) for name in exits},
        "clients": {"phone": {"address": CLIENT, "public_key": KEY}},
    }
    return topology.build(Config.model_validate(config), REGISTRY).state


def install(entry: Namespace, state: DesiredState, links: dict[str, str]) -> None:
    entry.python(INSTALL, to_json(state), json.dumps(links))


def rules(entry: Namespace) -> list[dict[str, Any]]:
    return [rule for rule in entry.show("rule", "show") if rule["priority"] == 200]


@pytest.fixture
def entry() -> Iterator[Namespace]:
    state = state_with("paris", "oslo")
    with namespaces("entry") as (namespace,):
        for index, exit_ in enumerate(state.exits, start=1):
            join(namespace, f"link{index}", namespace, f"other{index}")
            namespace.ip(f"address add {exit_.link.sender_address}/29 dev link{index}")
        yield namespace


def test_each_exit_has_a_rule_and_a_table_that_ends_in_unreachable(entry: Namespace) -> None:
    state = state_with("paris", "oslo")
    install(entry, state, {"paris": "link1", "oslo": "link2"})
    found = {(int(rule["fwmark"], 16), int(rule["table"])) for rule in rules(entry)}
    assert found == {(exit_.mark, exit_.table) for exit_ in state.exits}
    assert len(rules(entry)) == 2  # though it was done twice
    for index, exit_ in enumerate(state.exits, start=1):
        first, last = entry.show("route", "show", "table", str(exit_.table))
        assert (first["gateway"], first["dev"]) == (exit_.link.exit_address, f"link{index}")
        assert (last["type"], last["metric"]) == ("unreachable", 2**32 - 1)


def test_an_exit_that_is_gone_leaves_neither_rule_nor_routes(entry: Namespace) -> None:
    both, one = state_with("paris", "oslo"), state_with("paris")
    entry.ip("rule add priority 201 fwmark 0x5 lookup 5", "rule add priority 100 fwmark 0x1 lookup 100")
    install(entry, both, {"paris": "link1", "oslo": "link2"})
    install(entry, one, {"paris": "link1"})
    assert [int(rule["fwmark"], 16) for rule in rules(entry)] == [one.exits[0].mark]
    assert not entry.show("route", "show", "table", str(both.exits[1].table))
    others = {rule["priority"] for rule in entry.show("rule", "show")} - {200}
    assert {100, 201} <= others


def test_an_exit_whose_link_is_gone_counts_as_gone(entry: Namespace) -> None:
    state = state_with("paris", "oslo")
    install(entry, state, {"paris": "link1", "oslo": "link2"})
    install(entry, state, {"oslo": "link2"})
    assert [int(rule["fwmark"], 16) for rule in rules(entry)] == [state.exits[1].mark]


def test_a_link_that_is_not_there_is_an_error(entry: Namespace) -> None:
    with pytest.raises(AssertionError, match="NetlinkError"):
        install(entry, state_with("paris"), {"paris": "link7"})


# The whole entry: lock, routes and switch, with a client before it and two exits behind it.


class Fork:
    def __init__(self, client: Namespace, entry: Namespace, paris: Namespace, oslo: Namespace) -> None:
        self.client, self.entry, self.exits = client, entry, {"paris": paris, "oslo": oslo}
        self.state = state_with("paris", "oslo")
        self.links = {"paris": "link1", "oslo": "link2"}
        join(client, "wg0", entry, "wg0")  # its place alone matters here, not that it encrypts
        acquaint(client, "wg0", entry, "wg0", (CLIENT, "10.13.13.1"), (CLIENT6, "fd00:c::1"))
        client.ip("route add default via 10.13.13.1", "route add default via fd00:c::1")
        for exit_ in self.state.exits:
            place = self.exits[exit_.name]
            join(entry, self.links[exit_.name], place, "link0")
            addresses = (exit_.link.sender_address, exit_.link.exit_address)
            acquaint(entry, self.links[exit_.name], place, "link0", addresses)
            place.ip(f"address add {INTERNET}/32 dev lo", f"route add 10.13.13.0/24 via {exit_.link.sender_address}")
            place.watch(before_client=f"iifname link0 ip saddr {CLIENT}")
            place.serve("serve", INTERNET, PORT)
            place.serve("serve", INTERNET, DNS)
        entry.serve("serve", "10.13.13.1", self.state.groups[0].resolver_port)  # where its resolver listens
        entry.watch(
            before_client="iifname wg0 meta l4proto udp",
            asked_client="iifname wg0 meta l4proto udp",
            after_front='oifname != { "wg0", "link1", "link2", "lo" }',
            after_links=f'oifname {{ "link1", "link2" }} {TRAFFIC}',
        )
        entry.sysctl(ipv4__ip_forward=1, ipv4__conf__all__rp_filter=0, ipv4__conf__all__src_valid_mark=1)
        code = "import sys; from chain.node.netlink import set_lenient; [set_lenient(name) for name in sys.argv[1:]]"
        entry.python(code, "wg0", *self.links.values())
        entry.ip(
            "rule add priority 110 to 10.13.13.0/24 lookup main",
            "rule add priority 1000 iif wg0 unreachable",
        )
        self.lock()
        install(entry, self.state, self.links)

    def lock(self) -> None:
        """Load the lock, all exits closed."""
        clients = lock.entry_clients(self.state, buckets(self.state))
        self.entry.nft(lock.entry_lock(self.state, front="front0", links=self.links) + clients)

    def without_redirect(self) -> None:
        self.state = replace(self.state, dns=replace(self.state.dns, redirect=False))
        self.lock()

    def use(self, name: str | None, *opened: str) -> None:
        """Open these exits and send the clients to one of them."""
        marks = {exit_.name: exit_.mark for exit_ in self.state.exits}
        chosen = all_by(self.state, {group.name: name for group in self.state.groups} if name else {})
        members = [(group.mark, marks[member]) for group in self.state.groups for member in group.exits]
        up = {marks[exit_]: self.links[exit_] for exit_ in opened}
        self.entry.nft(lock.entry_switch(lock.Exits.well(up), chosen, members))

    def ask(self) -> str:
        return self.client.talk("ask", CLIENT, INTERNET, PORT)

    def arrive(self) -> None:
        before = self.entry.seen("before_client")
        self.client.talk("send", CLIENT, INTERNET, PORT, COUNT)
        eventually(lambda: self.entry.seen("before_client") > before, "a packet at the entry")

    def reached(self) -> dict[str, bool]:
        return {name: place.seen("before_client") > 0 for name, place in self.exits.items()}


@pytest.fixture
def fork() -> Iterator[Fork]:
    with namespaces("client", "entry", "paris", "oslo") as found:
        yield Fork(*found)


def test_a_client_is_refused_at_once_while_no_exit_is_open(fork: Fork) -> None:
    assert fork.client.talk("connect", CLIENT, INTERNET, PORT) == "ECONNREFUSED"
    assert fork.ask() in ("EHOSTUNREACH", "EACCES")
    assert fork.reached() == {"paris": False, "oslo": False}
    assert (fork.entry.seen("after_links"), fork.entry.seen("after_front")) == (0, 0)


def test_ipv6_is_refused_at_once_so_that_a_client_tries_ipv4_without_delay(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    assert fork.client.talk("connect", CLIENT6, INTERNET6, PORT) == "ECONNREFUSED"
    assert fork.client.talk("ask", CLIENT6, INTERNET6, PORT) == "EACCES"
    assert (fork.entry.seen("after_links"), fork.entry.seen("after_front")) == (0, 0)


def test_a_client_goes_to_the_exit_of_its_group_and_to_no_other(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    assert fork.ask() == CLIENT
    assert fork.client.talk("connect", CLIENT, INTERNET, PORT) == CLIENT
    assert fork.reached() == {"paris": True, "oslo": False}


def test_a_connection_that_its_exit_carries_goes_on_whoever_else_is_chosen(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.client.begin("hold", CLIENT, INTERNET, PORT) as held:
        fork.use("oslo", "paris", "oslo")
        assert held.communicate("go on\n")[0] == CLIENT
    assert fork.reached() == {"paris": True, "oslo": False}


def test_a_connection_ends_when_its_exit_leaves_the_group_though_it_is_open(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    assert fork.ask() == CLIENT
    with fork.client.begin("hold", CLIENT, INTERNET, PORT) as held:
        group = replace(fork.state.groups[0], exits=("oslo",))
        fork.state = replace(fork.state, groups=(group,))
        fork.use("oslo", "paris", "oslo")
        assert held.communicate("go on\n")[0] == "ECONNRESET"
    before = fork.exits["paris"].seen("before_client")
    assert fork.ask() == CLIENT
    assert fork.exits["paris"].seen("before_client") == before


def test_a_connection_whose_exit_is_closed_is_reset_when_it_sends(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.client.begin("hold", CLIENT, INTERNET, PORT) as held:
        fork.use("oslo", "oslo")
        assert held.communicate("go on\n")[0] == "ECONNRESET"
    assert fork.reached() == {"paris": True, "oslo": False}


def test_a_route_that_leads_astray_leads_nowhere(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    oslo = fork.state.exits[1]
    fork.entry.ip(f"route add default via {oslo.link.exit_address}", "rule add priority 150 iif wg0 lookup main")
    fork.arrive()
    assert fork.entry.seen("asked_client") > 0
    assert fork.reached() == {"paris": False, "oslo": False}
    assert fork.entry.seen("after_links") == 0


def test_a_switch_moves_new_connections_at_once(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    assert fork.ask() == CLIENT
    fork.use("oslo", "oslo")
    assert fork.ask() == CLIENT
    assert fork.client.talk("connect", CLIENT, INTERNET, PORT) == CLIENT
    before = fork.exits["paris"].seen("before_client")
    fork.arrive()
    assert fork.exits["paris"].seen("before_client") == before
    assert fork.reached() == {"paris": True, "oslo": True}


def test_closing_the_last_exit_blocks(fork: Fork) -> None:
    fork.use("paris", "paris")
    assert fork.ask() == CLIENT
    before = fork.entry.seen("after_links")
    fork.use(None)
    assert fork.ask() in ("EHOSTUNREACH", "EACCES")
    assert fork.entry.seen("after_links") == before
    assert fork.entry.seen("after_front") == 0


def test_a_group_whose_exit_is_not_open_is_blocked_and_does_not_use_another(fork: Fork) -> None:
    fork.use("paris", "oslo")
    assert fork.ask() in ("EHOSTUNREACH", "EACCES")
    assert fork.reached() == {"paris": False, "oslo": False}


def test_a_client_that_nobody_knows_is_refused(fork: Fork) -> None:
    fork.use("paris", "paris")
    fork.client.ip("address add 10.13.13.99/32 dev lo")
    fork.entry.ip(
        "neighbour add 10.13.13.99 lladdr " + fork.client.show("link", "show", "dev", "wg0")[0]["address"] + " dev wg0"
    )
    for port in (PORT, DNS):
        assert fork.client.talk("ask", "10.13.13.99", INTERNET, port) in ("EHOSTUNREACH", "EACCES")
        assert fork.client.talk("connect", "10.13.13.99", INTERNET, port) == "ECONNREFUSED"
    assert fork.client.talk("connect", "10.13.13.99", "10.13.13.1", DNS, 0.3) == "silence"
    assert fork.reached() == {"paris": False, "oslo": False}


# Names


def test_a_question_to_anybody_is_answered_by_the_groups_resolver_and_leaves_by_no_exit(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    for address in ("10.13.13.1", INTERNET, "192.0.2.77"):  # the last is nobody's
        assert fork.client.talk("ask", CLIENT, address, DNS) == CLIENT
        with fork.client.begin("hold", CLIENT, address, DNS) as held:  # its later packets are led there too
            assert held.communicate("go on\n")[0] == CLIENT
    assert fork.reached() == {"paris": False, "oslo": False}
    assert (fork.entry.seen("after_links"), fork.entry.seen("after_front")) == (0, 0)


def test_without_the_redirection_it_leaves_by_the_exit_which_shows_that_these_tests_can_fail(fork: Fork) -> None:
    fork.without_redirect()
    fork.use("paris", "paris", "oslo")
    assert fork.client.talk("ask", CLIENT, "10.13.13.1", DNS) == CLIENT
    assert fork.reached() == {"paris": False, "oslo": False}
    assert fork.client.talk("ask", CLIENT, INTERNET, DNS) == CLIENT
    assert fork.client.talk("connect", CLIENT, INTERNET, DNS) == CLIENT
    assert fork.reached() == {"paris": True, "oslo": False}


def test_a_connection_from_before_the_redirection_leads_nowhere(fork: Fork) -> None:
    fork.without_redirect()
    fork.use("paris", "paris", "oslo")
    with fork.client.begin("hold", CLIENT, INTERNET, DNS) as held:
        fork.state = replace(fork.state, dns=replace(fork.state.dns, redirect=True))
        fork.lock()
        fork.use("paris", "paris", "oslo")
        before = fork.exits["paris"].seen("before_client")
        assert held.communicate("go on\n")[0] == "silence"
    assert fork.exits["paris"].seen("before_client") == before


def test_a_question_of_a_group_without_an_exit_is_refused_at_once(fork: Fork) -> None:
    fork.use("paris", "paris")
    with fork.client.begin("hold", CLIENT, INTERNET, DNS) as held:
        fork.use("paris", "oslo")
        assert fork.client.talk("ask", CLIENT, INTERNET, DNS) in ("EHOSTUNREACH", "EACCES")
        assert fork.client.talk("connect", CLIENT, INTERNET, DNS) == "ECONNREFUSED"
        assert held.communicate("go on\n")[0] == "ECONNRESET"
    assert fork.reached() == {"paris": False, "oslo": False}
    assert fork.entry.seen("after_links") == 0


def test_a_question_over_ipv6_is_refused_at_once(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    assert fork.client.talk("connect", CLIENT6, INTERNET6, DNS) == "ECONNREFUSED"
    assert fork.client.talk("ask", CLIENT6, INTERNET6, DNS) == "EACCES"
    assert (fork.entry.seen("after_links"), fork.entry.seen("after_front")) == (0, 0)


def test_the_resolvers_own_port_is_not_open(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    assert fork.client.talk("connect", CLIENT, "10.13.13.1", fork.state.groups[0].resolver_port, 0.3) == "silence"

"""The entry's choice in a real kernel: rules, tables, marks, and packets that arrive at one exit or another."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from chain.contract import Member
from chain.node import lock
from tests.netns.fork import (
    CLIENT,
    CLIENT6,
    COUNT,
    DNS,
    INTERNET,
    INTERNET6,
    PORT,
    Fork,
    install,
    state_with,
)
from tests.netns.ground import TALK, Namespace, eventually, join, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    with pytest.raises(AssertionError, match="CommandError"):
        install(entry, state_with("paris"), {"paris": "link7"})


# The whole entry


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


@pytest.mark.parametrize("anew", [False, True], ids=["changed", "loaded anew, which shows that this test can fail"])
def test_connections_go_on_while_groups_come_and_go(fork: Fork, anew: bool) -> None:  # noqa: FBT001 - a parameter
    fork.use("paris", "paris", "oslo")
    more = replace(fork.state.groups[0], name="more", mark=0x1FE, resolver_address="10.255.0.9", resolver_port=5999)
    wider = replace(fork.state, groups=(*fork.state.groups, more), dns=replace(fork.state.dns, redirect=False))
    with fork.client.begin("hold", CLIENT, INTERNET, PORT) as held:
        change = lock.entry_lock if anew else lock.entry_relock
        fork.entry.nft(change(wider, front="front0", links=fork.links))
        assert held.communicate("go on\n")[0] == ("ECONNRESET" if anew else CLIENT)
    if not anew:
        assert fork.ask() == CLIENT


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


# What the agent itself asks and counts

NUDGE = """\
import sys
from chain.agent.netfilter import Netfilter
from chain.agent.nudge import Nudger
flows = list(Netfilter().tcp_flows(int(sys.argv[1])))
Nudger().nudge(flows)
print(len(flows))
"""
PROBE = """\
import asyncio, sys
from chain.agent.prober import Prober

async def main():
    answers = set()
    prober = Prober("10.13.13.1", int(sys.argv[1]), names=False, answered=lambda number, at: answers.add(number))
    for number in (1, 2, 65535):
        prober.ask(sys.argv[2], number)
    try:
        async with asyncio.timeout(float(sys.argv[3])):
            while len(answers) < 3:
                await asyncio.sleep(0.01)
    except TimeoutError:
        pass
    prober.close()
    print(sorted(answers))

asyncio.run(main())
"""
LISTED = """\
import json, sys
from chain.agent import netfilter

class Asker(netfilter.Netfilter):
    def _dump(self, *question):
        for message in super()._dump(*question):
            self.messages += 1
            yield message

def listed():
    asker = Asker()
    asker.messages = 0
    return len(list(asker.tcp_flows(int(sys.argv[1])))), asker.messages

new = listed()
netfilter._ONLY_TCP = b""
print(json.dumps([new, listed()]))
"""
COUNTERS = """\
import json
from chain.agent.netfilter import Netfilter
print(json.dumps(Netfilter().counters()))
"""
# The exit falls silent, some more is opened, and then it is dead.
EXPECTED = """\
import asyncio, sys
from chain.agent import endings
from chain.agent.nudge import Nudger

class Counting(Nudger):
    nudged = []

    def nudge(self, flows):
        self.nudged.append(len(flows))
        super().nudge(flows)

async def main():
    endings.Nudger, endings._AGAIN = Counting, (0.0, 0.1)
    mark = int(sys.argv[1])
    found = endings.Endings(lambda name: False)
    found.expect("paris", mark)
    await asyncio.gather(*found._lists.values())
    print("listed", flush=True)
    sys.stdin.readline()
    found.begin("paris", mark)
    await asyncio.gather(*found._tasks.values())
    print(Counting.nudged[0])

asyncio.run(main())
"""
IDLE = 100


def test_what_is_idle_on_a_dead_exit_is_reset(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.client.begin("idle", CLIENT, INTERNET, PORT, IDLE, 5) as held:
        fork.use("oslo", "oslo", up=("paris",))
        assert fork.entry.python(NUDGE, str(fork.mark("paris"))).strip() == str(IDLE)
        assert held.communicate("go on\n")[0] == str(IDLE)


def test_what_was_listed_when_the_exit_fell_silent_is_nudged_first_and_the_rest_too(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with (
        fork.client.begin("idle", CLIENT, INTERNET, PORT, IDLE, 5) as held,
        fork.entry.running(EXPECTED, str(fork.mark("paris"))) as ending,
    ):
        assert ending.stdout is not None
        assert ending.stdout.readline() == "listed\n"
        with fork.client.begin("idle", CLIENT, INTERNET, PORT, 7, 5) as later:
            fork.use("oslo", "oslo", up=("paris",))
            assert ending.communicate("now\n")[0] == f"{IDLE}\n"
            assert held.communicate("go on\n")[0] == str(IDLE)
            assert later.communicate("go on\n")[0] == "7"


def test_what_is_over_is_not_nudged(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.client.begin("idle", CLIENT, INTERNET, PORT, IDLE, 1) as held:
        assert held.communicate("go on\n")[0] == "0"
    # The kernel remembers each of them for two minutes more.
    listed = partial(fork.entry.python, NUDGE, str(fork.mark("paris")))
    eventually(lambda: listed().strip() == "0", "all connections are over")


def test_the_kernel_lists_tcp_alone_and_one_that_can_not_does_no_harm(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    for _ in range(3):
        assert fork.ask() == CLIENT  # by UDP
    with fork.client.begin("idle", CLIENT, INTERNET, PORT, IDLE, 5) as held:
        (flows, messages), before = json.loads(fork.entry.python(LISTED, str(fork.mark("paris"))))
        assert (flows, messages) == (IDLE, IDLE)
        assert before[0] == IDLE
        assert before[1] >= IDLE + 3
        fork.use("oslo", "oslo", up=("paris",))
        fork.entry.python(NUDGE, str(fork.mark("paris")))
        held.communicate("go on\n")


def test_without_a_nudge_it_is_not_which_shows_that_this_test_can_fail(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.client.begin("idle", CLIENT, INTERNET, PORT, IDLE, 1) as held:
        fork.use("oslo", "oslo", up=("paris",))
        assert held.communicate("go on\n")[0] == "0"


def test_connections_by_another_exit_are_left_alone(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.client.begin("idle", CLIENT, INTERNET, PORT, IDLE, 1) as held:
        assert fork.entry.python(NUDGE, str(fork.mark("oslo"))).strip() == "0"
        # One that is nudged though its exit is open hears its own answer's answer, and goes on.
        assert fork.entry.python(NUDGE, str(fork.mark("paris"))).strip() == str(IDLE)
        assert held.communicate("go on\n")[0] == "0"


def test_udp_leaves_a_suspect_exit_and_tcp_stays(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    source = (CLIENT, INTERNET, PORT)
    with fork.client.begin("hold", *source) as held, fork.client.begin("echo", *source) as echoed:
        fork.use("oslo", "paris", "oslo", suspect="paris")
        paris = fork.exits["paris"].seen("before_client")
        oslo = fork.exits["oslo"].seen("before_client")
        assert echoed.communicate("go on\n")[0] == CLIENT
        assert fork.exits["paris"].seen("before_client") == paris
        assert fork.exits["oslo"].seen("before_client") > oslo
        assert held.communicate("go on\n")[0] == CLIENT
        assert fork.exits["paris"].seen("before_client") > paris


@pytest.mark.parametrize(("suspect", "answer"), [("paris", CLIENT), ("", "ECONNRESET")], ids=["suspect", "dead"])
def test_an_error_of_a_clients_does_not_lead_its_connection_elsewhere(fork: Fork, suspect: str, answer: str) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.client.begin("complain", CLIENT, INTERNET, PORT) as held:
        fork.use("oslo", *filter(None, (suspect, "oslo")), suspect=suspect)
        assert held.communicate("go on\n")[0] == answer
    assert not fork.reached()["oslo"]


def test_questions_of_the_agent_go_by_the_exit_that_they_are_about_if_it_is_up(fork: Fork) -> None:
    fork.use("paris", "paris", up=("oslo",))
    for name in ("paris", "oslo"):
        assert fork.entry.python(PROBE, str(fork.mark(name)), INTERNET, "5").strip() == "[1, 2, 65535]"
    fork.use("paris", "paris")
    assert fork.entry.python(PROBE, str(fork.mark("oslo")), INTERNET, "0.3").strip() == "[]"
    assert fork.entry.seen("after_front") == 0


def test_clients_packets_are_counted_by_exit_and_the_agents_own_are_not(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    paris, oslo = fork.mark("paris"), fork.mark("oslo")
    # With the port closed, answers would be answered in turn, by ICMP errors, which are the client's packets too.
    assert fork.client.talk("exchange", CLIENT, INTERNET, PORT, COUNT) == str(COUNT)
    fork.entry.python(PROBE, str(paris), INTERNET, "5")
    counted = json.loads(fork.entry.python(COUNTERS))
    assert (counted[lock.sent_by(paris)], counted[lock.came_by(paris)]) == (COUNT, COUNT)
    assert (counted[lock.sent_by(oslo)], counted[lock.came_by(oslo)]) == (0, 0)


# The resolver's own questions


def test_a_resolvers_connection_goes_on_by_its_exit_whoever_else_is_chosen(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.entry.begin("hold", fork.resolver, INTERNET, PORT) as held:
        fork.use("oslo", "paris", "oslo")
        assert fork.entry.talk("connect", fork.resolver, INTERNET, PORT) == fork.resolver
        assert held.communicate("go on\n")[0] == fork.resolver
    assert fork.exits["oslo"].seen("before_resolver") > 0
    assert fork.entry.seen("after_front") == 0


@pytest.mark.parametrize("suspect", ["", "paris"], ids=["dead", "suspect"])
def test_a_resolvers_connection_is_reset_when_another_exit_has_to_do(fork: Fork, suspect: str) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.entry.begin("hold", fork.resolver, INTERNET, PORT) as held:
        if suspect:
            fork.use("oslo", "paris", "oslo", suspect="paris")
        else:
            fork.use("oslo", "oslo", up=("paris",))
        before = fork.exits["paris"].seen("before_resolver")
        assert held.communicate("go on\n")[0] == "ECONNRESET"
    assert fork.exits["paris"].seen("before_resolver") == before
    assert fork.exits["oslo"].seen("before_resolver") == 0  # the reset is not its own
    assert fork.entry.talk("connect", fork.resolver, INTERNET, PORT) == fork.resolver
    assert fork.entry.talk("ask", fork.resolver, INTERNET, PORT) == fork.resolver
    assert fork.entry.seen("after_front") == 0


def test_a_resolvers_connection_stays_with_a_suspect_exit_that_is_the_only_one(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.entry.begin("hold", fork.resolver, INTERNET, PORT) as held:
        fork.use("paris", "paris", suspect="paris")
        assert held.communicate("go on\n")[0] == fork.resolver


def test_a_resolver_that_waits_on_a_dead_exit_is_nudged(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.entry.begin("idle", fork.resolver, INTERNET, PORT, IDLE, 5) as held:
        fork.use("oslo", "oslo", up=("paris",))
        assert fork.entry.python(NUDGE, str(fork.mark("paris"))).strip() == str(IDLE)
        assert held.communicate("go on\n")[0] == str(IDLE)


END = """\
import sys
from chain.agent import sockets
print(sockets.end(sys.argv[1]))
"""


def test_a_resolvers_connections_are_ended_those_too_that_are_being_opened(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    other = "10.213.15.9"
    fork.entry.ip(f"address add {other}/32 dev lo")
    with fork.entry.begin("idle", fork.resolver, INTERNET, PORT, IDLE, 0) as held:
        fork.exits["paris"].nft("table inet fault { chain i { type filter hook input priority 0; drop; }; }\n")
        command = [sys.executable, str(TALK), "connect", fork.resolver, INTERNET, str(PORT)]
        opening = subprocess.Popen(
            ["ip", "netns", "exec", fork.entry.name, *command], stdout=subprocess.PIPE, text=True
        )
        eventually(lambda: "SYN-SENT" in fork.entry.run("ss", "-tn"), "a connection that is being opened")
        assert fork.entry.python(END, other).strip() == "0"
        assert fork.entry.python(END, fork.resolver).strip() == str(IDLE + 1)
        assert opening.communicate(timeout=2)[0].strip() == "ECONNABORTED"
        held.communicate("go on\n")
    assert fork.resolver not in fork.entry.run("ss", "-tnH", "state", "established")


def test_a_resolver_goes_nowhere_while_its_group_has_no_exit(fork: Fork) -> None:
    fork.use("paris", "paris", "oslo")
    with fork.entry.begin("hold", fork.resolver, INTERNET, PORT) as held:
        fork.use(None)
        before = fork.entry.seen("after_links")
        assert held.communicate("go on\n")[0] == "ECONNRESET"
        assert fork.entry.talk("connect", fork.resolver, INTERNET, PORT, 0.3) == "silence"
        assert fork.entry.talk("send", fork.resolver, INTERNET, PORT, COUNT) == "0"
    assert fork.entry.seen("after_links") == before
    assert fork.entry.seen("after_front") == 0


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


def test_a_group_may_share_out_its_connections_each_by_itself(fork: Fork) -> None:
    shared = replace(
        fork.state.groups[0], policy="balance", sticky="flow", members=(Member("paris"), Member("oslo", weight=3))
    )
    fork.state = replace(fork.state, groups=(shared,))
    fork.lock()
    fork.use("paris", "paris", "oslo")
    assert [fork.ask() for _ in range(8)] == [CLIENT] * 8
    assert fork.reached() == {"paris": True, "oslo": False}, "all buckets go by one"
    fork.share("paris", "oslo")
    with fork.client.begin("echo", CLIENT, INTERNET, PORT) as flow:
        before = {name: place.seen("before_client") for name, place in fork.exits.items()}
        assert flow.communicate("go on\n")[0] == CLIENT
    grown = [name for name, place in fork.exits.items() if place.seen("before_client") > before[name]]
    assert len(grown) == 1, "a flow stays where it began"
    assert [fork.ask() for _ in range(32)] == [CLIENT] * 32
    assert [fork.client.talk("connect", CLIENT, INTERNET, PORT) for _ in range(8)] == [CLIENT] * 8
    assert fork.reached() == {"paris": True, "oslo": True}

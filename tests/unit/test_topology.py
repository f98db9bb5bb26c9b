from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.config.models import Config
from chain.contract import MARK_EXIT, MARK_GROUP
from chain.errors import ChainError, ExitCode
from chain.exits import REGISTRY
from chain.topology import (
    CLIENT_MTU_MAX,
    EXIT_SLOTS,
    RESOLVER_SLOT,
    SLOT_SIZE,
    ExternalNetwork,
    address6,
    alone,
    assign_slots,
    build,
    client_prefix6,
    line_of,
    networks,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

NAMES = st.sets(st.from_regex(r"[a-z][a-z0-9-]{0,23}", fullmatch=True), min_size=1, max_size=60)

GROUPS = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp}
  oslo: {kind: l2tp}
groups:
  far: {exits: [oslo]}
clients:
  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}
  laptop: {address: 10.13.13.77, public_key: 5Etvk/ES3eAuhqM0s9Chj/hKACutr3TwfoeQyNJ/7mY=, group: far}
"""


# Slots


@given(NAMES)
def test_each_exit_has_a_slot_of_its_own(names: set[str]) -> None:
    slots = assign_slots(names)
    assert set(slots) == names
    assert len(set(slots.values())) == len(names)
    assert set(slots.values()) <= set(EXIT_SLOTS)


@given(NAMES, st.randoms(use_true_random=False))
def test_slots_do_not_depend_on_the_order(names: set[str], random: object) -> None:
    shuffled = sorted(names, key=lambda _: random.random())  # type: ignore[attr-defined] # the strategy's type is private
    assert assign_slots(shuffled) == assign_slots(names)


@given(NAMES)
def test_removing_an_exit_moves_only_exits_that_had_met_it(names: set[str]) -> None:
    """An exit that stands in the slot of its own name alone never moves, whoever comes or goes."""
    before = assign_slots(names)
    undisturbed = {name for name in names if assign_slots([name])[name] == before[name]}
    for gone in names:
        after = assign_slots(names - {gone})
        assert all(after[name] == before[name] for name in undisturbed - {gone})


def test_adding_and_removing_leaves_the_others_networks_as_they_are(built: Callable[[str], Topology]) -> None:
    text = "entry: {endpoint: vpn.example.org}\nexits:\n  paris: {kind: l2tp}\n  oslo: {kind: l2tp}\n"
    two, three = built(text), built(text + "  rome: {kind: l2tp}\n")
    assert three.exits[:2] == two.exits
    assert three.state.exits[:2] == two.state.exits


def test_all_slots_can_be_used_and_not_one_more() -> None:
    names = [f"exit-{number}" for number in range(len(EXIT_SLOTS))]
    assert sorted(assign_slots(names).values()) == list(EXIT_SLOTS)
    with pytest.raises(ChainError, match="more than 239 exits") as refused:
        assign_slots([*names, "one-more"])
    assert refused.value.code is ExitCode.CONFIG


# Networks


@given(NAMES)
def test_networks_are_disjoint_and_inside_the_pool(names: set[str]) -> None:
    pool = IPv4Network("10.99.16.0/20")
    config = Config.model_validate(
        {
            "entry": {"endpoint": "vpn.example.org"},
            "exits": {name: REGISTRY["l2tp"].settings.model_validate({"kind": "l2tp"}) for name in names},
            "network": {"pool": str(pool)},
        }
    )
    topology = build(config, REGISTRY)
    networks = [topology.front.subnet, IPv4Network(topology.state.resolvers_subnet), config.entry.subnet]
    for exit_ in topology.exits:
        networks.append(exit_.link.subnet)
        networks += [exit_.uplink.subnet] if exit_.uplink else []
    assert all(network.subnet_of(pool) for network in networks if network != config.entry.subnet)
    assert not [pair for pair in combinations(networks, 2) if pair[0].overlaps(pair[1])]
    addresses = [address for exit_ in topology.exits for address in addresses_of(exit_.settings.link)]
    assert len(set(addresses)) == len(addresses)


def addresses_of(link: object) -> list[str]:
    return [getattr(link, name) for name in ("sender_address", "exit_address", "sender_mac", "exit_mac")]


def test_the_resolvers_slots_begin_behind_the_last_exit() -> None:
    assert max(EXIT_SLOTS) < RESOLVER_SLOT
    assert (RESOLVER_SLOT * SLOT_SIZE) % 256 == 0


def test_the_bridge_the_entry_and_the_exit_have_addresses_of_their_own(built: Callable[[str], Topology]) -> None:
    for exit_ in built(GROUPS).exits:
        link = exit_.settings.link
        used = {exit_.link.gateway, IPv4Address(link.sender_address), IPv4Address(link.exit_address)}
        assert len(used) == 3
        assert used <= set(exit_.link.subnet.hosts())


def test_macs_are_locally_administered_and_not_dockers(built: Callable[[str], Topology]) -> None:
    for exit_ in built(GROUPS).exits:
        for mac in (exit_.settings.link.sender_mac, exit_.settings.link.exit_mac):
            first, second = (int(part, 16) for part in mac.split(":")[:2])
            assert first & 0b11 == 0b10
            assert (first, second) != (0x02, 0x42)


# Groups, marks, clients


def test_there_is_always_a_default_group_of_all_exits_in_the_files_order(built: Callable[[str], Topology]) -> None:
    groups = {group.name: group.exits for group in built(GROUPS).state.groups}
    assert groups == {"default": ("paris", "oslo"), "far": ("oslo",)}


def test_marks_tables_and_resolvers_are_each_ones_own(built: Callable[[str], Topology]) -> None:
    state = built(GROUPS).state
    assert all(MARK_GROUP < group.mark < MARK_EXIT <= exit_.mark for group in state.groups for exit_ in state.exits)
    for values in (
        [group.mark for group in state.groups],
        [group.resolver_port for group in state.groups],
        [group.resolver_address for group in state.groups],
        [exit_.mark for exit_ in state.exits],
        [exit_.table for exit_ in state.exits],
    ):
        assert len(set(values)) == len(values)
    resolvers = IPv4Network(state.resolvers_subnet)
    assert all(IPv4Address(group.resolver_address) in resolvers for group in state.groups)


def test_more_groups_than_resolvers_have_addresses_are_refused(built: Callable[[str], Topology]) -> None:
    groups = "".join(f"  group-{number}: {{exits: [oslo]}}\n" for number in range(255))
    text = "entry: {endpoint: vpn.example.org}\nexits:\n  oslo: {kind: l2tp}\ngroups:\n"
    with pytest.raises(ChainError, match="more than 255 groups"):
        built(text + groups)
    assert len(built(text + groups.partition("\n")[2]).state.groups) == 255


def test_clients_have_an_address_of_each_family_with_the_same_host_number(built: Callable[[str], Topology]) -> None:
    state = built(GROUPS).state
    phone, laptop = state.clients
    assert (phone.group, laptop.group) == ("default", "far")
    assert phone.address6 == str(client_prefix6("main").network_address + 2)
    assert laptop.address6 == str(client_prefix6("main").network_address + 77)
    assert (state.address, state.address6) == ("10.13.13.1/24", f"{client_prefix6('main').network_address + 1}/64")


@given(st.from_regex(r"[a-z][a-z0-9-]{0,23}", fullmatch=True))
def test_the_clients_prefix_is_a_ula_64(name: str) -> None:
    prefix = client_prefix6(name)
    assert prefix.prefixlen == 64
    assert prefix.network_address.packed[0] == 0xFD
    assert client_prefix6(name) == prefix


def test_address6_maps_the_host_number() -> None:
    prefix, subnet = client_prefix6("main"), IPv4Network("10.20.0.0/16")
    assert address6(prefix, subnet, IPv4Address("10.20.1.2")) == prefix.network_address + 258


@pytest.mark.parametrize(
    ("groups", "memory", "pids"), [(1, 280, 134), (2, 280, 134), (7, 280, 134), (8, 400, 140), (255, 5320, 386)]
)
def test_the_entrys_limits_grow_with_its_groups_in_steps(
    built: Callable[[str], Topology], minimal: str, groups: int, memory: int, pids: int
) -> None:
    more = "".join(f"  g{number}: {{exits: [paris]}}\n" for number in range(1, groups))
    found = built(minimal + (f"groups:\n{more}" if more else ""))
    assert len(found.state.groups) == groups
    assert (found.entry_memory, found.entry_pids) == (memory, pids)


def test_the_generation_changes_with_what_the_entry_has_to_know_and_with_nothing_else(
    built: Callable[[str], Topology],
) -> None:
    first = built(GROUPS).state.generation
    assert built(GROUPS + "# a comment\n").state.generation == first
    assert built(GROUPS.replace("kind: l2tp}\n  oslo", "kind: l2tp, crypto: modern}\n  oslo")).state.generation == first
    assert built(GROUPS.replace("10.13.13.77", "10.13.13.78")).state.generation != first


# MTU


def test_clients_get_what_fits_the_tightest_exit(built: Callable[[str], Topology]) -> None:
    text = "entry: {endpoint: vpn.example.org}\nexits:\n  a: {kind: l2tp, mtu: 1300}\n  b: {kind: l2tp, mtu: 1350}\n"
    topology = built(text)
    assert [exit_.settings.mtu for exit_ in topology.exits] == [1300, 1350]
    assert topology.client_mtu == 1300


@given(st.lists(st.integers(min_value=576, max_value=9000), min_size=1, max_size=5))
def test_clients_mtu_never_exceeds_any_exit_nor_the_clients_own_link(mtus: list[int]) -> None:
    exits = {
        f"exit-{index}": REGISTRY["l2tp"].settings.model_validate({"kind": "l2tp", "mtu": mtu})
        for index, mtu in enumerate(mtus)
    }
    topology = build(Config.model_validate({"entry": {"endpoint": "vpn.example.org"}, "exits": exits}), REGISTRY)
    assert topology.client_mtu == min([CLIENT_MTU_MAX, *mtus])


def test_the_clients_mtu_can_be_set(built: Callable[[str], Topology]) -> None:
    text = "entry: {endpoint: vpn.example.org, mtu: 1280}\nexits:\n  a: {kind: l2tp}\n"
    assert built(text).client_mtu == 1280


# Uplinks

UPLINK = "entry: {endpoint: vpn.example.org}\nexits:\n  a: {kind: l2tp, uplink: {network: dsl}}\n"


def test_an_uplink_of_its_own_has_the_exit_and_its_gateway_in_it(built: Callable[[str], Topology]) -> None:
    exit_ = built(GROUPS).exits[0]
    assert exit_.uplink is not None
    assert exit_.settings.uplink.gateway == str(exit_.uplink.gateway)
    assert IPv4Address(exit_.settings.uplink.address) in exit_.uplink.subnet


def test_an_existing_network_gives_its_gateway(configured: Callable[[str], Config]) -> None:
    known = {"dsl": ExternalNetwork(IPv4Network("192.168.178.0/24"), IPv4Address("192.168.178.1"))}
    exit_ = build(configured(UPLINK), REGISTRY, known).exits[0]
    assert (exit_.uplink, exit_.external_uplink) == (None, "dsl")
    assert (exit_.settings.uplink.gateway, exit_.settings.uplink.address) == ("192.168.178.1", "")


@pytest.mark.parametrize(
    ("known", "what"),
    [
        ({}, "does not exist on this engine"),
        ({"dsl": ExternalNetwork(IPv4Network("192.168.178.0/24"), None)}, "has no gateway"),
    ],
)
def test_an_uplink_without_a_known_gateway_is_refused(
    configured: Callable[[str], Config], known: dict[str, ExternalNetwork], what: str
) -> None:
    with pytest.raises(ChainError, match=what) as refused:
        build(configured(UPLINK), REGISTRY, known)
    assert refused.value.code is ExitCode.ENGINE


HOPS = """\
entry: {endpoint: vpn.example.org}
exits:
  bern: {kind: l2tp, via: oslo}
  oslo: {kind: wireguard, via: paris, endpoint: "192.0.2.1:51820", public_key: KEY, address: 10.64.0.2/32}
  paris: {kind: wireguard, endpoint: "192.0.2.2:51820", public_key: KEY, address: 10.65.0.2/32}
""".replace("KEY", "3hSkUNaT6/OFOBQR2O6IevrHpJzR6t8xSDnCikOJbTM=")


def test_an_exit_through_another_has_the_link_to_that_one_as_its_uplink(built: Callable[[str], Topology]) -> None:
    bern, oslo, paris = (exit_.settings for exit_ in built(HOPS).exits)
    assert (bern.uplink.via, oslo.uplink.via, paris.uplink.via) == ("oslo", "paris", "")
    assert [each.name for each in oslo.carried] == ["bern"]
    assert oslo.carried[0].link == bern.uplink.link
    assert [bern.uplink.address, bern.uplink.gateway] == addresses_of(bern.uplink.link)[:2]
    assert paris.uplink.link is None


def test_another_provider_behind_the_same_name_is_another_one(built: Callable[[str], Topology]) -> None:
    def identities(text: str) -> list[str]:
        return [exit_.identity for exit_ in built(text).state.exits]

    before = identities(HOPS)
    assert identities(HOPS.replace("oslo: {", 'oslo: {mtu: 1280, maintenance: ["03:00-04:30"], ')) == before
    assert [
        one == other for one, other in zip(before, identities(HOPS.replace("192.0.2.1", "192.0.2.7")), strict=True)
    ] == [
        True,
        False,
        True,
    ]


def test_what_fits_is_computed_from_the_outside_in(built: Callable[[str], Topology]) -> None:
    bern, oslo, paris = (exit_.settings for exit_ in built(HOPS).exits)
    assert (paris.mtu, oslo.mtu) == (1420, 1360)
    assert (bern.uplink.mtu, oslo.uplink.mtu) == (oslo.mtu, paris.mtu)
    smaller = built(HOPS.replace("via: paris", "via: paris, mtu: 1296"))
    assert bern.mtu - smaller.exits[0].mtu == 1360 - 1296  # a multiple of the cipher block
    assert smaller.client_mtu == smaller.exits[0].mtu


def test_hops_are_in_no_group_unless_somebody_puts_them_there(built: Callable[[str], Topology]) -> None:
    (group,) = built(HOPS).state.groups
    assert group.exits == ("bern",)
    named = built(HOPS + "groups: {default: {exits: [paris, bern]}}\n")
    assert named.state.groups[0].exits == ("paris", "bern")


# One exit by itself


def test_an_exit_by_itself_has_those_that_it_runs_through_and_no_entry(configured: Callable[[str], Config]) -> None:
    config = configured(HOPS + "clients: {phone: {address: 10.13.13.2, public_key: " + "A" * 43 + "=}}\n")
    assert line_of(config, "bern") == ("bern", "oslo", "paris")
    found = alone(config, REGISTRY, "oslo")
    assert {exit_.name for exit_ in found.exits} == {"oslo", "paris"}
    assert (found.name, found.project, found.has_entry) == ("main_test", "chain-main_test", False)
    assert (found.state.clients, {network.key for network in networks(found)}) == (
        (),
        {"link-oslo", "via-oslo", "link-paris", "uplink-paris"},
    )
    (paris,) = (exit_ for exit_ in found.exits if exit_.name == "paris")
    assert [each.name for each in paris.settings.carried] == ["oslo"]  # bern is not there to be served
    assert {exit_.name: exit_.mtu for exit_ in found.exits}.items() <= {
        exit_.name: exit_.mtu for exit_ in build(config, REGISTRY).exits
    }.items()


@given(NAMES, st.data())
def test_an_exit_by_itself_is_clear_of_the_chain_and_of_what_is_taken(names: set[str], data: st.DataObject) -> None:
    config = Config.model_validate(
        {
            "entry": {"endpoint": "vpn.example.org"},
            "exits": {name: REGISTRY["l2tp"].settings(kind="l2tp") for name in names},
        }
    )
    chain = networks(build(config, REGISTRY))
    pool = list(config.network.pool.subnets(new_prefix=24))
    taken = data.draw(st.lists(st.sampled_from(pool), max_size=6))
    name = data.draw(st.sampled_from(sorted(names)))
    for own in networks(alone(config, REGISTRY, name, taken=taken)):
        assert own.subnet.subnet_of(config.network.pool)
        assert not any(own.subnet.overlaps(other) for other in (*taken, *(network.subnet for network in chain)))


def test_without_room_an_exit_by_itself_is_refused(configured: Callable[[str], Config]) -> None:
    config = configured(HOPS)
    with pytest.raises(ChainError) as refused:
        alone(config, REGISTRY, "bern", taken=[config.network.pool])
    assert refused.value.code is ExitCode.CONFIG

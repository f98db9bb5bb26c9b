from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain import checks
from chain.checks import DockerNetwork, Finding, Publisher
from chain.contract import HostAddress, HostFacts, HostRoute
from chain.errors import ChainError, ExitCode, Problem
from chain.exits import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.config.models import Config
    from chain.topology import Topology

# A server as they are: a provider's network, Docker's bridge, and the bridge of this chain's own front network.
HOST = HostFacts(
    time=1_800_000_000.0,
    routes=(
        HostRoute("172.17.0.0/16", "docker0"),
        HostRoute("10.213.0.0/29", "br-0123456789ab"),
        HostRoute("5.75.128.0/17", "eth0"),
        HostRoute("169.254.169.254", "eth0"),
    ),
    addresses=(
        HostAddress("127.0.0.1/8", "lo"),
        HostAddress("5.75.130.9/17", "eth0"),
        HostAddress("172.17.0.1/16", "docker0"),
        HostAddress("2a01:4f8:c0c:1::1/64", "eth0"),
        HostAddress("10.213.0.1/29", "br-0123456789ab"),
    ),
    udp_ports=(53, 68, 5353),
    uplink_device="eth0",
    uplink_mtu=1500,
    ip_forward=1,
    rp_filter={"all": 2, "default": 2},
    conntrack_max=65536,
    conntrack_count=412,
    firewalls=(),
)
NETWORKS = [
    DockerNetwork("bridge", "", (IPv4Network("172.17.0.0/16"),), "docker0"),
    DockerNetwork("host", "", (), "br-aaaaaaaaaaaa"),
    DockerNetwork("chain-main_front", "chain-main", (IPv4Network("10.213.0.0/29"),), "br-0123456789ab"),
]


@pytest.fixture
def main(built: Callable[[str], Topology], minimal: str) -> Topology:
    return built(minimal)


def levels(findings: list[Finding]) -> list[str]:
    return [f"{finding.level} {finding.name}" for finding in findings]


def with_route(network: str, device: str = "eth1") -> HostFacts:
    return replace(HOST, routes=(*(HOST.routes or ()), HostRoute(network, device)))


def test_what_failed_is_raised_together_with_the_kind_that_weighs_more() -> None:
    found = [
        Finding("port", "fail", "it is taken", "clients", "another"),
        Finding("mtu", "warn", "it is small"),
        Finding("folder", "fail", "read-only", "", "mend", ExitCode.CONFIG),
    ]
    with pytest.raises(ChainError) as refused:
        checks.refuse(found)
    assert refused.value.problems == [Problem("port", "it is taken", "another"), Problem("folder", "read-only", "mend")]
    assert refused.value.code == checks.verdict(found) == ExitCode.CONFIG
    assert checks.verdict(found[:2]) == ExitCode.ENGINE
    assert checks.verdict(found[1:2]) == ExitCode.OK
    checks.refuse(found[1:2])


def test_an_errors_problems_become_findings() -> None:
    error = ChainError([Problem("a.yaml:3", "unknown key", "remove it"), Problem("", "odd")], ExitCode.CONFIG)
    assert checks.failures("configuration", error, "why") == [
        Finding("configuration", "fail", "a.yaml:3: unknown key", "why", "remove it", ExitCode.CONFIG),
        Finding("configuration", "fail", "odd", "why", "", ExitCode.CONFIG),
    ]


def test_a_kernel_that_lacks_something_is_told_for_whom() -> None:
    needs = REGISTRY["l2tp"].kernel
    users = {need.check: ["paris", "rome"] for need in needs}
    answers = {need.check: need.check != "esp" for need in needs}
    (found,) = checks.kernel(needs, users, answers)
    assert found.level == "fail"
    assert "lacks IPsec's ESP; exit paris, rome needs it" in found.found
    assert "modprobe -a esp4" in found.fix
    assert levels(checks.kernel(needs, users, dict.fromkeys(users, True))) == ["ok kernel"]
    assert checks.kernel([], {}, {})[0].found == "any will do"


def test_a_port_is_free_taken_or_this_chains_own(main: Topology) -> None:
    own, other = Publisher("chain-main-entry-1", "chain-main"), Publisher("wg-easy", "vpn")
    taken = replace(HOST, udp_ports=(53, 51820))
    assert checks.port(main, [], HOST)[0].level == "ok"
    by_program, by_container = checks.port(main, [], taken)[0], checks.port(main, [other], taken)[0]
    assert by_program.found == "51820/udp of the engine's host is taken by another program"
    assert "sport = :51820" in by_program.fix
    assert by_container.found == "51820/udp of the engine's host is taken by container wg-easy"
    assert checks.port(main, [own], taken)[0].level == "ok"
    assert checks.port(main, [own, other], taken)[0].level == "fail"
    assert checks.port(main, [other], None)[0].level == "fail"
    assert checks.port(main, [], None)[0].level == "unchecked"


def test_a_chains_own_networks_and_wide_routes_are_no_overlap(main: Topology) -> None:
    assert levels(checks.overlaps(main, NETWORKS, HOST)) == ["ok network.pool"]
    assert levels(checks.overlaps(main, NETWORKS, with_route("0.0.0.0/1", "tun0"))) == ["ok network.pool"]
    assert levels(checks.overlaps(main, NETWORKS, None)) == ["unchecked network.pool"]


@pytest.mark.parametrize("network", ["10.213.0.0/29", "10.213.0.4/32", "10.213.0.3", "10.213.0.0/20", "10.0.0.0/8"])
def test_a_route_inside_or_around_a_network_of_the_chain_overlaps(main: Topology, network: str) -> None:
    found = checks.overlaps(main, NETWORKS, with_route(network))
    failed = [finding for finding in found if finding.level == "fail"]
    assert len(failed) == 1
    assert "the host's route to" in failed[0].found
    assert "front 10.213.0.0/29" in failed[0].found


def test_a_free_network_is_named(main: Topology) -> None:
    (found,) = checks.overlaps(main, NETWORKS, with_route("10.208.0.0/12"))
    assert found.fix == "choose another: `network: {pool: 172.16.0.0/20}` is free there"
    (found,) = checks.overlaps(main, NETWORKS, with_route("10.213.0.0/24"))
    assert found.fix == "choose another: `network: {pool: 10.208.0.0/20}` is free there"


def test_another_docker_network_is_named_and_its_route_is_not_told_twice(main: Topology) -> None:
    other = DockerNetwork("shop_default", "shop", (IPv4Network("10.213.0.0/16"),), "br-ffffffffffff")
    found = checks.overlaps(main, [*NETWORKS, other], with_route("10.213.0.0/16", "br-ffffffffffff"))
    assert [finding.level for finding in found] == ["fail"]
    assert found[0].found.startswith("Docker network shop_default (10.213.0.0/16) overlaps this chain's front")
    assert "link-paris" in found[0].found
    assert found[0].code is ExitCode.ENGINE


def test_an_address_without_a_route_counts_and_one_with_a_route_counts_once(main: Topology) -> None:
    down = replace(HOST, addresses=(*(HOST.addresses or ()), HostAddress("10.213.0.9/24", "eth9")))
    (found,) = checks.overlaps(main, NETWORKS, down)
    assert "the host's address 10.213.0.9/24 (dev eth9)" in found.found
    both = replace(down, routes=(*(HOST.routes or ()), HostRoute("10.213.0.0/24", "eth9")))
    assert len(checks.overlaps(main, NETWORKS, both)) == 1


def test_clients_addresses_on_the_host_are_a_warning(main: Topology) -> None:
    (found,) = checks.overlaps(main, NETWORKS, with_route("10.13.13.0/24"))
    assert (found.level, found.name) == ("warn", "entry.subnet")
    assert found.fix == "choose another: `entry: {subnet: 10.208.0.0/24}` is free there"


@pytest.mark.parametrize(("subnet", "name"), [("10.13.0.0/16", "entry.subnet"), ("10.213.15.0/25", "network.pool")])
def test_an_exits_own_uplink_must_not_have_the_addresses_inside(
    built: Callable[[str], Topology], minimal: str, subnet: str, name: str
) -> None:
    uplink = "{kind: l2tp, uplink: {network: dsl, gateway: 10.13.0.1}}"
    topology = built(minimal.replace("{kind: l2tp}", uplink))
    dsl = DockerNetwork("dsl", "", (IPv4Network(subnet),), "br-eeeeeeeeeeee")
    (found,) = checks.overlaps(topology, [*NETWORKS, dsl], HOST)
    assert (found.level, found.name) == ("fail", name)
    assert "the uplink of exit paris" in found.found


def test_of_many_alike_a_few_are_named() -> None:
    assert checks._some(["a", "b", "c"]) == "a, b, c"
    assert checks._some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_where_nothing_is_free_nothing_is_suggested(main: Topology) -> None:
    everything = [IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    assert checks.free_network(20, everything) is None
    full = [*NETWORKS, DockerNetwork("all", "", tuple(everything), "br-dddddddddddd")]
    found = [finding for finding in checks.overlaps(main, full, HOST) if finding.level == "fail"]
    assert found[0].fix == "choose other addresses for one of the two"


@given(
    st.sets(st.integers(0, 2**32 - 1).map(lambda number: IPv4Network((number, 18), strict=False)), max_size=30),
    st.integers(20, 29),
)
def test_what_is_suggested_is_free_and_private(taken: set[IPv4Network], prefix: int) -> None:
    found = checks.free_network(prefix, taken)
    assert found is not None
    assert found.is_private
    assert found.prefixlen == prefix
    assert not any(found.overlaps(network) for network in taken)


@pytest.mark.parametrize(
    ("host", "resolved", "level", "words"),
    [
        ("vpn.example.org", [], "warn", "does not resolve"),
        ("5.75.130.9", ["5.75.130.9"], "ok", "5.75.130.9"),
        ("vpn.real.example", ["5.75.130.9", "2a01:4f8:c0c:1::1"], "ok", "vpn.real.example (5.75.130.9, "),
        ("vpn.real.example", ["1.2.3.4"], "ok", "forward 51820/udp"),
        ("192.168.1.5", ["192.168.1.5"], "warn", "private"),
        ("nas.lan", ["fd00::5"], "warn", "private"),
        ("100.64.0.1", ["100.64.0.1"], "warn", "private"),
        ("localhost", ["::1", "127.0.0.1"], "warn", "own address for itself"),
        ("0.0.0.0", ["0.0.0.0"], "warn", "own address for itself"),
        ("192.0.2.7", ["192.0.2.7"], "warn", "documentation"),
        ("v6", ["2001:db8::1"], "warn", "documentation"),
        ("v6", ["fe80::1%eth0"], "warn", "private"),
    ],
)
def test_the_endpoint_is_judged_by_what_it_resolves_to(host: str, resolved: list[str], level: str, words: str) -> None:
    (found,) = checks.endpoint(host, 51820, resolved, HOST)
    assert found.level == level
    assert words in found.found


def test_where_the_hosts_addresses_are_not_known_nothing_is_said_of_nat() -> None:
    assert checks.endpoint("1.2.3.4", 51820, ["1.2.3.4"], None) == [Finding("entry.endpoint", "ok", "1.2.3.4")]


@pytest.mark.parametrize(
    ("time", "level", "words"),
    [
        (1_800_000_000.4, "ok", "within 0 s"),  # between the two looks at this machine's clock
        (1_800_000_050.0, "ok", "within 49 s"),
        (1_800_000_101.0, "warn", "100 s ahead of"),
        (1_799_999_900.0, "warn", "100 s behind"),
        (86_400.0, "warn", "years behind"),
    ],
)
def test_two_clocks_may_differ_a_little(time: float, level: str, words: str) -> None:
    found = checks.clock(time, 1_800_000_000.0, 1_800_000_001.0)
    assert found.level == level
    assert words in found.found


def test_reverse_path_filters_are_harmless() -> None:
    assert checks.rp_filter(HOST).found == "all 2, default 2: any value does, the containers set their own"
    assert checks.rp_filter(replace(HOST, rp_filter=None)).level == "unchecked"


@pytest.mark.parametrize(
    ("size", "used", "level"),
    [
        (65536, 412, "ok"),
        (65536, 58_982, "ok"),
        (65536, 58_983, "fail"),
        (16383, 10, "warn"),
        (16384, 10, "ok"),
        (4096, 4000, "fail"),
        (None, None, "unchecked"),
        (65536, None, "unchecked"),
    ],
)
def test_the_table_of_connections(size: int | None, used: int | None, level: str) -> None:
    assert checks.conntrack(replace(HOST, conntrack_max=size, conntrack_count=used)).level == level


@pytest.mark.parametrize(("days", "level"), [((), "unchecked"), ((0, 60), "ok"), ((3, 61), "warn"), ((-1,), "ok")])
def test_the_age_of_packages(days: tuple[int, ...], level: str) -> None:
    found = checks.packages({f"image{age}": -age * 86400.0 for age in days}, 0.0)
    assert found.level == level
    assert ("image61 (61 days)" in found.found) == (level == "warn")
    assert "image3 " not in found.found


def uplink(host: HostFacts, config: Config | None = None, topology: Topology | None = None) -> Finding:
    return checks.uplink(host, config, topology, REGISTRY)


def test_a_small_uplink_names_the_settings_that_fit(
    configured: Callable[[str], Config], built: Callable[[str], Topology], minimal: str
) -> None:
    pppoe = replace(HOST, uplink_mtu=1400)
    config, topology = configured(minimal), built(minimal)
    assert uplink(HOST, config, topology).level == "ok"
    found = uplink(pppoe, config, topology)
    fits = REGISTRY["l2tp"].tunnel_mtu(config.exits["paris"], 1400)
    assert found.level == "warn"
    assert f"`exits: {{paris: {{mtu: {fits}}}}}`, `entry: {{mtu: {fits}}}`" in found.fix
    mended = minimal.replace("endpoint: vpn.example.org", f"endpoint: vpn.example.org\n  mtu: {fits}").replace(
        "{kind: l2tp}", f"{{kind: l2tp, mtu: {fits}}}"
    )
    assert uplink(pppoe, configured(mended), built(mended)).level == "ok"


def test_an_uplink_is_judged_without_a_configuration_too() -> None:
    assert uplink(HOST).level == "ok"
    assert uplink(replace(HOST, uplink_mtu=1492)).fix == "set in chain.yaml: a fitting `mtu:` for entry and exits"
    assert uplink(replace(HOST, uplink_mtu=1279)).level == "fail"
    assert uplink(replace(HOST, uplink_device=None, uplink_mtu=None)).level == "warn"
    assert uplink(replace(HOST, uplink_mtu=None)).level == "unchecked"
    assert uplink(replace(HOST, routes=None, uplink_device=None)).level == "unchecked"


def test_a_host_has_to_forward() -> None:
    assert checks.forwarding(HOST).level == "ok"
    assert checks.forwarding(replace(HOST, ip_forward=0)).level == "fail"
    assert checks.forwarding(replace(HOST, ip_forward=None)).level == "unchecked"


def test_managers_of_firewalls_are_named_with_what_to_do() -> None:
    assert [finding.level for finding in checks.firewalls(HOST, 51820)] == ["ok"]
    assert [finding.level for finding in checks.firewalls(replace(HOST, firewalls=None), 51820)] == ["unchecked"]
    seen = checks.firewalls(replace(HOST, firewalls=("firewalld", "ufw", "iptables-legacy")), 51821)
    assert [finding.level for finding in seen] == ["warn"] * 3
    assert "--add-port=51821/udp" in seen[0].fix
    assert "ufw allow 51821/udp" in seen[1].fix
    assert "the entry's port" in checks.firewalls(replace(HOST, firewalls=("ufw",)), None)[0].fix


def test_a_test_of_an_exit_is_told_of() -> None:
    assert checks.exit_test([]).level == "ok"
    found = checks.exit_test({"chain-main_test"})
    assert (found.level, "chain-main_test" in found.found, "`chain down`" in found.fix) == ("warn", True, True)


NEIGHBOURS = """\
entry: {endpoint: vpn.example.org}
exits:
  a: {kind: l2tp, server: vpn.example.com}
  b: {kind: l2tp, server: vpn.example.com}
  c: {kind: l2tp, server: vpn.example.com, via: a}
  d: {kind: l2tp, server: vpn.example.com, uplink: {network: dsl, gateway: 192.168.1.1}}
  e: {kind: l2tp, server: other.example.com}
"""


def test_exits_with_one_server_and_one_way_to_it_are_told(configured: Callable[[str], Config]) -> None:
    config = configured(NEIGHBOURS)
    servers = {name: exit_.crowds() or "" for name, exit_ in config.exits.items()}
    assert checks.neighbours(config, servers) == [["a", "b"]]
    assert checks.neighbours(config, servers | {"e": "VPN.example.com."}) == [["a", "b", "e"]]
    found = checks.crowded(["a", "b"])
    assert (found.level, found.found) == ("warn", "exits a and b dial one server from one address")
    assert checks.crowded(["a", "b", "c"]).found == "exits a, b and c dial one server from one address"

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chain.contract import HostFacts, HostRoute, from_json
from chain.node import host
from chain.node.host import Network, Route
from chain.node.run import CommandError

IMAGES = Path(__file__).parents[3] / "images"  # of the entry, and of exits
# Those of a server with a LAN and a second provider.
ROUTES = [
    Route("", "eth1", 200, 0),
    Route("", "wlan0", 254, 600),
    Route("", "eth0", 254, 100),
    Route("192.0.2.0/24", "eth0", 254, 0),
    Route("10.8.0.1/32", "eth0", 200, 0),
]
UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  512: 00000000:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0000000000000000 0
  887: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 1 2 0000000000000000 0
"""
UDP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
  512: 00000000000000000000000000000000:CA6C 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000
  700: 00000000000000000000000000000000:14E9 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000
"""


def test_routes_to_networks_are_listed_whatever_their_table() -> None:
    assert host.usable_routes(ROUTES) == (
        HostRoute("192.0.2.0/24", "eth0"),
        HostRoute("10.8.0.1/32", "eth0"),
    )


def test_the_way_out_is_the_main_tables_best_default_route() -> None:
    assert host.default_device(ROUTES) == "eth0"
    assert host.default_device(ROUTES[:1]) == "eth1"
    assert host.default_device(ROUTES[3:]) is None


def test_ports_are_those_of_either_family(tmp_path: Path) -> None:
    assert host.udp_ports(tmp_path) is None
    (tmp_path / "udp").write_text(UDP)
    assert host.udp_ports(tmp_path) == (53, 51820)
    (tmp_path / "udp6").write_text(UDP6)
    assert host.udp_ports(tmp_path) == (53, 5353, 51820)


@pytest.mark.parametrize(
    ("chains", "legacy", "seen"),
    [
        ([], "", ()),
        ([], None, ()),
        (None, "filter\nnat\n", ("iptables-legacy",)),
        ([{"family": "ip", "table": "filter", "name": "DOCKER"}], "", ()),
        ([{"family": "ip", "table": "filter", "name": "ufw-user-input"}], "", ("ufw",)),
        ([{"family": "inet", "table": "firewalld", "name": "filter_INPUT"}], "", ("firewalld",)),
    ],
)
def test_firewalls_are_known_by_their_marks(
    chains: list[dict[str, Any]] | None, legacy: str | None, seen: tuple[str, ...]
) -> None:
    ruleset: list[dict[str, Any]] = [{"metainfo": {}}, *({"chain": chain} for chain in chains or ())]
    assert host.firewalls(None if chains is None else ruleset, legacy) == seen


def test_what_can_not_be_read_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*command: str) -> str:
        raise CommandError(f"{command[0]}: not permitted")

    monkeypatch.setattr(host, "run", refuse)
    monkeypatch.setattr(host, "_network", lambda: None)
    found = host.look(tmp_path)
    assert found == HostFacts(time=found.time)
    assert host.firewalls(None, None) is None
    monkeypatch.setattr(host, "_PROC", tmp_path)
    assert host.report() == 0
    assert from_json(HostFacts, capsys.readouterr().out).time >= found.time


def test_all_facts_are_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "run", lambda *_: json.dumps({"nftables": [{"metainfo": {}}]}))
    monkeypatch.setattr(host, "_network", lambda: Network(tuple(ROUTES), (), {"eth0": 1492}))
    for name, text in {
        "sys/net/ipv4/ip_forward": "1\n",
        "sys/net/ipv4/conf/all/rp_filter": "2\n",
        "sys/net/netfilter/nf_conntrack_max": "262144\n",
        "sys/net/netfilter/nf_conntrack_count": "odd\n",
        "net/udp": UDP,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = host.look(tmp_path)
    assert (found.uplink_device, found.uplink_mtu, found.ip_forward) == ("eth0", 1492, 1)
    assert (found.rp_filter, found.conntrack_max, found.conntrack_count) == ({"all": 2}, 262144, None)
    assert (found.firewalls, found.udp_ports) == ((), (53, 51820))


@pytest.mark.parametrize("image", sorted(path.parent.name for path in IMAGES.glob("e*/Dockerfile")))
def test_any_image_can_have_a_look(image: str) -> None:
    """Whichever is there is used, since a look is no reason to build another one."""
    assert " python3-pyroute2 " in (IMAGES / image / "Dockerfile").read_text()

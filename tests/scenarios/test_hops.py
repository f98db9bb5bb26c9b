"""An exit through an exit through an exit: the outside sees the last one, the uplink the first one, and no one both."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from scene import Chain, beside, brought_up, capturing, exit_at, new_token, stood_down, streaming
from world import INTERNET_HOST, WIREGUARD_PORT, World, docker, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ground import Ground

pytestmark = [pytest.mark.docker, pytest.mark.long]

SERVICE, PCAP = "client2", "/tmp/hops.pcap"
ENOUGH = 20  # packets of a client


@pytest.fixture(scope="module")
def hops(chain: Chain, world: World, ground: Ground) -> Iterator[Chain]:
    """A chain whose last exit, `last`, is at the preferred provider, through `middle`, through `first`."""
    ways = {"first": world.site.wireguard, "middle": world.site.wireguard2, "last": ground.preferred}
    if ground.preferred == world.site.wireguard:
        del ways["first"]
    exits: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    for name, provider in ways.items():
        # The others are reached where the internet sees them.
        fields, files = exit_at(world, name, provider, provider.outside if exits else provider.wan)
        if exits:
            del fields["uplink"]
            fields["via"] = list(exits)[-1]
        exits[name] = fields
        secrets |= files
    with stood_down(chain), brought_up(beside(world, "hops", 3, exits, secrets), SERVICE) as made:
        yield made


def bridge_of(network: str) -> str:
    return f"br-{docker('network', 'inspect', '-f', '{{.Id}}', network)[:12]}"


def allowed(hops: Chain, world: World) -> set[str]:
    """Name the only bridges on which a client's packets may be seen: the last exit's link, and the internet."""
    return {bridge_of(f"{hops.project}_link-last"), bridge_of(world.site.network("internet"))}


def test_the_outside_sees_the_last_hop_and_the_uplink_only_the_first(hops: Chain, world: World, ground: Ground) -> None:
    outside = ground.preferred.outside
    assert hops.answered(SERVICE)["seen"] == outside
    assert world.exec(SERVICE, "curl", "-sS", "-m", "60", f"http://{INTERNET_HOST}/").strip() == outside
    names = json.loads(world.exec(SERVICE, "python3", "client.py", "dns", "10.13.13.1", "a.example"))
    assert names == [INTERNET_HOST, outside]
    token = new_token()
    with (
        watching_wan(world),
        capturing(world, token) as capture,
        streaming(world, token, 50, SERVICE),
    ):
        eventually(partial(read_wan, world, f"udp port {WIREGUARD_PORT}"), 60, "the outermost tunnel's packets")
        world.exec(SERVICE, "curl", "-sS", "-m", "60", f"http://{INTERNET_HOST}/")
    places = allowed(hops, world)
    assert capture.dropped == 0
    assert capture.outside(places) == {}
    assert set(capture.seen) >= places, capture.seen
    assert_only_the_outermost(hops, world)


@contextmanager
def watching_wan(world: World) -> Iterator[None]:
    """Keep all that is on the providers' network while the block runs."""
    wan = bridge_of(world.site.network("wan"))
    with world.background("observer", "tcpdump", "-U", "-nn", "-i", wan, "-w", PCAP, "not arp"):
        yield


def read_wan(world: World, what: str) -> list[str]:
    return world.exec("observer", "sh", "-c", f"tcpdump -nn -r {PCAP} '{what}' 2>/dev/null || true").splitlines()


def assert_only_the_outermost(hops: Chain, world: World) -> None:
    """Every later hop's tunnel has the same port, and another server."""
    server = next(iter(hops.exits.values()))["endpoint"].partition(":")[0]
    outermost = f"(udp port {WIREGUARD_PORT} and host {server})"
    assert read_wan(world, outermost)
    # In the first milliseconds, before there is a lock, a container's kernel says that nobody listens yet.
    unreachable = f"(icmp[icmptype] == icmp-unreach and host {server})"
    # And a server still ends connections of an exit that had one of these addresses before.
    farewell = f"(tcp and src host {world.site.xray.wan})"
    rest = f"not {outermost} and not {unreachable} and not {farewell} and not ip6 and not igmp"
    assert read_wan(world, rest) == []


def test_a_hop_that_is_killed_leaks_nothing(hops: Chain, world: World, ground: Ground) -> None:
    for hop in list(hops.exits)[:-1]:
        hops.answered(SERVICE)
        token = new_token()
        places = allowed(hops, world)
        with watching_wan(world), capturing(world, token) as capture, streaming(world, token, 50, SERVICE):
            before = hops.refused()
            hops.kill(f"exit-{hop}")
            eventually(lambda: not hops.is_open("last"), 60 * ground.patience, "the last exit is closed")
            eventually(partial(_refuses_more, hops, before + ENOUGH), 60 * ground.patience, "clients are refused")
            eventually(lambda: hops.is_open("last"), 120 * ground.patience, "the last exit is open again")
            assert hops.answered(SERVICE)["seen"] == ground.preferred.outside
        assert capture.dropped == 0
        assert capture.outside(places) == {}
        assert set(capture.seen) >= places, capture.seen
        assert_only_the_outermost(hops, world)


def _refuses_more(hops: Chain, count: int) -> bool:
    return hops.refused() > count


def test_what_fits_is_computed_through_all_hops(hops: Chain, world: World) -> None:
    settings = {
        name: json.loads((hops.folder / "run" / "exits" / name / "settings.json").read_text()) for name in hops.exits
    }
    for name, fields in hops.exits.items():
        if "via" in fields:
            assert settings[name]["uplink"]["mtu"] == settings[fields["via"]]["mtu"]
    # A client's largest packet comes back whole.
    size = json.loads((hops.folder / "run" / "entry" / "state.json").read_text())["mtu"]
    assert size == min(settings["last"]["mtu"], 1420)
    if settings["last"]["kind"] != "xray":
        world.exec(SERVICE, "ping", "-c", "3", "-W", "20", "-M", "do", "-s", str(size - 28), INTERNET_HOST)

"""What fits in a tunnel is computed to the byte: so much leaves whole, and one byte more does not.

Xray is left out: it ends connections, and what it sends has nothing to do with the size of clients' packets.
"""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from scene import Chain, beside, brought_up, exit_at, packets_on, stood_down
from world import INTERNET_HOST, Provider, World, address_in, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground

pytestmark = [pytest.mark.docker, pytest.mark.long]

SERVICE = "client2"
PROBE_MARK = "2"
HEADERS = 20 + 8  # IPv4 and ICMP
LINK_MTU = 1500
# A packet of any size leaves in one that is padded, at most by a cipher's block.
BLOCK = 16
# WireGuard's first hop leaves this much of the link unused: servers are set to no more.
SPARE = 20
IN_PIECES = "ip[6:2] & 0x3fff != 0"


@pytest.fixture(scope="module")
def orders(world: World, ground: Ground) -> list[list[Provider]]:
    """Which provider each exit is at, the first one on the uplink, the second through the first."""
    site = world.site
    if not ground.l2tp:
        return [[site.wireguard, site.wireguard2]]
    return [[site.l2tp, site.wireguard], [site.wireguard2, site.l2tp]]


@contextmanager
def nested(world: World, providers: list[Provider]) -> Iterator[Chain]:
    """A chain with an exit at the first provider, and one through it at the second, which clients use."""
    exits: dict[str, Any] = {}
    files: dict[str, str] = {}
    for name, provider in zip(("outer", "inner"), providers, strict=True):
        exits[name], secret = exit_at(world, name, provider, provider.outside if exits else provider.wan)
        files |= secret
        if provider == world.site.l2tp:  # else what fits is computed for the largest framing of several
            exits[name]["esp"] = {"proposals": ["aes256gcm16"], "encapsulation": "udp"}
    del exits["inner"]["uplink"]
    exits["inner"]["via"] = "outer"
    made = beside(world, "sizes", 5, exits, files, folder=f"sizes-{secrets.token_hex(2)}")
    with brought_up(made, SERVICE):
        yield made


def test_so_much_fits_and_no_more(
    chain: Chain, world: World, orders: list[list[Provider]], ground: Ground, tell: Callable[[str], None]
) -> None:
    with stood_down(chain):
        for providers in orders:
            with nested(world, providers) as sizes:
                sizes.answered(SERVICE, 120 * ground.patience)
                for name in sizes.exits:
                    tell(measured(sizes, world, name))
                sizes.answered(SERVICE, 120 * ground.patience)
                assert_load_goes_whole(sizes, world)


def measured(sizes: Chain, world: World, name: str) -> str:
    """Assert what leaves an exit for a packet of just the computed size, and for one of a byte more."""
    settings = settings_of(sizes, name)
    fits, limit = settings["mtu"], settings["uplink"]["mtu"] or LINK_MTU
    container = sizes.container(f"exit-{name}")
    network = uplink_of(sizes, world, name)
    sender = address_in(container, network)
    interface = "ppp0" if settings["kind"] == "l2tp" else "vpn0"
    force = partial(world.inside, container, "ip", "link", "set", "dev", interface, "mtu")
    spare = SPARE if settings["kind"] == "wireguard" and not settings["uplink"]["via"] else 0
    whole = f"src {sender} and ip[2:2] <= {limit} and ip[2:2] > {limit - spare - BLOCK} and not ({IN_PIECES})"
    other = f"src {sender} and (ip[2:2] > {limit} or {IN_PIECES})"
    force(str(fits))
    with packets_on(world, network) as count:
        send(world, container, interface, fits)
        eventually(lambda: count(whole), 60, f"{name}: a packet of {fits} bytes leaves whole")
        assert not count(other), f"{name}: {fits} bytes do not fit {limit}"
    # The control: this is how a size that is too large would show.
    too_large = fits + spare + 1
    force(str(too_large))
    with packets_on(world, network) as count:
        send(world, container, interface, too_large)
        eventually(lambda: count(other), 60, f"{name}: a packet of {too_large} bytes leaves in pieces")
    force(str(fits))
    parent = settings["uplink"]["via"]
    through = f" through {settings_of(sizes, parent)['kind']}" if parent else ""
    return f"{settings['kind']}{through}: {fits} in {limit}"


def assert_load_goes_whole(sizes: Chain, world: World) -> None:
    networks = [uplink_of(sizes, world, name) for name in sizes.exits]
    with packets_on(world, networks[0]) as outer, packets_on(world, networks[1]) as inner:
        world.exec(SERVICE, "curl", "-sS", "-m", "100", "-o", "/dev/null", f"http://{INTERNET_HOST}/large", timeout=120)
        script = f"head -c 2000000 /dev/zero | curl -sS -m 100 --data-binary @- http://{INTERNET_HOST}/"
        world.exec(SERVICE, "sh", "-c", script, timeout=120)
        for count in (outer, inner):
            eventually(partial(count, f"ip[2:2] > {LINK_MTU - 300}"), 60, "large packets")
            assert not count(IN_PIECES)


def settings_of(sizes: Chain, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((sizes.folder / "run" / "exits" / name / "settings.json").read_text())
    return found


def uplink_of(sizes: Chain, world: World, name: str) -> str:
    """Name the network that an exit's outer packets leave by."""
    return f"{sizes.project}_via-{name}" if "via" in sizes.exits[name] else world.site.network("wan")


def send(world: World, container: str, interface: str, size: int) -> None:
    """Send a packet of this size into the tunnel, past the lock as the exit's own questions go; unanswered is well."""
    ping = ("ping", "-c", "2", "-i", "0.2", "-W", "1", "-M", "do", "-m", PROBE_MARK, "-I", interface)
    with suppress(RuntimeError):
        world.inside(container, *ping, "-s", str(size - HEADERS), INTERNET_HOST)

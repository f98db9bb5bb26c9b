"""All kinds of exits in one group: a client's traffic goes by each in turn, as the provider of the one before dies."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from scene import Chain, beside, brought_up, exit_at, new_token, stood_down
from world import INTERNET_HOST, Provider, World, docker, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground

pytestmark = [pytest.mark.docker, pytest.mark.long]

SERVICE = "client2"


@pytest.fixture(scope="module")
def providers(world: World, ground: Ground) -> dict[str, Provider]:
    """Each exit's provider, in the group's order. The first exit, of WireGuard, runs through the second, of Xray."""
    site = world.site
    found = {
        "nested": site.wireguard2,
        "xray": site.xray,
        "l2tp": site.l2tp,
        "openvpn": site.openvpn,
        "wireguard": site.wireguard,
    }
    return {name: provider for name, provider in found.items() if provider != site.l2tp or ground.l2tp}


@pytest.fixture(scope="module")
def kinds(chain: Chain, world: World, providers: dict[str, Provider]) -> Iterator[Chain]:
    exits: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    for name, provider in providers.items():
        exits[name], files = exit_at(world, name, provider, provider.outside if name == "nested" else provider.wan)
        secrets |= files
    del exits["nested"]["uplink"]
    exits["nested"]["via"] = "xray"
    made = beside(world, "kinds", 4, exits, secrets, groups={"default": {"exits": list(exits)}})
    with stood_down(chain), brought_up(made, SERVICE):
        try:
            yield made
        finally:
            for provider in providers.values():
                docker("start", world.container(provider.name))


def test_traffic_goes_by_each_kind_in_turn(
    kinds: Chain, world: World, providers: dict[str, Provider], ground: Ground, tell: Callable[[str], None]
) -> None:
    causes = []
    for name, provider in providers.items():
        eventually(partial(goes_by, kinds, name), 60 * ground.patience, f"clients go by {name}")
        carries(kinds, world, provider.outside, pings=kinds.exits[name]["kind"] != "xray")
        if name != list(providers)[-1]:
            docker("kill", world.container(provider.name))
            eventually(partial(closed, kinds, name), 60 * ground.patience, f"{name} is closed")
            causes.append(f"{name:10} {exit_of(kinds, name)['cause']}")
    tell("\n".join(causes))
    for provider in providers.values():
        docker("start", world.container(provider.name))
    first = next(iter(providers))
    eventually(partial(goes_by, kinds, first), 120 * ground.patience, f"clients go by {first} again")
    carries(kinds, world, providers[first].outside, pings=True)


def carries(kinds: Chain, world: World, outside: str, *, pings: bool) -> None:
    """Assert that UDP, TCP, names and pings of a client all leave by one provider."""
    assert kinds.answered(SERVICE)["seen"] == outside
    assert world.exec(SERVICE, "curl", "-sS", "-m", "60", f"http://{INTERNET_HOST}/").strip() == outside
    names = json.loads(world.exec(SERVICE, "python3", "client.py", "dns", "10.13.13.1", f"{new_token()}.example"))
    assert names == [INTERNET_HOST, outside]
    said = docker("exec", world.container(SERVICE), "ping", "-c", "2", "-W", "20", INTERNET_HOST, check=False)
    assert (" 0% packet loss" if pings else "Packet filtered") in said, said


def exit_of(chain: Chain, name: str) -> dict[str, Any]:
    return next((exit_ for exit_ in chain.entry_status().get("exits", ()) if exit_["name"] == name), {})


def closed(chain: Chain, name: str) -> bool:
    return exit_of(chain, name).get("open") is False


def goes_by(chain: Chain, name: str) -> bool:
    return any(group["exit"] == name for group in chain.entry_status().get("groups", ()))

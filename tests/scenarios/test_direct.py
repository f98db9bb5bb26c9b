"""A direct exit: out by the uplink under its own address, nothing private, and never in another one's stead."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from scene import Chain, beside, brought_up
from world import INTERNET_HOST, World, address_in, docker, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.docker, pytest.mark.long]

SERVICE = "client2"
OWN, ALLOWED = "192.168.77.7", "192.168.78.7"  # of the internet's host, which would answer


@pytest.fixture(scope="module")
def home(world: World) -> Iterator[Chain]:
    fields = {
        "kind": "direct",
        "allow": ["192.168.78.0/24"],
        "uplink": {"network": world.site.network("internet"), "gateway": INTERNET_HOST},
        "probe": {"targets": [INTERNET_HOST]},
    }
    made = beside(world, "home", 4, {"home": fields}, {}, groups={"default": {"exits": ["home"]}})
    with brought_up(made, SERVICE):
        yield made


def test_all_leaves_under_its_own_address(home: Chain, world: World) -> None:
    own = address_in(home.container("exit-home"), world.site.network("internet"))
    assert home.answered(SERVICE)["seen"] == own
    assert world.exec(SERVICE, "curl", "-sS", "-m", "60", f"http://{INTERNET_HOST}/").strip() == own
    assert " 0% packet loss" in world.exec(SERVICE, "ping", "-c", "3", "-W", "5", INTERNET_HOST)
    names = json.loads(world.exec(SERVICE, "python3", "client.py", "dns", "10.13.13.1", "a.example"))
    assert names == [INTERNET_HOST, own]


def test_private_networks_are_refused_unless_they_are_allowed(home: Chain, world: World) -> None:
    home.answered(SERVICE)
    world.inside(world.container("internet"), "ip", "address", "add", f"{OWN}/32", "dev", "lo")
    world.inside(world.container("internet"), "ip", "address", "add", f"{ALLOWED}/32", "dev", "lo")
    assert " 0% packet loss" in world.exec(SERVICE, "ping", "-c", "2", "-W", "5", ALLOWED)
    said = docker("exec", world.container(SERVICE), "ping", "-c", "1", "-W", "10", OWN, check=False, timeout=20)
    assert "Packet filtered" in said, said


def test_without_it_clients_are_refused(home: Chain, world: World) -> None:
    home.answered(SERVICE)
    docker("stop", "-t", "1", home.container("exit-home"))
    eventually(lambda: not home.is_open("home"), 60, "it is closed")
    before = home.refused()
    docker("exec", world.container(SERVICE), "ping", "-c", "1", "-W", "1", INTERNET_HOST, check=False)
    assert home.refused() > before
    docker("start", home.container("exit-home"))
    eventually(lambda: home.is_open("home"), 60, "it is open again")
    home.answered(SERVICE)

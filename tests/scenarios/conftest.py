"""The scenarios' ground: one engine, one world, one chain with two exits.

Natively both exits are WireGuard. With CHAIN_LAB_HOST set, the engine is the one in the virtual machine, whose kernel
has PPP and IPsec, and the preferred exit is L2TP/IPsec. CHAIN_FIRST_EXIT=xray makes that an Xray one, and =openvpn an
OpenVPN one. Folders lie where the engine sees them.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if lab := os.environ.get("CHAIN_LAB_HOST"):
    os.environ["DOCKER_HOST"] = lab  # before anything asks for an engine

from ground import Ground, here
from leftovers import alone, place, remove_leftovers
from scene import Chain, two_exits
from world import INTERNET_HOST, UNANSWERED, World

from chain.api import keys
from chain.engine.connection import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GROUND = here(lab, os.environ.get("CHAIN_FIRST_EXIT"))
PROJECTS = frozenset(
    {
        *("chain-yard", "chain-xrays", "chain-openvpns", "chain-hops", "chain-kinds", "chain-sizes"),
        *("chain-home", "chain-lone", "chain-refused", "chain-unwanted"),
        *("chain-line", "chain-yard_test", "chain-line_test", "chain-lone_test"),
    }
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about L2TP where no exit is L2TP, and what is about a kind that the first exit is not of."""
    left_out = [
        item
        for item in items
        if (item.get_closest_marker("l2tp") and not GROUND.l2tp)
        or (item.get_closest_marker("xray") and not GROUND.xray)
        or (item.get_closest_marker("openvpn") and not GROUND.openvpn)
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def ground() -> Ground:
    return GROUND


@pytest.fixture(scope="session")
def engine(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine on which no other run of the scenarios is, and nothing of an earlier one."""
    share = os.environ.get("CHAIN_LAB_SHARE")
    with alone(place()):
        remove_leftovers(
            Path(share) if share else tmp_path_factory.getbasetemp().parent, PROJECTS | {ground.site.project}
        )
        yield Engine()


@pytest.fixture(scope="session")
def docker_compose_project_name(ground: Ground) -> str:
    return ground.site.project


@pytest.fixture(scope="session")
def prepared_world(engine: Engine, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world's Compose file and keys; pytest-docker starts it."""
    share = os.environ.get("CHAIN_LAB_SHARE")
    folder = Path(share, f"world-{os.getpid()}") if share else tmp_path_factory.mktemp("world")
    prepared = World(
        folder,
        engine,
        with_l2tp=ground.l2tp,
        with_xray=True,
        with_openvpn=True,
        clients=("client", "client2"),
        site=ground.site,
        with_names=True,
    )
    prepared.build()
    prepared.prepare()
    yield prepared
    if share:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def docker_compose_file(prepared_world: World) -> str:
    return str(prepared_world.file)


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up -d --quiet-pull"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down -v --remove-orphans -t 1"]


@pytest.fixture(scope="session")
def world(prepared_world: World, docker_services: object) -> World:
    assert docker_services
    prepared_world.wait_until_ready()
    return prepared_world


@pytest.fixture(scope="session")
def chain(world: World, ground: Ground) -> Iterator[Chain]:
    """A chain that is up, with two exits, the preferred one first, and one connected client."""
    made = two_exits(world, ground)
    try:
        made.up()
        made.connect("phone")
        yield made
    finally:
        made.run("down", check=False)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Give a function that shows figures to who runs the tests, whether they pass or not."""

    def show(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return show


@pytest.fixture
def lone(engine: Engine, ground: Ground, tmp_path: Path) -> Iterator[Chain]:
    """A chain without a world: its entry comes up, its one exit dials where nobody answers."""
    share = os.environ.get("CHAIN_LAB_SHARE")
    folder = Path(share, f"lone-{os.getpid()}") if share else tmp_path
    key = keys.new_private_key()
    made = Chain(
        World(folder, engine, site=ground.site),
        folder / "project",
        exits={
            "oslo": {
                "kind": "wireguard",
                "endpoint": f"{UNANSWERED}:51820",
                "public_key": keys.public_key(key),
                "address": "10.66.0.2/32",
            }
        },
        secrets={"oslo_wg_private_key": key.reveal()},
        name="lone",
        extra={
            "entry": {"endpoint": "vpn.example.org", "port": 51822},
            "network": {"pool": "10.214.16.0/20"},
            "dns": {"upstreams": [INTERNET_HOST]},  # never asked: its exit stays closed
        },
    )
    try:
        yield made
    finally:
        made.run("down", check=False)
        if share:
            shutil.rmtree(folder)

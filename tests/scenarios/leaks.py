"""Tokens that a client sends and a provider pushes, and the search for them everywhere outside the tunnels."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from scene import Capture, Chain, capturing, downloading, new_token, pushing, streaming
from world import World, docker, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ground import Ground

RESTART_SECONDS = 10  # longer than a container takes to come back: what arrives meanwhile must not get past it
ENOUGH = 20  # packets refused before an exit opened


@contextmanager
def watched(
    world: World, chain: Chain, ground: Ground, *, restarting: bool = False
) -> Iterator[tuple[Capture, set[str]]]:
    """Send, push and capture while the block runs; give the capture and the set of bridges that may show the token."""
    token = new_token()
    internet = docker("network", "inspect", "-f", "{{.Id}}", world.site.network("internet"))[:12]
    allowed = {f"br-{internet}"} | chain.link_bridges()
    targets = []
    if not ground.xray:  # whose server can't begin anything
        targets.append(eventually(partial(_tunnel_address, chain), 60 * ground.patience, "paris has its tunnel"))
        if not ground.l2tp:  # a PPP server has no route to what is behind its customer
            targets.append("10.13.13.2")
    with (
        capturing(world, token) as capture,
        pushing(world, ground.preferred.name, token, ground.rate // 4, *targets, restarting=restarting),
        downloading(world, token, ground.rate, RESTART_SECONDS * ground.patience),
        streaming(world, token, ground.rate),
    ):
        yield capture, allowed
    assert capture.dropped == 0, "the capture lost packets: this run proves nothing"
    assert capture.seen.get(f"br-{internet}"), "the capture did not see the token where it must be"


def _tunnel_address(chain: Chain) -> str:
    """Give the address of `paris` in its tunnel; empty while there is none, though another exit may be used already."""
    exits = {exit_["name"]: exit_ for exit_ in chain.entry_status().get("exits", ())}
    return exits.get("paris", {}).get("tunnel_address") or ""


def assert_no_leak(capture: Capture, allowed: set[str]) -> None:
    assert capture.dropped == 0
    outside = capture.outside(allowed)
    assert not outside, f"leaked: {outside}\n{[capture.samples[place] for place in outside]}"


BARRIERS = ("lock", "peers", "mac", "forwarding")


def overlay(chain: Chain, removed: set[str]) -> str:
    """Write a Compose file that takes barriers away from a rendered chain; give its path."""
    folder = chain.folder / "sabotage"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text((Path(__file__).parent / "sabotage" / "sitecustomize.py").read_text())
    service = {
        "environment": {"SABOTAGE": ",".join(sorted(removed)), "PYTHONPATH": "/opt/sabotage:/opt/chain"},
        "volumes": [f"{folder}:/opt/sabotage:ro"],
        "sysctls": {"net.ipv4.ip_forward": "1" if "forwarding" in removed else "0"},
    }
    file = chain.folder / "sabotage.yaml"
    file.write_text(yaml.safe_dump({"services": dict.fromkeys(("entry", "exit-paris", "exit-oslo"), service)}))
    return str(file)


def leaked_through(world: World, chain: Chain, ground: Ground, kept: set[str], restarts: int) -> dict[str, int]:
    """Count tokens outside while only `kept` barriers stand, through restarts of exit and entry."""
    rendered = str(chain.folder / "run" / "compose.yaml")
    files = ["-f", rendered, "-f", overlay(chain, set(BARRIERS) - kept)]
    docker("compose", *files, "up", "-d", "--quiet-pull")
    chain.knock()
    chain.answered()
    counts = {}
    for service in ("exit-paris", "entry"):
        with watched(world, chain, ground) as (capture, allowed):
            for _ in range(restarts):
                docker("compose", *files, "restart", "-t", "1", service)
                chain.knock()
                chain.answered()
        counts[service] = sum(capture.outside(allowed).values())
    return counts

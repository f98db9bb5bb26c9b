"""New keys for IKE and ESP under traffic, beside a plain strongSwan pair with the same lifetimes."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from scene import new_token, streaming
from world import PROVIDERS, both_outputs, docker, eventually

from chain.engine import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground
    from scene import Chain
    from world import World

# Long: twenty times twenty seconds, for each version of IKE.
pytestmark = [pytest.mark.docker, pytest.mark.l2tp, pytest.mark.long, pytest.mark.rare]

TIMES = 20
IKE_SECONDS, ESP_SECONDS = 32, 24
RATE = 50
ENDS = {"server": 60, "client": 61}


def keys_made(container: str) -> dict[str, int]:
    """Count the IKE and ESP keys that a container's charon has agreed on."""
    words = both_outputs(container)
    return {
        # What IKEv1 establishes a second time, IKEv2 calls rekeyed; and it tells of either direction's ESP keys.
        "ike": len(re.findall(r"IKE_SA \S+ (?:established|rekeyed) between", words)),
        "esp": len(set(re.findall(r"CHILD_SA \S+ established with SPIs (\S+)", words))),
    }


def is_ready(container: str) -> bool:
    return "ready" in both_outputs(container)


@contextmanager
def plain_pair(world: World, version: int) -> Iterator[str]:
    """Connect two containers that have charon and nothing of a chain; give the name of the one that dials."""
    image = images.describe(["l2tp"], PROVIDERS)["l2tp"].name
    address = {role: f"{world.site.wan_net}.{number}" for role, number in ENDS.items()}
    name = {role: f"{world.site.project}-pair-{role}" for role in ENDS}
    options = ("--cap-drop=ALL", "--cap-add=NET_ADMIN", "--cap-add=NET_BIND_SERVICE", "--init", "-d")
    try:
        for role, other in (("server", "client"), ("client", "server")):
            place = ("--name", name[role], "--network", world.site.network("wan"), "--ip", address[role])
            lifetimes = (str(IKE_SECONDS), str(ESP_SECONDS)) if role == "client" else ("14400", "3600")
            docker(
                "run",
                *options,
                "--entrypoint=python3",
                *place,
                image,
                "pair.py",
                role,
                address[other],
                str(version),
                *lifetimes,
            )
            eventually(partial(is_ready, name[role]), 120, f"the pair's {role} is ready")
        yield name["client"]
    finally:
        docker("rm", "-f", *name.values(), check=False)


@contextmanager
def streaming_beside(container: str, target: str) -> Iterator[dict[str, Any]]:
    """Send numbered packets from a container's network while the block runs."""
    toolbox = images.describe(["toolbox"], PROVIDERS)["toolbox"].name
    name = f"{container}-stream"
    stream = ("client.py", "stream", target, "7", str(RATE), "3600", new_token())
    process = subprocess.Popen(
        ["docker", "run", "--rm", "--name", name, "--network", f"container:{container}", toolbox, *stream],
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = {}
    eventually(lambda: docker("exec", name, "cat", "/tmp/stream.pid", check=False).strip(), 120, "the pair's stream")
    try:
        yield found
    finally:
        docker("exec", name, "sh", "-c", "kill -TERM $(cat /tmp/stream.pid)")
        output, _ = process.communicate(timeout=60)
        found.update(json.loads(output))


@pytest.fixture
def short_lived(chain: Chain) -> Iterator[Chain]:
    text = chain.file.read_text()
    yield chain
    chain.file.write_text(text)
    chain.up()


@pytest.mark.parametrize("version", [1, 2])
def test_new_keys_cost_no_packet(
    short_lived: Chain, world: World, ground: Ground, tell: Callable[[str], None], version: int
) -> None:
    chain = short_lived
    config = yaml.safe_load(chain.file.read_text())
    config["exits"]["paris"] |= {
        "ike": {"version": version, "lifetime": f"{IKE_SECONDS}s"},
        "esp": {"lifetime": f"{ESP_SECONDS}s"},
    }
    chain.file.write_text(yaml.safe_dump(config, sort_keys=False))
    chain.up()
    assert chain.answered()["seen"] == ground.preferred.outside
    exit_ = chain.container("exit-paris")
    server = f"{world.site.wan_net}.{ENDS['server']}"
    with plain_pair(world, version) as client:
        before = keys_made(exit_), keys_made(client)

        def new_keys() -> list[dict[str, int]]:
            now = keys_made(exit_), keys_made(client)
            return [{kind: count[kind] - old[kind] for kind in count} for count, old in zip(now, before, strict=True)]

        with streaming_beside(client, server) as plain, streaming(world, new_token(), RATE) as chained:
            eventually(
                lambda: all(min(counts.values()) >= TIMES for counts in new_keys()),
                TIMES * IKE_SECONDS * 2,
                f"{TIMES} new keys for each",
            )
            counted = new_keys()
    tell(f"IKEv{version}: the chain {counted[0]} {chained}\n       a plain pair {counted[1]} {plain}")
    assert chained["seen"] == [ground.preferred.outside]
    assert chained["lost"] <= plain["lost"]

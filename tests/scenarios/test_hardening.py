"""Each container has what it needs and nothing more; what it needs is found out by taking it away."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from scene import new_token, streaming
from world import both_outputs, docker, eventually

from chain.agent.damping import BURST, REFILL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ground import Ground
    from scene import Chain
    from world import World

pytestmark = pytest.mark.docker

SOMEBODY = 12345  # a user whom no container knows
CAP_DAC_OVERRIDE, CAP_NET_ADMIN = 1, 12

# What a container says, or does not do, without each capability.
BREAKS = {
    "NET_ADMIN": "the lock can't be loaded",  # so nothing else is done
    "DAC_OVERRIDE": "can't be read",  # a secret of another user's, mode 0600
    "NET_RAW": "Operation not permitted",  # the agent's socket for what it sends in others' names
    "NET_BIND_SERVICE": "charon",  # which insists on it for port 500
}

# Compose merges lists unless it is told otherwise.
OVERLAY = """\
services:
  {service}:
    restart: "no"
    cap_add: !override {rest}
    healthcheck: !reset null
"""


def rendered(chain: Chain) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((chain.folder / "run" / "compose.yaml").read_text())["services"]
    return found


def process_status(chain: Chain, service: str, world: World) -> dict[str, str]:
    """Read /proc/PID/status of a container's runtime, which init has started."""
    pid = docker("inspect", "-f", "{{.State.Pid}}", chain.container(service)).strip()
    text = world.exec(
        "observer", "sh", "-c", f"cat /proc/$(cat /proc/{pid}/task/{pid}/children | cut -d' ' -f1)/status"
    )
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


# What a strangers' program would do in an exit: say as fast as it can that the tunnel is up, and that it is not.
FLOOD = """
import json, socket, sys, time
entry, own, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
said = {"exit": "x", "since": 1, "cause": "flood", "version": 1}
lines = [json.dumps(said | {"state": state}) for state in ("up", "down")]
end = time.monotonic() + seconds
while time.monotonic() < end:
    with socket.socket() as channel:
        channel.bind((own, 0))
        try:
            channel.connect((entry, 7411))
            while time.monotonic() < end:
                channel.sendall("".join(line + chr(10) for line in lines).encode())
        except OSError:
            pass
"""


@pytest.mark.long
def test_an_exit_that_comes_and_goes_all_the_while_keeps_nobody_from_the_others(
    chain: Chain, world: World, ground: Ground
) -> None:
    eventually(lambda: chain.answered()["seen"] == ground.preferred.outside, 120 * ground.patience, "paris is used")
    entry = chain.container("entry")
    restarts = docker("inspect", "-f", "{{.RestartCount}}", entry)
    link = json.loads((chain.folder / "run" / "exits" / "oslo" / "settings.json").read_text())["link"]
    before = both_outputs(entry).count("exit oslo: open")
    with streaming(world, new_token(), 100) as figures:
        seconds = str(5 * ground.patience)
        world.inside(
            chain.container("exit-oslo"), "python3", "-c", FLOOD, link["sender_address"], link["exit_address"], seconds
        )
    assert figures["lost"] == 0
    assert docker("inspect", "-f", "{{.RestartCount}}", entry) == restarts
    opened = both_outputs(entry).count("exit oslo: open") - before
    assert 2 < opened <= BURST + 2 + 5 * ground.patience / REFILL_SECONDS, "it came and went, and was held back"
    eventually(lambda: chain.is_open("oslo"), 60 * ground.patience, "oslo is open again")


def test_the_entry_listens_only_to_those_who_may_change_its_network(chain: Chain) -> None:
    """A resolver that strangers have taken over gains nothing by the socket that `docker exec` uses."""
    ask = "from chain.node.control import ask; print(ask({'verb': 'status'}))"
    powerless = f"from chain.node import caps; caps.drop({CAP_NET_ADMIN}); {ask}"
    asked = partial(docker, "exec", chain.container("entry"), "python3", "-c")
    assert "generation" in asked(ask)
    assert "only a process with NET_ADMIN may ask" in asked(powerless)


@pytest.mark.parametrize("service", ["entry", "exit-paris", "exit-oslo"])
def test_what_a_container_may_do(world: World, chain: Chain, service: str) -> None:
    chain.answered()
    status = process_status(chain, service, world)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"  # a filter: the engine's default
    capabilities = int(status["CapEff"], 16)
    assert capabilities & 1 << CAP_NET_ADMIN
    if service != "entry":  # which reads keys of clients that come later
        assert not capabilities & 1 << CAP_DAC_OVERRIDE
    name = chain.container(service)
    host: str = docker("inspect", "-f", "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}}", name).strip()
    assert host == "true false"
    limits = docker("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", name).split()
    assert all(int(limit) > 0 for limit in limits)
    assert "docker.sock" not in docker("inspect", name)
    assert docker("exec", name, "sh", "-c", "ulimit -c").strip() == "0"
    assert docker("exec", name, "sh", "-c", "echo x >/etc/x && echo written || true").strip() == ""


def test_the_whole_chain_fits_512_mb(chain: Chain) -> None:
    names = [chain.container(service) for service in rendered(chain)]
    limits = docker("inspect", "-f", "{{.HostConfig.Memory}}", *names).split()
    assert sum(map(int, limits)) <= 512 << 20


@pytest.fixture
def odd_owner(chain: Chain) -> Iterator[None]:
    """Secrets that belong to a user whom no container knows, readable by nobody else, as a self-hoster's are."""
    files = [path for path in (chain.folder / "secrets").rglob("*") if path.is_file()]
    owners = {path: path.stat().st_uid for path in files}
    for path in files:
        os.chown(path, SOMEBODY, -1)
    try:
        yield
    finally:
        for path, owner in owners.items():
            os.chown(path, owner, -1)


@pytest.mark.usefixtures("odd_owner")
@pytest.mark.long
def test_each_capability_is_needed(chain: Chain, ground: Ground) -> None:
    file = chain.folder / "run" / "compose.yaml"
    overlay = chain.folder / "capabilities.yaml"
    # One container of each image; in emulation only the one that is not tried natively.
    services = ["exit-paris"] if ground.l2tp else ["entry", "exit-oslo"]
    table = []
    try:
        chain.run("up")
        for service in services:
            capabilities = rendered(chain)[service]["cap_add"]
            for missing in capabilities:
                rest = [name for name in capabilities if name != missing]
                overlay.write_text(OVERLAY.format(service=service, rest=rest))
                docker("compose", "-f", str(file), "-f", str(overlay), "up", "-d", "--no-deps", service)
                if missing == "NET_RAW":  # which the agent only needs when an exit dies that carried something
                    eventually(lambda: "oslo" in open_exits(chain), 60 * ground.patience, "an exit is open")
                    docker("kill", chain.container("exit-oslo"))
                wanted = partial(complaint, chain, service, BREAKS[missing])
                said = eventually(wanted, 60 * ground.patience, f"{service} misses {missing}")
                table.append(f"{service:12} without {missing:18} {said}")
                assert not any(f"exit-{name}" == service for name in open_exits(chain))
    finally:
        chain.up()
        chain.knock()
    print("\n".join(["", *table]))  # noqa: T201 - for whoever runs it with -s
    chain.answered()


def open_exits(chain: Chain) -> list[str]:
    return [exit_["name"] for exit_ in chain.entry_status().get("exits", ()) if exit_["open"]]


def complaint(chain: Chain, service: str, words: str) -> str:
    lines = docker("compose", "-p", chain.project, "logs", "--no-log-prefix", service, check=False).splitlines()
    return next((line for line in lines if words in line and _is_trouble(line)), "")


def _is_trouble(line: str) -> bool:
    return any(word in line for word in ("ends", "not", "fail", "can't", "denied", "permit"))

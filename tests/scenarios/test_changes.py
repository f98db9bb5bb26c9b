"""What changes in chain.yaml, or beside it, reaches a running chain; what does not is left as it was."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from world import INTERNET_HOST, docker, eventually

from chain.api import keys
from chain.api.project import write_atomic
from chain.engine import images
from chain.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ground import Ground
    from scene import Chain
    from world import World

    from chain.engine.connection import Engine

pytestmark = [pytest.mark.docker, pytest.mark.long]

UP = ("up", "--json", "--wait", "240")


@pytest.fixture
def changed(chain: Chain, world: World) -> Iterator[Chain]:
    """The chain, brought back at the end to what it was."""
    key = chain.folder / "secrets" / "entry_private_key"
    text, private = chain.file.read_text(), key.read_text()
    yield chain
    chain.file.write_text(text)
    if key.read_text() != private:
        write_atomic(key, private, 0o600)
    chain.up()
    dress(world, chain)


def dress(world: World, chain: Chain) -> None:
    """Give the client its configuration as the chain shows it now."""
    config = json.loads(chain.run("client", "show", "phone", "--json").stdout)["config"]
    world.exec("client", "ip", "address", "flush", "dev", "wg0")
    world.exec("client", "python3", "client.py", "up", stdin=config)
    chain.knock()


def test_a_clients_network_and_an_entrys_key_that_are_new(changed: Chain, world: World, ground: Ground) -> None:
    config = yaml.safe_load(changed.file.read_text())
    config["entry"] |= {"subnet": "10.13.14.0/24", "mtu": 1300}
    config["clients"]["phone"]["address"] = "10.13.14.2"
    changed.file.write_text(yaml.safe_dump(config, sort_keys=False))
    write_atomic(changed.folder / "secrets" / "entry_private_key", keys.new_private_key().reveal() + "\n", 0o600)
    steps = json.loads(changed.run(*UP).stdout)["steps"]
    assert any(step.startswith("compose up") for step in steps), steps
    dress(world, changed)
    assert changed.answered()["seen"] == ground.preferred.outside
    names = json.loads(world.exec("client", "python3", "client.py", "dns", "10.13.14.1", "a.example"))
    assert names == [INTERNET_HOST, ground.preferred.outside]
    assert json.loads(changed.run(*UP).stdout)["steps"] == []


def test_a_client_that_comes_brings_no_other_change_with_it(changed: Chain, ground: Ground) -> None:
    changed.answered()
    before = changed.entry_status()
    config = yaml.safe_load(changed.file.read_text())
    config |= {"network": {"pool": "10.214.32.0/20"}, "groups": {"far": {"exits": ["oslo"]}}}
    changed.file.write_text(yaml.safe_dump(config, sort_keys=False))
    refused = changed.run("client", "add", "tablet", "--group", "far", check=False)
    assert (refused.returncode, "`chain up`" in refused.stderr) == (ExitCode.CONFIG, True)
    assert not list(changed.folder.glob("secrets/*/tablet"))
    try:
        changed.connect("tablet", "client2")
        assert changed.answered()["seen"] == changed.answered("client2")["seen"] == ground.preferred.outside
        after = changed.entry_status()
        assert after["groups"] == before["groups"]
        assert [client["name"] for client in after["clients"]] == ["phone", "tablet"]
        assert "chain.yaml has changed since" in changed.run("status").stdout
    finally:
        changed.run("client", "remove", "tablet", check=False)
    assert [client["name"] for client in changed.entry_status()["clients"]] == ["phone"]


def test_a_client_whose_key_is_missing_is_kept_out_loudly_until_it_is_back(changed: Chain) -> None:
    changed.answered()
    peer = changed.folder / "secrets" / "peers" / "phone"
    key = peer.read_text()
    peer.unlink()
    try:
        warned = changed.run("client", "add", "tablet")
        assert "warning: client phone: it is kept out" in warned.stderr
        assert "client tablet" not in warned.stderr
        assert "warning: client phone: it is kept out" in changed.run("status").stderr
        refused = changed.run("up", check=False)
        assert (refused.returncode, str(peer) in refused.stderr) == (ExitCode.CONFIG, True)
    finally:
        write_atomic(peer, key, 0o600)
    assert json.loads(changed.run(*UP).stdout)["steps"] == ["apply entry: kept out so far: phone"]
    assert changed.run("client", "remove", "tablet").stderr == ""
    changed.knock()
    assert json.loads(changed.run(*UP).stdout)["steps"] == []


@contextmanager
def built_anew(image: str) -> Iterator[None]:
    """Have an image's name stand for another one of the same contents, as after `chain build --fresh`.

    With buildx's own settings, which on current engines give an image of several parts.
    """
    before = "chain-test-before"  # an engine forgets what has no name
    docker("tag", image, before)
    try:
        docker("buildx", "build", "--load", "-t", image, "-", stdin=f"FROM {image}\nLABEL chain.test=anew\n")
        yield
    finally:
        docker("tag", before, image)
        docker("image", "rm", before)


def test_images_that_were_built_anew_are_taken_over(lone: Chain) -> None:
    lone.run("up", "--wait", "0", check=False)
    with built_anew(images.describe(["exit-wireguard"])["exit-wireguard"].name):
        anew = "compose up: images were built anew: exit-oslo; made anew: exit-oslo\n"
        assert lone.run("up", "--dry-run").stdout == anew
        lone.run("up", "--wait", "0", check=False)
        assert lone.run("up", "--dry-run").stdout == "Nothing has to change.\n"


def test_an_image_that_is_built_again_of_the_same_is_the_same(engine: Engine, lone: Chain) -> None:
    lone.run("build")
    name = images.describe(["exit-wireguard"])["exit-wireguard"].name
    (lone.folder / "Dockerfile").write_text(f"FROM {name}\nLABEL chain.test=again\n")
    found = set()
    try:
        for _ in range(2):
            engine.build(
                lone.folder,
                tag="chain-test-again",
                contexts={},
                arguments={},
                labels={},
                secrets=[],
                cache=True,
                progress=lambda _: None,
            )
            found.add(engine.image_id("chain-test-again"))
    finally:
        docker("image", "rm", "chain-test-again", check=False)
    assert len(found) == 1


def test_a_client_whose_configuration_nobody_could_read_comes_in_all_the_same(lone: Chain) -> None:
    lone.run("up", "--wait", "0", check=False)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            lone.command("client", "add", "phone"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == ExitCode.FAILED
    assert "its configuration could not be printed" in done.stderr
    assert "Traceback" not in done.stderr
    assert [client["name"] for client in lone.entry_status()["clients"]] == ["phone"]


def test_down_needs_no_chain_yaml_that_is_right(lone: Chain) -> None:
    lone.run("up", "--wait", "0", check=False)
    text = lone.file.read_text()
    lone.file.write_text("odd: 1\n" + text.replace("name: lone", "name: renamed"))
    try:
        assert lone.run("down").stdout.startswith("Removed ")
        label = f"label=com.docker.compose.project={lone.project}"
        assert docker("ps", "-aq", "--filter", label) == docker("network", "ls", "-q", "--filter", label) == ""
    finally:
        lone.file.write_text(text)


def test_an_image_that_no_registry_gives_is_told(engine: Engine) -> None:
    assert not engine.pull("127.0.0.1:9/none:latest")


def test_packages_are_as_old_as_their_layer(engine: Engine, lone: Chain) -> None:
    lone.run("build")
    name = images.describe(["entry"])["entry"].name
    made = datetime.fromisoformat(docker("image", "inspect", "-f", "{{.Created}}", name).strip()).timestamp()
    assert 0 < engine.packages_time(name) <= made + 1


GROUPS = 20


def test_the_entry_has_room_for_the_resolvers_of_many_groups(lone: Chain) -> None:
    groups = {f"group{number}": {"exits": ["oslo"]} for number in range(1, GROUPS)}
    lone.file.write_text(yaml.safe_dump(yaml.safe_load(lone.file.read_text()) | {"groups": groups}))
    lone.run("up", "--wait", "0", check=False)
    entry = lone.container("entry")

    def resolvers() -> int:
        return docker("top", entry, "-eo", "pid,comm").split().count("unbound")

    eventually(lambda: resolvers() == GROUPS, 60, "all resolvers run")
    assert docker("inspect", "-f", "{{.RestartCount}} {{.State.OOMKilled}}", entry).split() == ["0", "false"]
    limit, taken = (
        int(docker("inspect", "-f", "{{.HostConfig.Memory}}", entry)),
        docker("stats", "--no-stream", "--format", "{{.MemUsage}}", entry),
    )
    assert limit == 640 * 1024**2  # 24 further groups have room
    assert taken.partition("MiB")[1], taken
    assert float(taken.partition("MiB")[0]) < 0.75 * limit / 1024**2

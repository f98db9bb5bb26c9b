"""What can't work is refused before anything is touched, and the message says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from scene import REPOSITORY, Chain
from world import docker, l2tp_exit

from chain.api import keys
from chain.api.progress import Silent
from chain.api.project import Project, write_atomic
from chain.api.up import build_images
from chain.engine import images
from chain.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ground import Ground
    from world import World

    from chain.engine.connection import Engine

pytestmark = pytest.mark.docker


def test_an_l2tp_exit_where_the_kernel_can_not(world: World, engine: Engine, ground: Ground) -> None:
    made = Chain(
        world,
        world.folder / "refused",
        exits={"oslo": l2tp_exit(ground.site.l2tp)},
        secrets={f"oslo_{role}": value for role, value in world.l2tp_secrets().items()},
        name="refused",
    )
    made.run("build")
    entry = images.describe(["entry"])["entry"].name
    kernel = json.loads(engine.run_check(entry, ["check-kernel", "ppp", "l2tp", "xfrm", "esp"]))
    assert all(kernel.values()) or not ground.l2tp, f"the check finds too little in the virtual machine: {kernel}"
    if all(kernel.values()):
        return  # a kernel that can refuses nothing; there L2TP itself is tested
    done = made.run("up", check=False)
    assert done.returncode == ExitCode.ENGINE
    for check, module in (("ppp", "ppp_generic"), ("l2tp", "l2tp_ppp"), ("xfrm", "xfrm_user"), ("esp", "esp4")):
        assert (module in done.stderr) is not kernel[check], done.stderr
    assert "modprobe" in done.stderr
    assert "linux-image-amd64" in done.stderr
    assert not (made.folder / "run").exists()
    label = f"label=com.docker.compose.project={made.project}"
    assert docker("ps", "-aq", "--filter", label) == docker("network", "ls", "-q", "--filter", label) == ""


PORT, POOL, INSIDE_POOL = 51829, "10.219.0.0/20", "10.219.0.0/24"
HOLD = """\
import socket, sys
held = socket.socket(type=socket.SOCK_DGRAM)
held.bind(("127.0.0.1", int(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


class Refused:
    """A chain that is never started: a WireGuard exit, whose provider nobody asks."""

    def __init__(self, folder: Path, image: str) -> None:
        self.name, self.image = "unwanted", image
        self.project = Project(folder / "chain.yaml")
        self.write()
        self.project.secrets.mkdir()
        write_atomic(self.project.secrets / "wg_private_key", keys.new_private_key().reveal() + "\n", 0o600)

    def write(self, **fields: Any) -> None:
        server = {"endpoint": "198.51.100.7", "public_key": keys.public_key(keys.new_private_key())}
        config = {
            "name": self.name,
            "entry": {"endpoint": "198.51.100.8", "port": PORT},
            "network": {"pool": POOL},
            "exits": {"oslo": {"kind": "wireguard", "address": "10.64.12.7/32"} | server},
        }
        self.project.file.write_text(yaml.safe_dump(config | fields))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "chain", *arguments, "-f", str(self.project.file)]
        return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False, timeout=600)

    def refused(self, code: ExitCode, *words: str) -> None:
        """Check that `up` ends with this code, says all these words, and has touched nothing."""
        before = sorted(path.name for path in self.project.root.rglob("*"))
        done = self.run("up")
        assert done.returncode == code, done.stderr
        for word in words:
            assert word in done.stderr
        assert sorted(path.name for path in self.project.root.rglob("*")) == before
        assert not self.project.run.exists()
        label = f"label=com.docker.compose.project=chain-{self.name}"
        assert docker("ps", "-aq", "--filter", label) == docker("network", "ls", "-q", "--filter", label) == ""

    def findings(self) -> dict[str, dict[str, str]]:
        """Ask the doctor; of many findings of one name, give the last."""
        return {found["name"]: found for found in json.loads(self.run("doctor", "--json").stdout)["findings"]}

    def host_options(self, program: str) -> list[str]:
        """Give what makes `docker run` start a program in the network of the engine's host."""
        return ["--network", "host", "--cap-add", "NET_ADMIN", "--entrypoint", program, self.image]

    def on_host(self, program: str, *arguments: str) -> None:
        docker("run", "--rm", *self.host_options(program), *arguments)


@pytest.fixture(scope="session")
def entry_image(engine: Engine) -> str:
    described = images.describe(["entry"])
    build_images(described, engine, Silent())
    return described["entry"].name


@pytest.fixture
def unwanted(tmp_path: Path, entry_image: str) -> Refused:
    return Refused(tmp_path, entry_image)


@contextmanager
def removing(kind: str, name: str) -> Iterator[None]:
    """Remove a container or a network at the end, whatever became of it."""
    try:
        yield
    finally:
        docker(kind, "rm", *(("-f",) if kind == "container" else ()), name, check=False)


@contextmanager
def holding(unwanted: Refused) -> Iterator[None]:
    """Have a program of the engine's host hold the port."""
    process = subprocess.Popen(
        ["docker", "run", "--rm", "-i", *unwanted.host_options("python3"), "-c", HOLD, str(PORT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None or process.stdout.readline() != "held\n":
            raise AssertionError("the port could not be taken")
        yield
    finally:
        process.communicate(timeout=60)  # closes its input, at which it ends


@pytest.mark.long
def test_a_port_that_a_program_of_the_host_has(unwanted: Refused) -> None:
    with holding(unwanted):
        unwanted.refused(ExitCode.ENGINE, f"{PORT}/udp of the engine's host is taken by another program", "port: …")
        found = unwanted.findings()["entry.port"]
        assert (found["level"], f"sport = :{PORT}" in found["fix"]) == ("fail", True)
    assert unwanted.findings()["entry.port"]["level"] == "ok"


@pytest.mark.long
def test_a_port_that_another_container_has(unwanted: Refused) -> None:
    name = "chain-test-publisher"
    with removing("container", name):
        publish = ("-d", "--name", name, "-p", f"{PORT}:9/udp", "--entrypoint", "sleep")
        docker("run", *publish, unwanted.image, "3600")
        unwanted.refused(ExitCode.ENGINE, f"{PORT}/udp of the engine's host is taken by container {name}")


@pytest.mark.long
def test_another_docker_networks_addresses_and_all_else_at_once(unwanted: Refused) -> None:
    name = "chain-test-overlap"
    with removing("network", name), holding(unwanted):
        docker("network", "create", "--subnet", INSIDE_POOL, name)
        unwanted.refused(ExitCode.ENGINE, f"Docker network {name} ({INSIDE_POOL})", "is free there", "another program")


@pytest.mark.long
def test_addresses_to_which_the_host_has_a_route(unwanted: Refused) -> None:
    route = ("route", "replace", INSIDE_POOL, "dev", "lo")
    unwanted.on_host("ip", *route)
    try:
        unwanted.refused(ExitCode.ENGINE, f"the host's route to {INSIDE_POOL} (dev lo)", "is free there")
    finally:
        unwanted.on_host("ip", "route", "delete", *route[2:])
    assert unwanted.findings()["network.pool"]["level"] == "ok"


@pytest.mark.long
def test_the_network_that_is_suggested_is_one_that_the_engine_takes(unwanted: Refused) -> None:
    name, free = "chain-test-overlap", "chain-test-free"
    with removing("network", name), removing("network", free):
        docker("network", "create", "--subnet", INSIDE_POOL, name)
        suggested = unwanted.findings()["network.pool"]["fix"].partition("pool: ")[2].partition("}")[0]
        docker("network", "create", "--subnet", suggested, free)


@pytest.mark.long
def test_a_name_under_which_another_folder_runs_a_chain(unwanted: Refused) -> None:
    name = "chain-test-namesake"
    with removing("container", name):
        labels = {
            "chain.name": unwanted.name,
            "com.docker.compose.project": "somebody-elses",
            "com.docker.compose.project.working_dir": "/srv/other/run",
        }
        options = [option for label, value in labels.items() for option in ("--label", f"{label}={value}")]
        docker("create", "--name", name, *options, unwanted.image)
        unwanted.refused(ExitCode.CONFIG, f"name: {unwanted.name}: a chain of this name runs from /srv/other/run")
        assert unwanted.findings()["name"]["level"] == "fail"


@pytest.mark.long
def test_a_file_in_the_way_of_a_folder(unwanted: Refused) -> None:
    (unwanted.project.secrets / "peers").write_text("")
    unwanted.refused(ExitCode.CONFIG, "this is no folder", "move it away")


@pytest.mark.long
def test_the_doctor_sees_this_engine_and_its_host(unwanted: Refused) -> None:
    done = unwanted.run("doctor")
    assert done.returncode == ExitCode.OK, done.stdout
    found = unwanted.findings()
    assert {found[name]["level"] for name in ("engine", "compose", "buildx", "entry.port", "network.pool")} == {"ok"}
    assert {found[name]["level"] for name in ("clock", "ip_forward", "rp_filter")} == {"ok"}
    assert found["entry.endpoint"]["found"] == "198.51.100.8 is an address for documentation, nobody's"
    assert not unwanted.project.run.exists()
    unwanted.write(odd=1)
    found = unwanted.findings()
    assert [found[name]["level"] for name in ("configuration", "entry.port", "clock")] == ["fail", "unchecked", "ok"]

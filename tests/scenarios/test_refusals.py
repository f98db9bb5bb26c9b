"""What can't work is refused before anything is touched, and the message says what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from scene import Chain
from world import docker, l2tp_exit

from chain.engine import images
from chain.errors import ExitCode

if TYPE_CHECKING:
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

"""A copy of `config/` and `secrets/` is the whole chain: an engine that has seen nothing of it gives the same one."""

from __future__ import annotations

import shutil
from copy import copy
from typing import TYPE_CHECKING

import pytest
from world import docker

if TYPE_CHECKING:
    from ground import Ground
    from scene import Chain

pytestmark = pytest.mark.docker


@pytest.mark.long
def test_a_copy_of_config_and_secrets_gives_the_same_chain(chain: Chain, ground: Ground) -> None:
    chain.answered()
    before = chain.status()
    chain.down()
    label = f"label=com.docker.compose.project={chain.project}"
    assert docker("volume", "ls", "-q", "--filter", label) == ""
    folder = chain.folder.with_name("restored")
    folder.mkdir()
    for name in ("config", "secrets"):
        shutil.copytree(chain.folder / name, folder / name)
    try:
        restored = copy(chain)
        restored.folder = folder
        restored.run("up", "--wait", "240")
        chain.knock()  # with the configuration that the client has had all along
        assert chain.answered()["seen"] == ground.preferred.outside
        after = restored.status()
        assert [client["address"] for client in after["clients"]] == [client["address"] for client in before["clients"]]
        assert after["generation"] == before["generation"]
        restored.run("down")
    finally:
        shutil.rmtree(folder)
        chain.up()
        chain.knock()

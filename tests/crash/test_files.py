"""A command that is killed before any of its acts on files leaves whole files, and the next one ends well."""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING

import pytest
import yaml

from chain.api import clients, importing, render
from chain.api.load import load
from chain.api.project import Project
from chain.engine.connection import Engine
from chain.errors import ChainError
from tests.crash.sitecustomize import arm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ENGINE = Engine()  # asks nothing until it has to
CONFIG = "entry: {endpoint: vpn.example.org}\nexits:\n  paris: {kind: l2tp}\n"
OSLO = "  oslo: {kind: l2tp, server: 203.0.113.7}\n"


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[int], Project]:
    """Make one project folder after another."""

    def make(number: int) -> Project:
        file = tmp_path / str(number) / "config" / "chain.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(CONFIG)
        return Project(file)

    return make


def ends(number: int, command: Callable[[Project], object], project: Project) -> bool:
    """Run a command in a process that is killed before its act of this number; tell whether it got to its end."""
    child = os.fork()
    if child == 0:
        try:
            arm(number, str(project.root))
            command(project)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


def each_killed(
    fresh: Callable[[int], Project], prepare: Callable[[Project], object], command: Callable[[Project], object]
) -> Iterator[Project]:
    """Give the projects of commands that were killed, each one act later than the one before, and one that was not."""
    leftovers = 0
    for number in itertools.count(1):
        project = fresh(number)
        prepare(project)
        done = ends(number, command, project)
        leftovers += len(temporaries(project))
        assert_whole(project)
        yield project
        assert not temporaries(project), "the next command leaves what the killed one left"
        if done:
            break
    assert number > 5
    assert leftovers, "no temporary file was ever left: this proves little"


def temporaries(project: Project) -> list[Path]:
    return list(project.root.rglob("*.part"))


def assert_whole(project: Project) -> None:
    """Check that what stands under its own name is whole, and that what is secret is for its owner alone."""
    for path in project.root.rglob("*"):
        if path.is_dir():
            assert path.stat().st_mode & 0o777 == (0o700 if path in private_folders(project) else 0o755)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".yaml":
            assert yaml.safe_load(path.read_text())
        elif project.secrets in path.parents:
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.suffix == ".part" or len(path.read_text()) == 45  # a key and the line's end


def private_folders(project: Project) -> set[Path]:
    return {project.secrets, project.client_keys, project.peer_keys, project.run}


def add(project: Project) -> object:
    return clients.add(project, ENGINE, "phone", None)


def remove(project: Project) -> None:
    clients.remove(project, ENGINE, "phone")
    clients.forget(project, ENGINE, "phone")


def write(project: Project) -> None:
    render.write(project, ENGINE, None)


def keys_of(project: Project) -> list[str]:
    return sorted(path.name for folder in (project.client_keys, project.peer_keys) for path in folder.iterdir())


def test_client_add(fresh: Callable[[int], Project]) -> None:
    for project in each_killed(fresh, lambda _: None, add):
        if "phone" in load(project, ENGINE).config.clients:
            with pytest.raises(ChainError, match="this client exists"):
                add(project)
        else:
            add(project)
        assert clients.show(load(project, ENGINE), "phone").address == "10.13.13.2"  # its keys match chain.yaml
        assert keys_of(project) == ["phone", "phone"]


def test_client_remove(fresh: Callable[[int], Project]) -> None:
    for project in each_killed(fresh, add, remove):
        if "phone" in load(project, ENGINE).config.clients or keys_of(project):
            remove(project)
        else:
            with pytest.raises(ChainError, match="no such client"):
                remove(project)
        assert not load(project, ENGINE).config.clients
        assert not keys_of(project)
        add(project)


def lose_an_exit(project: Project) -> None:
    """Render with an exit that chain.yaml then loses, so that there is something to remove."""
    project.file.write_text(CONFIG + OSLO)
    write(project)
    project.file.write_text(CONFIG)


def test_render(fresh: Callable[[int], Project]) -> None:
    for project in each_killed(fresh, lambda _: None, write):
        write(project)
        files = load(project, ENGINE).files()
        assert {name: (project.run / name).read_text() for name in files} == files


def test_render_that_removes(fresh: Callable[[int], Project]) -> None:
    for project in each_killed(fresh, lose_an_exit, write):
        write(project)
        assert not list(project.run.glob("exits/oslo/*"))


WG_KEY = "aEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEs="
WG_FILE = (
    f"[Interface]\nPrivateKey = {WG_KEY}\nAddress = 10.9.0.2/32\n"
    f"[Peer]\nPublicKey = {WG_KEY}\nPresharedKey = {WG_KEY}\nAllowedIPs = 0.0.0.0/0\nEndpoint = vpn.example.com:51820\n"
)


def add_exit(project: Project) -> object:
    return importing.add(project, "oslo", importing.Source("a.conf", WG_FILE.encode()))


def test_exit_add(fresh: Callable[[int], Project]) -> None:
    for project in each_killed(fresh, lambda _: None, add_exit):
        if "oslo" in load(project, ENGINE).config.exits:
            with pytest.raises(ChainError, match="this exit exists"):
                add_exit(project)
        else:
            add_exit(project)
        assert list(load(project, ENGINE).config.exits) == ["paris", "oslo"]
        assert {path.name for path in project.secrets.iterdir()} == {"oslo_wg_private_key", "oslo_wg_preshared_key"}

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import yaml

from chain.api.project import changing
from chain.api.render import write
from chain.engine.connection import Engine
from chain.errors import ChainError

if TYPE_CHECKING:
    from pathlib import Path

    from chain.api.project import Project

ENGINE = Engine()
CLIENT = "clients:\n  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}\n"


def test_everything_below_run_is_written_with_the_modes_that_containers_need(project: Project) -> None:
    written = write(project, ENGINE, None)
    names = ["entry/state.json", "exits/paris/settings.json", "compose.yaml"]
    assert written == [project.run / name for name in names]
    assert project.run.stat().st_mode & 0o777 == 0o700
    for folder in ("entry", "exits", "exits/paris"):
        assert (project.run / folder).stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in written} == {0o644}
    assert project.entry_key.exists()  # the rendered Compose file names it
    assert project.peer_keys.is_dir()


def test_writing_again_changes_nothing(project: Project) -> None:
    written = write(project, ENGINE, None)
    before = [(path.stat().st_ino, path.read_text()) for path in written]
    assert [(path.stat().st_ino, path.read_text()) for path in write(project, ENGINE, None)] == before


def test_what_an_exit_that_is_gone_left_is_removed(project: Project) -> None:
    text = project.file.read_text()
    project.file.write_text(text + "  oslo: {kind: l2tp}\n")
    write(project, ENGINE, None)
    assert (project.run / "exits" / "oslo").is_dir()
    project.file.write_text(text)
    write(project, ENGINE, None)
    assert not (project.run / "exits" / "oslo").exists()


def test_another_folder_gets_the_files_and_the_project_nothing(project: Project, tmp_path: Path) -> None:
    written = write(project, ENGINE, tmp_path / "look")
    assert json.loads((tmp_path / "look" / "entry" / "state.json").read_text())["chain"] == "main"
    assert yaml.safe_load((tmp_path / "look" / "compose.yaml").read_text())["name"] == "chain-main"
    assert all(path.is_relative_to(tmp_path / "look") for path in written)
    assert not project.run.exists()
    assert not project.secrets.exists()


def test_a_client_that_is_added_meanwhile_is_in_what_is_written(project: Project) -> None:
    write(project, ENGINE, None)
    with ThreadPoolExecutor() as pool:
        with changing(project):  # as `client add` does
            writing = pool.submit(write, project, ENGINE, None)
            project.file.write_text(project.file.read_text() + CLIENT)
        writing.result(10)
    state = json.loads((project.run / "entry" / "state.json").read_text())
    assert [client["name"] for client in state["clients"]] == ["phone"]


def test_a_broken_file_makes_no_key(project: Project) -> None:
    project.file.write_text("odd: 1\n")
    with pytest.raises(ChainError):
        write(project, ENGINE, None)
    assert not project.secrets.exists()


def test_no_secret_is_in_anything_rendered(project: Project) -> None:
    project.secrets.mkdir(mode=0o700)
    for role in ("vpn_server_ip", "vpn_ipsec_psk", "vpn_username", "vpn_password"):
        (project.secrets / role).write_text("hunter2\n")
    written = write(project, ENGINE, None)
    key = project.entry_key.read_text().strip()
    assert not [path for path in written if "hunter2" in path.read_text() or key in path.read_text()]

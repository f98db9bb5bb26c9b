from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chain.api.progress import Silent
from chain.api.project import Project, changing, is_there, locate, make_folder, write_atomic
from chain.config import loader
from chain.errors import ChainError, ExitCode

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def test_the_folders_follow_from_the_file(tmp_path: Path) -> None:
    assert Project(tmp_path / "config" / "chain.yaml").root == tmp_path
    assert Project(tmp_path / "chain.yaml").root == tmp_path
    assert Project(tmp_path / "config" / "other.yaml").secrets == tmp_path / "secrets"


def test_a_link_to_itself_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ChainError) as refused:
        loader.load(locate(tmp_path / "loop").file, {})
    assert refused.value.code is ExitCode.CONFIG


def test_the_usual_files_are_found_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ChainError, match=r"neither config/chain\.yaml nor chain\.yaml") as refused:
        locate(None)
    assert refused.value.code is ExitCode.CONFIG
    Path("chain.yaml").touch()
    assert locate(None).file == Path("chain.yaml")
    Path("config").mkdir()
    Path("config/chain.yaml").touch()
    assert locate(None).file == Path("config/chain.yaml")
    assert locate(Path("elsewhere.yaml")).file == Path("elsewhere.yaml")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_file_has_its_mode_whatever_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "key", "value", 0o640)
        make_folder(tmp_path / "folder", 0o750)
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    make_folder(tmp_path, 0o700)
    assert tmp_path.stat().st_mode & 0o777 == 0o711


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text("old")
    reader = file.open()  # who has it open goes on reading the old one
    write_atomic(file, "new", 0o644)
    assert (reader.read(), file.read_text()) == ("old", "new")
    reader.close()
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(file, "\ud800", 0o644)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="can't be written: No such file or directory") as refused:
        write_atomic(tmp_path / "nowhere" / "key", "value", 0o600)
    assert refused.value.code is ExitCode.CONFIG
    assert "value" not in str(refused.value)
    (tmp_path / "file").touch()
    with pytest.raises(ChainError, match="can't be made"):
        make_folder(tmp_path / "file" / "folder", 0o700)


def test_what_may_not_be_looked_at_is_not_there(tmp_path: Path) -> None:
    assert is_there(tmp_path)
    assert not is_there(tmp_path / "nothing")
    assert not is_there(tmp_path / ("long" * 100))  # the system refuses to look, to root too


def test_who_changes_files_removes_what_a_killed_command_left_and_nothing_else(tmp_path: Path) -> None:
    project = Project(tmp_path / "chain.yaml")
    left = [".chain.yaml.01234567.part", "secrets/.key.89abcdef.part", "run/exits/paris/.settings.json.01234567.part"]
    kept = [".other.yaml.01234567.part", "secrets/key", "secrets/.key.part", "run/.unfinished"]
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with changing(project):
        assert [name for name in (*left, *kept) if (tmp_path / name).exists()] == kept


class Told(Silent):
    """Progress of which a test hears."""

    def __init__(self) -> None:
        self.steps: queue.Queue[str] = queue.Queue()

    def step(self, title: str) -> AbstractContextManager[object]:
        self.steps.put(title)
        return super().step(title)


def test_who_has_to_wait_for_another_command_is_told(tmp_path: Path) -> None:
    project, told, there = Project(tmp_path / "chain.yaml"), Told(), threading.Event()

    def change() -> None:
        with changing(project, told):
            there.set()

    with changing(project, told):
        other = threading.Thread(target=change)
        other.start()
        assert told.steps.get(timeout=10) == "Waiting until another command, which is changing this chain, has ended"
        assert not there.is_set()
    assert there.wait(10)
    other.join()
    assert told.steps.empty()  # the first one had nobody to wait for


def test_a_test_of_an_exit_has_a_folder_of_its_own(tmp_path: Path) -> None:
    project = Project(tmp_path / "config" / "chain.yaml")
    assert (project.test.run, project.test.secrets) == (tmp_path / "run" / "test", project.secrets)
    project.test.run.mkdir(parents=True)
    stale = project.test.run / ".compose.yaml.0123abcd.part"
    stale.touch()
    with changing(project):
        assert not stale.exists()

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from chain.engine import images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chain.engine.connection import Engine

WIREGUARD_GO = images.PROGRAMS["WIREGUARD_GO"]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package and the recipes, to change files in."""
    ignored = shutil.ignore_patterns("__pycache__", "_data")
    shutil.copytree(images.PACKAGE, tmp_path / "chain", ignore=ignored)
    shutil.copytree(images.data_folder("images"), tmp_path / "images")
    monkeypatch.setattr(images, "PACKAGE", tmp_path / "chain")
    return tmp_path


def names() -> dict[str, str]:
    return {folder: image.name for folder, image in images.describe(["entry", "exit-wireguard"]).items()}


def changed(change: Callable[[], object]) -> set[str]:
    """Name the images whose tag a change moves."""
    before = names()
    change()
    after = names()
    return {folder for folder in before if before[folder] != after[folder]}


@pytest.mark.usefixtures("copy")
def test_names_are_the_same_as_long_as_nothing_changes() -> None:
    assert not changed(lambda: None)


def test_a_changed_runtime_file_moves_all_images(copy: Path) -> None:
    for part in ("node/lock.py", "agent/choice.py", "contract.py", "secret.py", "errors.py", "__init__.py"):
        file = copy / "chain" / part
        moved = changed(lambda file=file: file.write_text(file.read_text() + "\n"))  # type: ignore[misc] # the early value
        assert moved == {"entry", "exit-wireguard"}, part


def test_a_new_and_a_renamed_runtime_file_move_all_images(copy: Path) -> None:
    new = copy / "chain" / "node" / "new.py"
    assert changed(new.touch) == {"entry", "exit-wireguard"}
    assert changed(lambda: new.rename(new.with_name("renamed.py"))) == {"entry", "exit-wireguard"}


def test_the_host_side_and_what_python_leaves_behind_move_none(copy: Path) -> None:
    cached = copy / "chain" / "node" / "__pycache__" / "lock.cpython-311.pyc"
    cached.parent.mkdir()
    assert not changed(lambda: cached.write_bytes(b"x"))
    assert not changed(lambda: (copy / "chain" / "cli.py").write_text(""))


def test_a_recipe_moves_its_own_image_and_those_that_stand_on_it(copy: Path) -> None:
    own = copy / "images" / "entry" / "Dockerfile"
    assert changed(lambda: own.write_text(own.read_text() + "\n")) == {"entry"}
    below = copy / "images" / WIREGUARD_GO / "Dockerfile"
    assert changed(lambda: below.write_text(below.read_text() + "\n")) == {"entry", "exit-wireguard"}


class Shelf:
    """An engine that has these images."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def has_image(self, name: str) -> bool:
        return name in self._names


def missing(*there: str) -> list[str]:
    engine: Engine = Shelf(*there)  # type: ignore[assignment] # all of an engine that is asked for here
    return [image.folder for image in images.missing(engine, images.describe(["entry", "exit-wireguard"]).values())]


def test_what_an_image_stands_on_is_built_first_and_once() -> None:
    assert missing() == [WIREGUARD_GO, "entry", "exit-wireguard"]


def test_a_fresh_build_takes_all_of_them_each_after_what_it_stands_on() -> None:
    found = images.with_programs(images.describe(["entry", "exit-wireguard"]).values())
    assert [image.folder for image in found] == [WIREGUARD_GO, "entry", "exit-wireguard"]


def test_what_is_there_is_not_built() -> None:
    found = images.describe(["entry"])["entry"]
    assert missing(found.name) == [WIREGUARD_GO, "exit-wireguard"]
    assert found.program is not None
    assert missing(found.program[1].name) == ["entry", "exit-wireguard"]

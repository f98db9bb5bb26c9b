from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chain.api import complete

if TYPE_CHECKING:
    from chain.api.project import Project


def test_names_stand_in_the_order_of_the_file(project: Project) -> None:
    with project.file.open("a") as file:
        file.write("  oslo: {}\ngroups: {two: , one: }\nclients:\n  phone: {}\n  no: {}\n")
    assert complete.services(project.file) == ["entry", "exit-paris", "exit-oslo"]
    assert complete.groups(project.file) == ["two", "one"]
    assert complete.clients(project.file) == ["phone", "no"]


def test_the_usual_file_is_found(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    assert complete.services(None) == ["entry", "exit-paris"]
    assert complete.groups(None) == ["default"]


@pytest.mark.parametrize("text", ["", "clients", "[", "clients:", "clients: []", "- clients", "{clients: x}", "\0"])
def test_a_file_that_is_wrong_is_silent(project: Project, text: str) -> None:
    project.file.write_text(text)
    assert complete.clients(project.file) == []
    assert complete.clients(project.root / "nowhere.yaml") == []


def test_no_file_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert complete.clients(None) == []
    assert complete.clients(Path("/")) == []

"""What all tests share: expected files, and what becomes of a test that this machine can't run."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


# Thousands of tests stay in memory; to look through them again and again takes a tenth of the time.
gc.set_threshold(200_000, 50, 100)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the expected files anew instead of comparing")


@dataclass(frozen=True)
class Golden:
    """Expected texts in files. They are part of the change that alters them, and are read with it."""

    regenerate: bool

    def check(self, path: Path, text: str) -> None:
        if self.regenerate:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is not there; `make goldens` writes it"
        assert text == path.read_text(encoding="utf-8"), f"{path} differs; `make goldens` writes it anew"

    def check_folder(self, folder: Path, files: Mapping[str, str]) -> None:
        """Compare a whole folder: a file that is no longer made is a difference too."""
        for name, text in files.items():
            self.check(folder / name, text)
        stale = {path for path in folder.rglob("*") if path.is_file()} - {folder / name for name in files}
        if self.regenerate:
            for path in stale:
                path.unlink()
            stale = set()
        assert not stale, "no longer made; `make goldens` removes them"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(regenerate=bool(request.config.getoption("--regenerate")))


@pytest.fixture(scope="session")
def cannot() -> Callable[[str], NoReturn]:
    """End a test that this machine can't run: skipped, but on CI, which has to have everything, failed."""
    return pytest.fail if os.environ.get("CI") else pytest.skip

"""Configurations for the unit tests: small ones, in a folder of each test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
import pytest

from chain import topology
from chain.api.project import Project
from chain.config import loader
from chain.exits import REGISTRY, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chain.config.models import Config
    from chain.topology import Topology

# A busy machine is no failure. Fewer examples than usual: these tests are run again and again.
hypothesis.settings.register_profile("chain", deadline=None, max_examples=40)
hypothesis.settings.load_profile("chain")

MINIMAL = "entry:\n  endpoint: vpn.example.org\nexits:\n  paris: {kind: l2tp}\n"


@pytest.fixture
def minimal() -> str:
    """The least a chain.yaml has."""
    return MINIMAL


@pytest.fixture
def configured(tmp_path: Path) -> Callable[[str], Config]:
    """Load a chain.yaml from its text."""

    def load(text: str) -> Config:
        file = tmp_path / "chain.yaml"
        file.write_text(text, encoding="utf-8")
        return loader.load(file, SETTINGS)

    return load


@pytest.fixture
def built(configured: Callable[[str], Config]) -> Callable[[str], Topology]:
    """Compute the topology of a chain.yaml from its text."""
    return lambda text: topology.build(configured(text), REGISTRY)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project folder with the least chain.yaml in it."""
    file = tmp_path / "project" / "config" / "chain.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(MINIMAL, encoding="utf-8")
    return Project(file)

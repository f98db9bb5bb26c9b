"""`up --dry-run` against a real engine: it says what `up` then does, and leaves everything as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from world import INTERNET_HOST, docker

from chain.errors import ExitCode

if TYPE_CHECKING:
    from scene import Chain

pytestmark = [pytest.mark.docker, pytest.mark.long]


def traces(chain: Chain) -> tuple[list[tuple[str, int]], set[str]]:
    """Give what a command could have touched: files, and the engine's containers, networks and images of this chain."""
    label = f"label=com.docker.compose.project={chain.project}"
    files = [(str(path), path.stat().st_mtime_ns) for path in sorted(chain.folder.rglob("*"))]
    # As a set: Docker lists images made in the same second in any order.
    listed = (
        docker("ps", "-aq", "--filter", label),
        docker("network", "ls", "-q", "--filter", label),
        docker("images", "-q", "--filter", "label=chain.image"),
    )
    return files, {identity for text in listed for identity in text.split()}


def test_it_says_what_up_then_does(lone: Chain) -> None:
    before = traces(lone)
    done = lone.run("up", "--dry-run")
    assert [line for line in done.stdout.splitlines() if not line.startswith("build ")] == [
        "make secrets/entry_private_key: not there",
        "write entry/state.json: not there",
        "write exits/oslo/settings.json: not there",
        "write compose.yaml: not there",
        "compose up: not running: entry, exit-oslo",
    ]
    assert json.loads(lone.run("up", "--dry-run", "--json").stdout) == {"steps": done.stdout.splitlines()}
    assert traces(lone) == before

    assert lone.run("up", "--wait", "1", check=False).returncode == ExitCode.NOT_UP  # nobody answers its exit
    assert lone.run("up", "--dry-run").stdout == "Nothing has to change.\n"
    text = lone.file.read_text()
    lone.file.write_text(text.replace("10.66.0.2", "10.66.0.3").replace(INTERNET_HOST, "192.0.2.53"))
    before = traces(lone)
    changed = lone.run("up", "--dry-run").stdout.splitlines()
    assert [line.partition(":")[0] for line in changed] == [
        "write entry/state.json",
        "write exits/oslo/settings.json",
        "write compose.yaml",
        "compose up",
        "apply entry",
    ]
    assert traces(lone) == before

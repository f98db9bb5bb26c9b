"""What long runs have found so far, kept so that one that was ended goes on where it was; other code begins anew."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from world import World

from chain.engine import images
from chain.engine.connection import Engine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ground import Ground

_CHECKOUT = Path(__file__).resolve().parents[2]
# What runs in containers, and what that is told; the ground on which it does.
RUNNING = (
    *(f"chain/{name}" for name in ("agent", "config", "contract.py", "exits", "node", "render", "topology.py")),
    "compose",
    *(f"tests/providers/{name}" for name in ("dialogue.py", "gaps.py", "world.py")),
    *(f"tests/scenarios/{name}" for name in ("faults.py", "ground.py", "scene.py")),
)
_IMAGES = ("entry", "exit-l2tp", "exit-openvpn", "exit-wireguard", "exit-xray")


def folder_of(run: str) -> Path:
    """Give where runs of that name keep things."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "chain", run)


def log_of(run: str, engine: str, ground: Ground, code: Iterable[str], *settings: object) -> Log:
    """Give what was found on that engine and ground, with these settings, by what the code is now.

    `code`: files and folders below the checkout of which none may have changed; images are looked at by themselves.
    """
    world = World(Path(), Engine(), with_l2tp=ground.l2tp, with_xray=ground.xray, with_openvpn=ground.openvpn)
    described = [*images.describe(_IMAGES).values(), *world.wanted_images()]
    places = [_CHECKOUT / each for each in code]
    files = [file for each in places for file in (each.rglob("*") if each.is_dir() else (each,))]
    programs = [file.read_text() for file in sorted(files) if file.suffix in (".py", ".j2")]
    versions = [*sorted(image.name for image in described), *programs, *map(str, settings)]
    digest = hashlib.sha256(" ".join(versions).encode()).hexdigest()[:12]
    return Log(folder_of(run) / f"{engine}-{ground.kind}-{digest}.jsonl")


class Log:
    """What was done: one line of JSON an event."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lines: list[dict[str, Any]] = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )

    def add(self, **fields: Any) -> None:
        self.lines.append(fields)
        with self.path.open("a") as file:
            file.write(json.dumps(fields) + "\n")

    def done(self) -> Counter[str]:
        """Count the events of each name."""
        return Counter(line["event"] for line in self.lines if "event" in line)

    def forget(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self.lines = []

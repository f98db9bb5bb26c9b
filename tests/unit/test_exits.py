from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chain import api, exits

if TYPE_CHECKING:
    from chain.exits.base import ExitKind

ROOT = Path(api.__file__).parents[2]


@pytest.mark.parametrize("kind", exits.REGISTRY.values(), ids=lambda kind: kind.name)
def test_a_kind_is_complete(kind: ExitKind) -> None:
    """Say what a new kind still lacks."""
    parts = [
        ROOT / "chain" / "exits" / f"{kind.name}.py",
        ROOT / "compose" / f"exit-{kind.name}.yaml.j2",
        ROOT / "images" / f"exit-{kind.name}" / "Dockerfile",
        *(ROOT / "secrets.example" / spec.role for spec in kind.secrets(kind.settings.model_construct(kind=kind.name))),
    ]
    assert not [str(part.relative_to(ROOT)) for part in parts if not part.exists()]
    assert importlib.util.find_spec(f"chain.node.kinds.{kind.name}"), "its side in the container"
    examples = [path.read_text() for path in (ROOT / "config.example").glob("*.yaml")]
    assert any(re.search(rf"kind: {kind.name}\b", text) for text in examples), "an example"


def test_nothing_asks_which_kind_it_is_but_the_kind_itself() -> None:
    names = "|".join(exits.REGISTRY)
    asks = re.compile(rf"""[!=]= ?["']({names})["']|["']({names})["'] ?[!=]=""")
    sources = [*(ROOT / "chain").rglob("*.py"), *(ROOT / "compose").glob("*.j2")]
    assert not [str(path) for path in sources if asks.search(path.read_text())]

"""What a kind of exit has to have. Run by itself, this says what a new one still lacks: docs/adding-an-exit-kind.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chain import api, exits
from chain.exits._example import Example

if TYPE_CHECKING:
    from chain.exits.base import ExitKind

ROOT = Path(api.__file__).parents[2]
NO_KINDS = ("__init__", "base", "_example")
KINDS = sorted({path.stem for path in (ROOT / "chain" / "exits").glob("*.py")} - set(NO_KINDS) | set(exits.REGISTRY))


def parts_of(name: str) -> list[str]:
    """List what of a kind's own files is not there."""
    runtime = f"chain/node/kinds/{name}"
    wanted = [f"chain/exits/{name}.py", f"compose/exit-{name}.yaml.j2", f"images/exit-{name}/Dockerfile"]
    lacking = [part for part in wanted if not (ROOT / part).exists()]
    if not any((ROOT / f"{runtime}{form}").exists() for form in (".py", "/__init__.py")):
        lacking.append(f"{runtime}.py")
    return lacking


def around(kind: ExitKind) -> list[str]:
    """List what around a kind is not there."""
    specs = kind.secrets(kind.settings.model_construct(kind=kind.name))
    lacking = [f"secrets.example/{spec.role}" for spec in specs if not (ROOT / "secrets.example" / spec.role).exists()]
    about = (ROOT / "secrets.example" / "README.md").read_text()
    lacking += [f"`{spec.role}` in secrets.example/README.md" for spec in specs if f"`{spec.role}`" not in about]
    examples = [path.read_text() for path in (ROOT / "config.example").glob("*.yaml") if path.stem != "full"]
    if not any(re.search(rf"kind: {kind.name}\b", text) for text in examples):
        lacking.append(f"an example with `kind: {kind.name}` in config.example/")
    if f"`kind: {kind.name}`" not in (ROOT / "README.md").read_text():
        lacking.append(f"a paragraph with `kind: {kind.name}` in README.md")
    return lacking


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_complete(name: str) -> None:
    lacking = parts_of(name)
    if name in exits.REGISTRY:
        lacking += around(exits.REGISTRY[name])
    else:
        lacking.append("a line in chain/exits/__init__.py, and its import")
    assert not lacking, f"the kind {name} still lacks: {', '.join(lacking)}"


def test_the_kind_to_copy_is_whole_and_nobody_can_name_it() -> None:
    assert parts_of(Example.name) == []
    assert Example.name not in exits.REGISTRY


def test_nothing_asks_which_kind_it_is_but_the_kind_itself() -> None:
    names = "|".join(exits.REGISTRY)
    asks = re.compile(rf"""[!=]= ?["']({names})["']|["']({names})["'] ?[!=]=""")
    sources = [*(ROOT / "chain").rglob("*.py"), *(ROOT / "compose").glob("*.j2")]
    assert not [str(path) for path in sources if asks.search(path.read_text())]

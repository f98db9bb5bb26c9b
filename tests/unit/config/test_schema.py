from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from chain.config import loader
from chain.config.schema import schema
from chain.exits import REGISTRY, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.config.models import Config
    from tests.conftest import Golden

TESTS = Path(__file__).parents[2]
EXAMPLES = sorted((TESTS.parent / "config.example").glob("*.yaml"))
SCHEMA = schema(SETTINGS)


def content(file: Path) -> Any:
    """Read a file as editors do: each key is a text."""
    root = yaml.compose(file.read_text(), loader.Loader)
    loader.walk(root, "", {}, [])
    return loader.content(root)


def complaints(data: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(data)]


def test_the_schema_beside_the_examples_is_this_one(golden: Golden) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    golden.check(EXAMPLES[0].parent / "chain.schema.json", json.dumps(SCHEMA, indent=2) + "\n")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_names_the_schema_and_is_valid(example: Path) -> None:
    assert example.read_text().startswith("# yaml-language-server: $schema=chain.schema.json\n")
    assert complaints(content(example)) == []


@pytest.mark.parametrize(
    "name",
    [
        *("client-key", "endpoints-missing", "entry", "everything-missing", "exits-empty", "groups", "hooks"),
        *("l2tp-exit", "names", "no-exit", "types", "unknown-keys", "unknown-kind", "wireguard-exit"),
    ],
)
def test_what_loading_refuses_fails_here_too(name: str) -> None:
    assert complaints(content(TESTS / "errors" / f"{name}.yaml"))


@pytest.mark.parametrize("form", ["dns:", "groups:", "dns: {upstreams: }", "network: {}"])
def test_a_section_without_content_is_valid_as_it_is_for_loading(
    form: str, minimal: str, configured: Callable[[str], Config]
) -> None:
    text = f"{minimal}{form}\n"
    configured(text)
    assert complaints(yaml.safe_load(text)) == []


def described(node: Any) -> bool:
    """Tell whether an editor has something to show for a field: its own words, or its model's."""
    parts = [node, *node.get("anyOf", ())]
    models = [SCHEMA["$defs"][part["$ref"].rpartition("/")[2]] for part in parts if "$ref" in part]
    return any("description" in part for part in [*parts, *models])


def test_every_key_is_explained() -> None:
    models = {"": SCHEMA, **SCHEMA["$defs"]}
    mute = [
        f"{model}.{name}"
        for model, found in models.items()
        for name, field in found["properties"].items()
        if not described(field) and name != "kind"
    ]
    assert mute == []


def test_one_kind_alone_needs_no_choice() -> None:
    kind = next(iter(REGISTRY.values()))
    (exit_,) = schema({kind.name: kind.settings})["properties"]["exits"]["patternProperties"].values()
    assert exit_ == {"$ref": f"#/$defs/{kind.settings.__name__}"}

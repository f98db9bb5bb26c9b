"""Topology → files, as `{path: text}` relative to the project's `run/` folder. Pure: templates come by an argument."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from chain.contract import APPLIED, CONFIG_DIR, MEMORY_DIR, PEERS_DIR, SETTINGS_FILE, STATE_FILE, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chain.contract import DesiredState
    from chain.exits.base import ExitKind
    from chain.topology import Topology

COMPOSE_FILE = "compose.yaml"
ENTRY_FILE = f"entry/{STATE_FILE}"


def render(
    topology: Topology,
    kinds: Mapping[str, ExitKind],
    images: Mapping[str, str],
    load: Callable[[str], str],
    root: str = "..",
    *,
    key_stamp: str = "",
) -> dict[str, str]:
    """Render every file of a chain, or of exits by themselves.

    `images` maps an image's folder to its full name; `load` reads a template; `root` is the way from the Compose
    file's folder to the project's; `key_stamp` changes when the entry's key is written anew.
    """
    files = {ENTRY_FILE: entry_file(topology.state)} if topology.has_entry else {}
    for exit_ in topology.exits:
        files[f"exits/{exit_.name}/{SETTINGS_FILE}"] = _pretty(exit_.settings)
    files[COMPOSE_FILE] = (
        _environment(load)
        .get_template("chain.yaml.j2")
        .render(
            topology=topology,
            root=root,
            kinds=kinds,
            images=images,
            config_dir=CONFIG_DIR,
            memory_dir=MEMORY_DIR,
            peers_dir=PEERS_DIR,
            # A change of its settings recreates that exit; the entry reads most of its state again without that.
            settings_hash={name: _digest(text) for name, text in files.items()},
            entry_hash=_digest(
                to_json({key: part for key, part in vars(topology.state).items() if key not in APPLIED})
            ),
            key_hash=_digest(key_stamp),
            secrets_hash={
                exit_.name: _digest(" ".join(f"{secret.path} {secret.stamp}" for secret in exit_.secrets))
                for exit_ in topology.exits
            },
        )
    )
    return files


def entry_file(state: DesiredState) -> str:
    """Give the text of the file that the entry reads."""
    return _pretty(state)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _pretty(value: Any) -> str:
    return _indented(value, "\n") + "\n"


def _indented(value: Any, line: str) -> str:
    """Write `to_json`'s text as json.dumps does with an indent of two, but innermost objects by its code in C."""
    given = value if isinstance(value, dict | list | tuple) else vars(value)
    items = list(given.values() if isinstance(given, dict) else given)
    below = line + "  "
    if all(item is None or isinstance(item, str | int | float) for item in items):
        text = _encoder(below).encode(given)
        return f"{text[0]}{below}{text[1:-1]}{line}{text[-1]}" if items else text
    if isinstance(given, dict):
        parts = [f"{_indented_item(key, below)}: {_indented_item(item, below)}" for key, item in sorted(given.items())]
        return f"{{{below}{f',{below}'.join(parts)}{line}}}"
    return f"[{below}{f',{below}'.join(_indented_item(item, below) for item in items)}{line}]"


def _indented_item(item: Any, line: str) -> str:
    if item is None or isinstance(item, str | int | float):
        return _encoder("").encode(item)
    return _indented(item, line)


@cache
def _encoder(line: str) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(f",{line}", ": "))


@cache
def _environment(load: Callable[[str], str]) -> Environment:
    # YAML, not HTML: every value goes through `tojson`, which is YAML's own quoting.
    environment = Environment(  # noqa: S701
        loader=FunctionLoader(load),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda value: json.dumps(str(value), ensure_ascii=False).replace("$", "$$")
    return environment

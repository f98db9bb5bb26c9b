"""Every example of config.example, rendered. `make goldens` writes what is expected anew."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from chain import topology
from chain.api.load import load_template
from chain.config import loader
from chain.config.models import ClientConfig, Config, Endpoint, ExitConfig, GroupConfig
from chain.contract import Carried
from chain.exits import REGISTRY, SETTINGS
from chain.exits.l2tp import L2tpExit
from chain.node import lock
from chain.node.kinds.wireguard import WireGuard
from chain.render import render
from chain.render.clients import client_config
from chain.secret import PLACEHOLDER, Secret
from tests.choices import all_by, buckets

if TYPE_CHECKING:
    from chain.contract import DesiredState
    from chain.topology import Topology
    from tests.conftest import Golden

HERE = Path(__file__).parent
EXAMPLES = sorted((HERE.parents[1] / "config.example").glob("*.yaml"))
# The real tags are hashes of what the images are made of, which is another matter.
IMAGES = {"entry": "chain-entry:tag", **{f"exit-{kind}": f"chain-exit-{kind}:tag" for kind in REGISTRY}}


def built(example: Path) -> tuple[Config, Topology]:
    config = loader.load(example, SETTINGS)
    return config, topology.build(config, REGISTRY)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_renders_as_expected(example: Path, golden: Golden) -> None:
    config, found = built(example)
    files = render(found, REGISTRY, IMAGES, load_template)
    if example.stem == "two-exits":
        files |= locks(found) | {"client.conf": client_file(config, found)}
    golden.check_folder(HERE / example.stem, files)


def test_no_expected_folder_is_left_of_an_example_that_is_gone() -> None:
    folders = {path.name for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {path.stem for path in EXAMPLES}


def keys_of(model: type[BaseModel]) -> set[str]:
    """Give the dotted names of all keys below a model; not beyond a name that users choose."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(name)
        inner = () if get_origin(field.annotation) is dict else get_args(field.annotation)
        for part in (field.annotation, *inner):
            if isinstance(part, type) and issubclass(part, BaseModel) and part is not Endpoint:
                found |= {f"{name}.{key}" for key in keys_of(part)}
    return found


def named_in(data: Any) -> set[str]:
    if isinstance(data, list):
        return set().union(*map(named_in, data))
    if not isinstance(data, dict):
        return set()
    return {f"{key}{below and '.'}{below}" for key, value in data.items() for below in {"", *named_in(value)}}


def test_the_full_example_names_every_key_and_the_legacy_one_every_option_of_l2tp() -> None:
    full = yaml.safe_load((EXAMPLES[0].parent / "full.yaml").read_text())
    assert keys_of(Config) - named_in(full) == set()
    named: dict[str, set[str]] = defaultdict(set)  # some keys of a kind exclude each other
    for exit_ in full["exits"].values():
        named[exit_["kind"]] |= named_in(exit_)
    everyones = keys_of(ExitConfig) & set().union(*named.values())
    for kind in REGISTRY.values():
        assert keys_of(kind.settings) - named[kind.name] - everyones == set()
    for model, part in ((GroupConfig, full["groups"]["default"]), (ClientConfig, full["clients"]["phone"])):
        assert keys_of(model) - named_in(part) == set()
    legacy = yaml.safe_load((EXAMPLES[0].parent / "l2tp-legacy.yaml").read_text())["exits"]["office"]
    own = keys_of(L2tpExit) - keys_of(ExitConfig)
    assert own - named_in(legacy) == set()


def test_each_secret_has_an_example_and_an_explanation() -> None:
    folder = EXAMPLES[0].parents[1] / "secrets.example"
    examples = {path.name for path in folder.iterdir()} - {"README.md"}
    roles = {secret.role for example in EXAMPLES for exit_ in built(example)[1].exits for secret in exit_.secrets}
    assert examples == roles
    explained = (folder / "README.md").read_text()
    assert not [role for role in roles if f"| `{role}` |" not in explained]
    assert all((folder / name).read_text() == f"{PLACEHOLDER}\n" for name in examples)


def members(state: DesiredState) -> list[tuple[int, int]]:
    marks = {exit_.name: exit_.mark for exit_ in state.exits}
    return [(group.mark, marks[name]) for group in state.groups for name in group.exits]


def locks(found: Topology) -> dict[str, str]:
    """Give the rulesets of both roles, each as it is when all is well."""
    links = {exit_.name: f"eth{index}" for index, exit_ in enumerate(found.exits, start=1)}
    entry = lock.entry_lock(found.state, front="eth0", links=links) + lock.entry_clients(
        found.state, buckets(found.state), {}
    )
    switch = lock.entry_switch(
        lock.Exits.well({exit_.mark: links[exit_.name] for exit_ in found.state.exits}),
        all_by(found.state, dict.fromkeys((group.name for group in found.state.groups), found.state.exits[0].name)),
        members(found.state),
    )
    settings = next(exit_.settings for exit_ in found.exits if exit_.kind == "wireguard")
    kind = WireGuard(settings, {"wg_private_key": Secret("unused")})
    exit_text = lock.exit_lock(
        settings,
        senders=[lock.Sender("eth1", settings.link, settings.routed, open=True)],
        uplink="eth0",
        way=lock.Way(kind.interface),
        server="203.0.113.7",
        rules=kind.rules,
    )
    # One that hands packets over to a program, runs through another exit, and has a third one run through it.
    hop = replace(
        settings,
        uplink=replace(settings.uplink, via="bern", link=settings.link),
        carried=(Carried("rome", found.exits[0].settings.link),),
    )
    hop_text = lock.exit_lock(
        hop,
        senders=[
            lock.Sender("eth1", hop.link, hop.routed, open=True),
            lock.Sender("eth2", hop.carried[0].link, (f"{hop.carried[0].link.sender_address}/32",)),
        ],
        uplink="eth0",
        way=lock.Way(port=7500),
        server="203.0.113.7",
        rules=lock.UplinkRules(("tcp dport 443",), ("tcp sport 443 ct state established",)),
        ready=True,
    )
    return {
        "closed.nft": lock.closed(),
        "entry.nft": entry,
        "entry-switch.nft": switch,
        "exit.nft": exit_text,
        "hop-captured.nft": hop_text,
    }


def client_file(config: Config, found: Topology) -> str:
    return client_config(
        found.state,
        found.state.clients[0],
        config.entry.endpoint.model_copy(update={"port": config.entry.port}),
        entry_public_key="(the entry's public key)",
        private_key=Secret("(the client's private key)"),
        preshared=Secret("(the key they share)"),
    )

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chain.api import exits
from chain.api.load import load
from chain.engine.connection import Engine
from chain.errors import ChainError, ExitCode
from chain.exits import REGISTRY

if TYPE_CHECKING:
    from chain.api.project import Project

ENGINE = Engine()  # asks nothing until it has to
HOPS = (Path(__file__).resolve().parents[3] / "config.example" / "hops.yaml").read_text()


@pytest.fixture
def hops(project: Project) -> Project:
    project.file.write_text(HOPS)
    return project


def refused(project: Project, name: str) -> str:
    before = project.file.read_text()
    with pytest.raises(ChainError) as caught:
        exits.remove(project, name)
    assert caught.value.code == ExitCode.CONFIG
    assert project.file.read_text() == before
    return " ".join(str(problem) for problem in caught.value.problems)


def test_every_kind_says_what_it_is() -> None:
    found = exits.kinds()
    assert [kind["name"] for kind in found] == list(REGISTRY)
    assert all(kind["about"].startswith("An exit through") for kind in found)
    json.dumps(found)


def test_exits_are_listed_with_what_they_run_through(hops: Project) -> None:
    found = exits.listing(load(hops, ENGINE))
    assert [(each["name"], each["via"], each["groups"]) for each in found] == [
        ("bern", "oslo", ["default"]),
        ("oslo", "paris", []),
        ("paris", "", []),
    ]


def test_one_exit_shows_its_settings_and_where_its_secrets_are(hops: Project) -> None:
    (hops.root / "secrets").mkdir(exist_ok=True)
    (hops.root / "secrets" / "oslo_wg_private_key").write_text("a secret\n")
    found = exits.show(load(hops, ENGINE), "oslo")
    assert (found["kind"], found["via"], found["carried"], found["mtu"]) == ("wireguard", "paris", ["bern"], 1360)
    assert found["settings"]["address"] == "10.64.12.7/32"
    assert found["settings"]["keepalive"] == 25  # not given
    assert found["secrets"] == [
        {"role": "wg_private_key", "file": "secrets/oslo_wg_private_key", "there": True},
    ]
    assert "a secret" not in json.dumps(found)


def test_an_exit_that_is_removed_leaves_its_secrets(hops: Project) -> None:
    text = HOPS + "groups: {default: {exits: [oslo]}}\n"
    hops.file.write_text(text)
    (hops.root / "secrets").mkdir(exist_ok=True)
    for role in ("vpn_ipsec_psk", "vpn_password"):
        (hops.root / "secrets" / f"bern_{role}").write_text("x\n")
    left = exits.remove(hops, "bern")
    assert sorted(left) == ["secrets/bern_vpn_ipsec_psk", "secrets/bern_vpn_password"]
    assert list(load(hops, ENGINE).config.exits) == ["oslo", "paris"]
    assert hops.file.read_text().startswith(HOPS[: HOPS.index("  bern:")])


def test_nobody_goes_out_by_a_hop_because_another_exit_was_removed(hops: Project) -> None:
    assert "clients would then go out by oslo" in refused(hops, "bern")


def test_what_is_left_has_to_be_whole(project: Project) -> None:
    project.file.write_text(
        "entry: {endpoint: vpn.example.org}\n"
        "exits:\n  paris: {kind: l2tp}\n  home: {kind: direct}\n"
        "groups: {home: {exits: [home]}}\n"
    )
    assert "no exit is left for the group `default`" in refused(project, "paris")


def test_an_exit_is_removed_though_its_network_is_gone(project: Project) -> None:
    project.file.write_text(
        "entry: {endpoint: vpn.example.org}\n"
        "exits:\n  paris: {kind: l2tp}\n  rome: {kind: l2tp, uplink: {network: gone}}\n"
    )
    assert exits.remove(project, "rome") == []
    assert list(load(project, ENGINE).config.exits) == ["paris"]


def test_what_others_need_is_not_removed(hops: Project) -> None:
    assert "exit bern runs through it" in refused(hops, "oslo")
    hops.file.write_text(HOPS + "groups: {default: {exits: [bern]}, more: {exits: [bern, paris]}}\n")
    said = refused(hops, "bern")
    assert "group default has it" in said
    assert "group more has it" in said


def test_the_last_exit_and_unknown_ones_are_not_removed(project: Project) -> None:
    assert "it is the only one" in refused(project, "paris")
    assert "there are: paris" in refused(project, "rome")
    with pytest.raises(ChainError, match="no such exit"):
        exits.show(load(project, ENGINE), "rome")

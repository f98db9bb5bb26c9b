from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chain.plan import Observed, made_anew, one_by_one, plan

FILES = {"entry/state.json": "new", "exits/paris/settings.json": "same", "compose.yaml": "new"}
SERVICES = ("entry", "exit-paris")


def steps(wanted: dict[str, str], wanted_generation: str, **observed: Any) -> str:
    found: dict[str, Any] = {"files": {}, "missing_images": (), "generation": None, "running": frozenset()} | observed
    return "\n".join(str(step) for step in plan(wanted, SERVICES, wanted_generation, Observed(**found)))


def test_a_first_start() -> None:
    assert steps(FILES, "1", missing_images=("chain-entry:tag",), missing_keys=("secrets/entry_private_key",)) == (
        "build chain-entry:tag: not on this engine\n"
        "make secrets/entry_private_key: not there\n"
        "write entry/state.json: not there\n"
        "write exits/paris/settings.json: not there\n"
        "write compose.yaml: not there\n"
        "compose up: not running: entry, exit-paris"
    )


def test_nothing_has_to_change() -> None:
    assert not steps(FILES, "1", files=FILES, generation="1", running=frozenset(SERVICES))


def test_a_change_that_the_entry_takes_without_being_recreated() -> None:
    before = FILES | {"entry/state.json": "old"}
    assert steps(FILES, "2", files=before, generation="1", running=frozenset(SERVICES)) == (
        "write entry/state.json: changed\napply entry: it runs generation 1, wanted is 2"
    )


def test_a_client_that_is_kept_out_has_the_entry_look_again() -> None:
    assert steps(FILES, "1", files=FILES, generation="1", running=frozenset(SERVICES), kept_out=("phone", "tv")) == (
        "apply entry: kept out so far: phone, tv"
    )


def test_an_exit_that_is_gone() -> None:
    before = {**FILES, "exits/oslo/settings.json": "x", "compose.yaml": "old"}
    running = frozenset({*SERVICES, "exit-oslo"})
    assert steps(FILES, "2", files=before, generation="1", running=running) == (
        "write compose.yaml: changed\n"
        "remove exits/oslo/settings.json: no longer in chain.yaml\n"
        "compose up: changed: compose.yaml, exits/oslo/settings.json\n"
        "apply entry: it runs generation 1, wanted is 2"
    )


def test_a_container_nobody_asked_for() -> None:
    running = frozenset({*SERVICES, "exit-oslo"})
    assert steps(FILES, "1", files=FILES, generation="1", running=running) == "compose up: changed: exit-oslo"


def test_a_container_that_has_stopped() -> None:
    assert steps(FILES, "1", files=FILES, generation="1", running=frozenset({"entry"})) == (
        "compose up: not running: exit-paris"
    )


def test_an_entry_that_does_not_answer_reads_its_file_when_it_starts() -> None:
    assert steps(FILES, "1", files=FILES, running=frozenset({"exit-paris"})) == "compose up: not running: entry"


def test_an_image_that_was_built_anew() -> None:
    outdated = frozenset({"entry", "exit-paris"})
    assert steps(FILES, "1", files=FILES, generation="1", running=frozenset(SERVICES), outdated=outdated) == (
        "compose up: images were built anew: entry, exit-paris"
        "; made anew: entry, exit-paris; clients are away for some seconds"
    )


def test_a_container_that_somebody_made_with_an_override_file() -> None:
    assert (
        steps(FILES, "1", files=FILES, generation="1", running=frozenset(SERVICES), overlaid=frozenset({"entry"}))
        == "compose up: made with other Compose files than the rendered one: entry"
        "; made anew: entry; clients are away for some seconds"
    )


def test_a_test_of_an_exit_ends_before_anything_is_started() -> None:
    assert steps(FILES, "1", files=FILES, tests=("chain-main_test",)) == (
        "end chain-main_test: a test of an exit goes on there, or was killed\n"
        "compose up: not running: entry, exit-paris"
    )


def compose(image: str = "b", networks: str = "{link-a: {}}", pool: str = "1") -> dict[str, str]:
    entry = f"  entry: {{image: a, networks: {networks}}}\n"
    exit_ = f"  exit-paris: {{image: {image}, networks: {{link-a: {{}}}}}}\n"
    networks = f"networks: {{link-a: {{pool: {pool}}}, link-b: {{pool: 1}}}}\n"
    return {"compose.yaml": f"services:\n{entry}{exit_}{networks}"}


@pytest.mark.parametrize(
    ("wanted", "anew"),
    [
        (compose(), set()),
        (compose(image="c"), {"exit-paris"}),
        (compose(networks="{link-a: {}, link-b: {}}"), {"entry"}),
        (compose(pool="2"), {"entry", "exit-paris"}),
        ({"compose.yaml": "nonsense"}, set()),
    ],
)
def test_who_is_made_anew_shows_in_the_compose_file(wanted: dict[str, str], anew: set[str]) -> None:
    assert made_anew(wanted, Observed(compose(), (), None, frozenset(SERVICES))) == anew
    assert not made_anew(wanted, Observed(compose(), (), None, frozenset()))


def test_several_exits_are_replaced_one_after_the_other_where_that_keeps_clients_served() -> None:
    def two(image: str, pool: str = "1", entry: str = "a") -> dict[str, str]:
        exits = "".join(f"  exit-{name}: {{image: {image}, networks: {{link-{name}: {{}}}}}}\n" for name in "ab")
        networks = f"networks: {{link-a: {{pool: {pool}}}, link-b: {{pool: 1}}}}\n"
        return {"compose.yaml": f"services:\n  entry: {{image: {entry}}}\n{exits}{networks}"}

    runs = Observed(two("x"), (), "1", frozenset({"entry", "exit-a", "exit-b"}))
    assert one_by_one(two("y"), runs) == ("exit-a", "exit-b")
    assert plan(two("y"), runs.running, "1", runs)[-1].cause.endswith("made anew: exit-a, exit-b; one after the other")
    for together in (two("y", pool="2"), two("y", entry="b")):
        assert one_by_one(together, runs) == ()
    assert one_by_one(two("y"), replace(runs, generation=None)) == ()
    assert one_by_one({"compose.yaml": "["}, runs) == ()


def test_that_clients_are_away_is_said() -> None:
    running = {"files": compose(), "generation": "1", "running": frozenset(SERVICES)}
    away = "made anew: entry; clients are away for some seconds"
    assert steps(compose(networks="{}"), "1", **running).endswith(f"compose up: changed: compose.yaml; {away}")
    for cause in ("outdated", "overlaid"):
        assert steps(compose(), "1", **running, **{cause: frozenset({"entry"})}).endswith(f": entry; {away}")
    assert steps(compose(image="c"), "1", **running).endswith("; made anew: exit-paris")
    assert "anew" not in steps(compose(networks="{}"), "1", files=compose())

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain.config import loader
from chain.errors import ChainError, ExitCode, Problem
from chain.exits import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chain.config.models import Config


FORM = "config.example/ shows the form, and `chain schema` all there is"


def problems(load: Callable[[str], Config], text: str) -> list[str]:
    with pytest.raises(ChainError) as refused:
        load(text)
    assert refused.value.code is ExitCode.CONFIG
    return [str(problem).partition("chain.yaml")[2] for problem in refused.value.problems]


def test_the_least_configuration_is_four_lines(configured: Callable[[str], Config], minimal: str) -> None:
    assert len(minimal.splitlines()) == 4
    config = configured(minimal)
    assert (config.name, config.entry.port, str(config.entry.endpoint)) == ("main", 51820, "vpn.example.org")
    assert list(config.exits) == ["paris"]


def test_all_errors_come_at_once_each_with_its_line_and_a_hint(configured: Callable[[str], Config]) -> None:
    text = """\
entry:
  endpoint: vpn.example.org
  prot: 51820
exits:
  paris:
    kind: l2tp
    crypto: moden
  oslo: {kind: wiregard}
groups:
  far: {exits: [parsi]}
"""
    assert problems(configured, text) == [
        ":3: entry.prot: unknown key\n    → did you mean 'port'?",
        f":7: exits.paris.crypto: this must be 'modern' or 'legacy'\n    → {FORM}",
        ":8: exits.oslo.kind: unknown kind 'wiregard'\n    → did you mean 'wireguard'?",
    ]


def test_references_are_checked_beside_the_exits_own_errors(configured: Callable[[str], Config]) -> None:
    text = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp, crypto: moden}
groups:
  far: {exits: [parsi]}
"""
    assert problems(configured, text) == [
        f":3: exits.paris.crypto: this must be 'modern' or 'legacy'\n    → {FORM}",
        ":5: groups.far.exits.0: no exit 'parsi'\n    → did you mean 'paris'?",
    ]


def test_keys_given_twice_are_refused_at_any_depth(configured: Callable[[str], Config], minimal: str) -> None:
    text = minimal + "name: a\nname: b\ngroups:\n  far: {exits: [paris], exits: [oslo]}\n"
    assert problems(configured, text) == [
        ":6: the key 'name' stands twice\n    → keep one of the two",
        ":8: the key 'exits' stands twice\n    → keep one of the two",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "entry: &e {endpoint: a}\nexits: *e\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",  # the seed of a file that grows without bound
        "a: &a [*a]\n",
    ],
)
def test_aliases_are_refused(configured: Callable[[str], Config], text: str) -> None:
    (problem,) = problems(configured, text)
    assert "aliases are not read here" in problem


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "".join(" " * n + "a:\n" for n in range(900))])
def test_deep_nesting_neither_crashes_nor_hangs(configured: Callable[[str], Config], text: str) -> None:
    (problem,) = problems(configured, text)
    assert "too deeply nested" in problem


def test_names_that_yaml_takes_for_something_else_stay_names(configured: Callable[[str], Config]) -> None:
    config = configured("entry: {endpoint: vpn.example.org}\nexits:\n  no: {kind: l2tp}\n  on: {kind: l2tp}\n")
    assert list(config.exits) == ["no", "on"]
    client = "{address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}"
    text = f"entry: {{endpoint: vpn.example.org}}\nexits:\n  a: {{kind: l2tp}}\nclients:\n  1.0: {client}\n"
    assert list(configured(text).clients) == ["1.0"]


def test_a_section_without_content_is_as_if_it_were_not_there(
    configured: Callable[[str], Config], minimal: str
) -> None:
    assert configured(minimal + "groups:\nclients:\n  # phone:\ndns:\n") == configured(minimal)


def test_a_file_of_the_largest_size_is_read_and_a_larger_one_is_not(tmp_path: Path, minimal: str) -> None:
    file = tmp_path / "chain.yaml"
    file.write_text(minimal.ljust(loader.MAX_BYTES, "\n"))
    assert loader.load(file, SETTINGS).name == "main"
    file.write_text(minimal.ljust(loader.MAX_BYTES + 1, "\n"))
    with pytest.raises(ChainError, match="larger than 10000000 bytes"):
        loader.load(file, SETTINGS)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "chain.yaml")
    with pytest.raises(ChainError, match="no regular file"):
        loader.load(tmp_path / "chain.yaml", SETTINGS)


def test_a_secrets_path_is_text_of_one_line(configured: Callable[[str], Config], minimal: str) -> None:
    for sign in (r"\0", r"\n", r"\x7f", r"\x85"):
        with pytest.raises(ChainError, match="password"):
            configured(minimal.replace("{kind: l2tp}", f'{{kind: l2tp, password: {{file: "a{sign}b"}}}}'))


def test_ten_thousand_clients_are_no_matter(configured: Callable[[str], Config]) -> None:
    letters = "AEIMQUYcgkosw048"
    clients = "".join(
        f"  c{n}: {{address: 10.64.{n // 250}.{n % 250 + 2}, public_key: {n:042d}{letters[n % 16]}=}}\n"
        for n in range(10_000)
    )
    text = "entry: {endpoint: vpn.example.org, subnet: 10.64.0.0/16}\nexits:\n  a: {kind: l2tp}\nclients:\n"
    assert len(configured(text + clients).clients) == 10_000


def test_a_missing_file_a_folder_and_a_closed_file_are_refused(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "chain.yaml", "no such file"), (tmp_path, "can't be read: Is a directory")):
        with pytest.raises(ChainError, match=what) as refused:
            loader.load(path, SETTINGS)
        assert refused.value.code is ExitCode.CONFIG


def test_an_unknown_kind_does_not_hide_what_else_is_wrong(configured: Callable[[str], Config]) -> None:
    text = "entry: {}\nexits:\n  a: {kind: x}\n"
    assert [problem.partition("\n")[0] for problem in problems(configured, text)] == [
        ":1: entry.endpoint: this is missing",
        ":3: exits.a.kind: unknown kind 'x'",
    ]


yaml_like = st.text(alphabet=st.sampled_from("entryxispl2: {}[]-\n'\"#&*!|>?,@%\t\\0"), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the file is written anew each time
@given(st.one_of(yaml_like, st.text(max_size=60)))
def test_any_text_is_a_configuration_or_a_chain_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "chain.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ChainError) as refused:
        loader.load(file, SETTINGS)
    assert refused.value.code is ExitCode.CONFIG


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "endpoint", "exits", "mtu", "ike", "psk", "file", "address", "network", "x"]),
            inner,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*"ab", "entry", "exits", "groups", "clients", "dns", "network"]), json_like))
def test_any_structure_is_a_configuration_or_problems(data: dict[str, object]) -> None:
    found: list[Problem] = []
    config = loader._fields(data, SETTINGS, found)
    assert config is not None or found

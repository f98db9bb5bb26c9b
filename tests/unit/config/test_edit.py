from __future__ import annotations

from difflib import ndiff
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from chain.config import edit
from chain.errors import ChainError, ExitCode

FIELDS = {"address": "10.13.13.9", "public_key": "posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ="}
LINES = ["phone:", "  address: 10.13.13.9", "  public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ="]

# A file in the way of somebody who has habits of their own.
OWN_WAY = """\
---
# Our chain.   Ask Ann before you change it.
entry:   {endpoint: "vpn.example.org" , port: 443}     # the café's port

exits:
- not
-   read: here
clients:
    # the family
    ann:
        address:    10.13.13.2   # by hand
        public_key: 'x'

    # bob's are two
    bob:    {address: 10.13.13.3, public_key: x}
    # that is all

# the end of clients
dns:
  upstreams: [  9.9.9.9,1.1.1.1 ]   # both
text: |
    as  it
      is
"""


def added(before: str, after: str) -> list[str]:
    """Give the lines that are new; fails when anything else is different."""
    changes = [line for line in ndiff(before.splitlines(), after.splitlines()) if not line.startswith((" ", "?"))]
    assert all(line.startswith("+ ") for line in changes), changes
    return [line[2:] for line in changes]


def test_a_client_is_added_behind_the_last_and_nothing_else_changes() -> None:
    after = edit.add_client(OWN_WAY, "phone", FIELDS)
    assert added(OWN_WAY, after) == ["    " + line for line in LINES]
    assert after.index("phone:") > after.index("bob:")
    assert yaml.safe_load(after)["clients"]["phone"] == FIELDS


def test_an_exit_is_removed_with_what_stands_inside_it() -> None:
    before = "exits:\n  # first\n  a: {kind: l2tp}\n  b:\n    # inside\n    kind: l2tp\n\n  # last\n  c: {kind: l2tp}\n"
    assert edit.remove_exit(before, "b") == "exits:\n  # first\n  a: {kind: l2tp}\n\n  # last\n  c: {kind: l2tp}\n"
    with pytest.raises(ChainError, match="no such exit"):
        edit.remove_exit(before, "d")


def test_removing_what_was_added_gives_the_file_back_byte_for_byte() -> None:
    assert edit.remove_client(edit.add_client(OWN_WAY, "phone", FIELDS), "phone") == OWN_WAY


@pytest.mark.parametrize("name", ["ann", "bob"])
def test_a_client_is_removed_and_nothing_else_changes(name: str) -> None:
    after = edit.remove_client(OWN_WAY, name)
    gone = added(after, OWN_WAY)
    assert gone[0].strip().startswith(f"{name}:")
    assert len(gone) == len(yaml.safe_load(OWN_WAY)["clients"]) + (1 if name == "ann" else -1)
    expected = yaml.safe_load(OWN_WAY)
    del expected["clients"][name]
    assert yaml.safe_load(after) == expected


@pytest.mark.parametrize(
    ("before", "lines"),
    [
        ("a: 1\n", ["clients:", *("  " + line for line in LINES)]),
        ("a: 1", ["clients:", *("  " + line for line in LINES)]),
        ("clients:\na: 1\n", ["  " + line for line in LINES]),
        ("a: 1\nclients:\n  # nobody yet\n", ["  " + line for line in LINES]),
        ("clients:\n  ann: {a: b}", ["  " + line for line in LINES]),
        ("clients:\n  ann:\n    a: |\n      b\n\n\nz: 1\n", ["  " + line for line in LINES]),
        ("  clients:\n    ann: {a: b}\n  z: 1\n", ["    " + line for line in LINES]),
    ],
)
def test_clients_are_added_to_each_usual_form(before: str, lines: list[str]) -> None:
    assert added(before, edit.add_client(before, "phone", FIELDS)) == lines


@pytest.mark.parametrize(
    "before",
    [
        "clients: {}  # nobody yet\nz: 1\n",
        "clients: ~\nz: 1\n",
        "clients: {ann: {a: b}}\nz: 1\n",
        "clients: {ann: {a: b},}\nz: 1\n",
        '{"a": 1, "clients": {"ann": {"a": "b"}}}\n',
        '{"a": 1, "clients": null}\n',
        '{"a": 1}\n',
    ],
)
def test_clients_are_added_to_each_form_in_braces(before: str) -> None:
    after = edit.add_client(before, "phone", FIELDS)
    expected = yaml.safe_load(before)
    expected["clients"] = (expected.get("clients") or {}) | {"phone": FIELDS}
    assert yaml.safe_load(after) == expected
    del expected["clients"]["phone"]
    expected["clients"] = expected["clients"] or None
    found = yaml.safe_load(edit.remove_client(after, "phone"))
    assert found | {"clients": found["clients"] or None} == expected


def test_line_ends_of_the_other_kind_are_kept() -> None:
    before = "a: 1\r\nclients:\r\n  ann:\r\n    a: b\r\n"
    after = edit.add_client(before, "phone", FIELDS)
    assert after.count("\n") == after.count("\r\n") == 7
    assert edit.remove_client(after, "phone") == before


def test_a_value_that_yaml_would_take_for_something_else_is_quoted() -> None:
    after = edit.add_client("a: 1\n", "phone", FIELDS | {"group": "no"})
    assert yaml.safe_load(after)["clients"]["phone"]["group"] == "no"


def test_the_last_client_leaves_an_empty_section() -> None:
    before = "clients:\n  ann:\n    a: b\nz: 1\n"
    assert edit.remove_client(before, "ann") == "clients:\nz: 1\n"


def test_a_client_that_is_there_can_not_be_added_and_one_that_is_not_can_not_be_removed() -> None:
    with pytest.raises(ChainError, match="this client exists") as exists:
        edit.add_client(OWN_WAY, "ann", FIELDS)
    with pytest.raises(ChainError, match="no such client") as missing:
        edit.remove_client(OWN_WAY, "phone")
    assert exists.value.code is missing.value.code is ExitCode.CONFIG


def test_a_form_that_can_not_be_edited_is_left_alone() -> None:
    with pytest.raises(ChainError, match="too unusual to be edited"):
        edit.add_client("a: 1\n...\n", "phone", FIELDS)


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,12}", fullmatch=True)


@given(st.lists(names, min_size=1, max_size=6, unique=True), st.sampled_from(["", OWN_WAY, "clients: {}\n"]))
def test_whoever_is_added_and_removed_in_any_order_the_file_is_the_same(wanted: list[str], tail: str) -> None:
    before = tail or "a: 1\n"
    wanted = [name for name in wanted if name not in ("ann", "bob")]
    text = before
    for name in wanted:
        text = edit.add_client(text, name, FIELDS)
    assert all(f"{name}:" in text for name in wanted)
    for name in sorted(wanted):
        text = edit.remove_client(text, name)
    if tail == OWN_WAY:
        assert text == before


EXIT: dict[str, Any] = {
    "kind": "xray",
    "port": 443,
    "reality": {"public_key": "A" * 43, "short_id": "00", "server_name": "no"},
    "tls": {},
    "alpn": ["h2", "http/1.1"],
    "path": "/a,b: {c} # d",
    "preshared_key": True,
    "odd": ["2020-99-99", "0x_", "@", "=", "12:30", "1e3", "~", "é", "", "a\nb"],
}


@pytest.mark.parametrize(
    "before", ["exits:\n  paris: {kind: l2tp}  # first\nz: 1\n", "exits: {paris: {kind: l2tp}}\n", "exits:\n", "z: 1\n"]
)
def test_an_exit_is_added_behind_the_last_with_all_that_it_says(before: str) -> None:
    after = edit.add_exits(before, {"tokyo": EXIT})
    found = yaml.safe_load(after)
    assert list(found["exits"])[-1] == "tokyo"
    assert found["exits"]["tokyo"] == EXIT
    rest = edit.remove_exit(after, "tokyo")
    assert (yaml.safe_load(rest)["exits"] or None) == (yaml.safe_load(before).get("exits") or None)
    with pytest.raises(ChainError, match="this exit exists"):
        edit.add_exits(after, {"tokyo": EXIT})


@pytest.mark.parametrize(
    "before", ["exits:\n  paris: {kind: l2tp}\nz: 1\n", "{exits: {paris: {kind: l2tp}}}\n", "z: 1\n"]
)
def test_several_exits_are_added_in_one_go(before: str) -> None:
    after = edit.add_exits(before, {"b": EXIT, "a": {"kind": "l2tp"}})
    assert list(yaml.safe_load(after)["exits"].items())[-2:] == [("b", EXIT), ("a", {"kind": "l2tp"})]
    with pytest.raises(ChainError, match=r"exits\.a: this exit exists") as refused:
        edit.add_exits(after, {"b": EXIT, "a": EXIT, "c": EXIT})
    assert len(refused.value.problems) == 2


def test_what_is_added_looks_as_the_examples_do() -> None:
    fields = {"kind": "xray", "reality": {"server_name": "www.example.com"}, "tls": {}, "alpn": ["h2"]}
    assert edit.exit_block("tokyo", fields).splitlines() == [
        "tokyo:",
        "  kind: xray",
        "  reality:",
        "    server_name: www.example.com",
        "  tls: {}",
        "  alpn: [h2]",
    ]

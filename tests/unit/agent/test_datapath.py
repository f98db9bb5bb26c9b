from __future__ import annotations

from typing import TYPE_CHECKING

from chain.agent import choice
from chain.agent.datapath import ruleset

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp, server: 192.0.2.1}
  oslo: {kind: l2tp, server: 192.0.2.2}
"""


def test_exits_are_named_by_their_marks_and_links(built: Callable[[str], Topology]) -> None:
    state = built(TEXT).state
    paris, oslo = (exit_.mark for exit_ in state.exits)
    group = state.groups[0].mark
    chosen = choice.marks(state, {("@default", 0): "oslo"})
    text = ruleset(state, {"oslo": "eth2", "paris": "eth1"}, {"oslo"}, chosen, up={"oslo"}, suspects=frozenset({oslo}))
    said = [line.partition(" inet vpn ")[2] for line in text.splitlines() if line.startswith("add")]
    assert f'open_pairs {{ {oslo} . "eth2" }}' in said
    assert f"suspect_marks {{ {oslo} }}" in said
    assert f"open_members {{ {group} . {oslo} }}" in said
    assert f"group_exit {{ {group} : {oslo} }}" in said
    assert str(paris) not in " ".join(said)

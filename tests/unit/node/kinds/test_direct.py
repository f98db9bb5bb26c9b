from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chain.node import kinds, lock
from chain.node.kinds import causes

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  home: {kind: direct}
groups: {default: {exits: [home]}}
"""


def test_clients_leave_by_the_uplink_and_reach_nothing_private(built: Callable[[str], Topology]) -> None:
    settings = built(TEXT).exits[0].settings
    kind = kinds.create(settings, {})
    text = lock.exit_lock(
        settings,
        senders=[lock.Sender("eth0", settings.link, settings.routed, open=True)],
        uplink="eth1",
        way=lock.Way("eth1", kind.capture, kind.refused),
        server=None,
        rules=kind.rules,
    )
    forward = text[text.index("chain forward") : text.index("chain outbound")]
    refused = next(line for line in forward.splitlines() if "ip daddr { 0.0.0.0/8, 10.0.0.0/8," in line)
    assert "reject" in refused
    assert forward.index(refused) < forward.index("jump outbound")
    assert "oifname eth1 masquerade" in text


def test_it_dials_nobody_and_says_when_nobody_answers(built: Callable[[str], Topology]) -> None:
    kind = kinds.create(built(TEXT).exits[0].settings, {})
    assert kind.server == ""
    assert asyncio.run(kind.dial("")).address == ""
    assert asyncio.run(kind.mute("9.9.9.9", stood=False)).key == causes.DIRECT_MUTE.key
    assert asyncio.run(kind.mute("9.9.9.9", stood=True)).key == causes.LOST.key
    asyncio.run(kind.revive())
    asyncio.run(kind.hang_up())

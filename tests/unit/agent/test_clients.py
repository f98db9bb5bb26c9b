from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chain.agent import aside, choice
from chain.agent.clients import Clients, Placed
from chain.agent.failover import Failover
from chain.contract import Client, to_json
from chain.node import wireguard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits: {paris: {kind: l2tp, server: 192.0.2.1}}
"""
MANY = 450


def test_clients_are_placed_by_a_copy_and_only_what_is_shown_comes_back(
    built: Callable[[str], Topology], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = built(TEXT).state
    buckets = Failover(choice.groups(state)).buckets
    all_ = [
        Client(f"c{number}", f"key{number}", f"10.13.{number // 250}.{number % 250}", f"fd00::{number:x}", "default")
        for number in range(MANY)
    ]
    all_[7] = replace(all_[7], psk_file="c7")
    said = json.dumps({"clients": [vars(client) for client in all_], "preshared": {}}).encode()
    described = json.loads(to_json(state))
    told = tmp_path / "told"
    bucket = choice.bucket_of(state.groups[0], 0)

    def with_wireguard(*given: object) -> None:  # which needs a kernel
        told.with_name("peers").write_text(str(len(list(given[-1]))))  # type: ignore[call-overload]

    def load(text: str) -> None:
        told.write_text(text)

    monkeypatch.setattr(wireguard, "synchronise", with_wireguard)
    clients = Clients()
    asyncio.run(clients.place(described, said, "private", buckets, load))
    assert clients.kept_out == ["c7"]
    assert told.with_name("peers").read_text() == str(MANY - 1)
    assert clients.placed[3] == Placed("c3", "key3", "10.13.0.3", "default", bucket)
    assert [client.name for client in clients.placed] == [client.name for client in all_]
    assert f"10.13.0.3 : {bucket}" in told.read_text()

    def refused(text: str) -> None:
        raise RuntimeError(f"nftables: no room for {len(text)}")

    with pytest.raises(aside.WorkError, match="no room"):
        asyncio.run(clients.place(described, said, "private", buckets, refused))
    assert len(clients.placed) == MANY, "the former ones are still in"

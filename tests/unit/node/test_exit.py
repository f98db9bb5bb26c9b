"""What an exit says of itself; how it lives is tried in tests/scenarios, since it needs a network of its own."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chain.node.exit import Exit
from chain.node.kinds import create
from chain.node.kinds.base import DialError
from chain.node.kinds.causes import Diagnosis
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chain.topology import Topology

DIRECT = "entry: {endpoint: vpn.example.org}\nexits: {home: {kind: direct}}\ngroups: {default: {exits: [home]}}\n"


def asked(exit_: Exit, path: Path) -> dict[str, object]:
    """Ask an exit as `docker exec` does."""

    async def scene() -> bytes:
        async with await asyncio.start_unix_server(exit_._serve, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b'{"verb": "status"}\n')
            answer = await reader.readline()
            writer.close()
            return answer

    (found,) = json.loads(asyncio.run(scene()))["exits"]
    return dict(found)


def test_it_says_how_it_is_and_whom_it_asks(built: Callable[[str], Topology], tmp_path: Path) -> None:
    settings = built(DIRECT).exits[0].settings
    exit_ = Exit(settings)
    exit_._kind = create(settings, {})
    found = asked(exit_, tmp_path / "control.sock")
    assert (found["name"], found["kind"], found["state"], found["cause"]) == ("home", "direct", "locked", "starting")
    assert (found["open"], found["targets"]) == (False, [])
    exit_._targets = ("9.9.9.9",)
    exit_._become("up", Diagnosis("a probe was answered"))
    found = asked(exit_, tmp_path / "again.sock")
    assert (found["open"], found["targets"], found["warning"]) == (True, ["9.9.9.9"], "")
    since = found["since"]
    assert isinstance(since, float)
    assert since <= time.time()


def test_a_name_that_is_unknown_does_not_keep_it_from_the_files_other_servers(built: Callable[[str], Topology]) -> None:
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    file = f"client\nremote a.example\nremote b.example\nauth-user-pass\n<ca>\n{certificate}</ca>\n"
    settings = built("entry: {endpoint: vpn.example.org}\nexits: {rome: {kind: openvpn}}\n").exits[0].settings
    exit_ = Exit(replace(settings, bootstrap_dns=()))
    exit_._kind = create(settings, {"ovpn_config": Secret(file)})
    for expected in ("b.example", "a.example"):
        with pytest.raises(DialError, match="name can't be resolved"):
            asyncio.run(exit_._tunnel())
        assert exit_._kind.server == expected

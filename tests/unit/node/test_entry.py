from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from chain.contract import STATE_FILE, Client, to_json
from chain.node import entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from chain.topology import Topology


def test_a_client_whose_key_is_missing_is_kept_out_and_the_others_come_in(
    built: Callable[[str], Topology],
    minimal: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(entry, "PEERS_DIR", str(tmp_path))
    key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    (tmp_path / "phone").write_text(f"{key}\n")
    (tmp_path / "tv").write_text(f"PresharedKey = {key}\n")
    names = ("phone", "laptop", "tv")
    clients = [Client(name, "", "10.13.13.2", "fd00::2", "default", psk_file=name) for name in names]
    clients.append(Client("old", "", "10.13.13.4", "fd00::4", "default"))
    state = replace(built(minimal).state, clients=tuple(clients))
    assert entry.preshared_keys(state) == {"phone": key}
    assert capsys.readouterr().err == (
        "entry: client laptop is kept out: this secret's file is missing\n"
        "entry: client tv is kept out: its preshared key is malformed\n"
    )
    told = json.loads(entry.clients_line(state))
    assert [client["name"] for client in told["clients"]] == [client.name for client in state.clients]
    assert told["preshared"] == {"phone": key}


def test_who_follows_events_does_not_stand_in_the_way_of_an_agent_that_hangs(
    built: Callable[[str], Topology], minimal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(entry, "SILENCE", 0.05)
    (tmp_path / STATE_FILE).write_text(to_json(built(minimal).state))

    async def scene() -> None:
        found = entry.Entry()
        began = found._began
        found._events.extend({"number": began + step} for step in (1, 2, 3))
        rest = {"entry": began, "events": [{"number": began + 3}]}
        pipe = asyncio.subprocess.PIPE
        mute = found._agent = await asyncio.create_subprocess_exec("sleep", "3600", stdin=pipe, stdout=pipe)
        found._reading = asyncio.create_task(found._read_agent(mute))
        try:
            assert await found._events_since(began + 2) == rest
            assert found._questions == 0
            found._agent_rules = True
            assert await found._events_since(began + 2) == rest
            assert found._questions == 1
        finally:
            mute.kill()
            await mute.wait()
            await found._reading

    asyncio.run(scene())

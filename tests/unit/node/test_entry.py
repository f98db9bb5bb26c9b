from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chain.contract import Client
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

"""Where clients were last seen, kept across the entry's restarts.

After a restart a client goes on with keys that are void, and by WireGuard's rules only notices after 15 s. An entry
that remembers where it is can start the handshake itself, so that its traffic is back at once.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

FRESH = 180  # seconds; a session's keys live that long, and a NAT in between hardly longer


def recent(dump: str, now: float, proxies: Collection[str]) -> dict[str, str]:
    """Give public key → endpoint of the clients in `wg show INTERFACE dump` that are there now.

    One that came in through Docker's own proxy has a gateway's address, from which an answer would not be taken.
    """
    found = {}
    for line in dump.splitlines()[1:]:
        key, _, endpoint, _, handshake, *_ = line.split("\t")
        if endpoint.rpartition(":")[0].strip("[]") not in proxies and now - int(handshake) < FRESH:
            found[key] = endpoint
    return found


def lost(dump: str, remembered: dict[str, str]) -> dict[str, str]:
    """Give those remembered clients with which there has been no handshake since the interface was made."""
    silent = {line.split("\t")[0] for line in dump.splitlines()[1:] if line.split("\t")[4] == "0"}
    return {key: endpoint for key, endpoint in remembered.items() if key in silent}


def load(path: Path) -> dict[str, str]:
    """Read what was saved; nothing, where there is nothing that can be read."""
    try:
        found = json.loads(path.read_text())
        return {str(key): str(endpoint) for key, endpoint in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def save(path: Path, endpoints: dict[str, str]) -> None:
    """Write atomically, for the owner alone: it says where people are. Raises OSError."""
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(endpoints, file)
    part.replace(path)

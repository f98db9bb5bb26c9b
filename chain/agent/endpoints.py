"""Where clients were last seen, kept across the entry's restarts.

After a restart a client goes on with keys that are void, and by WireGuard's rules only notices after 15 s. An entry
that remembers where it is can start the handshake itself, so that its traffic is back at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

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

"""Where clients were last seen, kept across the entry's restarts.

After a restart a client goes on with keys that are void, and by WireGuard's rules only notices after 15 s. An entry
that remembers where it is can start the handshake itself, so that its traffic is back at once.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

FRESH = 180  # seconds; a session's keys live that long, and a NAT in between hardly longer
# With 128 answers waiting, wireguard-go thinks that it is attacked: it drops what comes in the next second, and has
# clients prove their address by the next call, which is 5 s later.
AT_ONCE = 100
PATIENCE = 0.25  # seconds, after which a client that has not answered is no longer expected to
LONG_PATIENCE = 1.0  # the same since the last answer of all, where no later one came before


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


def lost(dump: str, remembered: Mapping[str, str]) -> dict[str, str]:
    """Give those remembered clients with which there has been no handshake since the interface was made."""
    silent = {line.split("\t")[0] for line in dump.splitlines()[1:] if line.split("\t")[4] == "0"}
    return {key: endpoint for key, endpoint in remembered.items() if key in silent}


def known(dump: str) -> set[str]:
    """Give the public keys of all clients that the interface has."""
    return {line.split("\t")[0] for line in dump.splitlines()[1:]}


class Calls:
    """Whom to call when: no more at a time than can be listened to.

    Answers are taken in the order in which they come. So one that is missing while later ones are there will not come;
    but where none came for a while, that may be for lack of a processor, and then more calls would only add to it.
    """

    def __init__(self, lost: Mapping[str, str]) -> None:
        self._todo = dict(lost)
        self._expected: dict[str, tuple[int, float]] = {}  # the call's number, and until when an answer is likely
        self._count = 0
        self._last = -1  # the highest number that was answered
        self._heard = -math.inf

    @property
    def over(self) -> bool:
        return not self._todo

    def due(self, now: float, silent: Collection[str]) -> dict[str, str]:
        """Give whom to call now, public key → endpoint. `silent`: those that have not answered yet."""
        if answered := [number for key, (number, _) in self._expected.items() if key not in silent]:
            self._last, self._heard = max(self._last, *answered), now
        self._expected = {
            key: (number, until)
            for key, (number, until) in self._expected.items()
            if key in silent and (now < until or (number > self._last and now < self._heard + LONG_PATIENCE))
        }
        found = dict(itertools.islice(self._todo.items(), AT_ONCE - len(self._expected)))
        for key in found:
            del self._todo[key]
            self._expected[key] = self._count, now + PATIENCE
            self._count += 1
        return found

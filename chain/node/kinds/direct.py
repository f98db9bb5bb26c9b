"""Direct exit, inside its container: nothing is dialled, and all that is left is the way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chain.node.kinds import causes
from chain.node.kinds.base import Interface, Tunnel
from chain.node.lock import UplinkRules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import ExitSettings
    from chain.node.kinds.causes import Diagnosis
    from chain.secret import Secret


def create(settings: ExitSettings, secrets: Mapping[str, Secret]) -> Direct:
    del secrets
    return Direct(settings)


class Direct(Interface):
    interface = ""
    server = ""

    def __init__(self, settings: ExitSettings) -> None:
        self.rules = UplinkRules((), ())
        self.refused = tuple(settings.options["refused"])

    async def dial(self, server: str) -> Tunnel:
        del server
        return Tunnel("")

    async def revive(self) -> None:
        """Nothing to do: there is nothing that could be worn out."""

    async def mute(self, asked: str, *, stood: bool) -> Diagnosis:
        return (causes.LOST if stood else causes.DIRECT_MUTE).found(asked=asked)

    async def lost(self) -> Diagnosis:
        await asyncio.Event().wait()  # there is no tunnel that could say so: probes do
        return causes.LOST.found(asked="nobody")

    async def hang_up(self) -> None:
        """Nothing to do: nothing was dialled."""

"""The exit's end of a report connection. While it stands, the sender is locked and may be sent packets."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from chain.contract import HEARTBEAT, REPORT_PORT, SILENCE, ExitReport, Need, from_json, to_json
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.contract import Link

_RETRY_SECONDS = 0.05  # after a refusal, or an end
# A first packet that meets nobody is gone, and the kernel sends its next one a second later: a try is soon given up,
# since another one is what finds a sender that starts. Little by little a try takes longer, for a machine that is slow.
_TRY_SECONDS, _LONGER, _MOST_TRY_SECONDS = 0.1, 1.1, 0.6


class Reporter:
    """Keeps one connection to a sender, forever.

    `on_sender(True)`: it has spoken, so is locked; False: it is gone. `on_need`: whether it needs the tunnel.
    """

    def __init__(
        self,
        link: Link,
        current: Callable[[], ExitReport],
        on_sender: Callable[[bool], None],
        on_need: Callable[[bool], None],
        *,
        who: str,
    ) -> None:
        """`who` the sender is, for the log."""
        self._link = link
        self._current = current
        self._on_sender = on_sender
        self._on_need = on_need
        self._who = who
        self._changed = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    def changed(self) -> None:
        """Send a report now instead of at the next heartbeat: at once, since the caller may be busy for a while now.

        Another one follows when it is not, with what has become of the rest by then.
        """
        if self._writer is not None:
            self._report(self._writer)
        self._changed.set()

    def _report(self, writer: asyncio.StreamWriter) -> None:
        writer.write(to_json(self._current()).encode() + b"\n")

    async def run(self) -> None:
        patience = _TRY_SECONDS
        while True:
            try:
                async with asyncio.timeout(patience):
                    reader, writer = await asyncio.open_connection(
                        self._link.sender_address, REPORT_PORT, local_addr=(self._link.exit_address, 0)
                    )
            except TimeoutError:
                patience = min(_LONGER * patience, _MOST_TRY_SECONDS)
                continue
            except OSError:  # refused
                pass
            else:
                patience = _TRY_SECONDS
                # ValueError: what is no such line, which ends the connection.
                with contextlib.suppress(OSError, TimeoutError, ValueError):
                    await self._converse(reader, writer)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        sender = asyncio.create_task(self._send(writer))
        heard = False
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    line = await reader.readline()
                if not line:
                    break
                need = from_json(Need, line).dial
                if not heard:
                    heard = True
                    self._on_sender(True)  # noqa: FBT003 - a state, not an option
                    log("report", f"{self._who} is there and locked")
                if need is not None:
                    self._on_need(need)
        finally:
            self._writer = None
            sender.cancel()
            writer.close()
            if heard:
                self._on_sender(False)  # noqa: FBT003 - a state, not an option
                log("report", f"{self._who} is gone")

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._changed.clear()
                self._report(writer)
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), HEARTBEAT)


def statistics(interface: str) -> tuple[int, int]:
    """Give bytes received and sent by an interface; zeros when it is gone."""
    values = []
    for name in ("rx_bytes", "tx_bytes"):
        try:
            with open(f"/sys/class/net/{interface}/statistics/{name}", encoding="ascii") as file:  # noqa: PTH123 - hot, and stdlib-small
                values.append(int(file.read()))
        except OSError:
            return 0, 0
    return values[0], values[1]

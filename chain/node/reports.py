"""The other end of exits' report connections: an exit is there while its connection stands, not a moment longer.

It is the entry's, and that of an exit which runs through another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from chain.contract import HEARTBEAT, REPORT_PORT, SILENCE, ExitReport, Need, from_json, printable, to_json
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

WORD, SENTENCE = 40, 300  # characters
MOST_TARGETS = 4
MOST_LINES = 50  # in a second: an exit speaks once, and when something changes
AHEAD = 60.0  # seconds that an exit's clock may be ahead of the entry's


def read(name: str, line: bytes) -> ExitReport:
    """Read one line of an exit, which may have been taken over: its words end up on an operator's terminal.

    Raises ValueError.
    """
    report = from_json(ExitReport, line)
    now = time.time()
    return replace(
        report,
        exit=name,
        since=report.since if 0 <= report.since <= now + AHEAD else now,
        state=printable(report.state, WORD),
        cause=printable(report.cause, SENTENCE),
        advice=printable(report.advice, SENTENCE),
        warning=printable(report.warning, SENTENCE),
        tunnel_address=printable(report.tunnel_address, WORD),
        near=tuple(map(_address, report.near[:MOST_TARGETS])),
        public=tuple(map(_address, report.public[:MOST_TARGETS])),
    )


def _address(text: str) -> str:
    """Give the IPv4 address that the text is. Raises ValueError."""
    return str(IPv4Address(text))


class Reports:
    """Listens on every link. `on_report(exit, report)`: news of an exit, or None when its connection has ended."""

    def __init__(self, who: str, on_report: Callable[[str, ExitReport | None], None]) -> None:
        """`who` listens, for the log."""
        self._who = who
        self._on_report = on_report
        self._servers: dict[str, asyncio.Server] = {}
        self._current: dict[str, asyncio.StreamWriter] = {}
        self._needed: frozenset[str] | None = None
        self._needs_changed = asyncio.Event()

    async def listen(self, addresses: Mapping[str, str]) -> None:
        """Listen for exactly these exits, each at the own address on the link with it."""
        for name in self._servers.keys() - addresses.keys():
            self._servers.pop(name).close()
        for name, address in addresses.items():
            if name not in self._servers:
                self._servers[name] = await asyncio.start_server(
                    functools.partial(self._converse, name), address, REPORT_PORT
                )

    def need(self, names: Collection[str]) -> None:
        """Let exits know at once who of them is needed. Until this is called, they stay as they are."""
        if names != self._needed:
            self._needed = frozenset(names)
            self._needs_changed.set()
            self._needs_changed = asyncio.Event()

    async def _converse(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if previous := self._current.get(name):
            previous.close()
        self._current[name] = writer
        beating = asyncio.create_task(self._beat(name, writer))
        cause = "connection closed"
        lines, second = 0, time.monotonic()
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    line = await reader.readline()
                if not line:
                    break
                if time.monotonic() - second > 1:
                    lines, second = 0, time.monotonic()
                lines += 1
                if lines > MOST_LINES:
                    cause = f"more than {MOST_LINES} reports in a second"
                    break
                if self._current.get(name) is writer:
                    self._on_report(name, read(name, line))
        except TimeoutError:
            cause = f"silent for {SILENCE} s"
        except (OSError, ValueError) as error:
            cause = printable(str(error), SENTENCE)
        finally:
            beating.cancel()
            writer.close()
            if self._current.get(name) is writer:
                del self._current[name]
                log(self._who, f"exit {name}: {cause}")
                self._on_report(name, None)

    async def _beat(self, name: str, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                changed = self._needs_changed
                need = Need(None if self._needed is None else name in self._needed)
                writer.write(to_json(need).encode() + b"\n")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), HEARTBEAT)

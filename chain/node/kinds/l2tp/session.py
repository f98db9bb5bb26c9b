"""The L2TP half of the tunnel: one xl2tpd and its pppd, made anew for each dial.

An xl2tpd that is kept takes a dead server's old tunnel for a living one, and then a redial takes a minute.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.node.kinds import causes
from chain.node.kinds.base import DialError, Tunnel
from chain.node.kinds.l2tp import files
from chain.node.kinds.l2tp.lines import l2tp_failure, l2tp_silence
from chain.node.supervise import Daemon, log

if TYPE_CHECKING:
    from chain.node.kinds.causes import Diagnosis

FIFO = "ppp.events"  # the image's ppp-event writes there
_DIAL_SECONDS = 30.0  # L2TP's handshake, PPP's, and the password
_FAREWELL_SECONDS = 0.7  # for pppd to end its link while there is still a way to the server
_LAST_WORDS_SECONDS = 0.5  # from the end of PPP to what the daemons say about it

# What xl2tpd says each time whatever happens: its history, and pppd's command line word by word.
_DULL = re.compile(r'^("|start_pppd: I.m running|Written by|Forked|Inherited by|Not looking for|xl2tpd version)')
# What pppd says of a word that it finds too long begins with that word. Such secrets are refused long before.
_TELLING = re.compile(r"word in file .* too long")
_PREFIX = re.compile(r"^.*?xl2tpd\[\d+\]: ")  # sometimes behind the rest of a line that was not finished
_CLOSING = re.compile(
    r"Connection closed to|Maximum retries exceeded|pppd (exited|terminated) for call|PPPoL2TP socket"
)


class Session:
    """`dial` once, then `lost`, then `end`."""

    def __init__(self, folder: Path, interface: str, number: int) -> None:
        self._folder = folder
        self._interface = interface
        self._number = str(number)
        self._daemon: Daemon | None = None
        self._lines: collections.deque[str] = collections.deque(maxlen=50)
        self._up: asyncio.Future[Tunnel] = asyncio.get_running_loop().create_future()
        self._down = asyncio.Event()  # PPP has lost its address
        self._closed = asyncio.Event()  # a daemon said that the call is over
        self._fifo = -1

    async def dial(self, server: str, options: str) -> Tunnel:
        """Start the daemons; return when PPP has an address. Raises DialError."""
        self._listen()
        config, ppp_options = self._folder / "xl2tpd.conf", self._folder / "ppp.options"
        config.write_text(files.xl2tpd_conf(server, str(ppp_options)))
        _write_private(ppp_options, options)
        places = f"-c {config} -s /dev/null -p {self._folder}/xl2tpd.pid -C {self._folder}/xl2tpd.control"
        self._daemon = Daemon("xl2tpd", "xl2tpd", "-D", *places.split(), on_line=self._line)
        ending = asyncio.create_task(self._end_of(self._daemon))
        waiting: list[asyncio.Future[Any]] = [self._up, ending]
        try:
            await self._daemon.start()
            await asyncio.wait(waiting, timeout=_DIAL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            ppp_options.unlink(missing_ok=True)  # pppd has read it by now
        if not self._up.done():
            raise DialError(l2tp_failure(self._lines) or l2tp_silence(self._lines))
        return self._up.result()

    async def lost(self) -> Diagnosis:
        """Wait for the end of the session; give the cause."""
        if self._daemon is not None:
            await self._end_of(self._daemon)
        return l2tp_failure(self._lines) or causes.DAEMON_DIED.found(what="xl2tpd died")

    async def end(self, *, farewell: bool) -> None:
        """End both daemons, with a word to the server if it can be reached. Repeatable."""
        pids = _pids("pppd")
        if farewell and pids and self._daemon is not None and self._daemon.running and not self._closed.is_set():
            _kill(pids, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), _FAREWELL_SECONDS)
        _kill(_pids("pppd"), signal.SIGKILL)
        if self._daemon is not None:
            await self._daemon.stop()
            self._daemon = None
        if self._fifo >= 0:
            asyncio.get_running_loop().remove_reader(self._fifo)
            os.close(self._fifo)
            self._fifo = -1

    async def _end_of(self, daemon: Daemon) -> None:
        """Wait until the call is over, and until the daemons have said why, if they do so at once."""
        tasks = [asyncio.create_task(event.wait()) for event in (self._down, self._closed, daemon.ended)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(tasks[1:], timeout=_LAST_WORDS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _line(self, line: str) -> bool:
        """See each line of both daemons: xl2tpd puts its name before its own, pppd nothing."""
        text = _PREFIX.sub("", line)
        if _DULL.match(text) or _TELLING.search(text):
            return True
        log("pppd" if text == line else "xl2tpd", text)
        self._lines.append(text)
        if _CLOSING.search(text):
            self._closed.set()
        return True

    def _listen(self) -> None:
        """Open the FIFO both ways, so that neither end ever waits for the other to come."""
        path = self._folder / FIFO
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._fifo, self._events)

    def _events(self) -> None:
        """Read what pppd's script wrote, a line each time. One of an earlier dial may come late: it counts no more."""
        for line in os.read(self._fifo, 4096).decode(errors="replace").splitlines():
            match line.split():
                case [_, _, _, _, number] if number != self._number:
                    pass
                case ["up", self._interface, own, peer, _] if not self._up.done():
                    self._up.set_result(Tunnel(own, peer))
                case ["down", self._interface, *_]:
                    self._down.set()
                case _:
                    log("pppd", f"an event that was not expected: {line}")


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _pids(name: str) -> list[int]:
    """Find programs by name: pppd is xl2tpd's child, then init's. In this container all of them are the exit's own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if path.read_text().strip() == name:
                found.append(int(path.parent.name))
    return found


def _kill(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

"""Xray exit, inside its container: clients' TCP and UDP are handed over to it, and it carries them to its server."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.contract import RUN_DIR
from chain.node.kinds import causes
from chain.node.kinds.base import DialError, Tunnel
from chain.node.kinds.xray import config, lines
from chain.node.lock import UplinkRules
from chain.node.probe import STREAM_BUFFER, objection, refusal
from chain.node.supervise import Daemon, log

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chain.contract import ExitSettings
    from chain.node.kinds.causes import Diagnosis
    from chain.node.probe import Stream
    from chain.secret import Secret

FILE = Path(RUN_DIR, "xray.json")
RUN = ("xray", "run", "-c")
_START_SECONDS = 30.0  # in emulation, beside others; a second otherwise
_LOOK_SECONDS = 0.05
_TRIAL_SECONDS = 4.0  # Xray tries five times in two seconds before it says why it can't
# A question for the root's name servers (RFC 1035), which every resolver answers; over TCP its length stands in front.
_QUESTION = struct.pack("!HHHHHH", 0x6368, 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack("!HH", 2, 1)
_HEAD = 12  # bytes: what of an answer has to come
_LISTEN = "0A"  # the state, in the kernel's list of sockets


def create(settings: ExitSettings, secrets: Mapping[str, Secret]) -> Xray:
    return Xray(settings, secrets)


class Xray:
    interface = ""
    capture = config.CAPTURE_PORT
    refused: tuple[str, ...] = ()
    patience = 5.0  # five times there and back, and a lost packet

    def __init__(self, settings: ExitSettings, secrets: Mapping[str, Secret]) -> None:
        self.server: str = settings.options["server"]
        port = settings.options["port"]
        self.rules = UplinkRules(
            tuple(f"{protocol} dport {port}" for protocol in settings.options["carriers"]),
            tuple(f"{protocol} sport {port} ct state established" for protocol in settings.options["carriers"]),
        )
        self._port: int = port
        self._options = settings.options
        (self._secret,) = secrets.values()
        self._targets = tuple(dict.fromkeys((*settings.probe_targets, *settings.public_targets)))
        self._address = ""
        self._daemon: Daemon | None = None

    async def dial(self, server: str) -> Tunnel:
        """Start Xray. It dials for each connection anew, so that only a probe tells whether anybody is there."""
        self._address = server
        await self.hang_up()
        document = config.document(self._options, self._secret.reveal(), server, self._targets)
        self._daemon = Daemon("xray", *RUN, str(FILE), on_line=lambda line: bool(lines.NOT_LOGGED.search(line)))
        await self._start(self._daemon, document)
        return Tunnel("")

    async def _start(self, daemon: Daemon, document: dict[str, Any]) -> None:
        """Start an Xray, and wait until it listens where it is to. Raises DialError."""
        ports = [inbound["port"] for inbound in document["inbounds"]]
        _write_private(FILE, json.dumps(document))
        try:
            await self._test()
            await daemon.start()
            async with asyncio.timeout(_START_SECONDS):
                while not _listening(ports):
                    if not daemon.running:
                        raise DialError(causes.DAEMON_DIED.found(what="xray ended while it was starting"))
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise DialError(causes.DAEMON_DIED.found(what="xray does not start")) from None
        finally:
            FILE.unlink(missing_ok=True)  # it has read it by now

    async def _test(self) -> None:
        """Have Xray read its configuration without acting on it. Raises DialError with its words, or TimeoutError."""
        process = await asyncio.create_subprocess_exec(
            *(*RUN, str(FILE), "-test"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            words = [self._hide(line) for line in output.decode(errors="replace").strip().splitlines()]
            for line in words:
                log("xray", line)
            raise DialError(causes.XRAY_REFUSES.found(line=lines.short(words[-1]) if words else "no word"))

    def _hide(self, line: str) -> str:
        return line.replace(self._secret.reveal(), "***")

    async def ask(self, target: str, sequence: int, timeout: float) -> float | None:  # noqa: ASYNC109 - as probes do
        del sequence
        started = time.monotonic()
        if await _answered(config.PROBE_PORT + self._targets.index(target), timeout):
            return time.monotonic() - started
        # A server that closes at once is no reason to ask it again at once.
        await asyncio.sleep(max(0.0, started + timeout - time.monotonic()))
        return None

    async def connect(self, address: str, port: int) -> Stream:
        """Have Xray connect; it says at once that it has, so that only what comes tells whether it did."""
        reader, writer = await asyncio.open_connection(config.LOOPBACK, config.DOOR_PORT, limit=STREAM_BUFFER)
        try:
            writer.write(f"CONNECT {address}:{port} HTTP/1.1\r\n\r\n".encode())
            said = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            said = b""
        except BaseException:
            writer.close()
            raise
        if b" 200 " not in said.partition(b"\r\n")[0]:
            writer.close()
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return reader, writer

    def unresolved(self) -> None:
        """Nothing to do: there is one server only."""

    async def revive(self) -> None:
        """Nothing to do: each connection is dialled for itself."""

    async def mute(self, asked: str, *, stood: bool) -> Diagnosis:
        if stood:
            return causes.LOST.found(asked=asked)
        if "tcp" in self._options["carriers"]:
            found = await refusal(self._address, self._port, causes.XRAY_NO_ANSWER.found(port=self._port))
        else:
            found = await objection(self._address, self._port)
        return found or await self._try(asked)

    async def _try(self, asked: str) -> Diagnosis:
        """Ask once more by an Xray that tells what becomes of it."""
        said: list[str] = []

        def hear(line: str) -> bool:
            said.append(self._hide(line))
            log("xray", said[-1])  # it has asked for nobody but this exit
            return True

        daemon = Daemon("xray", *RUN, str(FILE), on_line=hear)
        try:
            document = config.trial(self._options, self._secret.reveal(), self._address, self._targets[0])
            await self._start(daemon, document)
            answer = await _answered(config.TRIAL_PORT, _TRIAL_SECONDS)
        finally:
            await daemon.stop()  # after which all it said is heard
        reality = "realitySettings" in self._options["stream"]
        return lines.diagnose(said, reality=reality, ended=answer is False, asked=asked, port=self._port)

    async def lost(self) -> Diagnosis:
        if self._daemon is not None:
            await self._daemon.ended.wait()
        return causes.DAEMON_DIED.found(what="xray died")

    async def hang_up(self) -> None:
        if self._daemon is not None:
            await self._daemon.stop()
            self._daemon = None
        FILE.unlink(missing_ok=True)


async def _answered(port: int, timeout: float) -> bool | None:  # noqa: ASYNC109 - as probes do
    """Ask a resolver beyond the server by TCP; only bytes from there count, since Xray takes any connection.

    False: the connection was closed without any; None: nothing came in time.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(config.LOOPBACK, port)
            try:
                writer.write(struct.pack("!H", len(_QUESTION)) + _QUESTION)
                await reader.readexactly(2 + _HEAD)
                return True
            finally:
                writer.close()
    except TimeoutError:
        return None
    except (OSError, asyncio.IncompleteReadError):
        return False


def _listening(ports: Iterable[int]) -> bool:
    """Look whether somebody listens on all of them; to connect would send Xray off to its server."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    found = {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTEN}
    return found.issuperset(ports)


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)

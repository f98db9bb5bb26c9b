"""OpenVPN's management interface: what it tells, and what it is answered. By it no credential stands in a file.

OpenVPN connects to a socket of ours, so that none of its words is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from chain.ovpn import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_REALTIME = b"state on\n"
_RELEASE = b"hold release\n"
_NO_STATE = "CONNECTING"


class Management:
    """The talk with one OpenVPN process. `answers`: what it may ask for, such as Auth → (user name, password)."""

    def __init__(self, path: Path, answers: Mapping[str, tuple[str, str]], *, on_hold: Callable[[], None]) -> None:
        self._path = path
        self._answers = answers
        self._on_hold = on_hold
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._half: dict[str, str] = {}
        self.state = _NO_STATE
        self.reason = ""  # why it ends
        self.address = ""  # the own one in the tunnel
        self.environment: dict[str, str] = {}
        self.refused = ""  # what it was answered and has refused, such as Auth
        self.fatal = ""
        self.connected = asyncio.Event()
        self.ending = asyncio.Event()

    async def listen(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    def close(self) -> None:
        """Be heard and seen no more. Repeatable."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.close()
        self._writers = []
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(OSError, ValueError):  # it is gone, which its process tells
            writer.write(_REALTIME)
            while line := await reader.readline():
                writer.write(self.heard(line.decode(errors="replace").rstrip("\r\n")))
                await writer.drain()

    def heard(self, line: str) -> bytes:
        """Take in one line; give what is to be answered."""
        sort, _, rest = line.partition(":")
        match sort:
            case ">HOLD":
                self._on_hold()
                return _RELEASE
            case ">STATE":
                self._stands(rest.split(","))
            case ">PASSWORD":
                return self._password(rest)
            case ">UPDOWN":
                self._updown(rest)
            case ">FATAL":
                self.fatal = rest
        return b""

    def _stands(self, fields: list[str]) -> None:
        """Read time, state, reason, own address."""
        _, state, reason, address, *_ = [*fields, "", "", "", ""]
        if state in ("EXITING", "RECONNECTING"):
            self.reason = self.reason or reason
            self.ending.set()
            return
        self.state = state
        if state == "CONNECTED":
            self.address = address
            self.connected.set()

    def _updown(self, text: str) -> None:
        name, is_one, value = text.removeprefix("ENV,").partition("=")
        if text in ("UP", "DOWN"):
            self._half = {}
        elif text == "ENV,END":
            self.environment |= self._half
        elif is_one:
            self._half[name] = value

    def _password(self, text: str) -> bytes:
        """Answer `Need 'Auth' username/password`, or `Need 'Private Key' password`; note `Verification Failed: …`."""
        verb, _, rest = text.partition("'")
        name, _, what = rest.partition("'")
        if verb.startswith("Verification Failed"):
            self.refused = name
            return b""
        if not verb.startswith("Need") or name not in self._answers:
            return b""
        user, password = self._answers[name]
        lines = [f"username {quote(name)} {quote(user)}"] if "username" in what else []
        return "".join(f"{line}\n" for line in [*lines, f"password {quote(name)} {quote(password)}"]).encode()

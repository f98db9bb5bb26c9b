"""Hand one event to one hook: run its program, or post to its URL. Neither takes longer than it may.

A URL is a secret. No text made here has a part of it, nor of a library's error, which may quote it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from chain import __version__
from chain.config.models import is_web_address
from chain.errors import ChainError
from chain.secret import read_secret

if TYPE_CHECKING:
    from pathlib import Path

    from chain.secret import Secret

COMMAND_SECONDS = 30.0
WEBHOOK_SECONDS = 10.0
PASSED_ON = ("PATH", "HOME", "LANG")  # of the environment, which may hold what is not the programs' business


class FailedError(Exception):
    """It was not delivered. The text says why, and nothing secret."""


class Target(Protocol):
    """What a hook hands events to."""

    seconds: float  # that one attempt takes at most
    name: str

    def deliver(self, event: bytes) -> None:
        """Hand one event over. Raises FailedError."""

    def abandon(self) -> None:
        """Leave nothing behind that still runs."""


class Command:
    """A program that reads the event from its standard input."""

    name = "command"

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self._arguments, self._folder = arguments, folder
        self._running: subprocess.Popen[bytes] | None = None
        self.seconds = COMMAND_SECONDS

    def deliver(self, event: bytes) -> None:
        try:
            # A session of its own: Ctrl-C is for chain alone, which lets a program that runs come to its end.
            with subprocess.Popen(
                self._arguments,
                cwd=self._folder,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            ) as process:
                self._running = process
                try:
                    process.communicate(event, self.seconds)
                except subprocess.TimeoutExpired:
                    raise FailedError(f"it took longer than {self.seconds:g} s") from None
                finally:
                    self.abandon()
        except OSError as error:
            raise FailedError(f"it can't be started: {error.strerror}") from None
        if code := process.returncode:
            raise FailedError(f"signal {-code} ended it" if code < 0 else f"its exit code is {code}")

    def abandon(self) -> None:
        process = self._running
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Webhook:
    """A URL that lies in a file; it is read anew each time, so that it can be changed."""

    def __init__(self, file: Path, name: str) -> None:
        self._file = file
        self.name = f"webhook, {name}"
        self.seconds = WEBHOOK_SECONDS

    def deliver(self, event: bytes) -> None:
        end = time.monotonic() + self.seconds
        try:
            status = _post(read_secret(self._file), event, self.seconds)
        except ChainError as error:
            raise FailedError(error.problems[0].what) from None
        except (OSError, HTTPException, ValueError) as error:
            late = isinstance(error, TimeoutError) or time.monotonic() >= end
            raise FailedError(f"no answer within {self.seconds:g} s" if late else _reason(error)) from None
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            redirects = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
            raise FailedError(f"it answered {status}" + (", a redirection, which is not followed" if redirects else ""))

    def abandon(self) -> None:
        """Do nothing: the connection ends with this process."""


def environment() -> dict[str, str]:
    """Give what a hook's program sees of the environment."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def is_program(name: str, folder: Path) -> bool:
    """Tell whether a program can be run from a folder, under this name or by this way to it."""
    return shutil.which(str(folder / name) if "/" in name else name, path=environment().get("PATH")) is not None


def _post(url: Secret, event: bytes, seconds: float) -> int:
    """Give the status that a server answers with. Raises OSError, HTTPException, ValueError; their words may be secret.

    No proxy, no redirection: what is sent goes to whom the URL names, or to nobody.
    """
    text = url.reveal().strip()
    if not is_web_address(text):
        raise ValueError("no URL")
    parts = urlsplit(text)
    host = parts.hostname or ""
    context = ssl.create_default_context() if parts.scheme == "https" else None
    connection = HTTPSConnection(host, parts.port, context=context) if context else HTTPConnection(host, parts.port)
    with socket.create_connection((host, connection.port), seconds) as raw:
        channel = raw
        if context:  # the handshake is to begin under the timer's watch
            channel = context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
        # A socket's own limit is for each word, and a server may say one letter at a time.
        watchdog = threading.Timer(seconds, _hang_up, [channel])
        watchdog.daemon = True
        with channel:
            watchdog.start()
            try:
                if isinstance(channel, ssl.SSLSocket):
                    channel.do_handshake()
                connection.sock = channel
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("POST", target, event, _headers(parts))
                with connection.getresponse() as response:
                    return response.status
            finally:
                watchdog.cancel()


def _headers(parts: SplitResult) -> dict[str, str]:
    found = {"Content-Type": "application/json", "User-Agent": f"chain/{__version__}", "Connection": "close"}
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        found["Authorization"] = f"Basic {b64encode(credentials.encode()).decode()}"
    return found


def _hang_up(channel: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended
        socket.socket.shutdown(channel, socket.SHUT_RDWR)  # not TLS' own, which would change what is being read from


def _reason(error: Exception) -> str:
    """Say what went wrong, in words of which none can be the URL's."""
    match error:
        case ssl.SSLCertVerificationError():
            return "its certificate is not of an authority that is trusted, or of another name, or out of date"
        case ssl.SSLError():
            return "it speaks no TLS that can be used"
        case socket.gaierror():
            return "its name can't be looked up"
        case OSError(errno=int(number)):
            return os.strerror(number)
        case HTTPException() | OSError():
            return "it gave no answer of HTTP"
    return "what is in that file is no URL of http or https"

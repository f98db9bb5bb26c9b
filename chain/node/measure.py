"""What a tunnel is like, measured by `docker exec` in a process of its own beside the exit's.

All that it asks goes through the tunnel as the exit's own probes do, by the kind's own way. What strangers answer is
read here and not by the resident runtime, which has other things to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import secrets
import struct
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chain.contract import Measurement, Order, from_json, printable, to_json
from chain.errors import ChainError
from chain.node import caps, control, kinds
from chain.node.exit import load
from chain.node.probe import largest, mtu_of, ping
from chain.node.resolve import CLASS_CHAOS, CLASS_IN, PORT, TYPE_A, TYPE_TXT, addresses_in, question, texts_in

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from chain.node.kinds.base import Kind

_PAUSE = 0.2  # seconds between two questions
_PATIENCE = 5.0  # seconds to a connection, and to an answer by it
_CHUNK = 1 << 18
_PORTS = {"http": 80, "https": 443}
_FOUND = 200
_WORDS = 80  # characters of what a stranger says
_LOST = (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError)  # what becomes of a conversation


def report() -> int:
    """Measure what the first line on standard input orders; 0 when it could be begun.

    Prints what is being done and then the result, each as a line of JSON.
    """
    try:
        order = from_json(Order, sys.stdin.readline())
        target = _target()
        settings = load()
        given = kinds.read_secrets(settings)
        caps.drop(caps.CAP_DAC_OVERRIDE)
        asyncio.run(_while_wanted(_measure(kinds.create(settings, given), target, order)))
    except (ChainError, OSError, RuntimeError, ValueError) as error:
        _say({"error": str(error)})
        return 1
    return 0


def _target() -> str:
    """Name whom the resident runtime asks whether the tunnel lives. Raises RuntimeError when it does not."""
    answer = control.ask({"verb": "status"})
    if "error" in answer:
        raise RuntimeError(answer["error"])
    (exit_,) = answer["exits"]
    if not exit_["open"]:
        raise RuntimeError(f"the tunnel is {exit_['state']}: {exit_['cause']}")
    return str(exit_["targets"][0])


async def _while_wanted(work: Coroutine[None, None, Measurement]) -> None:
    """Work to the end, or to that of standard input, where that can end: the engine does not tell of a lost reader."""
    task = asyncio.ensure_future(work)
    with contextlib.suppress(PermissionError):  # nothing that could end, such as /dev/null
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        _say(await task)


def _say(what: object) -> None:
    sys.stdout.write(to_json(what) + "\n")
    sys.stdout.flush()


async def _measure(kind: Kind, target: str, order: Order) -> Measurement:
    _say({"doing": f"asking {order.whoami_server} who asks"})
    outside, outside_why = await outside_address(kind, order)
    _say({"doing": f"asking {target}, {order.asked} times"})
    answers = await times(kind, target, order.asked)
    _say({"doing": "looking for the largest packet that passes"})
    mtu, fits, fits_why = await size(kind, target)
    received, seconds, download_why = 0, 0.0, ""
    if order.url:
        _say({"doing": f"downloading, for at most {order.seconds:.0f} s"})
        received, seconds, download_why = await download(kind, order)
    return Measurement(
        target=target,
        answers_ms=tuple(round(1e3 * answer, 2) for answer in answers),
        outside=outside,
        outside_why=outside_why,
        mtu=mtu,
        fits=fits,
        fits_why=fits_why,
        bytes=received,
        seconds=round(seconds, 3),
        download_why=download_why,
    )


async def outside_address(kind: Kind, order: Order) -> tuple[str, str]:
    """Give the address that the outside sees, or why that is not known."""
    class_ = CLASS_CHAOS if order.chaos else CLASS_IN
    try:
        answer = await _asked(kind, order.whoami_server, PORT, order.whoami, TYPE_TXT, class_)
        texts = texts_in(answer, class_)
    except (*_LOST, ValueError) as error:
        return "", f"{order.whoami_server} gave no answer by TCP port {PORT} ({_word(error)})"
    for text in texts:
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(text)), ""
    return "", f"{order.whoami_server} answered, but named no address"


async def _asked(kind: Kind, server: str, port: int, name: str, type_: int, class_: int) -> bytes:  # noqa: PLR0917 - a question's parts
    """Ask by TCP, which every kind carries. Raises OSError, EOFError, TimeoutError or ValueError."""
    asked = question(name, secrets.randbits(16), type_, class_)
    async with asyncio.timeout(_PATIENCE):
        reader, writer = await kind.connect(server, port)
        try:
            writer.write(struct.pack("!H", len(asked)) + asked)
            answer = await reader.readexactly(*struct.unpack("!H", await reader.readexactly(2)))
        finally:
            writer.close()
    if answer[:2] != asked[:2]:
        raise ValueError("an answer to another question")
    return answer


async def times(kind: Kind, target: str, count: int) -> list[float]:
    """Ask so often as the exit itself does; give the seconds to each answer that came."""
    found = []
    for number in range(count):
        if number:
            await asyncio.sleep(_PAUSE)
        answer = await kind.ask(target, number, kind.patience)
        if answer is not None:
            found.append(answer)
    return found


async def size(kind: Kind, target: str) -> tuple[int | None, int | None, str]:
    """Give the tunnel's MTU as it stands, the largest packet that passes, and why that is not known."""
    name = kind.interface
    if not name:
        return None, None, "clients' packets do not pass as they are" if kind.capture else "there is no tunnel"
    full = mtu_of(name)
    most = 0

    async def passes(count: int) -> bool:
        nonlocal most
        found = await ping(target, name, count, kind.patience, count) is not None
        most = max(most, count if found else 0)
        return found

    fits = await largest(full, passes)
    if fits or most == full:
        return full, fits or full, ""
    if most:
        return full, None, f"packets got lost beside the question, up to {most} bytes passed"
    return full, None, f"{target} answers no large pings"


async def download(kind: Kind, order: Order) -> tuple[int, float, str]:
    """Download within the order's bounds; give the bytes, the seconds from the request on, and why there are none."""
    url = urlsplit(order.url)
    host, scheme = url.hostname or "", url.scheme
    try:
        address = await _address(kind, host, order.resolvers)
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await kind.connect(address, url.port or _PORTS[scheme])
            if scheme == "https":
                await _encrypt(writer, host)
        try:
            return await _fetched(reader, writer, f"{url.path or '/'}{url.query and '?'}{url.query}", url.netloc, order)
        finally:
            writer.close()
    except (*_LOST, ValueError) as error:
        return 0, 0.0, _word(error)


async def _fetched(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, host: str, order: Order
) -> tuple[int, float, str]:
    """Ask for a file and count what comes of it. Raises OSError, EOFError, TimeoutError or ValueError."""
    started = time.monotonic()
    # By HTTP/1.0 a body comes as it is, to the end of the connection.
    writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: chain\r\nAccept: */*\r\n\r\n".encode())
    async with asyncio.timeout(_PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
    code, length = read_head(head)
    if code != _FOUND:
        return 0, 0.0, f"the server answers: {printable(head.splitlines()[0], _WORDS)}"
    received, most = 0, order.most if length is None else min(order.most, length)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + order.seconds):
            while received < most and (chunk := await reader.read(_CHUNK)):
                received += len(chunk)
    return received, time.monotonic() - started, "" if received else "nothing came"


def read_head(head: str) -> tuple[int, int | None]:
    """Give the status and the length of the body that a server announces, if it does. Raises ValueError."""
    first, *fields = head.splitlines()
    words = first.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():  # noqa: PLR2004 - version, code
        raise ValueError("the server speaks no HTTP")
    given = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    length = given.get("content-length", "")
    return int(words[1]), int(length) if length.isdecimal() else None


async def _address(kind: Kind, host: str, resolvers: tuple[str, ...]) -> str:
    """Give a host's address: its name is asked for through the tunnel. Raises OSError, naming what became of it."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.IPv4Address(host))
    reasons = []
    for resolver in resolvers:
        server, _, port = resolver.partition("@")
        try:
            addresses = addresses_in(await _asked(kind, server, int(port), host, TYPE_A, CLASS_IN))
        except (*_LOST, ValueError) as error:
            reasons.append(f"{server}: {_word(error)}")
            continue
        if addresses:
            return addresses[0]
        reasons.append(f"{server}: no such name")
    raise OSError(f"the name {host} can't be resolved through the tunnel ({'; '.join(reasons)})")


async def _encrypt(writer: asyncio.StreamWriter, host: str) -> None:
    """Begin TLS. Raises OSError."""
    import ssl  # 5 MB, which most tests do without

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing of what comes is kept or believed, and most images have no authorities to check a certificate by.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    await writer.start_tls(context, server_hostname=host)


def _word(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, EOFError):
        return "the connection was closed"
    if reason := getattr(error, "reason", None):  # of TLS, whose numbers are none of the system's
        return printable(str(reason), 2 * _WORDS)
    number = error.errno if isinstance(error, OSError) else None
    return printable(os.strerror(number) if number else str(error), 2 * _WORDS)

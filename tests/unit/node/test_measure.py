"""What is measured, with servers on the loopback. Through real tunnels it is tried in tests/scenarios."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import struct
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from chain.contract import Order, to_json
from chain.node import control, measure
from chain.node.kinds.direct import Direct

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from chain.node.kinds.base import Kind
    from chain.node.probe import Stream

    Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

ORDER = Order(
    asked=3,
    whoami="whoami.cloudflare",
    whoami_server="192.0.2.1",
    chaos=True,
    url="http://files.example/large",
    resolvers=("192.0.2.53@53",),
    seconds=5.0,
    most=1_000_000,
)
SEEN = "203.0.113.9"
OK = b"HTTP/1.1 200 OK\r\n"


class Near(Direct):
    """A kind whose tunnel leads to servers on the loopback, by the port that is asked for."""

    interface = ""
    patience = 0.2

    def __init__(self, servers: dict[int, int], answers: list[float | None]) -> None:
        self._servers, self._answers = servers, answers
        self.asked: list[str] = []

    async def ask(self, target: str, sequence: int, timeout: float) -> float | None:  # noqa: ARG002, ASYNC109 - as the protocol has it
        return self._answers[sequence]

    async def connect(self, address: str, port: int) -> Stream:
        self.asked.append(address)
        if port not in self._servers:
            raise ConnectionRefusedError(111, "Connect call failed")
        return await asyncio.open_connection("127.0.0.1", self._servers[port])


@asynccontextmanager
async def tunnel(
    servers: dict[int, Converse], answers: list[float | None] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Kind]:
    """Give a kind that reaches these servers, by port; 443 is the one that speaks TLS."""
    running = {
        port: await asyncio.start_server(
            partial(_conversation, converse), "127.0.0.1", ssl=tls if port == 443 else None
        )
        for port, converse in servers.items()
    }
    try:
        yield Near({port: server.sockets[0].getsockname()[1] for port, server in running.items()}, answers or [])
    finally:
        for server in running.values():
            server.close()


async def _conversation(converse: Converse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await converse(reader, writer)
    except (OSError, EOFError):
        pass  # whoever asked has enough
    finally:
        writer.close()


async def dns(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer A with an address, and TXT with two texts of which the second is one, in the class that was asked."""
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    question = await reader.readexactly(length)
    kind, class_ = struct.unpack("!HH", question[-4:])
    texts = [b"no address", SEEN.encode()]
    datas = [bytes([192, 0, 2, 7])] if kind == 1 else [bytes([len(text)]) + text for text in texts]
    records = [b"\xc0\x0c" + struct.pack("!HHIH", kind, class_, 1, len(data)) + data for data in datas]
    answer = question[:2] + struct.pack("!HHHHH", 0x8180, 1, len(records), 0, 0) + question[12:] + b"".join(records)
    writer.write(struct.pack("!H", len(answer)) + answer)
    await writer.drain()


def says(text: bytes, *, stays: bool = False) -> Converse:
    """Make a server that reads a request and says this."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()
        if stays:
            await reader.read()

    return converse


def outside(servers: dict[int, Converse], order: Order = ORDER) -> tuple[str, str]:
    async def scene() -> tuple[str, str]:
        async with tunnel(servers) as kind:
            return await measure.outside_address(kind, order)

    return asyncio.run(scene())


@pytest.mark.parametrize("chaos", [True, False])
def test_the_address_outside_is_the_text_that_is_one(*, chaos: bool) -> None:
    assert outside({53: dns}, replace(ORDER, chaos=chaos)) == (SEEN, "")


async def nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Listen, and close."""
    await reader.read(1000)


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(2)
    writer.write(b"\0\2xx")
    await writer.drain()


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        ({}, "192.0.2.1 gave no answer by TCP port 53 (Connection refused)"),
        ({53: nothing}, "192.0.2.1 gave no answer by TCP port 53 (the connection was closed)"),
        ({53: garbage}, "192.0.2.1 gave no answer by TCP port 53 (an answer to another question)"),
    ],
)
def test_no_address_is_said_as_such(servers: dict[int, Converse], why: str) -> None:
    assert outside(servers) == ("", why)


def test_an_answer_that_does_not_come_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_PATIENCE", 0.05)
    assert outside({53: says(b"", stays=True)}) == ("", "192.0.2.1 gave no answer by TCP port 53 (no answer)")


def test_what_was_not_answered_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_PAUSE", 0.0)
    assert asyncio.run(measure.times(Near({}, [0.1, None, 0.3]), "10.0.0.1", 3)) == [0.1, 0.3]


def test_without_packets_of_ones_own_there_is_no_size() -> None:
    kind = Near({}, [])
    assert asyncio.run(measure.size(kind, "10.0.0.1")) == (None, None, "there is no tunnel")
    kind.capture = 7500
    why = "clients' packets do not pass as they are"
    assert asyncio.run(measure.size(kind, "10.0.0.1")) == (None, None, why)


@pytest.mark.parametrize(("room", "found"), [(1420, (1420, 1420, "")), (1300, (1420, 1300, "")), (0, None)])
def test_the_largest_packet_is_told_from_none_at_all(
    monkeypatch: pytest.MonkeyPatch, room: int, found: tuple[int, int, str] | None
) -> None:
    async def ping(_: str, __: str, sequence: int, ___: float, size: int) -> float | None:
        assert sequence == size
        return 0.01 if size <= room else None

    monkeypatch.setattr(measure, "ping", ping)
    monkeypatch.setattr(measure, "mtu_of", lambda _: 1420)
    kind = Near({}, [])
    kind.interface = "vpn0"
    expected = found or (1420, None, "10.0.0.1 answers no large pings")
    assert asyncio.run(measure.size(kind, "10.0.0.1")) == expected


def fetched(servers: dict[int, Converse], tls: ssl.SSLContext | None = None, **changes: object) -> tuple[int, str]:
    async def scene() -> tuple[int, str]:
        async with tunnel(servers, tls=tls) as kind:
            received, seconds, why = await measure.download(kind, replace(ORDER, **changes))  # type: ignore[arg-type]  # fields of it
            assert (seconds > 0) == bool(received or why == "nothing came")
            return received, why

    return asyncio.run(scene())


BODY = bytes(300_000)
ADDRESS = "http://192.0.2.7/"


@pytest.mark.parametrize(
    ("said", "received"),
    [
        (OK + b"\r\n" + BODY, len(BODY)),
        (OK + b"Content-Length: 300000\r\n\r\n" + BODY, len(BODY)),
        (OK + b"content-length: 9\r\n\r\n123456789", 9),
        (OK + b"\r\n" + bytes(1_500_000), 1_000_000),  # no more than is wanted, but for what has come already
    ],
)
def test_a_download_is_counted(said: bytes, received: int) -> None:
    found, why = fetched({53: dns, 80: says(said)})
    assert received <= found <= received + measure._CHUNK
    assert why == ""


def test_a_server_that_goes_on_for_ever_or_falls_silent_is_left() -> None:
    assert fetched({53: dns, 80: says(OK + b"\r\nabc", stays=True)}, seconds=0.05) == (3, "")
    assert fetched({53: dns, 80: says(OK + b"Content-Length: 3\r\n\r\nabc", stays=True)}, seconds=3600.0) == (3, "")


@pytest.mark.parametrize(
    ("servers", "url", "why"),
    [
        (
            {80: says(b"HTTP/1.1 404 Not \x1bFound\r\n\r\n")},
            ADDRESS,
            "the server answers: HTTP/1.1 404 Not \ufffdFound",
        ),
        ({80: says(b"220 smtp\r\n\r\n")}, ADDRESS, "the server speaks no HTTP"),
        ({80: says(OK + b"\r\n")}, ADDRESS, "nothing came"),
        ({80: nothing}, ADDRESS, "the connection was closed"),
        ({}, "http://192.0.2.7:81/", "Connection refused"),
        (
            {},
            "http://files.example/",
            "the name files.example can't be resolved through the tunnel (192.0.2.53: Connection refused)",
        ),
    ],
)
def test_what_keeps_from_downloading_is_said(servers: dict[int, Converse], url: str, why: str) -> None:
    assert fetched(servers, url=url) == (0, why)


def test_a_download_by_tls_believes_nothing_and_shows_the_name(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody.example")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(datetime.now(UTC)).not_valid_after(datetime.now(UTC) + timedelta(days=1))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = tmp_path / "server.pem"
    file.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(file)
    asked: list[str | None] = []
    tls.sni_callback = lambda _, host, __: asked.append(host)
    url = "https://files.example/large"
    assert fetched({53: dns, 443: says(OK + b"\r\n" + BODY)}, tls, url=url) == (len(BODY), "")
    assert asked == ["files.example"]


def test_a_name_is_asked_for_through_the_tunnel_and_its_address_connected_to() -> None:
    async def scene() -> list[str]:
        async with tunnel({53: dns, 80: says(OK + b"\r\nabc")}) as kind:
            await measure.download(kind, ORDER)
            assert isinstance(kind, Near)
            return kind.asked

    assert asyncio.run(scene()) == ["192.0.2.53", "192.0.2.7"]


@pytest.mark.parametrize("head", ["HTTP/1.1\r\n", "HTTP/1.1 abc\r\n", "ICY 200 OK\r\n"])
def test_what_is_no_http_is_refused(head: str) -> None:
    with pytest.raises(ValueError, match="speaks no HTTP"):
        measure.read_head(head)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"exits": [{"open": False, "state": "down", "cause": "mute", "targets": []}]}, "the tunnel is down: mute"),
        ({"error": "it is ill"}, "it is ill"),
    ],
)
def test_a_tunnel_that_is_not_up_is_not_measured(
    answer: dict[str, object], why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "ask", lambda _: answer)
    monkeypatch.setattr("sys.stdin", io.StringIO(to_json(ORDER) + "\n"))
    assert measure.report() == 1
    assert json.loads(capsys.readouterr().out) == {"error": why}


@pytest.mark.parametrize(("line", "why"), [('{"version": 0}\n', "contract version 0"), ("", "Expecting value")])
def test_what_is_no_order_is_refused(
    line: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(line))
    assert measure.report() == 1
    assert why in json.loads(capsys.readouterr().out)["error"]

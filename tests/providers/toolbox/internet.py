"""The internet of the test ground: says which address it saw, over TCP, UDP (7) and DNS (53, and 853 by TLS).

TCP: on ports 80, and 443 by TLS. DNS: `whoami.cloudflare` says so in class CHAOS.

Every answer to a UDP packet holds the packet itself, so that a token comes back. Arguments: the own address, and the
folder with the certificate that DNS over TLS shows.

Its DNS root is signed, by Knot on the loopback: `signed.` is well, `forged.` is altered on its way out. Names below
UNSIGNED all exist and are answered here, since their answers depend on who asks.
"""

import asyncio
import shutil
import socket
import ssl
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

ADDRESS, FOLDER = sys.argv[1], Path(sys.argv[2])
FORGED = "192.0.2.66"
LATER_SECONDS = 2.0
LARGE = 4_000_000  # bytes
A, NS, TXT, DS, DNSKEY = 1, 2, 16, 43, 48
CHAOS = 3
SIGNED, UNSIGNED = ("signed", "forged"), ("example", "org", "com", "net")
KNOT, KNOT_PORT = Path("/tmp/knot"), 5300
ZONE = f"""\
$TTL 3600
. SOA ns. nobody. 1 3600 600 86400 60
. NS ns.
ns. A {ADDRESS}
{"".join(f"{name}. A {ADDRESS}" + chr(10) for name in SIGNED)}\
{"".join(f"{name}. NS ns." + chr(10) for name in UNSIGNED)}"""
CONFIGURATION = f"""\
server:
  rundir: {KNOT}
  listen: 127.0.0.1@{KNOT_PORT}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: {KNOT}
policy:
  - id: one-key
    algorithm: ecdsap256sha256
    single-type-signing: on
zone:
  - domain: .
    storage: {KNOT}
    file: root.zone
    dnssec-signing: on
    dnssec-policy: one-key
log:
  - target: stderr
    any: warning
"""


class Echo(asyncio.DatagramProtocol):
    """Sends every packet back, or, asked for a download, many."""

    def __init__(self) -> None:
        self.downloads: dict[tuple[str, int], asyncio.Task[None]] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        if data.startswith(b"download "):
            _, token, rate, seconds = data.decode().split()
            old = self.downloads.pop(peer, None)
            if old:
                old.cancel()
            self.downloads[peer] = asyncio.create_task(self.send(peer, token.encode(), float(rate), float(seconds)))
        else:
            self.transport.sendto(data + b" seen " + peer[0].encode(), peer)

    async def send(self, peer: tuple[str, int], token: bytes, rate: float, seconds: float) -> None:
        """Send what was asked for, whether anybody still listens or not."""
        for number in range(int(rate * seconds)):
            self.transport.sendto(token + b" download %d" % number, peer)
            await asyncio.sleep(1 / rate)


def asked(question: bytes) -> tuple[str, int, int, int]:
    """Give a question's name, its type and class, and where it ends."""
    at, labels = 12, []
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    kind, class_ = struct.unpack_from("!HH", question, at + 1)
    return ".".join(labels), kind, class_, at + 5


def own_answer(question: bytes, kind: int, class_: int, end: int, peer: str) -> bytes:
    """Answer A with this host, TXT with the address that asked."""
    head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if kind in (A, TXT) else 0, 0, 0)
    body = question[12:end]
    if kind == A:
        data = socket.inet_aton(ADDRESS)
    elif kind == TXT:
        data = bytes([len(peer)]) + peer.encode()
    else:
        return head + body
    return head + body + b"\xc0\x0c" + struct.pack("!HHIH", kind, class_, 1, len(data)) + data


async def ask_knot(question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
        channel.connect(("127.0.0.1", KNOT_PORT))
        await loop.sock_sendall(channel, question)
        return await asyncio.wait_for(loop.sock_recv(channel, 4096), 10)


async def dns_answer(question: bytes, peer: str, how: str) -> bytes:
    if asked(question)[:2] == ("", NS):  # who asks that wants to know whether there is an answer
        return question[:2] + struct.pack("!HHHHH", 0x8180, 1, 0, 0, 0) + question[12:]
    print(f"dns query from {peer} by {how}", flush=True)
    name, kind, class_, end = asked(question)
    if (class_ == CHAOS and name == "whoami.cloudflare") or (
        kind not in (DS, DNSKEY) and name.rpartition(".")[2] in UNSIGNED
    ):
        return own_answer(question, kind, class_, end, peer)
    answer = await ask_knot(question)
    return answer.replace(socket.inet_aton(ADDRESS), socket.inet_aton(FORGED)) if name == "forged" else answer


class Dns(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answering: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        task = asyncio.create_task(self.answer(data, peer))
        self.answering.add(task)
        task.add_done_callback(self.answering.discard)

    async def answer(self, data: bytes, peer: tuple[str, int]) -> None:
        self.transport.sendto(await dns_answer(data, peer[0], "UDP"), peer)


async def dns_stream(how: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("peername")[0]
    try:
        while True:
            question = await reader.readexactly(*struct.unpack("!H", await reader.readexactly(2)))
            answer = await dns_answer(question, peer, how)
            writer.write(struct.pack("!H", len(answer)) + answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, OSError):
        pass  # the asker has gone
    finally:
        writer.close()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say who asks, having read what was sent; for `/later` some time after the question. `/large` is what it says."""
    try:
        asked, length = await reader.readline(), 0
        while header := (await reader.readline()).strip():
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while length:
            length -= len(await reader.readexactly(min(length, 65536)))
        if b" /later " in asked:
            await asyncio.sleep(LATER_SECONDS)
        body = bytes(LARGE) if b" /large " in asked else writer.get_extra_info("peername")[0].encode() + b"\n"
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
    except OSError:
        pass  # the asker has enough
    finally:
        writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and stay for as long as the other side does."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # it has gone
    finally:
        writer.close()


def start_knot() -> None:
    """Start the signer; returns when its zone is signed."""
    shutil.rmtree(KNOT, ignore_errors=True)  # one that was killed left its number there, by which it would still run
    KNOT.mkdir()
    (KNOT / "root.zone").write_text(ZONE)
    (KNOT / "knot.conf").write_text(CONFIGURATION)
    knot = subprocess.Popen(["knotd", "-c", str(KNOT / "knot.conf")])
    question = struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + b"\0" + struct.pack("!HH", DNSKEY, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(0.1)
        while knot.poll() is None:
            try:
                channel.sendto(question, ("127.0.0.1", KNOT_PORT))
                if struct.unpack_from("!H", channel.recv(4096), 6)[0]:
                    return
            except OSError:
                continue  # it does not listen yet
    raise SystemExit("knotd does not start")


async def main() -> None:
    loop = asyncio.get_running_loop()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(FOLDER / "resolver.pem")
    start_knot()
    await loop.create_datagram_endpoint(Echo, local_addr=(ADDRESS, 7))
    await loop.create_datagram_endpoint(Dns, local_addr=(ADDRESS, 53))
    await asyncio.start_server(partial(dns_stream, "TCP"), ADDRESS, 53)
    await asyncio.start_server(partial(dns_stream, "TLS"), ADDRESS, 853, ssl=tls)
    await asyncio.start_server(http, ADDRESS, 443, ssl=tls)
    await asyncio.start_server(echo, ADDRESS, 7)
    server = await asyncio.start_server(http, ADDRESS, 80)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())

"""Speaks inside a namespace: one verb a run, its arguments on the command line, its answer on standard output."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
SECONDS = 5.0


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def open_udp(source: str, port: int = 0, mark: int = 0) -> socket.socket:
    channel = socket.socket(family(source), socket.SOCK_DGRAM)
    if mark:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    channel.bind((source, port))
    return channel


def serve(address: str, port: str) -> None:
    """Answer each datagram with its sender's address, and whatever comes over TCP likewise."""
    channel = open_udp(address, int(port))
    listener = socket.create_server((address, int(port)), family=family(address))

    def accept() -> None:
        while True:
            threading.Thread(target=converse, args=listener.accept(), daemon=True).start()

    def converse(connection: socket.socket, peer: tuple[str, int]) -> None:
        with contextlib.suppress(OSError), connection:
            connection.sendall(peer[0].encode())
            while connection.recv(100):
                connection.sendall(peer[0].encode())

    threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    while True:
        _, peer = channel.recvfrom(65535)
        channel.sendto(peer[0].encode(), peer)


def reflect(address: str, port: str) -> None:
    """Send every datagram back as it is; take connections over TCP, and say nothing there."""
    channel = open_udp(address, int(port))
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    listener = socket.create_server((address, int(port)), family=family(address))
    held = []

    def accept() -> None:
        while True:
            held.append(listener.accept())

    threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    while True:
        packet, peer = channel.recvfrom(65535)
        with contextlib.suppress(OSError):  # the way back may be gone
            channel.sendto(packet, peer)


def send(source: str, target: str, port: str, count: str, mark: str = "0") -> None:
    """Send datagrams and wait for nothing; say how many the own machine let out."""
    channel = open_udp(source, mark=int(mark))
    sent = 0
    for _ in range(int(count)):
        try:
            sent += bool(channel.sendto(b"x", (target, int(port))))
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
    print(sent)


def exchange(source: str, target: str, port: str, count: str) -> None:
    """Send datagrams and take as many answers; say how many came. None of them finds its port closed."""
    channel = open_udp(source)
    channel.settimeout(SECONDS)
    came = 0
    for _ in range(int(count)):
        channel.sendto(b"x", (target, int(port)))
    with contextlib.suppress(TimeoutError):
        while came < int(count):
            came += bool(channel.recv(100))
    print(came)


def ask(source: str, target: str, port: str) -> None:
    """Send a datagram again and again until it is answered or refused; print the answer."""
    channel = open_udp(source)
    channel.connect((target, int(port)))
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            channel.send(b"x")
            if select.select([channel], [], [], 0.1)[0]:
                print(channel.recv(100).decode())
                return
        except OSError as error:
            print(errno.errorcode[error.errno or 0])
            return
    print("silence")


def connect(source: str, target: str, port: str, seconds: str = "5") -> None:
    """Connect by TCP; print what the server says, or how it failed."""
    try:
        with socket.create_connection((target, int(port)), float(seconds), (source, 0)) as connection:
            print(connection.recv(100).decode())
    except OSError as error:
        print(errno.errorcode.get(error.errno or 0, "silence"))


def hold(source: str, target: str, port: str) -> None:
    """Connect by TCP, wait for a line, send, and print the answer to that."""
    with socket.create_connection((target, int(port)), SECONDS, (source, 0)) as connection:
        connection.recv(100)
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            connection.sendall(b"x")
            print(connection.recv(100).decode(), end="")
        except OSError as error:
            print(errno.errorcode.get(error.errno or 0, "silence"), end="")


def complain(source: str, target: str, port: str) -> None:
    """As `hold`, with an ICMP error about what the server said before it sends: that it came in pieces too late."""
    with socket.create_connection((target, int(port)), SECONDS, (source, 0)) as connection:
        connection.recv(100)
        own = connection.getsockname()[1]
        print("ready", flush=True)
        sys.stdin.readline()
        ends = socket.inet_aton(target) + socket.inet_aton(source)
        about = struct.pack("!BBHHHBBH", 0x45, 0, 60, 0, 0, 64, 6, 0) + ends + struct.pack("!HHI", int(port), own, 1)
        head = struct.pack("!BBHI", 11, 1, 0, 0)
        total = sum(struct.unpack(f"!{len(head + about) // 2}H", head + about))
        total = (total & 0xFFFF) + (total >> 16)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.bind((source, 0))
            raw.sendto(head[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[4:] + about, (target, 0))
        try:
            connection.sendall(b"x")
            print(connection.recv(100).decode(), end="")
        except OSError as error:
            print(errno.errorcode.get(error.errno or 0, "silence"), end="")


def echo(source: str, target: str, port: str) -> None:
    """Ask by UDP, wait for a line, and ask from the same port again."""
    channel = open_udp(source)
    channel.connect((target, int(port)))
    channel.settimeout(SECONDS)
    channel.send(b"x")
    channel.recv(100)
    print("ready", flush=True)
    sys.stdin.readline()
    channel.send(b"x")
    print(channel.recv(100).decode(), end="")


def idle(source: str, target: str, port: str, count: str, seconds: str) -> None:
    """Connect by TCP so many times, wait for a line, and say how many of them were reset within so many seconds."""
    connections = [socket.create_connection((target, int(port)), SECONDS, (source, 0)) for _ in range(int(count))]
    for connection in connections:
        connection.recv(100)
    print("ready", flush=True)
    sys.stdin.readline()
    deadline, reset = time.monotonic() + float(seconds), 0
    for connection in connections:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            connection.recv(100)
        except ConnectionResetError:
            reset += 1
        except TimeoutError:
            pass
    print(reset, end="")


def segments(source: str, target: str, port: str) -> None:
    """Send one bare TCP segment for each combination of flags that ends or begins a connection, and one of neither."""
    FIN, SYN, RST, ACK = 1, 2, 4, 16  # noqa: N806 - the field's own names
    channel = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    channel.bind((source, 0))
    for number, flags in enumerate((SYN, ACK, FIN | ACK, RST, RST | ACK, FIN, SYN | ACK)):
        head = struct.pack("!HHIIBBHHH", 40000 + number, int(port), 1000, 1000, 5 << 4, flags, 1000, 0, 0)
        ends = socket.inet_aton(source) + socket.inet_aton(target)
        total = sum(struct.unpack("!16H", ends + struct.pack("!HH", 6, len(head)) + head))
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~(total + (total >> 16)) & 0xFFFF
        channel.sendto(head[:16] + struct.pack("!H", checksum) + head[18:], (target, 0))
    print("sent")


def path_mtu(  # noqa: PLR0917 - as they come from the command line
    source: str, target: str, port: str, size: str, mark: str = "0", protocol: str = ""
) -> None:
    """Send large datagrams that must not be fragmented, until the way is known to be narrower; print its width.

    With the number of another protocol than UDP, there is no port.
    """
    channel = socket.socket(socket.AF_INET, socket.SOCK_RAW, int(protocol)) if protocol else open_udp(source)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(mark))
    channel.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    channel.connect((target, int(port)))
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            channel.send(bytes(int(size) - 28))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            print(channel.getsockopt(socket.IPPROTO_IP, IP_MTU))
            return
        select.select([], [], [], 0.02)
    print("silence")


if __name__ == "__main__":
    verbs: dict[str, Callable[..., None]] = {
        "serve": serve,
        "reflect": reflect,
        "send": send,
        "exchange": exchange,
        "ask": ask,
        "connect": connect,
        "complain": complain,
        "hold": hold,
        "echo": echo,
        "idle": idle,
        "segments": segments,
        "path-mtu": path_mtu,
    }
    verbs[sys.argv[1]](*sys.argv[2:])

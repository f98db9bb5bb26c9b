"""A client of the chain. `up` reads a wg-quick file from standard input; `stream` sends numbered packets.

`stream HOST PORT RATE SECONDS TOKEN` prints one JSON object: sent, received, lost, the longest gap between answers in
milliseconds, and the addresses that were seen outside.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import tunnel

MOMENT = 0.3  # seconds without an answer that anybody would notice


def up() -> None:
    fields: dict[str, str] = {}
    passed = []
    for line in sys.stdin.read().splitlines():
        key, _, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if key in ("Address", "DNS", "MTU"):
            fields[key] = value
        else:
            passed.append(line)
        if key == "Endpoint":
            fields[key] = value
    tunnel.create("wg0")
    tunnel.run("wg", "setconf", "wg0", "/dev/stdin", stdin="\n".join(passed) + "\n")
    addresses = [address.strip() for address in fields["Address"].split(",")]
    for address in addresses:
        tunnel.run("ip", "address", "replace", address, "dev", "wg0")
    # Those that it had as another client of a chain.
    for item in json.loads(tunnel.run("ip", "-json", "address", "show", "dev", "wg0"))[0]["addr_info"]:
        had = f"{item['local']}/{item['prefixlen']}"
        if item["scope"] == "global" and had not in addresses:
            tunnel.run("ip", "address", "delete", had, "dev", "wg0")
    tunnel.run("ip", "link", "set", "wg0", "mtu", fields["MTU"], "up")
    host = fields["Endpoint"].rpartition(":")[0]
    route = json.loads(tunnel.run("ip", "-json", "route", "get", host))[0]
    if route["dev"] != "wg0":
        via = ["via", route["gateway"]] if "gateway" in route else []
        tunnel.run("ip", "route", "replace", host, *via, "dev", route["dev"])
    tunnel.run("ip", "route", "replace", "default", "dev", "wg0")
    tunnel.run("ip", "-6", "route", "replace", "default", "dev", "wg0")


def again() -> None:
    """Start a new handshake, as a client's app does when it is switched off and on."""
    text = tunnel.run("wg", "showconf", "wg0")
    tunnel.run("wg", "setconf", "wg0", "/dev/stdin", stdin=text)


def stream(host: str, port: str, rate: str, seconds: str, token: str) -> None:
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
    interval, end = 1 / float(rate), time.monotonic() + float(seconds)
    sent = received = refused = 0
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    Path("/tmp/stream.pid").write_text(str(os.getpid()))
    gap, last, seen = 0.0, time.monotonic(), set()
    due = time.monotonic()
    while (now := time.monotonic()) < end + 1.0:
        if stopped and end > now:
            end = now
        if now < end and now >= due:
            try:
                channel.sendto(f"{token} {sent} ".encode(), (host, int(port)))
            except OSError:
                refused += 1
            sent += 1
            due += interval
            if now - due > 0.5:  # the machine stood still: do not send a burst to catch up
                due = now
        wait = (due if now < end else end + 1.0) - time.monotonic()
        if select.select([channel], [], [], max(0.0, wait))[0]:
            try:
                while True:
                    answer = channel.recv(2048)
                    now = time.monotonic()
                    gap, last = max(gap, now - last), now
                    received += 1
                    seen.add(answer.rpartition(b" ")[2].decode())
            except OSError:
                pass
        if now >= end and received + refused >= sent:
            break
    print(
        json.dumps(
            {
                "sent": sent,
                "received": received,
                "lost": sent - received,
                "refused": refused,
                "gap_ms": round(gap * 1e3, 1),
                "seen": sorted(seen),
            }
        )
    )


def watch(host: str, port: str, rate: str, token: str) -> None:
    """Send all the while; say when answers stay away for longer than a moment, and when they are back."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent, last = False, time.monotonic()
    print("ready", flush=True)
    while True:
        due = time.monotonic() + 1 / float(rate)
        with contextlib.suppress(OSError):  # refused at once
            channel.sendto(f"{token} watch ".encode(), (host, int(port)))
        while (wait := due - time.monotonic()) > 0:
            if select.select([channel], [], [], wait)[0]:
                with contextlib.suppress(OSError):
                    channel.recv(2048)
                    last = time.monotonic()
                    if silent:
                        print("back", flush=True)
                        silent = False
        if not silent and time.monotonic() - last > MOMENT:
            print("silent", flush=True)
            silent = True


def answered(host: str, port: str, seconds: str, token: str) -> None:
    """Send packets until one is answered; print the seconds that took and the address that was seen outside.

    A new flow each second: one that began on a way without a tunnel, where a test has taken barriers away, stays there.
    """
    started = opened = time.monotonic()
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.settimeout(0.05)
    while time.monotonic() - started < float(seconds):
        if time.monotonic() - opened > 1.0:
            opened = time.monotonic()
            channel.close()
            channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            channel.settimeout(0.05)
        try:
            channel.sendto(f"{token} answered? ".encode(), (host, int(port)))
            seen = channel.recv(2048).rpartition(b" ")[2].decode()
        except OSError:  # refused at once, or no answer yet
            time.sleep(0.02)
            continue
        print(json.dumps({"seconds": round(time.monotonic() - started, 3), "seen": seen}))
        return
    sys.exit("no answer")


def download(host: str, port: str, rate: str, seconds: str, token: str) -> None:
    """Keep asking the internet for a stream of packets, which goes on for so long when this client is cut off."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.settimeout(1.0)
    asked = 0.0
    while True:
        try:
            if time.monotonic() - asked > 1.0:
                asked = time.monotonic()
                channel.sendto(f"download {token} {rate} {seconds}".encode(), (host, int(port)))
            channel.recv(2048)
        except OSError:  # refused at once, or nothing comes
            time.sleep(0.02)


def ask(server: str, name: str, kind: int, how: str = "udp") -> bytes:
    """Ask for one record; give the answer's flags, as they stand in it, and its first record's data."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    # Recursion, and whether the answer is authentic, are desired.
    question = struct.pack("!HHHHHH", 4711, 0x0120, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
    if how == "tcp":
        with socket.create_connection((server, 53), 30) as connection, connection.makefile("rb") as stream:
            connection.sendall(struct.pack("!H", len(question)) + question)
            answer = stream.read(*struct.unpack("!H", stream.read(2)))
    else:
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        channel.settimeout(5)  # as usual, before one asks again
        channel.connect((server, 53))
        for left in reversed(range(8)):
            channel.send(question)
            try:
                answer = channel.recv(2048)
                break
            except TimeoutError:
                if not left:
                    raise
    count = struct.unpack_from("!H", answer, 6)[0]
    # The data comes after the compressed name, type, class, time to live and length.
    start = len(question) + 12
    size = struct.unpack_from("!H", answer, start - 2)[0] if count else 0
    return answer[2:4] + answer[start : start + size]


def dns(server: str, name: str) -> None:
    """Ask for a name's A and TXT records: the address it has, and the address that asked."""
    found = [ask(server, name, 1)[2:], ask(server, name, 16)[2:]]
    print(json.dumps([socket.inet_ntoa(found[0]), found[1][1:].decode()] if all(found) else []))


def resolve(server: str, name: str, how: str) -> None:
    """Ask for a name's address by UDP or TCP; print the code, whether it is authentic, and the address."""
    try:
        answer = ask(server, name, 1, how)
    except OSError as error:
        print(json.dumps({"error": type(error).__name__}))
        return
    (flags,) = struct.unpack_from("!H", answer)
    address = socket.inet_ntoa(answer[2:]) if answer[2:] else None
    print(json.dumps({"code": flags & 15, "authentic": bool(flags & 0x20), "address": address}))


def knock(endpoint_answers: str, seconds: str) -> None:
    """Start handshakes until one is answered; prints the seconds it took. `endpoint_answers`: the entry's address."""
    started = time.monotonic()
    while time.monotonic() - started < float(seconds):
        again()
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            last = tunnel.run("wg", "show", "wg0", "latest-handshakes").split()
            if int(last[1]) > 0:
                print(round(time.monotonic() - started, 3))
                return
            # Something has to be sent for a handshake to start.
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"knock", (endpoint_answers, 9))
            time.sleep(0.1)
    sys.exit("no handshake")


if __name__ == "__main__":
    verbs: dict[str, Callable[..., None]] = {
        "up": up,
        "again": again,
        "stream": stream,
        "answered": answered,
        "watch": watch,
        "download": download,
        "dns": dns,
        "resolve": resolve,
        "knock": knock,
    }
    verbs[sys.argv[1]](*sys.argv[2:])

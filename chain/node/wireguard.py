"""WireGuard interfaces: the kernel's where it has one, wireguard-go's otherwise. Used by the entry and by exits."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chain.node.run import CommandError, run, succeeds
from chain.node.supervise import Daemon, log

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chain.contract import Client

_START_SECONDS = 30.0  # an emulated machine is slow
_CONTROL_SOCKETS = "/var/run/wireguard"  # wireguard-go's, and known to wg
_CLOSING_SECONDS = 0.001  # from a connection's end to that of who accepts them, and more than enough


@dataclass(frozen=True)
class Peer:
    """A client, as WireGuard knows it. Printing one would print its preshared key."""

    public_key: str
    preshared_key: str = field(repr=False)
    allowed: frozenset[str]

    @property
    def section(self) -> str:
        return peer(self.public_key, self.preshared_key, sorted(self.allowed))


def admitted(clients: Iterable[Client], preshared: Mapping[str, str]) -> list[Peer]:
    """Give those of these clients that may come in; one that should have a preshared key and has none may not."""
    return [
        Peer(
            client.public_key,
            preshared.get(client.name, ""),
            frozenset({f"{client.address}/32", f"{client.address6}/128"}),
        )
        for client in clients
        if client.name in preshared or not client.psk_file
    ]


def config(private_key: str, port: int | None, mark: int, peers: Iterable[str]) -> str:
    """Give the text that `wg setconf` and `wg addconf` read. It holds secrets: hand it over by standard input."""
    lines = ["[Interface]", f"PrivateKey = {private_key}", f"FwMark = {mark}"]
    if port is not None:
        lines.append(f"ListenPort = {port}")
    return "\n".join([*lines, *peers]) + "\n"


def peer(public_key: str, preshared_key: str, allowed: Iterable[str], endpoint: str = "", keepalive: int = 0) -> str:
    """Give one [Peer] section."""
    lines = ["[Peer]", f"PublicKey = {public_key}", f"AllowedIPs = {', '.join(allowed)}"]
    if preshared_key:
        lines.append(f"PresharedKey = {preshared_key}")
    if endpoint:
        lines.append(f"Endpoint = {endpoint}")
    if keepalive:
        lines.append(f"PersistentKeepalive = {keepalive}")
    return "\n".join(lines)


async def create(interface: str) -> Daemon | None:
    """Make the interface; give the daemon behind it, or None when it is the kernel's. Raises RuntimeError."""
    if succeeds("ip", "link", "add", interface, "type", "wireguard"):
        log("wireguard", f"{interface}: the kernel's own")
        return None
    log("wireguard", f"{interface}: this kernel has no WireGuard; wireguard-go does it")
    # Its banner in a box, which praises the kernel's own, would only confuse readers of the log.
    daemon = Daemon("wireguard-go", "wireguard-go", "--foreground", interface, on_line=lambda line: line[0] in "┌│└")
    await daemon.start()
    async with asyncio.timeout(_START_SECONDS):
        while not succeeds("wg", "show", interface, "listen-port"):
            if daemon.ended.is_set():
                raise RuntimeError("wireguard-go did not start; is /dev/net/tun there?")
            await asyncio.sleep(0.02)
    return daemon


async def gone(interface: str) -> None:
    """Return when nobody is behind an interface of wireguard-go's any more. Raises OSError where that can't be told.

    Of one that is killed the kernel closes connections first, then takes the interface down, for tens of milliseconds;
    only then does the process count as ended.
    """
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(Path(_CONTROL_SOCKETS, f"{interface}.sock"))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        try:
            with contextlib.suppress(ConnectionError):
                await reader.read()
        finally:
            writer.close()
        await asyncio.sleep(_CLOSING_SECONDS)


async def fill(interface: str, private_key: str, port: int, mark: int, peers: Iterable[Peer]) -> None:
    """Give a new interface its key and its peers, while other things are done. Raises CommandError.

    A thousand peers take wireguard-go a third of a second.
    """
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    command = ("wg", "setconf", interface, "/dev/stdin")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=nowhere, stderr=nowhere)
    await process.communicate(config(private_key, port, mark, (item.section for item in peers)).encode())
    if process.returncode:
        raise CommandError("wg setconf failed; its words are withheld, since a secret may be among them")


def replace(interface: str, text: str) -> None:
    """Set keys and peers anew; every session ends."""
    run("wg", "setconf", interface, "/dev/stdin", stdin=text, secret=True)


def synchronise(interface: str, private_key: str, port: int, mark: int, peers: Iterable[Peer]) -> None:
    """Make an interface have these peers, touching only those that differ.

    `wg syncconf` keeps sessions too, but takes every peer's addresses away for a moment, which costs packets.
    """
    text, stale = difference(run("wg", "show", interface, "dump", secret=True), private_key, port, mark, peers)
    for key in stale:
        run("wg", "set", interface, "peer", key, "remove")
    if text:
        run("wg", "addconf", interface, "/dev/stdin", stdin=text, secret=True)


def call(interface: str, endpoints: Mapping[str, str], keepalive: int) -> None:
    """Send to these peers, public key → endpoint, every `keepalive` seconds from now on, which starts a handshake.

    Not more than a few hundred, since they stand in a command line.
    """
    settings = [
        word
        for key, endpoint in endpoints.items()
        for word in ("peer", key, "endpoint", endpoint, "persistent-keepalive", str(keepalive))
    ]
    run("wg", "set", interface, *settings)


def be_quiet(interface: str, keys: Iterable[str]) -> None:
    """End what `call` began, for as many: packets go only where there is something to send."""
    run("wg", "set", interface, *(word for key in keys for word in ("peer", key, "persistent-keepalive", "0")))


def difference(dump: str, private_key: str, port: int, mark: int, peers: Iterable[Peer]) -> tuple[str, list[str]]:
    """Compare `wg show INTERFACE dump` with what is wanted: text for `wg addconf`, and keys of peers to remove."""
    head, *rest = dump.splitlines()
    present = {}
    for line in rest:
        key, preshared, _, allowed, *_ = line.split("\t")
        present[key] = Peer(key, "" if preshared == "(none)" else preshared, frozenset(allowed.split(",")))
    wanted = {item.public_key: item for item in peers}
    sections = [item.section for key, item in wanted.items() if present.get(key) != item]
    own_key, _, own_port, own_mark = head.split("\t")
    same = (own_key, own_port) == (private_key, str(port)) and int("0" if own_mark == "off" else own_mark, 0) == mark
    if not same:
        return config(private_key, port, mark, sections), sorted(present.keys() - wanted.keys())
    text = "\n".join(sections)
    return f"{text}\n" if text else "", sorted(present.keys() - wanted.keys())

"""OpenVPN exit, inside its container: one OpenVPN process for each dial, which its management interface is heard of."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ipaddress
import os
import random
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from chain import ovpn
from chain.contract import RUN_DIR
from chain.node.kinds import causes
from chain.node.kinds.base import DialError, Interface, Tunnel
from chain.node.kinds.openvpn import config, lines
from chain.node.kinds.openvpn.management import Management
from chain.node.lock import UplinkRules
from chain.node.probe import objection, refusal
from chain.node.run import CommandError, ip_batch
from chain.node.supervise import Daemon, log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import ExitSettings
    from chain.node.kinds.causes import Diagnosis
    from chain.secret import Secret

FOLDER = Path(RUN_DIR, "openvpn")
CONFIG = "ovpn_config"
BESIDE = {role: name for name, role in ovpn.ROLES.items()}
DOCUMENTS = (CONFIG, *BESIDE)

_START_SECONDS = 30.0  # in emulation, beside others; a blink otherwise
_DIAL_SECONDS = 60.0  # for all of it; a server that says nothing is given up by OpenVPN before that
_RANDOM_BYTES = 6  # of a word before a server's name, as many as OpenVPN takes
_LAST_WORDS_SECONDS = 0.5
_LINES = 80
_WAITING = ("CONNECTING", "WAIT", "TCP_CONNECT", "RESOLVE")  # states in which nothing has come from the server yet


def create(settings: ExitSettings, secrets: Mapping[str, Secret]) -> OpenVpn:
    try:
        profile = ovpn.parse(secrets[CONFIG].reveal())
    except ovpn.OvpnError as error:
        raise ValueError(f"the secret {CONFIG} can't be used: {error}") from None
    beside = {BESIDE[role]: secret for role, secret in secrets.items() if role in BESIDE}
    for name, secret in beside.items():
        if why := ovpn.block_fault(name, secret.reveal()):
            raise ValueError(f"the file of `{name}` can't be used: {why}")
    if lacking := sorted(profile.files.keys() - beside.keys()):
        raise ValueError(f"the secret {CONFIG} names files that are not there: {', '.join(lacking)}")
    return OpenVpn(settings, profile, beside, _answers(profile, secrets))


def _answers(profile: ovpn.Profile, secrets: Mapping[str, Secret]) -> dict[str, tuple[str, str]]:
    """Give what OpenVPN may ask for, under the names that it has for it."""
    found = {}
    if "ovpn_username" in secrets:
        found["Auth"] = secrets["ovpn_username"].reveal(), secrets["ovpn_password"].reveal()
    elif profile.credentials:
        found["Auth"] = profile.credentials
    if "ovpn_key_password" in secrets:
        found["Private Key"] = "", secrets["ovpn_key_password"].reveal()
    return found


class OpenVpn(Interface):
    interface = config.INTERFACE

    def __init__(
        self,
        settings: ExitSettings,
        profile: ovpn.Profile,
        beside: Mapping[str, Secret],
        answers: Mapping[str, tuple[str, str]],
    ) -> None:
        self._settings = settings
        self._profile = profile
        self._beside = beside
        self._answers = answers
        remotes = list(profile.remotes)
        if profile.shuffled:
            random.shuffle(remotes)
        self._remotes = collections.deque(remotes)
        self._notes = profile.notes  # of which nobody has been told yet
        self._address = ""
        self._daemon: Daemon | None = None
        self._management: Management | None = None
        self._lines: collections.deque[str] = collections.deque(maxlen=_LINES)

    @property
    def _remote(self) -> ovpn.Remote:
        return self._remotes[0]

    @property
    def server(self) -> str:  # what others have for good, this one has until the next dial
        host = self._remote.host
        return f"{token_hex(_RANDOM_BYTES)}.{host}" if self._profile.prefixed and not ovpn.is_address(host) else host

    @property
    def rules(self) -> UplinkRules:  # likewise
        protocol, port = self._remote.protocol, self._remote.port
        state = " ct state established" if protocol == "tcp" else ""
        return UplinkRules((f"{protocol} dport {port}",), (f"{protocol} sport {port}{state}",))

    async def dial(self, server: str) -> Tunnel:
        self._address = server
        self._tell_what_is_left_out()
        await self.hang_up()
        try:
            return await self._dial(server)
        except DialError:
            self._remotes.rotate(-1)
            raise

    def _tell_what_is_left_out(self) -> None:
        """Say it once, in the log: not every file came by `chain exit add`, which says it too."""
        for line in lines.left_out(self._notes):
            log("openvpn", line)
        self._notes = ()

    async def _dial(self, server: str) -> Tunnel:
        FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        file, socket = FOLDER / "openvpn.conf", FOLDER / "management"
        beside = {name: secret.reveal() for name, secret in self._beside.items()}
        text = config.document(self._profile, beside, self._remote, server, str(socket))
        self._lines.clear()
        held = asyncio.Event()
        management = self._management = Management(socket, self._answers, on_hold=held.set)
        daemon = self._daemon = Daemon("openvpn", "openvpn", "--config", str(file), on_line=self._line)
        try:
            _write_private(file, text)
            await management.listen()
            await daemon.start()
            if not await _first(_START_SECONDS, held, daemon.ended):
                raise DialError(causes.DAEMON_DIED.found(what="openvpn does not start"))
        finally:
            file.unlink(missing_ok=True)  # it has read it by now
        if not held.is_set():
            raise DialError(lines.refusal(self._lines, management.fatal))
        await _first(_DIAL_SECONDS, management.connected, management.ending, daemon.ended)
        if not management.connected.is_set():
            raise DialError(await self._failure(management, daemon))
        return self._set_up(management)

    def _set_up(self, management: Management) -> Tunnel:
        """Give the interface its address. That alone: a network that the server names might be one of the chain's."""
        address = _own_address(management.address)
        if not address:
            raise DialError(causes.OPENVPN_NO_ADDRESS.found())
        try:
            own = _mtu(management.environment.get("tun_mtu", ""), self._settings.mtu)
            ip_batch(
                [
                    f"address replace {address}/32 dev {self.interface}",
                    f"link set dev {self.interface} mtu {own} up",
                ]
            )
        except CommandError as error:
            raise DialError(causes.OPENVPN_NO_TUN.found(line=error)) from None
        return Tunnel(address, near(lines.gateway(self._lines, address), management.environment, address))

    def _line(self, line: str) -> bool:
        self._lines.append(line)
        return bool(lines.NOT_LOGGED.match(line))

    async def _failure(self, management: Management, daemon: Daemon) -> Diagnosis:
        """Say why the connection did not come about, by what OpenVPN and the network say of it."""
        await _first(_LAST_WORDS_SECONDS, daemon.ended)
        if management.refused == "Private Key":
            return causes.OPENVPN_KEY_PASSWORD.found(reason="the password is not its own")
        if found := lines.told(self._lines):
            return found
        if management.refused == "Auth":
            return lines.credentials(self._lines)
        if management.fatal:
            return lines.refusal(self._lines, management.fatal)
        if management.state not in _WAITING:
            return self._broken_off(management)
        return await self._silence()

    async def _silence(self) -> Diagnosis:
        remote = self._remote
        silence = causes.OPENVPN_NO_ANSWER.found(
            protocol=remote.protocol.upper(), port=remote.port, remotes=len(self._remotes)
        )
        if remote.protocol == "tcp":
            return await refusal(self._address, remote.port, silence) or silence
        return await objection(self._address, remote.port) or silence

    def _broken_off(self, management: Management) -> Diagnosis:
        """Say how far it came, when nothing says why no further."""
        if management.state == "AUTH":
            reason = next((line for line in self._lines if line.startswith("TLS Error")), management.reason)
            return causes.OPENVPN_HANDSHAKE.found(line=lines.short(reason) or "no word")
        if management.reason:
            return lines.ended(self._lines, management.reason)
        return causes.OPENVPN_STOPPED.found(state=management.state)

    def unresolved(self) -> None:
        self._remotes.rotate(-1)

    async def revive(self) -> None:
        """Nothing short of dialling anew would help."""

    async def mute(self, asked: str, *, stood: bool) -> Diagnosis:
        if not stood:
            self._remotes.rotate(-1)
        return (causes.LOST if stood else causes.MUTE).found(asked=asked)

    async def lost(self) -> Diagnosis:
        """Wait until OpenVPN says that it ends, or has ended."""
        daemon, management = self._daemon, self._management
        if daemon is None or management is None:
            return causes.DAEMON_DIED.found(what="openvpn is not there")
        await _first(None, daemon.ended, management.ending)
        if not management.ending.is_set():
            return causes.DAEMON_DIED.found(what="openvpn died")
        return lines.ended(self._lines, management.reason)

    async def hang_up(self) -> None:
        if self._daemon is not None:
            await self._daemon.stop()
            self._daemon = None
        if self._management is not None:
            self._management.close()
            self._management = None


async def _first(seconds: float | None, *events: asyncio.Event) -> bool:
    """Wait for one of these events; tell whether one came in time."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for task in tasks:
            task.cancel()


def _own_address(told: str) -> str:
    """Read the address that the server gives; empty: none, or one that no host can have."""
    try:
        address = ipaddress.IPv4Address(told)
    except ValueError:
        return ""
    unfit = address.is_loopback or address.is_multicast or address.is_reserved or address.is_unspecified
    return "" if unfit else str(address)


def near(gateway: str, environment: Mapping[str, str], own: str) -> str:
    """Name who is asked whether the tunnel lives: the server's own end of it, or the resolver that it names."""
    said = [gateway, environment.get("ifconfig_remote", "")]
    options = (value.split() for name, value in environment.items() if name.startswith("foreign_option_"))
    said += [words[2] for words in options if words[:2] == ["dhcp-option", "DNS"] and len(words) > 2]  # noqa: PLR2004
    for each in said:
        with contextlib.suppress(ValueError):
            address = ipaddress.IPv4Address(each)
            # One with a public address would be no evidence that this tunnel's far end lives.
            if each != own and not address.is_global and not address.is_loopback and not address.is_unspecified:
                return each
    return ""


def _mtu(told: str, own: int) -> int:
    """Take what the server tells if that is less than what fits; not what would be no MTU."""
    least = 576
    return min(own, max(int(told), least)) if told.isdecimal() else own


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)

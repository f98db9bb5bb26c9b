"""A provider's file for OpenVPN (.ovpn) → an exit, with the files that it names.

`chain.ovpn` reads it, by OpenVPN's own rules; it is kept as it is, and so are the files beside it. In here stand how it
is recognised, what becomes of those files, and how all of it is told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chain import ovpn
from chain.errors import Problem
from chain.exits.openvpn import CONFIG, KEY_PASSWORD, PASSWORD, USERNAME, block_faults, faults, setting
from chain.imports.base import AsideError, Imported, Item, Reading, RefusedError, nothing_aside

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from chain.imports.base import Aside
    from chain.ovpn import Profile

_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # the byte order mark
MOST_LISTED = 20  # numbers of lines in a message
_LOGIN, _KEY = "auth-user-pass", "askpass"

NAMES = {
    CONFIG: "the file",
    USERNAME: "the user name",
    PASSWORD: "the password",
    KEY_PASSWORD: "the private key's password",
    **{role: f"the file of `{name}`" for name, role in ovpn.ROLES.items()},
}
# A line that no other format has; `client`, or `remote` without a port, may stand in any text.
_TELLING = re.compile(
    r"(?:--)?(?:remote\s+\S+\s+[0-9]+(?:\s.*)?|auth-user-pass(?:\s.*)?|dev\s+(?:tun|tap)\S*(?:\s.*)?|tls-client)"
    r"|<(?:ca|cert|tls-auth|tls-crypt|tls-crypt-v2|auth-user-pass)>",
    re.IGNORECASE,
)
_LONGEST = 200  # characters of a line that is looked at
_MOST_LINES = 2000
# What programs of routers and storage boxes write where their owner is to put the address.
_BLANKS = ("YOUR_SERVER_IP", "YOUR_SERVER_ADDRESS", "SERVER_IP", "SERVER_ADDRESS")


def recognises(text: str) -> bool:
    lines = (line.strip()[:_LONGEST] for line in text.split("\n")[:_MOST_LINES])
    return any(_TELLING.fullmatch(line) for line in lines)


def read(text: str, now: datetime, aside: Aside = nothing_aside) -> list[Item]:
    """Read a file, and those that it names. Raises RefusedError with all that is wrong."""
    try:
        profile = ovpn.parse(text)
    except ovpn.OvpnError as error:
        raise RefusedError(*_told((fault.line, fault.what, fault.hint) for fault in error.faults)) from None
    first = profile.remotes[0]
    return [Item(f"{first.host}:{first.port}", _exit(text.rstrip("\r\n"), _Work(profile, now, aside)))]


@dataclass
class _Work:
    """What a file says, what there is to read it with, and what comes of it."""

    profile: Profile
    now: datetime
    aside: Aside
    reading: Reading = field(default_factory=Reading)
    settings: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def where(self, directive: str) -> str:
        return f"line {self.profile.lines[directive]}"


def _exit(text: str, work: _Work) -> Imported | RefusedError:
    profile, reading, settings = work.profile, work.reading, work.settings
    work.secrets[CONFIG] = text
    for name, file in profile.files.items():
        settings[setting(name)] = True
        work.secrets[ovpn.ROLES[name]] = _beside(work, name, file)
    _login(work)
    _key_password(work)
    login, key_password = settings.get("login", True), settings.get("key_password", False)
    for fault in faults(text, work.now, login=login, key_password=key_password, beside=profile.files):
        reading.refuse("the file", fault.what, fault.hint)
    if any(remote.host.upper() in _BLANKS for remote in profile.remotes):
        reading.refuse("the file", "its `remote` is still a blank to be filled in", "write the server's address there")
    reading.warnings += _left_out(profile)
    try:
        return reading.imported("openvpn", settings, work.secrets, NAMES)
    except RefusedError as error:
        return error


def _beside(work: _Work, name: str, file: str) -> str:
    """Read a certificate or a key that stands in a file of its own."""
    try:
        found = _text(work.aside(file))
    except AsideError as error:
        hint = f"put it into the folder of the .ovpn file, and name that; or what it holds into it, as <{name}>"
        work.reading.refuse(work.where(name), f"`{name}` names a file, and {error}", hint)
        return ""
    for fault in block_faults(found, work.now, name=name):
        work.reading.refuse(work.where(name), fault.what, fault.hint)
    return found


def _text(data: bytes) -> str:
    try:
        text = data.decode().removeprefix(_MARK).replace("\r\n", "\n").rstrip("\n")
    except UnicodeDecodeError:
        raise AsideError("it is no UTF-8 text") from None
    if not text:
        raise AsideError("it is empty")
    return text


def _login(work: _Work) -> None:
    profile = work.profile
    named = _LOGIN in profile.credential_files
    if profile.credentials and named:
        what = f"`{_LOGIN}` names a file, and stands there as a block too"
        work.reading.refuse(work.where(_LOGIN), what, "keep one of the two")
    if profile.credentials or not profile.login:
        work.settings["login"] = False
    elif named and (lines := _credentials(work, _LOGIN)):
        # As OpenVPN reads it: a password that is not there is asked for.
        user, password, *more = [*lines, ""]
        work.secrets |= {USERNAME: user} | ({PASSWORD: password} if password else {})
        whose = "user name and password are the first two lines" if password else "the user name is the first line"
        rest = ", and the others are left out" if any(more) else ""
        work.reading.warn(work.where(_LOGIN), f"{whose} of the file beside it that `{_LOGIN}` names{rest}")


def _key_password(work: _Work) -> None:
    named = _KEY in work.profile.credential_files
    if work.profile.encrypted_key or ovpn.is_encrypted(work.secrets.get(ovpn.ROLES["key"], "")):
        work.settings["key_password"] = True
        if named and (lines := _credentials(work, _KEY)):
            work.secrets[KEY_PASSWORD] = lines[0]
    elif named:
        work.reading.warn(work.where(_KEY), f"left out: `{_KEY}`: the private key asks for no password")


def _credentials(work: _Work, name: str) -> list[str]:
    """Give the lines of a file of credentials; none where it can't be had, and they are asked for."""
    try:
        return [line.rstrip("\r") for line in _text(work.aside(work.profile.credential_files[name])).split("\n")]
    except AsideError as error:
        work.reading.warn(work.where(name), f"`{name}` names a file, and {error}: what it would hold is asked for")
        return []


def _left_out(profile: Profile) -> list[Problem]:
    """Say which lines are not followed, those with the same reason together."""
    own = (_LOGIN, _KEY)  # of which more is known here
    reasons: dict[str, list[ovpn.Note]] = {}
    for note in profile.notes:
        if note.directive not in own:
            reasons.setdefault(note.why, []).append(note)
    found = []
    for why, notes in reasons.items():
        shown = ", ".join(f"`{name}`" for name in dict.fromkeys(note.directive for note in notes))
        numbers = [note.line for note in notes if note.line]
        found.append(Problem(_where(numbers), f"{shown}: {why}" if not numbers else f"left out: {shown}: {why}"))
    return found


def _told(found: Iterable[tuple[int, str, str]]) -> list[Problem]:
    """Put what is wrong in the same way in several lines into one message."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for line, what, hint in found:
        numbers.setdefault((what, hint), []).extend([line] if line else [])
    return [Problem(_where(lines), what, hint) for (what, hint), lines in numbers.items()]


def _where(numbers: list[int]) -> str:
    if not numbers:
        return "the file"
    several = list(dict.fromkeys(numbers))
    shown = ", ".join(map(str, several[:MOST_LISTED])) + (", …" if len(several) > MOST_LISTED else "")
    return f"line{'s' if len(several) > 1 else ''} {shown}"

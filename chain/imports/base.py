"""What a format's reader gives, and how it says what is wrong. Pure.

What is read are credentials: no message repeats anything of an input but numbers of lines and names that stand here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from chain.config.models import PORT_MAX, is_server
from chain.errors import Problem
from chain.exits import REGISTRY, SETTINGS
from chain.secret import PLACEHOLDER, Secret, is_wireguard_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from pydantic_core import ErrorDetails

    from chain.exits.base import SecretSpec

# White space as C and the shell have it; Python's own counts much more.
SPACES = " \t\n\r\v\f"
# But for the tab; with Unicode's own line ends, and halves of characters, which JSON can name.
CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PORT = re.compile("[0-9]{1,5}")


class AsideError(Exception):
    """A file that an input names can't be had; the text says why, and nothing of its name."""


Aside = Callable[[str], bytes]  # gives a file that an input names, from beside it; raises AsideError


def nothing_aside(_: str) -> bytes:
    """Have no file: the input is none itself."""
    raise AsideError("nothing stands beside this input, which came without a folder")


class RefusedError(Exception):
    """All that keeps an input from being taken."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


@dataclass(frozen=True)
class Imported:
    """One exit as an input means it: what stands in chain.yaml for it, its secrets by role, and what is left out."""

    kind: str
    settings: dict[str, Any]
    secrets: dict[str, Secret]
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Item:
    """One of the exits that an input holds: what it is called there, and what became of it."""

    name: str
    found: Imported | RefusedError


@dataclass
class Reading:
    """What is found while one exit is read: all that is wrong with it, and all that is left out of it."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def refuse(self, where: str, what: str, hint: str = "") -> None:
        self.problems.append(Problem(where, what, hint))

    def warn(self, where: str, what: str, hint: str = "") -> None:
        self.warnings.append(Problem(where, what, hint))

    def imported(
        self,
        kind: str,
        settings: Mapping[str, Any],
        secrets: Mapping[str, str],
        names: Mapping[str, str],
    ) -> Imported:
        """Check it by what chain.yaml and the secrets' files may hold. Raises RefusedError with all that is wrong.

        `names` says what the input calls a setting or a secret.
        """
        if not self.problems:
            self.problems += _objections(kind, settings, secrets, names)
        if self.problems:
            raise RefusedError(*self.problems)
        hidden = {role: Secret(value) for role, value in secrets.items()}
        return Imported(kind, dict(settings), hidden, tuple(dict.fromkeys(self.warnings)))

    def port(self, where: str, text: str) -> int:
        """Read a port; 0 where it is none, which is noted."""
        if not text:
            self.refuse(where, "the port is missing")
        elif not _PORT.fullmatch(text) or not 1 <= int(text) <= PORT_MAX:
            self.refuse(where, f"the port is no number between 1 and {PORT_MAX}")
        else:
            return int(text)
        return 0

    def server(self, where: str, text: str, hint: str = "") -> None:
        """Refuse what is no server that an exit can reach."""
        if _is_ipv6(text.removeprefix("[").removesuffix("]")):
            self.refuse(where, "servers are reached over IPv4 only, for now", "ask the provider for an IPv4 address")
        elif not text.isascii():
            self.refuse(where, "the server's name has other characters than ASCII", "write it in its `xn--` form")
        elif not text or not is_server(text):
            self.refuse(where, "the server is no host name and no IPv4 address", hint)


def _objections(
    kind: str, settings: Mapping[str, Any], secrets: Mapping[str, str], names: Mapping[str, str]
) -> Iterable[Problem]:
    try:
        model = SETTINGS[kind].model_validate({"kind": kind, **settings})
    except ValidationError as error:
        return [_problem(detail, names) for detail in error.errors(include_input=False, include_url=False)]
    specs = {spec.role: spec for spec in REGISTRY[kind].secrets(model)}
    return [
        Problem(names.get(role, role), wrong, "is it whole, and copied right?")
        for role, value in secrets.items()
        if (wrong := flaw(value, specs[role]))
    ]


def _problem(detail: ErrorDetails, names: Mapping[str, str]) -> Problem:
    """Say what pydantic found, without the value, which its own words may have."""
    path = ".".join(str(part) for part in detail["loc"])
    parts = path.split(".")
    known = next((name for size in range(len(parts), 0, -1) if (name := names.get(".".join(parts[:size])))), path)
    match detail["type"]:
        case "missing":
            what = "this is missing"
        case "literal_error":
            what = f"this must be {detail['ctx']['expected']}"
        case "string_pattern_mismatch":
            what = "it has characters that can't stand there, or is not as long as it has to be"
        case "value_error" if path in SPOKEN:
            what = str(detail["ctx"]["error"])
        case "value_error" if parts[-1] in ("host", "server_name"):
            what = "this is no host name and no address"
        case "greater_than_equal" | "less_than_equal":
            what = detail["msg"].replace("Input should be", "this must be", 1)
        case _:
            what = "this is not what stands there in `chain.yaml`"
    return Problem(known, what)


# Where a check's own words hold nothing of what was given; the empty path is that of a whole exit.
SPOKEN = ("", "transport", "encryption", "tls.ca")


def flaw(value: str, spec: SecretSpec) -> str:
    """Say why a secret would not arrive as it is: at its file's reader, or at its daemon."""
    if not value:
        return "it is empty"
    if spec.form != "document" and CONTROL.search(value):
        return "it has a line break, or another character that can't be typed"
    if value.strip() == PLACEHOLDER:
        return f"it says {PLACEHOLDER}"
    if len(value.encode()) > spec.limit:
        return f"it is longer than {spec.limit} bytes, which is all that is passed on"
    if spec.form == "wireguard-key" and not is_wireguard_key(value):
        return "this is no WireGuard key: 44 characters of base64, the last one '='"
    return ""


def _is_ipv6(text: str) -> bool:
    try:
        return bool(IPv6Address(text))
    except ValueError:
        return False


def expiry(not_before: datetime, not_after: datetime, now: datetime) -> str:
    """Say why a certificate is not valid now, or nothing."""
    if now > not_after:
        return f"the certificate expired on {not_after:%Y-%m-%d}"
    return f"the certificate is valid from {not_before:%Y-%m-%d} on only" if now < not_before else ""

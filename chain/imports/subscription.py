"""What a subscription's address answers: links, one a line, as they are or all of them in base64."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain.errors import Problem
from chain.imports import links
from chain.imports.base import SPACES, Item, RefusedError, nothing_aside
from chain.imports.encoding import from_base64

if TYPE_CHECKING:
    from datetime import datetime

    from chain.imports.base import Aside

MOST = 1000  # links
_COMMENTS = ("#", "//", ";")
_STATUS = ("status=", "remarks=", "remark=")  # what some programs show of an account, in lines of its own


def recognises(text: str) -> bool:
    """Tell whether there are links: of servers, or nothing but links, since a web address may stand in any text."""
    schemes = [links.scheme_of(line) for line in _lines(text)]
    return bool(schemes) and (all(schemes) or any(scheme in links.OF_SERVERS for scheme in schemes))


def unwrapped(text: str) -> str | None:
    """Give the text inside base64; None where there is none."""
    return from_base64(text)


def read(text: str, now: datetime, aside: Aside = nothing_aside) -> list[Item]:
    """Read all links. Raises RefusedError where they are too many."""
    del aside
    lines = _lines(text)
    if len(lines) > MOST:
        raise RefusedError(Problem("the input", f"it has more than {MOST} lines", "leave those in it that are wanted"))
    return [links.read(line, now) if links.scheme_of(line) else _no_link() for line in lines]


def _no_link() -> Item:
    return Item("", RefusedError(Problem("the line", "this is no link", "is the input whole?")))


def _lines(text: str) -> list[str]:
    """Give the lines that are to be links: not empty ones, comments, and what is said of the account."""
    stripped = (line.strip(SPACES) for line in text.split("\n"))
    return [line for line in stripped if line and not line.lower().startswith((*_COMMENTS, *_STATUS))]

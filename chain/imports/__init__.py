"""What providers hand out → exits. Pure: bytes in; settings, secrets and warnings out, or what is wrong.

Files that an input names are read by the caller, who says which may be.

A format is a module with `recognises` and `read`, and a line below, in the order in which they are asked. A new kind of
exit brings its own. docs/importing.md says which programs' files and links were tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from chain.errors import Problem
from chain.imports import l2tp, links, mobileconfig, openvpn, others, subscription, wireguard
from chain.imports.base import AsideError, Imported, Item, RefusedError, nothing_aside

if TYPE_CHECKING:
    from datetime import datetime

    from chain.imports.base import Aside

__all__ = ["MOST_BYTES", "AsideError", "Imported", "Item", "RefusedError", "nothing_aside", "read"]

MOST_BYTES = 524288  # of an input
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # the byte order mark, as some programs begin a text with it


class Format(Protocol):
    """One format of what providers hand out."""

    def recognises(self, text: str) -> bool: ...

    def read(self, text: str, now: datetime, aside: Aside) -> list[Item]:
        """Read all exits in a text, at least one. Raises RefusedError where the whole of it is of no use."""


_FORMATS: tuple[Format, ...] = (mobileconfig, wireguard, openvpn, subscription)


def read(data: bytes, now: datetime, aside: Aside = nothing_aside) -> list[Item]:
    """Find out what an input is, and read it. Raises RefusedError where nothing in it can be used.

    `now` is what certificates' dates are compared with; `aside` gives the files that an input names.
    """
    if len(data) > MOST_BYTES:
        raise RefusedError(Problem("the input", f"it is larger than {MOST_BYTES} bytes", "is it the right file?"))
    others.refuse_bytes(data)
    try:
        text = data.decode().removeprefix(_MARK)
    except UnicodeDecodeError:
        raise RefusedError(Problem("the input", "it is no UTF-8 text", "save it as UTF-8")) from None
    if "\0" in text:
        raise RefusedError(Problem("the input", "it has a NUL in it, as no text has", "is it the right file?"))
    if not text.strip():
        raise RefusedError(Problem("the input", "it is empty"))
    found = _format(text)
    if found is None and (inner := subscription.unwrapped(text)) is not None:
        text = inner.removeprefix(_MARK)
        found = _format(text)
    if found is None:
        others.refuse(text)
        if not l2tp.recognises(text):
            raise RefusedError(_unknown(text))
        found = l2tp
    return found.read(text, now, aside)


def _format(text: str) -> Format | None:
    return next((each for each in _FORMATS if each.recognises(text)), None)


def _unknown(text: str) -> Problem:
    if any(f"{scheme}://" in text.lower() for scheme in links.SCHEMES):
        what = "a link stands amid other signs or words"
        return Problem("the input", what, "give the link alone, on a line of its own, without quotes around it")
    hint = "files for WireGuard's app and OpenVPN, links, subscriptions' bodies, .mobileconfig and L2TP's four fields"
    return Problem("the input", "it is in no format that is known here", f"{hint} are read")

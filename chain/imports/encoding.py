"""Base64 and percent-encoding as links have them: in each of their dialects, and strictly in each."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote_to_bytes

from chain.imports.base import SPACES

_BASE64 = re.compile("[A-Za-z0-9+/_-]*={0,2}")
_BROKEN_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


def from_base64(text: str) -> str | None:
    """Decode text from base64 of either alphabet, padded or not, on one line or several; None where it is none."""
    raw = bytes_from_base64(text)
    try:
        return raw.decode() if raw is not None else None
    except UnicodeDecodeError:
        return None


def bytes_from_base64(text: str) -> bytes | None:
    """Decode bytes from base64, likewise."""
    joined = text.translate(dict.fromkeys(map(ord, SPACES)))
    if not joined or not _BASE64.fullmatch(joined):
        return None
    bare = joined.rstrip("=").replace("-", "+").replace("_", "/")
    if len(bare) % 4 == 1:  # no number of bytes is written so
        return None
    return base64.b64decode(bare + "=" * (-len(bare) % 4))


def from_percent(text: str) -> str | None:
    """Decode `%XX`; None where a percent sign begins none, or the bytes are no UTF-8. A plus is a plus."""
    if _BROKEN_PERCENT.search(text):
        return None
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return None

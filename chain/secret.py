"""A value that does not show itself, and how a secret's file is read. Stdlib only."""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import TYPE_CHECKING

from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from pathlib import Path

PLACEHOLDER = "CHANGE-ME"
MOST_BYTES = 4096  # of a secret's file
MOST_BYTES_OF_DOCUMENT = 256 * 1024  # of one with many lines, such as a provider's settings with keys in them

_WIREGUARD_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")


class Secret:
    """Text that prints as `***`; `reveal()` is the one way to the value, so that its uses can be searched for."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


def is_wireguard_key(text: str) -> bool:
    """Tell whether text has the form of a WireGuard key: 32 bytes in base64."""
    return _WIREGUARD_KEY.fullmatch(text) is not None


def read_secret(path: Path, *, document: bool = False) -> Secret:
    """Read one credential; a single newline at the end of the file is not part of the value. `document`: of many lines.

    Raises ChainError (CONFIG) when the file is missing, unreadable, not UTF-8, empty, of several lines though it is no
    document, or still the example's placeholder.
    """
    form = "the whole file" if document else "one line"
    try:
        value = read_regular(path, MOST_BYTES_OF_DOCUMENT if document else MOST_BYTES).decode()
    except FileNotFoundError:
        raise _error(path, "this secret's file is missing", f"write the value into it: {form}, mode 0600") from None
    except PermissionError:
        raise _error(
            path,
            "this secret's file can't be read",
            "the user that runs chain needs it: files mode 600, their folders 700",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        # Without `from None` the decoder's exception would carry the secret's bytes.
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise _error(path, f"this secret's file can't be used: {reason}", f"write the value as text, {form}") from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise _error(path, "this secret's file is empty", f"write the value into it: {form}")
    if value.strip() == PLACEHOLDER:
        raise _error(path, f"this secret still says {PLACEHOLDER}", "replace it with the real value")
    if not document and ("\0" in value or "\n" in value):
        raise _error(path, "this secret has more than one line", "one file holds one value on one line")
    return Secret(value)


def read_regular(path: Path, most: int) -> bytes:
    """Read a file that is a file: a pipe would be waited for, and a device may have no end.

    Raises OSError; its text says so where the file is another thing, or larger than `most` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most} bytes")
    return data


def _error(path: Path, what: str, hint: str) -> ChainError:
    return ChainError(Problem(str(path), what, hint), ExitCode.CONFIG)

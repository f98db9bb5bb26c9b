"""From what Xray prints of one connection to a row of the table of causes. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from chain.node.kinds import causes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chain.node.kinds.causes import Cause, Diagnosis

# Lines that bear a connection's number say where it was going, which is a client's business and never logged. Nor is,
# at each start, that Xray's makers would have people use something else than what a server speaks.
NOT_LOGGED = re.compile(r"\] \[\d+\] |is deprecated, not recommended")
_ALIKE = 20  # letters with which two attempts' reasons begin alike
_RETRIED = re.compile(r"common/retry: \[(?P<reason>.*?)\] > common/retry")
_FAILED = re.compile(r"failed to process outbound traffic > (?P<reason>.*)")
_STATUS = re.compile(r"unexpected status (?P<plain>\d{3})|: (?P<dialled>\d{3} [A-Z][A-Za-z ]+)")
_CERTIFICATE: tuple[tuple[str, Cause], ...] = (
    ("has expired or is not yet valid", causes.XRAY_EXPIRED),
    ("is valid for", causes.XRAY_NAME),
    ("not valid for any names", causes.XRAY_NAME),
    ("pinnedPeerCertSha256", causes.XRAY_PIN),
    ("x509: ", causes.XRAY_AUTHORITY),
)


def diagnose(lines: Iterable[str], *, reality: bool, ended: bool, asked: str, port: int) -> Diagnosis:
    """Say why one connection carried nothing. `ended`: it was closed, not just silent; `port`: the server's."""
    tunnelled = False
    reason = status = ""
    for line in lines:
        tunnelled = tunnelled or "tunneling request to" in line
        if match := _STATUS.search(line):
            status = match["plain"] or match["dialled"].strip()
        if match := _RETRIED.search(line) or _FAILED.search(line):
            reason = match["reason"]
    if status or "httpupgrade: failed to dial" in reason:
        cause = causes.XRAY_BEHIND if status.startswith("5") else causes.XRAY_PATH
        return cause.found(status=status or "no answer to the request")
    if reality and ("REALITY: " in reason or "x509: " in reason):
        named = "is valid for" in reason
        return (causes.XRAY_BORROWED if named else causes.XRAY_REALITY).found(reason=short(reason))
    for sign, cause in _CERTIFICATE:
        if sign in reason:
            return cause.found(reason=short(reason))
    if reason:
        return causes.XRAY_DIAL.found(reason=short(reason))
    if tunnelled:
        return (causes.XRAY_CLOSES if ended else causes.XRAY_SILENT).found(asked=asked)
    return causes.XRAY_HANDSHAKE.found(port=port)


def short(reason: str) -> str:
    """Leave out which parts of Xray a reason came through, and all attempts but the first where they differ."""
    again = reason.find(reason[:_ALIKE], 1)
    first = reason[:again].strip() if again > 0 else reason
    return first.rpartition(" > ")[2].removeprefix("tls: failed to verify certificate: ")

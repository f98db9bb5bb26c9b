"""From what charon, xl2tpd and pppd print to the one cause that people read. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_NOTIFY = re.compile(r"received (?P<name>[A-Z][A-Z0-9_]+)(?: \S+)? (?:error notify|notify)")
_BRACKETS = re.compile(r"\((?P<text>[^()]+)\)")

_PROPOSALS = (
    "the server accepts none of the offered ciphers for {what} (no proposal chosen); "
    "an old server may need `crypto: legacy`, or {option}"
)
_ESP_OPTION, _IKE_OPTION = "`esp.proposals` of its own", "`ike.proposals` of its own, or the other `ike.version`"
_KEY = "the server refuses the pre-shared key, or the identity it was shown ({notify})"
# With IKEv1 a wrong key shows only in that nobody can read the other's next message.
_KEY_SILENT = "the server answered, but not to the pre-shared key: most likely the key is wrong"
_IDENTITY = "the server proves to be somebody else than `ike.remote_id` says ({line})"
_OTHER_IDENTITY = ("does not match to", "constraint check failed")
_WRONG_KEY_SIGNS = ("decryption failed", "PAYLOAD_MALFORMED", "INVALID_HASH", "HASH payload does not match")
_KEY_REFUSALS = ("AUTHENTICATION_FAILED", "INVALID_KEY_INFORMATION", "INVALID_ID_INFORMATION", "NO_SHARED_KEY")


def ike_failure(lines: Iterable[str]) -> str:
    """Say why no IPsec connection came about, from charon's lines about this one attempt."""
    heard = authenticating = established = refused_key = False
    notify = ""
    for line in lines:
        if any(sign in line for sign in _OTHER_IDENTITY):
            return _IDENTITY.format(line=line)
        heard = heard or line.startswith(("received packet", "parsed "))
        # The third pair of messages of IKEv1, the second of IKEv2: from here on the key counts.
        authenticating = authenticating or line.startswith(("generating ID_PROT request 0 [ ID", "generating IKE_AUTH"))
        established = established or ("IKE_SA" in line and "established between" in line)
        refused_key = refused_key or (authenticating and any(sign in line for sign in _WRONG_KEY_SIGNS))
        if found := _NOTIFY.search(line):
            notify = found["name"]
            if "no CHILD_SA built" in line:
                established = True
    return _ike_cause(notify, heard=heard, authenticating=authenticating, established=established, bad_key=refused_key)


def _ike_cause(notify: str, *, heard: bool, authenticating: bool, established: bool, bad_key: bool) -> str:
    if "NO_PROPOSAL_CHOSEN" in notify:
        what, option = ("IPsec", _ESP_OPTION) if established else ("IKE", _IKE_OPTION)
        cause = _PROPOSALS.format(what=what, option=option)
    elif established:
        cause = f"the server refuses the IPsec connection ({notify or 'it gave no reason'})"
    elif any(name in notify for name in _KEY_REFUSALS):
        cause = _KEY.format(notify=notify)
    elif bad_key or (authenticating and not notify):
        cause = _KEY_SILENT
    elif notify:
        cause = f"the server refuses to begin ({notify}); another `ike.version` may be what it expects"
    elif heard:
        cause = "the server began to answer over IKE and then fell silent"
    else:
        cause = "no answer from the server on UDP port 500 (IKE)"
    return cause


def ike_loss(lines: Iterable[str]) -> str:
    """Say why an IPsec connection that stood is gone, from charon's latest lines."""
    cause = "the IPsec connection ended"
    for line in lines:
        if "received DELETE" in line:
            cause = "the server ended the IPsec connection"
        elif "giving up after" in line or "DPD check timed out" in line or "peer not responding" in line:
            cause = "the server no longer answers over IKE"
    return cause


# In the order in which they count: the first that some line matches is the cause.
_L2TP = (
    (r"authentication failed", "the server refuses the user name or the password (PPP: {line})"),
    (
        r"terminated by peer.*(?:refused to auth|[Aa]uthenticat)",
        "the server wants a way to prove the password that `ppp.auth` does not allow (PPP: {line})",
    ),
    (r"Could not determine local IP address", "the server gave no address (PPP)"),
    (r"Couldn't open (?:the )?/dev/ppp", "this container can't use /dev/ppp; is the module ppp_generic loaded?"),
    (r"PPPoL2TP socket", "this kernel has no L2TP; is the module l2tp_ppp loaded?"),
    (r"No response to \d+ echo-requests", "the server no longer answers over PPP"),
    (r"No response to PAP", "the server did not answer the user name and password (PPP)"),
    (r"terminated by peer", "the server ended the PPP connection ({line})"),
    (r"timeout sending Config-Requests", "the server does not answer over PPP"),
    (r"Connection closed to .*, port \d+", "the server closed the L2TP tunnel ({reason})"),
    (r"Connection closed to .*, serial \d+", "the server closed the L2TP call ({reason})"),
    (r"Maximum retries exceeded", "the server does not answer over L2TP, inside the IPsec connection that stands"),
    (r"pppd (?:exited|terminated) .*", "{match}"),
)


# How far it came, for a server that simply fell silent: the last one that some line matches.
_L2TP_STAGES = (
    ("", "the server does not answer over L2TP, inside the IPsec connection that stands"),
    ("Call established with", "the server does not answer over PPP"),
    ("authentication succeeded", "the server gave no address (PPP)"),
)


def l2tp_silence(lines: Iterable[str]) -> str:
    """Say what a server left undone that no longer says anything."""
    text = "\n".join(lines)
    return [cause for sign, cause in _L2TP_STAGES if sign in text][-1]


def l2tp_failure(lines: Iterable[str]) -> str:
    """Say why L2TP or PPP did not come up, or ended; empty when no line says so."""
    seen = list(lines)
    for pattern, cause in _L2TP:
        for line in seen:
            if match := re.search(pattern, line):
                reason = _BRACKETS.search(line)
                return cause.format(line=line, match=match[0], reason=reason["text"] if reason else "no reason given")
    return ""

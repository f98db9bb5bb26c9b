"""From what charon, xl2tpd and pppd print to a row of the table of causes. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from chain.node.kinds import causes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chain.node.kinds.causes import Cause, Diagnosis

_NOTIFY = re.compile(r"received (?P<name>[A-Z][A-Z0-9_]+)(?: \S+)? (?:error notify|notify)")
_BRACKETS = re.compile(r"\((?P<text>[^()]+)\)")

_OTHER_IDENTITY = ("does not match to", "constraint check failed")
# With IKEv1 a wrong key shows only in that nobody can read the other's next message.
_WRONG_KEY_SIGNS = ("decryption failed", "PAYLOAD_MALFORMED", "INVALID_HASH", "HASH payload does not match")
_KEY_REFUSALS = ("AUTHENTICATION_FAILED", "INVALID_KEY_INFORMATION", "INVALID_ID_INFORMATION", "NO_SHARED_KEY")


def ike_failure(lines: Iterable[str], version: int) -> Diagnosis:
    """Say why no IPsec connection came about, from charon's lines about this one attempt."""
    heard = authenticating = established = False
    notify = sign = ""
    sent = 0
    for line in lines:
        if any(sign in line for sign in _OTHER_IDENTITY):
            return causes.IDENTITY.found(line=line)
        if line.startswith("error writing to socket"):
            return causes.NO_WAY.found(error=line)
        sent += line.startswith("sending packet")
        heard = heard or line.startswith(("received packet", "parsed "))
        # The third pair of messages of IKEv1, the second of IKEv2: from here on the key counts.
        authenticating = authenticating or line.startswith(("generating ID_PROT request 0 [ ID", "generating IKE_AUTH"))
        established = established or ("IKE_SA" in line and "established between" in line)
        if authenticating and not established and any(sign in line for sign in _WRONG_KEY_SIGNS):
            sign = line
        if found := _NOTIFY.search(line):
            notify = found["name"]
            established = established or "no CHILD_SA built" in line
    evidence = {"notify": notify, "sent": sent, "other": 3 - version}
    if established:
        return _child_cause(notify).found(evidence="it was sent again until time was up", **evidence)
    if sign or (authenticating and not notify):
        said = f"sent what can't be read ({sign})" if sign else "fell silent"
        return causes.KEY_GUESSED.found(evidence=said, **evidence)
    return _ike_cause(notify, heard=heard).found(**evidence)


def _child_cause(notify: str) -> Cause:
    if "NO_PROPOSAL_CHOSEN" in notify:
        return causes.NO_ESP_PROPOSAL
    return causes.CHILD_REFUSED if notify else causes.CHILD_SILENT


def _ike_cause(notify: str, *, heard: bool) -> Cause:
    if "NO_PROPOSAL_CHOSEN" in notify:
        return causes.NO_IKE_PROPOSAL
    if any(name in notify for name in _KEY_REFUSALS):
        return causes.KEY
    if notify:
        return causes.IKE_REFUSED
    return causes.IKE_STOPPED if heard else causes.NO_ANSWER


def ike_loss(lines: Iterable[str]) -> Diagnosis:
    """Say why an IPsec connection that stood is gone, from charon's latest lines."""
    cause = causes.IPSEC_GONE
    for line in lines:
        if "received DELETE" in line:
            cause = causes.IKE_ENDED
        elif "giving up after" in line or "DPD check timed out" in line or "peer not responding" in line:
            cause = causes.IKE_LOST
    return cause.found()


# In the order in which they count: the first that some line matches is the cause.
_L2TP = (
    (r"authentication failed", causes.CREDENTIALS),
    (r"terminated by peer.*(?:refused to auth|[Aa]uthenticat)", causes.PPP_AUTH),
    (r"Could not determine (?:local|remote) IP address", causes.NO_ADDRESS),
    (r"Couldn't open (?:the )?/dev/ppp", causes.NO_PPP),
    (r"PPPoL2TP socket", causes.NO_KERNEL_L2TP),
    (r"No response to \d+ echo-requests", causes.PPP_LOST),
    (r"No response to PAP", causes.PPP_SILENT),
    (r"terminated by peer", causes.PPP_ENDED),
    (r"timeout sending Config-Requests", causes.PPP_SILENT),
    (r"Connection closed to .*, port \d+", causes.L2TP_REFUSED),
    (r"Connection closed to .*, serial \d+", causes.CALL_REFUSED),
)
_UNANSWERED = re.compile(r"Maximum retries exceeded")
_PPPD_ENDED = re.compile(r"pppd (?:exited|terminated) .*")


def l2tp_failure(lines: Iterable[str]) -> Diagnosis | None:
    """Say why L2TP or PPP did not come up, or ended; None when no line says so."""
    seen = list(lines)
    for pattern, cause in _L2TP:
        for line in seen:
            if re.search(pattern, line):
                reason = _BRACKETS.search(line)
                return cause.found(line=line, reason=reason["text"] if reason else "no reason given")
    text = "\n".join(seen)
    if _UNANSWERED.search(text):
        return l2tp_silence([])
    if ended := _PPPD_ENDED.search(text):
        return causes.DAEMON_DIED.found(what=ended[0])
    return None


def l2tp_silence(lines: Iterable[str]) -> Diagnosis:
    """Say what a server left undone that no longer says anything."""
    text = "\n".join(lines)
    if "authentication succeeded" in text:
        return causes.NO_ADDRESS.found(line="nothing was said about it")
    if "Call established with" in text:
        return causes.PPP_SILENT.found(line="the L2TP call stands")
    return causes.L2TP_SILENT.found(received=0, sent=0)

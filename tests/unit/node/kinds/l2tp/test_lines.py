"""The lines are those of strongSwan 6.0, xl2tpd 1.3.18 and pppd 2.5 as they were printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chain.node.kinds import causes
from chain.node.kinds.l2tp.lines import ike_failure, ike_loss, l2tp_failure, l2tp_silence

if TYPE_CHECKING:
    from chain.node.kinds.causes import Cause

MAIN_MODE = [
    "initiating Main Mode IKE_SA l2tp[1] to 192.0.2.7",
    "generating ID_PROT request 0 [ SA V V V V V ]",
    "sending packet: from 198.51.100.2[500] to 192.0.2.7[500] (288 bytes)",
]
MAIN_MODE_ANSWERED = [
    *MAIN_MODE,
    "received packet: from 192.0.2.7[500] to 198.51.100.2[500] (160 bytes)",
    "parsed ID_PROT response 0 [ SA V V V V ]",
    "received NAT-T (RFC 3947) vendor ID",
    "selected proposal: IKE:AES_CBC_256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048",
    "generating ID_PROT request 0 [ KE No NAT-D NAT-D ]",
]
MAIN_MODE_KEY = [
    *MAIN_MODE_ANSWERED,
    "parsed ID_PROT response 0 [ KE No NAT-D NAT-D ]",
    "generating ID_PROT request 0 [ ID HASH ]",
]
ESTABLISHED = "IKE_SA l2tp[1] established between 198.51.100.2[198.51.100.2]...192.0.2.7[192.0.2.7]"
REFUSAL = "received INVALID_ID_INFORMATION error notify"
QUICK_MODE = "generating QUICK_MODE request 1731468421 [ HASH SA No ID ID ]"
SILENCE = [
    "sending retransmit 1 of request message ID 0, seq 1",
    "giving up after 4 retransmits",
    "establishing IKE_SA failed, peer not responding",
]
IKEV2 = [
    "initiating IKE_SA l2tp[1] to 192.0.2.7",
    "generating IKE_SA_INIT request 0 [ SA KE No N(NATD_S_IP) N(NATD_D_IP) N(FRAG_SUP) N(HASH_ALG) N(REDIR_SUP) ]",
    "received packet: from 192.0.2.7[500] to 198.51.100.2[500] (472 bytes)",
]
IKEV2_KEY = [
    *IKEV2,
    "parsed IKE_SA_INIT response 0 [ SA KE No N(NATD_S_IP) N(NATD_D_IP) N(FRAG_SUP) N(HASH_ALG) N(CHDLESS_SUP) ]",
    "authentication of '198.51.100.2' (myself) with pre-shared key",
    "generating IKE_AUTH request 1 [ IDi AUTH N(USE_TRANSP) SA TSi TSr N(MULT_AUTH) N(EAP_ONLY) N(MSG_ID_SYN_SUP) ]",
]


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ([*MAIN_MODE, *SILENCE], causes.NO_ANSWER),
        ([], causes.NO_ANSWER),
        ([*MAIN_MODE, "error writing to socket: Network is unreachable", *SILENCE], causes.NO_WAY),
        ([*MAIN_MODE_ANSWERED, *SILENCE], causes.IKE_STOPPED),
        ([*MAIN_MODE, "received NO_PROPOSAL_CHOSEN error notify"], causes.NO_IKE_PROPOSAL),
        ([*IKEV2, "received NO_PROPOSAL_CHOSEN notify error"], causes.NO_IKE_PROPOSAL),
        ([*MAIN_MODE_KEY, ESTABLISHED, "received NO_PROPOSAL_CHOSEN error notify"], causes.NO_ESP_PROPOSAL),
        (
            [*IKEV2_KEY, ESTABLISHED, "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built"],
            causes.NO_ESP_PROPOSAL,
        ),
        ([*IKEV2_KEY, "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built"], causes.NO_ESP_PROPOSAL),
        ([*MAIN_MODE_KEY, "invalid HASH_V1 payload length, decryption failed?", *SILENCE], causes.KEY_GUESSED),
        ([*MAIN_MODE_KEY, "received PAYLOAD_MALFORMED error notify"], causes.KEY_GUESSED),
        ([*MAIN_MODE_KEY, *SILENCE], causes.KEY_GUESSED),
        ([*MAIN_MODE_KEY, "received AUTHENTICATION_FAILED error notify"], causes.KEY),
        ([*IKEV2_KEY, "received AUTHENTICATION_FAILED notify error"], causes.KEY),
        ([*MAIN_MODE_KEY, "IDir '192.0.2.7' does not match to 'vpn.example.com'"], causes.IDENTITY),
        ([*MAIN_MODE_KEY, ESTABLISHED, "received INVALID_ID_INFORMATION error notify"], causes.CHILD_REFUSED),
        ([*MAIN_MODE_KEY, ESTABLISHED, QUICK_MODE, *SILENCE], causes.CHILD_SILENT),
        ([*MAIN_MODE, "received INVALID_MAJOR_VERSION error notify"], causes.IKE_REFUSED),
    ],
)
def test_why_ipsec_did_not_come_up(lines: list[str], cause: Cause) -> None:
    assert ike_failure(lines, 1).key == cause.key


def test_the_evidence_stands_in_the_message() -> None:
    assert "1 packets sent, none came back" in ike_failure([*MAIN_MODE, *SILENCE], 1).cause
    assert "and then fell silent" in ike_failure([*MAIN_MODE_KEY, *SILENCE], 1).cause
    sign = "received PAYLOAD_MALFORMED error notify"
    assert f"what can't be read ({sign})" in ike_failure([*MAIN_MODE_KEY, sign], 1).cause
    assert "(INVALID_ID_INFORMATION)" in ike_failure([*MAIN_MODE_KEY, ESTABLISHED, REFUSAL], 1).cause


@pytest.mark.parametrize("version", [1, 2])
def test_the_other_version_of_ike_is_what_to_try(version: int) -> None:
    found = ike_failure([*MAIN_MODE, "received NO_PROPOSAL_CHOSEN error notify"], version)
    assert "`crypto: legacy`" in found.advice
    assert f"`ike: {{version: {3 - version}}}`" in found.advice


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (["07[IKE] received DELETE for IKE_SA l2tp[1]"], causes.IKE_ENDED),
        (["07[IKE] received DELETE for ESP CHILD_SA with SPI c0ba120c"], causes.IKE_ENDED),
        (["03[IKE] giving up after 4 retransmits"], causes.IKE_LOST),
        (["03[JOB] DPD check timed out, enforcing DPD action"], causes.IKE_LOST),
        ([], causes.IPSEC_GONE),
    ],
)
def test_why_ipsec_ended(lines: list[str], cause: Cause) -> None:
    assert ike_loss(lines).key == cause.key


CALL = [
    "Connection established to 192.0.2.7, 1701.  Local: 1, Remote: 2 (ref=0/0).",
    "Call established with 192.0.2.7, …",
]
EXIT_19 = "child_handler : pppd exited for call 47994 with code 19"


@pytest.mark.parametrize(
    ("lines", "cause", "evidence"),
    [
        (
            [*CALL, "MS-CHAP authentication failed: Access denied", "CHAP authentication failed", EXIT_19],
            causes.CREDENTIALS,
            "Access denied",
        ),
        ([*CALL, "PAP authentication failed", "LCP terminated by peer", EXIT_19], causes.CREDENTIALS, "PAP auth"),
        (
            [*CALL, "LCP terminated by peer (peer refused to authenticate)"],
            causes.PPP_AUTH,
            "(peer refused to authenticate)",
        ),
        ([*CALL, "Could not determine local IP address", "Connection terminated."], causes.NO_ADDRESS, "local IP"),
        ([*CALL, "Couldn't open the /dev/ppp device: No such device or address"], causes.NO_PPP, "No such device"),
        (["start_pppd: Unable to allocate PPPoL2TP socket."], causes.NO_KERNEL_L2TP, "Unable to allocate"),
        (
            [*CALL, "No response to 4 echo-requests", "Serial link appears to be disconnected."],
            causes.PPP_LOST,
            "4 echo-requests",
        ),
        (
            ["control_finish: Connection closed to 192.0.2.7, port 1701 (Server closing), Local: 1, Remote: 2"],
            causes.L2TP_REFUSED,
            "(Server closing)",
        ),
        (
            [*CALL, "control_finish: Connection closed to 192.0.2.7, serial 1 ()"],
            causes.CALL_REFUSED,
            "(no reason given)",
        ),
        (["Maximum retries exceeded for tunnel 29445.  Closing."], causes.L2TP_SILENT, "0 bytes received"),
        (
            ["child_handler : pppd terminated for call 7 by signal 9"],
            causes.DAEMON_DIED,
            "pppd terminated for call 7 by signal 9",
        ),
    ],
)
def test_why_l2tp_failed(lines: list[str], cause: Cause, evidence: str) -> None:
    found = l2tp_failure(lines)
    assert found is not None
    assert found.key == cause.key
    assert evidence in found.cause


def test_nothing_is_made_up() -> None:
    assert l2tp_failure([*CALL, "CHAP authentication succeeded"]) is None


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ([], causes.L2TP_SILENT),
        (CALL[:1], causes.L2TP_SILENT),
        (CALL, causes.PPP_SILENT),
        ([*CALL, "CHAP authentication succeeded"], causes.NO_ADDRESS),
    ],
)
def test_how_far_a_server_came_that_fell_silent(lines: list[str], cause: Cause) -> None:
    assert l2tp_silence(lines).key == cause.key

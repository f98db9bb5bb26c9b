"""The lines are those of strongSwan 6.0, xl2tpd 1.3.18 and pppd 2.5 as they were printed."""

from __future__ import annotations

import pytest

from chain.node.kinds.l2tp import causes

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
    ("lines", "part"),
    [
        ([*MAIN_MODE, *SILENCE], "no answer from the server on UDP port 500"),
        ([], "no answer from the server on UDP port 500"),
        ([*MAIN_MODE_ANSWERED, *SILENCE], "fell silent"),
        ([*MAIN_MODE, "received NO_PROPOSAL_CHOSEN error notify"], "for IKE (no proposal chosen)"),
        ([*IKEV2, "received NO_PROPOSAL_CHOSEN notify error"], "for IKE (no proposal chosen)"),
        ([*MAIN_MODE_KEY, ESTABLISHED, "received NO_PROPOSAL_CHOSEN error notify"], "for IPsec (no proposal chosen)"),
        (
            [*IKEV2_KEY, ESTABLISHED, "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built"],
            "for IPsec (no proposal chosen)",
        ),
        (
            [*MAIN_MODE_KEY, "invalid HASH_V1 payload length, decryption failed?", *SILENCE],
            "most likely the key is wrong",
        ),
        ([*MAIN_MODE_KEY, "received PAYLOAD_MALFORMED error notify"], "most likely the key is wrong"),
        ([*MAIN_MODE_KEY, *SILENCE], "most likely the key is wrong"),
        ([*MAIN_MODE_KEY, "received AUTHENTICATION_FAILED error notify"], "refuses the pre-shared key"),
        ([*IKEV2_KEY, "received AUTHENTICATION_FAILED notify error"], "refuses the pre-shared key"),
        ([*MAIN_MODE_KEY, "IDir '192.0.2.7' does not match to 'vpn.example.com'"], "`ike.remote_id`"),
        ([*MAIN_MODE_KEY, ESTABLISHED, "received INVALID_ID_INFORMATION error notify"], "(INVALID_ID_INFORMATION)"),
        ([*MAIN_MODE, "received INVALID_MAJOR_VERSION error notify"], "`ike.version`"),
    ],
)
def test_why_ipsec_did_not_come_up(lines: list[str], part: str) -> None:
    assert part in causes.ike_failure(lines)


@pytest.mark.parametrize("lines", [MAIN_MODE, IKEV2])
def test_no_proposal_chosen_names_the_way_out(lines: list[str]) -> None:
    assert "`crypto: legacy`" in causes.ike_failure([*lines, "received NO_PROPOSAL_CHOSEN error notify"])


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (["07[IKE] received DELETE for IKE_SA l2tp[1]"], "the server ended the IPsec connection"),
        (["07[IKE] received DELETE for ESP CHILD_SA with SPI c0ba120c"], "the server ended the IPsec connection"),
        (["03[IKE] giving up after 4 retransmits"], "the server no longer answers over IKE"),
        (["03[JOB] DPD check timed out, enforcing DPD action"], "the server no longer answers over IKE"),
        ([], "the IPsec connection ended"),
    ],
)
def test_why_ipsec_ended(lines: list[str], cause: str) -> None:
    assert causes.ike_loss(lines) == cause


CALL = [
    "Connection established to 192.0.2.7, 1701.  Local: 1, Remote: 2 (ref=0/0).",
    "Call established with 192.0.2.7, …",
]
EXIT_19 = "child_handler : pppd exited for call 47994 with code 19"


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (
            [*CALL, "MS-CHAP authentication failed: Access denied", "CHAP authentication failed", EXIT_19],
            "user name or",
        ),
        ([*CALL, "PAP authentication failed", "LCP terminated by peer", EXIT_19], "the user name or the password"),
        ([*CALL, "LCP terminated by peer (peer refused to authenticate)"], "`ppp.auth`"),
        ([*CALL, "Could not determine local IP address", "Connection terminated."], "no address"),
        ([*CALL, "Couldn't open the /dev/ppp device: No such device or address"], "ppp_generic"),
        (["start_pppd: Unable to allocate PPPoL2TP socket."], "l2tp_ppp"),
        (
            [*CALL, "No response to 4 echo-requests", "Serial link appears to be disconnected."],
            "no longer answers over PPP",
        ),
        (
            ["control_finish: Connection closed to 192.0.2.7, port 1701 (Server closing), Local: 1, Remote: 2"],
            "(Server cl",
        ),
        ([*CALL, "control_finish: Connection closed to 192.0.2.7, serial 1 ()"], "L2TP call (no reason given)"),
        (["Maximum retries exceeded for tunnel 29445.  Closing."], "does not answer over L2TP"),
        (["child_handler : pppd terminated for call 7 by signal 9"], "pppd terminated for call 7 by signal 9"),
    ],
)
def test_why_l2tp_failed(lines: list[str], part: str) -> None:
    assert part in causes.l2tp_failure(lines)


def test_nothing_is_made_up() -> None:
    assert not causes.l2tp_failure([*CALL, "CHAP authentication succeeded"])


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ([], "does not answer over L2TP"),
        (CALL[:1], "does not answer over L2TP"),
        (CALL, "does not answer over PPP"),
        ([*CALL, "CHAP authentication succeeded"], "no address"),
    ],
)
def test_how_far_a_server_came_that_fell_silent(lines: list[str], part: str) -> None:
    assert part in causes.l2tp_silence(lines)

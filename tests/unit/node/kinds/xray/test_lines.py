"""The lines are those that Xray printed at a server that was broken in these ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chain.node.kinds import causes
from chain.node.kinds.xray.lines import NOT_LOGGED, diagnose

if TYPE_CHECKING:
    from chain.node.kinds.causes import Cause

STAMP = "2026/11/21 22:47:44.898323 "
HEAD = [
    f"{STAMP}[Info] transport/internet/tcp: listening TCP on 127.0.0.1:7501",
    f"{STAMP}[Info] [4126289444] proxy/dokodemo: received request for 127.0.0.1:41984",
    f"{STAMP}[Info] [4126289444] app/dispatcher: taking detour [server] for [tcp:198.51.100.80:53]",
    f"{STAMP}[Info] [4126289444] transport/internet/tcp: dialing TCP to tcp:198.18.0.30:443",
]
TUNNELLED = [
    *HEAD,
    f"{STAMP}[Info] [4126289444] proxy/vless/outbound: tunneling request to tcp:198.51.100.80:53 via 198.18.0.30:443",
]


def failed(reason: str) -> list[str]:
    words = (
        "[Info] [4126289444] app/proxyman/outbound: app/proxyman/outbound: failed to process outbound traffic >"
        " proxy/vless/outbound: failed to find an available destination > common/retry:"
        f" [{reason}] > common/retry: all retry attempts failed"
    )
    return [*HEAD, STAMP + words]


BEHIND = (
    "transport/internet/websocket: failed to dial WebSocket > transport/internet/websocket: failed to dial to"
    " (wss://198.18.0.30:1004/): 502 Bad Gateway > websocket: bad handshake"
)
WEBSOCKET = (
    "transport/internet/websocket: failed to dial WebSocket > transport/internet/websocket: failed to dial to"
    " (wss://198.18.0.30:1004/no): 404 Not Found > websocket: bad handshake"
)
UPGRADE = "transport/internet/httpupgrade: failed to dial request to tcp:198.18.0.30:1005 > unexpected EOF"
REALITY, TLS_ONLY, ENDED, SILENT = "reality", "tls", "ended", "silent"
TLS = "tls: failed to verify certificate: x509: certificate "
EXPIRED = TLS + "has expired or is not yet valid: current time "
PIN = "transport/internet/tls: peer cert is unrecognized (against pinnedPeerCertSha256)"


@pytest.mark.parametrize(
    ("said", "security", "end", "cause", "evidence"),
    [
        (
            failed("x509: certificate signed by unknown authority"),
            REALITY,
            ENDED,
            causes.XRAY_REALITY,
            "unknown authority)",
        ),
        (failed("REALITY: processed invalid connection"), REALITY, ENDED, causes.XRAY_REALITY, "invalid connection)"),
        (
            failed("x509: certificate is valid for a.example, not b.example"),
            REALITY,
            ENDED,
            causes.XRAY_BORROWED,
            "(x509: ",
        ),
        (
            failed(TLS + "is valid for a.example, not b.example"),
            TLS_ONLY,
            ENDED,
            causes.XRAY_NAME,
            "(x509: certificate is",
        ),
        (
            failed(TLS + "has expired or is not yet valid: x"),
            False,
            True,
            causes.XRAY_EXPIRED,
            "(x509: certificate has",
        ),
        (
            failed(TLS + "signed by unknown authority"),
            TLS_ONLY,
            ENDED,
            causes.XRAY_AUTHORITY,
            "(x509: certificate signed",
        ),
        (failed(PIN), TLS_ONLY, ENDED, causes.XRAY_PIN, "pinned_sha256"),
        (failed("dial tcp 198.18.0.30:444: connect: connection refused"), REALITY, ENDED, causes.XRAY_DIAL, "refused)"),
        (failed(WEBSOCKET), TLS_ONLY, ENDED, causes.XRAY_PATH, "(404 Not Found)"),
        (failed(BEHIND), TLS_ONLY, ENDED, causes.XRAY_BEHIND, "(502 Bad Gateway)"),
        (failed(UPGRADE), TLS_ONLY, ENDED, causes.XRAY_PATH, "(no answer to the request)"),
        (
            [*TUNNELLED, f"{STAMP}[Info] transport/internet/splithttp: unexpected status 404"],
            REALITY,
            ENDED,
            causes.XRAY_PATH,
            "(404)",
        ),
        (TUNNELLED, REALITY, ENDED, causes.XRAY_CLOSES, ""),
        (TUNNELLED, TLS_ONLY, SILENT, causes.XRAY_SILENT, "(9.9.9.9 asked)"),
    ],
)
def test_lines_tell_the_cause(said: list[str], security: str, end: str, cause: Cause, evidence: str) -> None:
    found = diagnose(said, reality=security == REALITY, ended=end == ENDED, asked="9.9.9.9", port=443)
    assert (found.key, evidence in found.cause) == (cause.key, True), found.cause


def test_a_server_that_says_nothing_at_all_is_told_from_one_that_is_mute() -> None:
    found = diagnose(HEAD, reality=True, ended=False, asked="9.9.9.9", port=443)
    assert (found.key, "port 443 is open" in found.cause) == (causes.XRAY_HANDSHAKE.key, True)


def test_lines_of_one_connection_are_known() -> None:
    assert [bool(NOT_LOGGED.search(line)) for line in HEAD] == [False, True, True, True]
    assert not NOT_LOGGED.search(f"{STAMP}[Warning] core: Xray 26.3.27 started")

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chain.node import unbound

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.contract import DesiredState
    from chain.topology import Topology


@pytest.fixture
def state(built: Callable[[str], Topology], minimal: str) -> DesiredState:
    return built(minimal).state


def text(state: DesiredState, **changes: Any) -> str:
    return unbound.config(replace(state, dns=replace(state.dns, **changes)), state.groups[0])


def test_each_group_asks_from_an_address_of_its_own_and_never_over_ipv6(
    built: Callable[[str], Topology], minimal: str
) -> None:
    topology = built(
        minimal.replace("paris: {kind: l2tp}", "paris: {kind: l2tp}\n  oslo: {kind: l2tp}")
        + ("groups:\n  far: {exits: [oslo]}\ndns:\n  upstreams: [192.0.2.53]\n")
    )
    texts = [unbound.config(topology.state, group) for group in topology.state.groups]
    sources = [re.findall(r"outgoing-interface: (\S+)", text) for text in texts]
    assert sources == [[group.resolver_address] for group in topology.state.groups]
    for text in texts:
        assert "do-ip6: no" in text
        assert re.findall(r"forward-addr: (\S+)", text) == ['"192.0.2.53@53"']
        assert "forward-tls-upstream: no" in text
        assert re.findall(r"access-control: (.+)", text) == ["10.13.13.0/24 allow"]


def test_upstreams_are_asked_by_tls_and_their_certificates_are_checked(state: DesiredState) -> None:
    found = text(state)
    addresses = re.findall(r"forward-addr: (\S+)", found)
    assert addresses == ['"9.9.9.9@853#dns.quad9.net"', '"1.1.1.1@853#cloudflare-dns.com"']
    assert "forward-tls-upstream: yes" in found
    assert re.findall(r"tls-cert-bundle: (\S+)", found) == [f'"{unbound.AUTHORITIES}"']


def test_another_authority_means_another_file_so_that_the_resolver_starts_anew(state: DesiredState) -> None:
    files = {re.findall(r"tls-cert-bundle: (\S+)", text(state, ca=ca))[0] for ca in ("", "one", "another")}
    assert len(files) == 3


def test_a_segment_fits_what_lies_behind_the_link(state: DesiredState) -> None:
    assert f"outgoing-tcp-mss: {state.mtu - 40}\n" in text(state)


def test_own_zones_are_trusted_beside_the_root_and_an_own_root_in_its_place(state: DesiredState) -> None:
    def anchors(*own: str, dnssec: bool = True) -> list[str]:
        return re.findall(r"trust-anchor\S*: (.+)", text(state, trust_anchors=own, dnssec=dnssec))

    usual = f'"{unbound.ROOT_ANCHOR}"'
    assert anchors() == [usual]
    assert anchors("a. DS 1 13 2 AB") == [usual, '"a. DS 1 13 2 AB"']
    assert anchors("a. DS 1 13 2 AB", ". DS 1 13 2 CD") == ['"a. DS 1 13 2 AB"', '". DS 1 13 2 CD"']
    assert anchors(". DS 1 13 2 CD", dnssec=False) == []


@pytest.mark.parametrize("dnssec", [True, False])
def test_answers_are_checked_unless_that_is_switched_off(state: DesiredState, dnssec: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert ("validator" in text(state, dnssec=dnssec)) is dnssec


@pytest.mark.parametrize(
    "line",
    [
        "[1795280023] unbound[40:0] info: validation failure <a.example. A IN>: no keys have a DS a.example.",
        "[1] unbound[251:0] error: SERVFAIL <a.example. A IN>: all the configured stub or forward servers failed",
    ],
)
def test_no_name_that_a_client_asked_for_is_in_the_log(line: str) -> None:
    said = unbound.Words().fit(line, 0.0)
    assert said
    assert "a.example" not in said
    assert "unbound[" not in said


def test_the_log_says_what_is_wrong_with_a_certificate_but_not_again_and_again() -> None:
    words, line = unbound.Words(), "[1] unbound[251:0] error: ssl handshake cert error: hostname mismatch"
    assert words.fit(line, 0.0) == "ssl handshake cert error: hostname mismatch"
    assert words.fit(line.replace("[1]", "[2]"), 1.0) is None
    assert words.fit("another", 1.0) == "another"
    assert words.fit(line, unbound.QUIET_SECONDS) == "ssl handshake cert error: hostname mismatch"

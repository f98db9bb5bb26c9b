from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.exits.l2tp import LEGACY_ESP, LEGACY_IKE, MODERN_ESP, MODERN_IKE, L2tp, L2tpExit, esp_shape

KIND = L2tp()
ETHERNET = 1500
IP_UDP_NAT_T = 20 + 8
ESP = 8
UDP_L2TP_PPP = 8 + 6 + 4


def settings(**fields: Any) -> L2tpExit:
    return L2tpExit.model_validate({"kind": "l2tp", **fields})


@pytest.mark.parametrize(
    ("proposal", "mtu"),
    [
        ("aes256gcm16", 1420),
        ("aes128gcm16-ecp256", 1420),
        ("aes256-sha1", 1404),
        ("aes256-sha256", 1404),
        ("aes128-sha256-modp2048", 1404),
        ("aes256-sha512", 1388),
        ("3des-sha1", 1420),
    ],
)
def test_mtu_on_an_ethernet_behind_nat(proposal: str, mtu: int) -> None:
    assert KIND.tunnel_mtu(settings(esp={"proposals": [proposal]}), ETHERNET) == mtu


@pytest.mark.parametrize(("link", "gcm", "cbc"), [(1420, 1340, 1324)])
def test_mtu_inside_a_wireguard_parent(link: int, gcm: int, cbc: int) -> None:
    assert KIND.tunnel_mtu(settings(esp={"proposals": ["aes256gcm16"]}), link) == gcm
    assert KIND.tunnel_mtu(settings(esp={"proposals": ["aes256-sha1"]}), link) == cbc


def test_mtu_is_that_of_the_least_roomy_cipher_on_offer() -> None:
    assert KIND.tunnel_mtu(settings(esp={"proposals": ["aes256gcm16", "aes256-sha512"]}), ETHERNET) == 1388
    assert KIND.tunnel_mtu(settings(), ETHERNET) == 1404
    assert KIND.tunnel_mtu(settings(crypto="legacy"), ETHERNET) == 1404


def outer_size(proposal: str, inner: int) -> int:
    """Build a packet from the inside out, as RFC 4303 says."""
    shape = esp_shape(proposal)
    payload = inner + UDP_L2TP_PPP
    padded = -(-(payload + 2) // shape.block) * shape.block
    return IP_UDP_NAT_T + ESP + shape.iv + padded + shape.icv


@given(st.sampled_from([*MODERN_ESP, *LEGACY_ESP, "aes256-sha512"]), st.integers(min_value=600, max_value=9000))
def test_the_computed_size_fits_the_link_and_one_byte_more_does_not(proposal: str, link: int) -> None:
    mtu = KIND.tunnel_mtu(settings(esp={"proposals": [proposal]}), link)
    assert outer_size(proposal, mtu) <= link < outer_size(proposal, mtu + 1)


def test_legacy_adds_to_what_modern_offers_and_comes_after_it() -> None:
    modern, legacy = KIND.options(settings()), KIND.options(settings(crypto="legacy"))
    assert modern["ike_proposals"] == list(MODERN_IKE)
    assert legacy["ike_proposals"] == [*MODERN_IKE, *LEGACY_IKE]
    assert legacy["esp_proposals"] == [*MODERN_ESP, *LEGACY_ESP]
    assert not [text for text in MODERN_IKE + MODERN_ESP if "sha1" in text or "3des" in text or "1024" in text]


def test_named_proposals_replace_those_on_offer() -> None:
    options = KIND.options(settings(crypto="legacy", ike={"proposals": ["aes256-sha1-modp1024"]}))
    assert options["ike_proposals"] == ["aes256-sha1-modp1024"]


def test_lifetimes_are_given_in_seconds() -> None:
    usual, own = KIND.options(settings()), KIND.options(settings(ike={"lifetime": "90m"}, esp={"lifetime": "45s"}))
    assert (usual["ike_lifetime"], usual["esp_lifetime"]) == (8 * 3600, 3600)
    assert (own["ike_lifetime"], own["esp_lifetime"]) == (90 * 60, 45)


@pytest.mark.parametrize("text", ["14s", "25h", "0s", "3600", "1h30m", "-1h", "1 h"])
def test_a_lifetime_is_of_some_use(text: str) -> None:
    with pytest.raises(ValueError, match="lifetime"):
        settings(esp={"lifetime": text})


@pytest.mark.parametrize(
    "text", ["", "aes256 sha1", "aes256;sha1", "aes256\nremote_addrs=x", "aes256-", "AES256", "a\n"]
)
def test_a_proposal_is_no_way_into_another_programs_file(text: str) -> None:
    with pytest.raises(ValueError, match="is no proposal"):
        settings(esp={"proposals": [text]})


def test_the_servers_address_is_a_secret_unless_the_configuration_names_it() -> None:
    assert [spec.role for spec in KIND.secrets(settings())] == [
        "vpn_server_ip",
        "vpn_ipsec_psk",
        "vpn_username",
        "vpn_password",
    ]
    named = settings(server="203.0.113.10", password={"file": "secrets/shared"})
    assert [(spec.role, spec.override) for spec in KIND.secrets(named)] == [
        ("vpn_ipsec_psk", None),
        ("vpn_username", None),
        ("vpn_password", "secrets/shared"),
    ]


def test_exits_of_this_kind_are_in_each_others_way_at_one_server() -> None:
    assert settings(server="vpn.example.org").crowds() == "vpn.example.org"
    assert settings().crowds() == ""  # which a secret says

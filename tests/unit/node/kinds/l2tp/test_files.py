from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.contract import MARK_TUNNEL
from chain.node.kinds.l2tp import files


def words(line: str) -> list[str]:
    """Read a line as pppd's `getword` does: quotes, a backslash before whatever is meant literally, comments."""
    found, word, quoted, escaped, inside = [], "", False, False, False
    for character in line:
        if escaped:
            word, escaped = word + character, False
        elif character == "\\":
            escaped = inside = True
        elif character == '"':
            quoted, inside = not quoted, True
        elif character in " \t" and not quoted:
            found += [word] if inside else []
            word, inside = "", False
        elif character == "#" and not inside:
            break
        else:
            word, inside = word + character, True
    assert not quoted
    return [*found, word] if inside else found


def options(**changes: Any) -> str:
    settings: dict[str, Any] = {"user": "u", "password": "p", "mtu": 1400, "auth": ["mschap-v2"], "number": 1}
    return files.ppp_options(**(settings | changes))


# A secret is one line; pppd's own escapes (\n, \t and so on) begin with a letter, which is never escaped here.
@given(st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), min_size=1))
def test_pppd_reads_any_credential_as_it_is(credential: str) -> None:
    lines = options(user=credential, password=credential).split("\n")
    assert words(lines[0]) == ["user", credential]
    assert words(lines[1]) == ["password", credential]


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (["mschap-v2", "chap"], {"eap", "mschap", "pap"}),
        (["pap"], {"eap", "mschap", "chap", "mschap-v2"}),
        (["chap"], {"eap", "mschap", "pap", "mschap-v2"}),
    ],
)
def test_ways_to_authenticate_that_are_not_allowed_are_refused(allowed: list[str], refused: set[str]) -> None:
    assert set(re.findall(r"^refuse-(\S+)$", options(auth=allowed), re.MULTILINE)) == refused


def test_pppd_takes_no_route_and_says_no_secret() -> None:
    lines = options().splitlines()
    assert {"noipdefault", "nodefaultroute", "hide-password", "mtu 1400", "mru 1400", "unit 0"} <= set(lines)
    assert "debug" not in lines


def test_xl2tpd_dials_once_and_knows_no_credential() -> None:
    text = files.xl2tpd_conf("192.0.2.7", "/run/options")
    assert {"lns = 192.0.2.7", "autodial = yes", "redial = no", "pppoptfile = /run/options"} <= set(text.splitlines())
    assert not re.search(r"^(name|password)", text, re.MULTILINE)


def connection(**changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "own": "198.51.100.2",
        "server": "192.0.2.7",
        "version": 1,
        "ike_proposals": ["aes256-sha256-modp2048"],
        "esp_proposals": ["aes256gcm16"],
        "ike_lifetime": 28800,
        "esp_lifetime": 3600,
        "remote_id": "",
        "encapsulation": "auto",
    }
    made: dict[str, Any] = files.connection(**(settings | changes))[files.CONNECTION]
    return made


def test_any_identity_will_do_unless_one_is_named() -> None:
    assert connection()["remote"]["id"] == "%any"
    assert connection(remote_id="vpn.example.com")["remote"]["id"] == "vpn.example.com"


def test_esp_goes_in_udp_only_when_told_to() -> None:
    assert connection()["encap"] == "no"
    assert connection(encapsulation="udp")["encap"] == "yes"


def test_only_l2tp_goes_through_ipsec_and_leaves_with_the_mark() -> None:
    child = connection()["children"][files.CONNECTION]
    assert child["mode"] == "transport"
    assert child["local_ts"] == child["remote_ts"] == ["dynamic[17/1701]"]
    assert int(child["set_mark_out"], 16) == MARK_TUNNEL


@pytest.mark.parametrize(("ike", "esp"), [(28800, 3600), (15, 15)])
def test_new_keys_are_agreed_on_before_the_old_ones_end_and_no_lifetime_is_zero(ike: int, esp: int) -> None:
    made = connection(ike_lifetime=ike, esp_lifetime=esp)
    child = made["children"][files.CONNECTION]
    assert int(made["rekey_time"]) + int(made["over_time"]) == ike
    assert int(made["rekey_time"]) > int(made["rand_time"]) > 0
    assert int(child["life_time"]) == esp
    assert esp > int(child["rekey_time"]) > int(child["rand_time"]) > 0


def test_the_key_is_handed_over_as_bytes() -> None:
    assert files.shared_key('a"b\\ö') == {"id": "l2tp", "type": "IKE", "data": 'a"b\\ö'.encode()}


def test_charon_marks_its_packets_and_gives_up_soon() -> None:
    text = files.strongswan_conf("/run/x.vici", ignored_interface="ppp0", ignored_table=101)
    assert f"fwmark = {MARK_TUNNEL:#x}" in text
    assert "socket = unix:///run/x.vici" in text
    assert {"  interfaces_ignore = ppp0", "  ignore_routing_tables = 101", "  install_routes = no"} <= set(
        text.splitlines()
    )
    timeout, base, tries = (
        float(re.findall(rf"retransmit_{name} = (\S+)", text)[0]) for name in ("timeout", "base", "tries")
    )
    assert sum(timeout * base**number for number in range(int(tries) + 1)) < 12
    assert text.count("{") == text.count("}")

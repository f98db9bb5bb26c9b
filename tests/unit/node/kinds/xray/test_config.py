from __future__ import annotations

from typing import Any

import pytest

from chain.contract import MARK_CAPTURED_REPLY, MARK_TUNNEL
from chain.node.kinds.xray.config import document

OPTIONS: dict[str, Any] = {
    "protocol": "vless",
    "port": 443,
    "flow": "xtls-rprx-vision",
    "encryption": "none",
    "cipher": "auto",
    "stream": {"network": "tcp", "security": "none"},
}


def made(**changes: Any) -> dict[str, Any]:
    return document(OPTIONS | changes, "secret", "192.0.2.7", ("9.9.9.9", "1.1.1.1"))


def test_what_no_rule_sends_to_the_server_goes_nowhere() -> None:
    found = made()
    assert [outbound["protocol"] for outbound in found["outbounds"]] == ["blackhole", "vless"]
    (rule,) = found["routing"]["rules"]
    assert rule["outboundTag"] == "server"
    assert rule["inboundTag"] == [inbound["tag"] for inbound in found["inbounds"]]


def test_all_that_listens_is_on_the_loopback_and_all_that_leaves_is_marked() -> None:
    found = made()
    assert {inbound["listen"] for inbound in found["inbounds"]} == {"127.0.0.1"}
    assert found["outbounds"][1]["streamSettings"]["sockopt"] == {"mark": MARK_TUNNEL}
    assert found["inbounds"][0]["streamSettings"]["sockopt"] == {"tproxy": "tproxy", "mark": MARK_CAPTURED_REPLY}


def test_each_target_has_its_own_way_in() -> None:
    probes = [inbound for inbound in made()["inbounds"] if inbound["tag"].startswith("probe-")]
    assert [probe["settings"]["address"] for probe in probes] == ["9.9.9.9", "1.1.1.1"]
    assert len({inbound["port"] for inbound in made()["inbounds"]}) == 4


def test_only_this_containers_own_programs_say_where_they_want_to_get_to() -> None:
    assert {inbound["tag"]: inbound["protocol"] for inbound in made()["inbounds"]} == {
        "clients": "dokodemo-door",
        "door": "http",
        "probe-7501": "dokodemo-door",
        "probe-7502": "dokodemo-door",
    }


@pytest.mark.parametrize(
    ("protocol", "place"),
    [("vless", "id"), ("vmess", "id"), ("trojan", "password"), ("shadowsocks", "password")],
)
def test_the_secret_stands_where_the_protocol_wants_it(protocol: str, place: str) -> None:
    (server,) = made(protocol=protocol)["outbounds"][1]["settings"].values()
    entry = server[0]
    account = entry["users"][0] if "users" in entry else entry
    assert (entry["address"], entry["port"], account[place]) == ("192.0.2.7", 443, "secret")


def test_another_protocol_is_none() -> None:
    with pytest.raises(ValueError, match="speaks no socks"):
        made(protocol="socks")

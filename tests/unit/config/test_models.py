from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from chain.config.models import (
    HOOK_EVENTS,
    Config,
    DnsConfig,
    EndpointText,
    EntryConfig,
    GroupConfig,
    HookConfig,
    Host,
    Milliseconds,
    NetworkConfig,
    PublicKey,
    TimeOfWeek,
    UplinkConfig,
    is_web_address,
    milliseconds,
    time_of_week,
)


class Fields(BaseModel):
    endpoint: EndpointText | None = None
    host: Host | None = None
    key: PublicKey | None = None
    time: TimeOfWeek | None = None
    silence: Milliseconds | None = None


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("vpn.example.org", "vpn.example.org", None),
        ("vpn.example.org:51820", "vpn.example.org", 51820),
        ("203.0.113.7:443", "203.0.113.7", 443),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("2001:DB8:0::1", "2001:db8::1", None),
    ],
)
def test_an_endpoint_is_read_in_each_of_its_forms(text: str, host: str, port: int | None) -> None:
    found = Fields.model_validate({"endpoint": text}).endpoint
    assert found is not None
    assert (found.host, found.port) == (host, port)
    assert Fields.model_validate({"endpoint": str(found)}).endpoint == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "a:0",
        "a:65536",
        "a:b",
        "a b",
        "http://a",
        "[::1",
        "[1.2.3.4:5",
        "::1::2",
        "a:1:2",
        "-a",
        "a..b",
        "é",
        "a:\u0661",
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Fields.model_validate({"endpoint": text})


@pytest.mark.parametrize(
    "host",
    [
        "1.2.3",
        "256.1.1.1",
        "1.2.3.4\n",
        "a\n",
        "a" * 64,
        "a." * 127 + "a",
        "",
        "fe80::1%eth0",
        "fe80::1%e\nPostUp = reboot\n#",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValidationError):
        Fields.model_validate({"host": host})


@pytest.mark.parametrize(
    "key",
    [
        "posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ",
        "posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=\n",
        "posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHR=",  # bits set that 32 bytes do not have
        "",
    ],
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValidationError):
        Fields.model_validate({"key": key})


@pytest.mark.parametrize("subnet", ["10.13.13.1/24", "10.0.0.0/15", "10.0.0.0/30", "10.13.13.0", "fd00::/64", 7])
def test_what_is_no_clients_network_is_refused(subnet: object) -> None:
    with pytest.raises(ValidationError):
        EntryConfig.model_validate({"endpoint": "a", "subnet": subnet})


@pytest.mark.parametrize("pool", ["10.213.0.0/19", "10.213.0.0/21", "10.213.1.0/20"])
def test_the_pool_is_a_20(pool: str) -> None:
    with pytest.raises(ValidationError):
        NetworkConfig.model_validate({"pool": pool})


@pytest.mark.parametrize("network", ["", "-x", "a b", "$(id)", "a\n"])
def test_a_docker_networks_name_is_no_more_than_that(network: str) -> None:
    with pytest.raises(ValidationError):
        UplinkConfig.model_validate({"network": network})


@pytest.mark.parametrize("port", [0, 65536, "443", 443.0, True])
def test_a_port_is_a_number_in_its_range(port: object) -> None:
    with pytest.raises(ValidationError):
        EntryConfig.model_validate({"endpoint": "a", "port": port})


def test_input_does_not_show_in_pydantics_own_errors() -> None:
    with pytest.raises(ValidationError) as refused:
        Config.model_validate({"entry": {"endpoint": "a"}, "exits": {}, "name": "Hunter2 the Secret"})
    assert "Hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("9.9.9.9#dns.quad9.net", "9.9.9.9@853#dns.quad9.net"),
        ("9.9.9.9@443#dns.quad9.net", "9.9.9.9@443#dns.quad9.net"),
        ("10.64.0.1", "10.64.0.1@53"),
        ("10.64.0.1@5353", "10.64.0.1@5353"),
    ],
)
def test_a_resolver_is_asked_by_tls_when_it_has_a_name(text: str, written: str) -> None:
    (found,) = DnsConfig.model_validate({"upstreams": [text]}).upstreams
    assert str(found) == written
    assert DnsConfig.model_validate({"upstreams": [written]}).upstreams == [found]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.quad9.net",
        "9.9.9",
        "9.9.9.9:853",
        "9.9.9.9@853",  # TLS without a name would be no check at all
        "9.9.9.9@0",
        "9.9.9.9@65536#a",
        "9.9.9.9@853#",
        "9.9.9.9#a b",
        '9.9.9.9#a"',
        "9.9.9.9#a\n",
        "9.9.9.9#1.1.1.1",
        "tls://9.9.9.9",
        "2620:fe::fe#dns.quad9.net",
        9,
        None,
    ],
)
def test_what_is_no_resolver_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        DnsConfig.model_validate({"upstreams": [text]})


def test_the_usual_resolvers_are_asked_by_tls_and_their_answers_are_checked() -> None:
    found = DnsConfig()
    assert DnsConfig.model_validate({"upstreams": [str(upstream) for upstream in found.upstreams]}) == found
    assert all(upstream.name for upstream in found.upstreams)
    assert (found.dnssec, found.redirect) == (True, True)


def test_resolvers_asked_by_tls_and_others_do_not_stand_together() -> None:
    with pytest.raises(ValidationError, match=r"in clear \(1\.1\.1\.1\)"):
        DnsConfig.model_validate({"upstreams": ["9.9.9.9#dns.quad9.net", "1.1.1.1"]})


def test_a_trust_anchor_is_written_in_one_way() -> None:
    digest = "49fd46e6c4b45c55d4ac69cbd3cd34ac1afe51de2a5b5c7f0e6f0a7a8c9d0e1f"
    forms = [f"Example.org. 3600 IN DS 1 13 2 {digest}", f"example.org DS 1 13 2 {digest[:32]} {digest[32:]}"]
    found = DnsConfig.model_validate({"trust_anchors": [*forms, f". IN DS 1 13 2 {digest}"]}).trust_anchors
    assert found == [*[f"example.org. DS 1 13 2 {digest.upper()}"] * 2, f". DS 1 13 2 {digest.upper()}"]


@pytest.mark.parametrize(
    "text", ["", "example.org", ". DS 1 13 2 ABCD", ". DS 1 13 9 AB", '". DS 1 13 1 ' + "0" * 40, 3]
)
def test_what_is_no_trust_anchor_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        DnsConfig.model_validate({"trust_anchors": [text]})


@pytest.mark.parametrize("text", ["", "secret", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        DnsConfig.model_validate({"ca": text})


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("03:00-04:30", (180, 270, (0, 1, 2, 3, 4, 5, 6))),
        ("Sun 23:00-01:00", (1380, 60, (6,))),
        ("Sat,Mon 00:00-23:59", (0, 1439, (0, 5))),
    ],
)
def test_times_of_the_week(text: str, read: tuple[int, int, tuple[int, ...]]) -> None:
    assert Fields(time=text).time == text
    assert time_of_week(text) == read


@pytest.mark.parametrize(
    "text", ["3:00-4:30", "24:00-01:00", "sun 03:00-04:00", "Sun, Mon 03:00-04:00", "03:00", "Sun"]
)
def test_what_is_no_time_of_the_week(text: str) -> None:
    with pytest.raises(ValidationError):
        Fields(time=text)


@pytest.mark.parametrize(("text", "read"), [("120ms", 120), ("10s", 10_000)])
def test_milliseconds(text: str, read: int) -> None:
    assert Fields(silence=text).silence == text
    assert milliseconds(text) == read


@pytest.mark.parametrize("text", ["0s", "10", "1m", "-1s", "1.5s"])
def test_what_is_no_time_in_milliseconds(text: str) -> None:
    with pytest.raises(ValidationError):
        Fields(silence=text)


@pytest.mark.parametrize(
    "fields", [{"sticky": "flow"}, {"weights": {"a": 2}}, {"policy": "balance", "weights": {"b": 2}}]
)
def test_what_only_a_balance_understands(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GroupConfig.model_validate({"exits": ["a"], **fields})
    assert GroupConfig(exits=["a"], policy="balance", sticky="flow", weights={"a": 2}).sticky == "flow"


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("https://hooks.example.org/services/a?b=c", True),
        ("http://user:password@[2001:db8::1]:8080", True),
        ("https://127.0.0.1", True),
        ("hooks.example.org/a", False),
        ("ftp://hooks.example.org/a", False),
        ("https:///a", False),
        ("https://a:port/", False),
        ("https://a:65536/", False),
        ("https://[::1/", False),
        ("https://a/b c", False),
        ("https://a/\t", False),
        ("https://é.example.org/", False),
    ],
)
def test_a_url_can_be_posted_to_or_not(text: str, fits: bool) -> None:  # noqa: FBT001 - a case's outcome
    assert is_web_address(text) is fits


def test_a_hook_is_for_all_events_unless_it_names_some() -> None:
    assert tuple(HookConfig(command=["true"]).events) == HOOK_EVENTS
    assert HookConfig(command=["true"], events=["move"]).events == ["move"]

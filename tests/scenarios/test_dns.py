"""Clients' names: asked by TLS, checked by DNSSEC, whatever resolver a client has; never in clear instead."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from scene import Capture, capturing, new_token
from world import INTERNET_HOST, UNANSWERED, World, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scene import Chain

pytestmark = [pytest.mark.docker, pytest.mark.long]

RESOLVER = "10.13.13.1"
FORGED = "192.0.2.66"
SERVFAIL = 2


def resolve(world: World, name: str, server: str = RESOLVER, how: str = "udp") -> dict[str, Any]:
    """Ask for an address as a client."""
    found: dict[str, Any] = json.loads(world.exec("client", "python3", "client.py", "resolve", server, name, how))
    return found


@contextmanager
def changed(chain: Chain, **settings: object) -> Iterator[None]:
    """Run the chain with other settings of `dns` while the block runs."""
    text = chain.file.read_text()
    config = yaml.safe_load(text)
    config["dns"] |= settings
    try:
        chain.file.write_text(yaml.safe_dump(config, sort_keys=False))
        chain.up()
        chain.answered()
        yield
    finally:
        chain.file.write_text(text)
        chain.up()
        chain.answered()


def asked_and_seen(world: World) -> tuple[dict[str, Any], Capture]:
    """Ask for a name that nobody has asked for, and look for it on every interface of the engine's host."""
    token = new_token()
    with capturing(world, token) as capture:
        answer = resolve(world, f"{token}.example")
    assert capture.dropped == 0, "the capture lost packets: this run proves nothing"
    return answer, capture


def test_what_is_asked_is_seen_nowhere(world: World, chain: Chain) -> None:
    chain.answered()
    answer, capture = asked_and_seen(world)
    assert (answer["code"], answer["address"]) == (0, INTERNET_HOST)
    assert capture.seen == {}, capture.samples


@pytest.mark.long
def test_what_is_asked_in_clear_is_seen_which_shows_that_it_could_be(world: World, chain: Chain) -> None:
    with changed(chain, upstreams=[INTERNET_HOST]):
        answer, capture = asked_and_seen(world)
    assert (answer["code"], answer["address"]) == (0, INTERNET_HOST)
    internet = docker("network", "inspect", "-f", "{{.Id}}", world.site.network("internet"))[:12]
    assert capture.seen.get(f"br-{internet}"), "not seen beyond the exit"
    assert chain.link_bridges() & set(capture.seen), "not seen between entry and exit"


@pytest.mark.long
def test_a_certificate_of_another_name_is_no_reason_to_ask_in_clear(world: World, chain: Chain) -> None:
    with changed(chain, upstreams=[f"{INTERNET_HOST}#another.example"]):
        answer, capture = asked_and_seen(world)
        log = chain.run("logs", "entry").stdout
    assert (answer["code"], answer["address"]) == (SERVFAIL, None)
    assert capture.seen == {}, capture.samples
    assert "hostname mismatch" in log
    assert capture.token not in log


@pytest.mark.parametrize("how", ["udp", "tcp"])
def test_a_client_with_a_resolver_of_its_own_gets_the_chains_answers(world: World, chain: Chain, how: str) -> None:
    chain.answered()
    assert resolve(world, f"{new_token()}.example", UNANSWERED, how)["address"] == INTERNET_HOST
    assert resolve(world, "forged", INTERNET_HOST, how)["code"] == SERVFAIL


@pytest.mark.long
def test_a_client_may_ask_others_where_that_is_wanted(world: World, chain: Chain) -> None:
    with changed(chain, redirect=False):
        assert resolve(world, "forged", INTERNET_HOST)["address"] == FORGED
        assert resolve(world, "forged")["code"] == SERVFAIL


def test_answers_are_checked(world: World, chain: Chain) -> None:
    chain.answered()
    assert resolve(world, "signed") == {"code": 0, "authentic": True, "address": INTERNET_HOST}
    assert resolve(world, "forged")["code"] == SERVFAIL
    assert resolve(world, f"{new_token()}.example")["authentic"] is False


@pytest.mark.long
def test_answers_are_not_checked_where_that_is_not_wanted(world: World, chain: Chain) -> None:
    with changed(chain, dnssec=False):
        assert resolve(world, "forged") == {"code": 0, "authentic": False, "address": FORGED}

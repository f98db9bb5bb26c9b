"""Each cause of the table, provoked at the real provider: status names it, with its evidence and what to try."""

from __future__ import annotations

import json
import re
import string
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from world import WIREGUARD_PORT, Failed, both_outputs, docker, eventually

from chain.api import keys
from chain.node.kinds import causes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground
    from scene import Chain
    from world import Provider, World

    from chain.node.kinds.causes import Cause

    Tell = Callable[[str], None]

pytestmark = pytest.mark.docker

OTHER_KEY = keys.public_key(keys.new_private_key())
# Larger outer packets get lost at the provider, without a word, as behind a link that is too small for them.
ROOM = 1300


@dataclass(frozen=True)
class Fault:
    """What is done to bring about one cause."""

    cause: Cause
    options: dict[str, Any] = field(default_factory=dict)  # of the exit
    server: dict[str, Any] = field(default_factory=dict)  # settings of the L2TP provider
    rules: str = ""  # statements of nftables, on what comes in at the provider, and on what it sends
    evidence: str = ""  # words of the message


def dropped(what: str) -> str:
    return f"{what} drop;"


L2TP = {
    "ESP is blocked": Fault(causes.ESP_BLOCKED, rules=dropped("meta l4proto esp"), evidence="(0 bytes received, "),
    "wrong key": Fault(causes.KEY_GUESSED, server={"psk": "another key"}),
    "wrong key, IKEv2": Fault(
        causes.KEY, server={"psk": "another key"}, options={"ike_version": 2}, evidence="(AUTHENTICATION_FAILED)"
    ),
    "wrong password": Fault(causes.CREDENTIALS, server={"password": "another password"}),
    "another way to authenticate": Fault(causes.PPP_AUTH, server={"auth": "pap"}),
    "other ciphers for IKE": Fault(causes.NO_IKE_PROPOSAL, server={"ike": ["3des-sha1-modp1024"]}),
    "other ciphers for ESP": Fault(causes.NO_ESP_PROPOSAL, server={"esp": ["3des-sha1"]}),
    "no answer": Fault(causes.NO_ANSWER, rules=dropped("udp dport { 500, 4500 }")),
    "no server": Fault(
        causes.UNREACHABLE, rules="udp dport 500 reject with icmp host-unreachable;", evidence="`No route to host`"
    ),
    # Quick mode is what IKEv1 calls it when ESP is negotiated; the kind of an exchange stands in its header.
    "silent after phase 1": Fault(causes.CHILD_SILENT, rules=dropped("udp dport 500 @th,208,8 32")),
    "no L2TP": Fault(causes.ESP_BLOCKED, rules=dropped("udp dport 1701")),
    "no L2TP, ESP in UDP": Fault(
        causes.NO_L2TP, rules=dropped("udp dport 1701"), options={"encapsulation": "udp"}, evidence="(0 bytes received"
    ),
    "tunnel refused": Fault(causes.L2TP_REFUSED, server={"xl2tpd_global": ["access control = yes"]}),
    "call refused": Fault(
        causes.CALL_REFUSED,
        server={"pool": "192.168.77.10-192.168.77.10", "xl2tpd_lns": ["no ip range = 192.168.77.10-192.168.77.10"]},
        evidence="No available IP address",
    ),
    "no address": Fault(causes.NO_ADDRESS, server={"xl2tpd_lns": ["assign ip = no"]}),
    "unknown name": Fault(causes.NAME, options={"server": "nobody.example"}, evidence="no such name"),
}
WIREGUARD = {
    "wrong key": Fault(causes.NO_HANDSHAKE, options={"public_key": OTHER_KEY}),
    "no answer": Fault(causes.NO_HANDSHAKE, rules=dropped(f"udp dport {WIREGUARD_PORT}")),
    "no server": Fault(
        causes.UNREACHABLE, rules=f"udp dport {WIREGUARD_PORT} reject;", evidence="answers `Connection refused`"
    ),
    "another address": Fault(causes.HANDSHAKE_ONLY, options={"address": "10.66.0.9/32"}),
    "unknown name": Fault(causes.NAME, options={"server": "nobody.example"}, evidence="no such name"),
}
IN_EACH_RUN = 1  # of L2TP's, which take up to a minute each in emulation


class Exit:
    """One exit of the chain and its provider, with whatever is broken between them."""

    def __init__(self, world: World, chain: Chain, ground: Ground, name: str, provider: Provider) -> None:
        self.name = name
        self._world, self._chain, self._patience = world, chain, ground.patience
        self._provider = provider
        self._settings = chain.folder / "run" / "exits" / name / "settings.json"
        self._server = world.folder / f"{provider.name}.json"
        self._before = {file: file.read_text() for file in (self._settings, self._server)}

    @contextmanager
    def broken(self, fault: Fault) -> Iterator[None]:
        """Begin to dial anew under a fault. At its end the provider's settings stay, for `mend` or the next one."""
        provider = self._world.container(self._provider.name)
        settings = json.loads(self._before[self._settings])
        settings["options"] |= fault.options
        self._server_has(json.dumps(json.loads(self._before[self._server]) | fault.server))
        try:
            self._settings.write_text(json.dumps(settings))
            if fault.rules:
                # Both ways: a server may still send what belongs to a session of before.
                chains = "".join(
                    f"chain {hook}s {{ type filter hook {hook} priority -10; {fault.rules} }}; "
                    for hook in ("input", "output")
                )
                self._inside(provider, f"table inet fault {{ {chains}}}\n")
            self.dial()
            yield
        finally:
            if fault.rules:
                self._inside(provider, "delete table inet fault\n")
            self._settings.write_text(self._before[self._settings])

    def mend(self) -> None:
        """Make all whole, and wait until the exit is open."""
        self._server_has(self._before[self._server])
        self.dial()
        self.opens()

    def dial(self) -> None:
        docker("restart", "-t", "1", self._chain.container(f"exit-{self.name}"))

    def _server_has(self, settings: str) -> None:
        """Have the provider start anew with these settings, unless it has them."""
        if json.loads(settings) == json.loads(self._server.read_text()):
            return
        self._server.write_text(settings)  # in place: it is mounted as a file
        before = self._ready()
        docker("restart", "-t", "1", self._world.container(self._provider.name))
        eventually(lambda: self._ready() > before, 60 * self._patience, f"{self._provider.name} is ready")

    def _ready(self) -> int:
        return self._world.logs(self._provider.name).splitlines().count("ready")

    def _inside(self, container: str, rules: str) -> None:
        self._world.inside(container, "nft", "-f", "-", stdin=rules)

    def says(self, what: str, cause: Cause, tell: Tell) -> tuple[str, str]:
        """Wait until status shows a cause, as `cause` or `warning`; give it and what to try, and show both."""
        pattern = re.compile(shape(cause.sentence))
        last: dict[str, Any] = {}

        def found() -> bool:
            nonlocal last
            last = self.report()
            return bool(pattern.fullmatch(last.get(what, "")))

        try:
            eventually(found, 60 * self._patience, f"{what}: {cause.sentence}")
        except Failed as error:
            log = both_outputs(self._chain.container(f"exit-{self.name}")).splitlines()
            raise AssertionError("\n".join([str(error), f"the last one: {last.get(what)}", *log[-60:]])) from None
        said, advice = last[what], last["advice"]
        tell(f"{cause.key}: {said}\n    → {advice}")
        assert re.fullmatch(shape(cause.advice), advice)
        # Another dial may have other numbers for evidence by now.
        shown = re.compile(rf"{shape(cause.sentence)}\n    → {shape(cause.advice)}\n")
        eventually(lambda: shown.search(self._chain.run("status").stdout), 60 * self._patience, "status says so")
        return said, advice

    def opens(self) -> None:
        eventually(lambda: self.report().get("open"), 60 * self._patience, f"{self.name} is open")

    def report(self) -> dict[str, Any]:
        exits = self._chain.entry_status().get("exits", ())
        return next((exit_ for exit_ in exits if exit_["name"] == self.name), {})


def shape(sentence: str) -> str:
    """Turn a sentence of the table into a pattern: any evidence will do."""
    parts = string.Formatter().parse(sentence)
    return "".join(re.escape(literal) + (".+" if name else "") for literal, name, _, _ in parts)


def guarded(found: Exit) -> Iterator[Exit]:
    yield found
    found.mend()


@pytest.fixture(scope="module")
def paris(world: World, chain: Chain, ground: Ground) -> Iterator[Exit]:
    """The exit that is L2TP where the kernel has it."""
    yield from guarded(Exit(world, chain, ground, "paris", ground.preferred))


@pytest.fixture(scope="module")
def oslo(world: World, chain: Chain, ground: Ground) -> Iterator[Exit]:
    """The exit that is always WireGuard."""
    yield from guarded(Exit(world, chain, ground, "oslo", world.site.wireguard2))


def named(exit_: Exit, fault: Fault, tell: Tell) -> None:
    with exit_.broken(fault):
        said, _ = exit_.says("cause", fault.cause, tell)
        assert fault.evidence in said
        assert not exit_.report()["open"]


@pytest.mark.l2tp
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if index >= IN_EACH_RUN else []) for index, name in enumerate(L2TP)],
)
def test_l2tp(paris: Exit, name: str, tell: Tell) -> None:
    named(paris, L2TP[name], tell)


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.rare] if index >= IN_EACH_RUN else [])
        for index, name in enumerate(WIREGUARD)
    ],
)
def test_wireguard(oslo: Exit, name: str, tell: Tell) -> None:
    named(oslo, WIREGUARD[name], tell)


def too_small(exit_: Exit, outer: str, tell: Tell) -> None:
    with exit_.broken(Fault(causes.MTU, rules=dropped(f"{outer} ip length > {ROOM}"))):
        said, advice = exit_.says("warning", causes.MTU, tell)
        fits = int(re.search(r"`mtu: (\d+)`", advice)[1])  # type: ignore[index]  # its form was compared
        assert ROOM - 100 < fits < ROOM
        assert f"up to {fits} bytes" in said
        assert exit_.report()["open"]


@pytest.mark.l2tp
@pytest.mark.long
def test_l2tp_with_too_small_a_link(paris: Exit, tell: Tell) -> None:
    too_small(paris, "meta l4proto esp", tell)


@pytest.mark.long
@pytest.mark.rare
def test_wireguard_with_too_small_a_link(oslo: Exit, tell: Tell) -> None:
    too_small(oslo, f"udp dport {WIREGUARD_PORT}", tell)


@pytest.mark.l2tp
@pytest.mark.long
def test_esp_in_udp_passes_where_esp_is_blocked(paris: Exit) -> None:
    with paris.broken(Fault(causes.ESP_BLOCKED, rules=dropped("meta l4proto esp"), options={"encapsulation": "udp"})):
        paris.opens()


@pytest.mark.long
def test_up_names_the_cause_and_what_to_try(oslo: Exit, chain: Chain, tell: Tell) -> None:
    """By chain.yaml, as its user would."""
    before = chain.file.read_text()
    config = yaml.safe_load(before)
    config["exits"]["oslo"]["public_key"] = OTHER_KEY
    config["groups"] = {"default": {"exits": ["oslo"]}}
    try:
        chain.file.write_text(yaml.safe_dump(config, sort_keys=False))
        done = chain.run("up", "--wait", "25", check=False)
    finally:
        chain.file.write_text(before)
        chain.up()
    tell(done.stderr)
    assert done.returncode == 5
    assert re.search(shape(causes.NO_HANDSHAKE.sentence), done.stderr)
    assert re.search(rf"→ {shape(causes.NO_HANDSHAKE.advice)}", done.stderr)
    assert "exit: what to try: " in done.stderr  # in its log, which is shown too
    oslo.opens()

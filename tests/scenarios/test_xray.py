"""Xray exits: each protocol and transport carries TCP and UDP, refuses ICMP honestly, and notices a dead server."""

from __future__ import annotations

import json
import re
import uuid
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from faults import kill_program
from leaks import assert_no_leak, watched
from scene import Chain
from world import INTERNET_HOST, World, docker, eventually, xray_exit

from chain.node.kinds import causes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground

    from chain.node.kinds.causes import Cause

pytestmark = [pytest.mark.docker, pytest.mark.xray]

SERVICE = "client2"
# Run in a client's container: connections of which the far end closes each when it has answered, and one that this end
# is through with before the answer comes.
CONNECTIONS = """
import json, socket, statistics, sys, time

def fetch(path, through):
    began = time.monotonic()
    with socket.create_connection((sys.argv[1], 80), 30) as channel:
        channel.sendall(b"GET " + path + b" HTTP/1.0\\r\\n\\r\\n")
        if through:
            channel.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: channel.recv(4096), b""))
    return 1e3 * (time.monotonic() - began), said.partition(b"\\r\\n\\r\\n")[2].decode().strip()

times = [fetch(b"/", False)[0] for _ in range(20)]
half = fetch(b"/later", True)[1]
print(json.dumps({"median_ms": statistics.median(times), "most_ms": max(times), "half": half}))
"""

CLOSED_BY_CLIENT = """
import socket, sys
channels = [socket.create_connection((sys.argv[1], 7), 30) for _ in range(20)]
for channel in channels:
    channel.sendall(b"?")
    channel.recv(100)
"""
ESTABLISHED = "01"

ID, PASSWORD = "xray_id", "xray_password"
# Name of the exit: the secret's role, which of the provider's keys it is, and the fields that say which way in.
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "reality": (ID, "id", {"reality": {}}),
    "xhttp-reality": (ID, "id", {"port": 1001, "reality": {}, "transport": "xhttp", "path": "/x"}),
    "grpc-reality": (ID, "id", {"port": 1002, "reality": {}, "transport": "grpc", "service_name": "service"}),
    "vision-tls": (ID, "id", {"port": 1003, "tls": {}}),
    "ws": (ID, "id", {"port": 1004, "tls": {}, "transport": "ws", "path": "/ws"}),
    "httpupgrade": (ID, "id", {"port": 1005, "tls": {}, "transport": "httpupgrade", "path": "/up"}),
    "trojan": (PASSWORD, "password", {"port": 1006, "tls": {}, "protocol": "trojan"}),
    "vmess-ws": (ID, "id", {"port": 1007, "tls": {}, "protocol": "vmess", "transport": "ws", "path": "/vm"}),
    "vmess": (ID, "id", {"port": 1008, "protocol": "vmess"}),
    "ss2022-aes": (PASSWORD, "key16", {"port": 1009, "protocol": "shadowsocks", "cipher": "2022-blake3-aes-128-gcm"}),
    "ss2022-chacha": (
        PASSWORD,
        "key32",
        {"port": 1010, "protocol": "shadowsocks", "cipher": "2022-blake3-chacha20-poly1305"},
    ),
    "ss": (PASSWORD, "password", {"port": 1011, "protocol": "shadowsocks", "cipher": "aes-256-gcm"}),
}


@pytest.fixture(scope="module")
def stopped(world: World) -> Chain:
    """A chain, not started, with an exit and a group for each way in."""
    return Chain(
        world,
        world.folder / "xrays",
        exits={name: xray_exit(world, fields) for name, (_, _, fields) in WAYS.items()},
        secrets={f"{name}_{role}": world.keys[key] for name, (role, key, _) in WAYS.items()},
        name="xrays",
        extra={
            "entry": {"endpoint": world.clients_gateway, "port": 51823},
            "network": {"pool": "10.214.32.0/20"},
            "groups": {name: {"exits": [name]} for name in WAYS},
        },
    )


@pytest.fixture(scope="module")
def configs(stopped: Chain) -> dict[str, str]:
    """A client's configuration for each way in."""
    found = {}
    for name in WAYS:
        done = stopped.run("client", "add", name, "--group", name, "--json")
        found[name] = str(json.loads(done.stdout)["config"])
    return found


@pytest.fixture(scope="module")
def xrays(stopped: Chain, configs: dict[str, str]) -> Iterator[Chain]:
    """The chain, started, with a client for each way in."""
    assert len(configs) == len(WAYS)
    try:
        stopped.up()
        yield stopped
    finally:
        stopped.run("down", check=False)


def goes_by(chain: Chain, config: str) -> None:
    """Make the second client one of this chain's."""
    chain.world.exec(SERVICE, "python3", "client.py", "up", stdin=config)
    chain.knock(SERVICE)


@pytest.mark.parametrize("name", WAYS)
def test_each_way_in_carries_tcp_and_udp(xrays: Chain, configs: dict[str, str], world: World, name: str) -> None:
    goes_by(xrays, configs[name])
    outside = world.site.xray.outside
    assert xrays.answered(SERVICE)["seen"] == outside
    assert world.exec(SERVICE, "curl", "-sS", "-m", "20", f"http://{INTERNET_HOST}/").strip() == outside
    names = json.loads(world.exec(SERVICE, "python3", "client.py", "dns", "10.13.13.1", "a.example"))
    assert names == [INTERNET_HOST, outside]


def test_what_it_can_not_carry_is_refused_at_once(xrays: Chain, configs: dict[str, str], world: World) -> None:
    goes_by(xrays, configs["reality"])
    ping = ("ping", "-c", "1", "-W", "10", INTERNET_HOST)
    said = docker("exec", world.container(SERVICE), *ping, check=False, timeout=20)
    assert "Packet filtered" in said, said


def test_connections_are_quick_and_end_when_one_side_is_through(
    xrays: Chain, configs: dict[str, str], world: World, ground: Ground, tell: Callable[[str], None]
) -> None:
    goes_by(xrays, configs["reality"])
    figures = json.loads(world.exec(SERVICE, "python3", "-c", CONNECTIONS, INTERNET_HOST))
    tell(
        f"20 new TCP connections through the exit, each with its answer until the far end closes it:"
        f" {figures['median_ms']:.1f} ms, at most {figures['most_ms']:.1f} ms"
    )
    # A second is Xray's own patience with a connection of which one side is through.
    assert figures["most_ms"] < 900 * ground.patience
    # Nothing more comes from this side, and the answer still arrives.
    assert figures["half"] == world.site.xray.outside

    # Connections with which the far end is through only when this end is.
    there = partial(_connections, world)
    before = there()
    world.exec(SERVICE, "python3", "-c", CLOSED_BY_CLIENT, INTERNET_HOST)
    begun = there() - before
    assert begun, "the far end is not told at once"
    eventually(lambda: not begun & there(), 60, "what a client is through with ends at the far end too")


def _connections(world: World) -> set[str]:
    """Give with whom the internet's echo has connections, as its kernel lists them."""
    rows = [line.split() for line in world.exec("internet", "cat", "/proc/net/tcp").splitlines()[1:]]
    return {row[2] for row in rows if row[1].endswith(":0007") and row[3] == ESTABLISHED}


def test_a_server_that_is_dead_is_noticed(xrays: Chain, world: World) -> None:
    provider = world.container(world.site.xray.name)
    docker("kill", provider)
    try:
        eventually(lambda: not xrays.is_open("reality"), 60, "reality is closed")
        # The entry has noticed; the exit itself does a little later.
        eventually(lambda: "no answer through the tunnel" in cause(xrays, "reality")["cause"], 30, "the cause is said")
    finally:
        docker("start", provider)
    eventually(lambda: xrays.is_open("reality"), 60, "reality is open again")


def test_without_xray_packets_are_refused_and_not_sent_elsewhere(chain: Chain, world: World, ground: Ground) -> None:
    """The chain's other exit is kept out of it, so that there is no way around."""
    with watched(world, chain, ground) as (capture, allowed), chain.silenced("oslo"):
        eventually(lambda: not chain.is_open("oslo"), 60, "oslo is closed")
        for _ in range(3):
            chain.answered()
            before = chain.refused()
            kill_program(chain.container("exit-paris"), "xray", world)
            eventually(partial(_refuses_more, chain, before), 30, "packets are refused")
            eventually(lambda: chain.is_open("paris"), 60, "paris is open again")
    assert_no_leak(capture, allowed)


def _refuses_more(chain: Chain, before: int) -> bool:
    return chain.refused() > before


def cause(chain: Chain, name: str) -> dict[str, str]:
    return next((exit_ for exit_ in chain.entry_status().get("exits", ()) if exit_["name"] == name), {})


def changed(**fields: str) -> Callable[[dict[str, Any]], None]:
    """Give a change of what a stream's settings for Reality or TLS say."""

    def change(options: dict[str, Any]) -> None:
        for name in ("realitySettings", "tlsSettings"):
            if name in options["stream"]:
                options["stream"][name] |= fields

    return change


def trusting_nobody(options: dict[str, Any]) -> None:
    for name in ("certificates", "disableSystemRoot"):
        del options["stream"]["tlsSettings"][name]


# What is wrong: the exit, its options or its secret, and the cause that has to be named.
OTHER_ID = str(uuid.UUID(int=7))
OTHER_KEY = "mLmBhbVFfNuo2eUgBh6r9-5Koz9mUCn3aSzlR6IejUg"
WRONG: dict[str, tuple[str, Callable[[dict[str, Any]], None] | str, Cause, str]] = {
    "Reality's key": ("reality", changed(publicKey=OTHER_KEY), causes.XRAY_REALITY, ""),
    "Reality's short id": ("reality", changed(shortId="ffff"), causes.XRAY_REALITY, ""),
    "Reality's name": ("reality", changed(serverName="other.example"), causes.XRAY_BORROWED, "not other.example"),
    "the id": ("reality", OTHER_ID, causes.XRAY_CLOSES, ""),
    "TLS's name": ("vision-tls", changed(serverName="other.example"), causes.XRAY_NAME, "not other.example"),
    "the authority": ("vision-tls", trusting_nobody, causes.XRAY_AUTHORITY, "unknown authority"),
    "the pinned certificate": ("vision-tls", changed(pinnedPeerCertSha256="aa" * 32), causes.XRAY_PIN, ""),
    "an expired certificate": ("trojan", lambda options: options.update(port=1012), causes.XRAY_EXPIRED, "expired"),
    "the path": ("ws", lambda options: options["stream"]["wsSettings"].update(path="/no"), causes.XRAY_PATH, "404"),
    "Trojan's password": ("trojan", "another", causes.XRAY_CLOSES, ""),
    "Shadowsocks' password": ("ss", "another", causes.XRAY_SILENT, "asked"),
    "VMess' id": ("vmess", OTHER_ID, causes.XRAY_SILENT, "asked"),
    "the port": ("reality", lambda options: options.update(port=444), causes.UNREACHABLE, "`Connection refused`"),
    "a setting": ("reality", changed(shortId="abc"), causes.XRAY_REFUSES, ""),
}


@pytest.mark.rare
def test_what_is_wrong_is_named(xrays: Chain, ground: Ground, tell: Callable[[str], None]) -> None:
    """All that can go wrong at one time: an exit meets one of them, so that several rounds are needed."""
    left, table = dict(WRONG), []
    while left:
        with ExitStack() as broken:
            here: dict[str, str] = {}
            for what, (name, wrong, _, _) in left.items():
                if name not in here.values():
                    broken.enter_context(wrongly(xrays, name, wrong))
                    here[what] = name
            for what, name in here.items():
                _, _, wanted, evidence = left.pop(what)
                eventually(partial(says, xrays, name, wanted, evidence), 60 * ground.patience, f"{what}: {wanted.key}")
                table.append(f"{what:24} {cause(xrays, name)['cause']}")
    tell("\n".join(table))
    for name in WAYS:
        eventually(partial(xrays.is_open, name), 60 * ground.patience, f"{name} is open again")


def says(chain: Chain, name: str, wanted: Cause, evidence: str) -> bool:
    found = cause(chain, name)
    known = re.sub(r"\\\{.*?\\\}", ".*", re.escape(wanted.sentence))
    said = found.get("cause", "")
    return found.get("state") != "up" and bool(re.fullmatch(known, said)) and evidence in said


@contextmanager
def wrongly(chain: Chain, name: str, wrong: Callable[[dict[str, Any]], None] | str) -> Iterator[None]:
    """Have one exit dial with a wrong option or secret."""
    role = WAYS[name][0]
    is_secret = isinstance(wrong, str)
    file = chain.folder / ("secrets" if is_secret else "run/exits") / (f"{name}_{role}" if is_secret else name)
    file = file if is_secret else file / "settings.json"
    before = file.read_text()
    if isinstance(wrong, str):
        file.write_text(wrong + "\n")  # in place: it is mounted as a file
    else:
        settings = json.loads(before)
        wrong(settings["options"])
        file.write_text(json.dumps(settings))
    try:
        docker("restart", "-t", "1", chain.container(f"exit-{name}"))
        yield
    finally:
        file.write_text(before)
        docker("restart", "-t", "1", chain.container(f"exit-{name}"))

"""OpenVPN exits: each way in carries traffic, takes no routes, notices a server that is gone, says what is wrong."""

from __future__ import annotations

import json
import re
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from faults import kill_program
from leaks import assert_no_leak, watched
from scene import Chain, openvpn_files
from world import INTERNET_HOST, World, docker, eventually, openvpn_exit, openvpn_file, static_key

from chain import ovpn
from chain.node.kinds import causes
from chain.node.kinds.openvpn import config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground

    from chain.node.kinds.causes import Cause

pytestmark = [pytest.mark.docker, pytest.mark.openvpn]

SERVICE = "client2"
WAYS = ("udp", "tcp", "old")
OTHER_AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBJjCBzKADAgECAgEBMAoGCCqGSM49BAMCMBIxEDAOBgNVBAMMB2V4YW1wbGUw
HhcNMjYwMTAxMDAwMDAwWhcNMzYwMTAxMDAwMDAwWjASMRAwDgYDVQQDDAdleGFt
cGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEyRdPCM00f8yvlPNOztcCOHFN
SeWEC4AovEs3dj0Rz8/BoLL//fM+WMb7T0aX2y5V8WnrPCcfpzeyOrO02QIC4qMT
MBEwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEAlJn4YSO5oFFJ
8Fk3b0oo5DjNROZtmDdGmb/BQ1XVUwUCIQDtyf7XQB05CWD1g1pNumAsTu5v1dN2
5hCLJTRpRcW1Nw==
-----END CERTIFICATE-----
"""
# What is wrong: the way in, what stands in its file in place of what, and the cause that has to be named.
WRONG: dict[str, tuple[str, tuple[str, str], Cause, str]] = {
    "password": ("udp", ("", ""), causes.OPENVPN_CREDENTIALS, ""),
    "expired": ("expired", ("", ""), causes.OPENVPN_EXPIRED, "certificate has expired"),
    "cipher": ("cipher", ("", ""), causes.OPENVPN_CIPHER, "no shared cipher"),
    "sealed": ("udp", (r"<tls-crypt>.*</tls-crypt>", "KEY"), causes.OPENVPN_NO_ANSWER, "UDP port 1194"),
    "named": ("udp", ("verb 3", "verify-x509-name other.example name"), causes.OPENVPN_NAME, "must be other.example"),
    "unknown": ("udp", (r"<ca>.*</ca>", "CA"), causes.OPENVPN_AUTHORITY, "error="),
    "port": ("udp", ("port 1194", "port 1999"), causes.UNREACHABLE, "`Connection refused` about UDP port 1999"),
    "port-tcp": ("tcp", ("port 443", "port 1999"), causes.UNREACHABLE, "`Connection refused` about TCP port 1999"),
}


def wrong_file(world: World, name: str) -> str:
    way, (pattern, instead), _, _ = WRONG[name]
    texts = {
        "KEY": f"<tls-crypt>\n{static_key()}</tls-crypt>",
        # Anybody's certificate that is an authority: this one, which signs itself, has signed nothing else.
        "CA": f"<ca>\n{OTHER_AUTHORITY}</ca>",
    }
    text = openvpn_file(world, way)
    if not pattern:
        return text
    changed = re.sub(pattern, lambda _: texts.get(instead, instead), text, flags=re.DOTALL)
    assert changed != text
    return changed


@pytest.fixture(scope="module")
def openvpns(world: World) -> Iterator[Chain]:
    """A chain with an exit and a group for each way in, and exits that are wrong in one way each."""
    provider = world.site.openvpn
    files = {name: openvpn_file(world, name) for name in WAYS} | {name: wrong_file(world, name) for name in WRONG}
    secrets: dict[str, str] = {}
    for name, text in files.items():
        secrets |= openvpn_files(world, name, text, "wrong" if name == "password" else "")
    chain = Chain(
        world,
        world.folder / "openvpns",
        exits={name: openvpn_exit(provider, login="auth-user-pass" in text) for name, text in files.items()},
        secrets=secrets,
        name="openvpns",
        extra={
            "entry": {"endpoint": world.clients_gateway, "port": 51826},
            "network": {"pool": "10.214.80.0/20"},
            "groups": {"default": {"exits": ["udp"]}, **{name: {"exits": [name]} for name in WAYS}},
        },
    )
    try:
        chain.up()
        yield chain
    finally:
        chain.run("down", check=False)


# All that is passed on, as far as it goes together.
PASSED = """\
allow-compression asym
auth SHA256
comp-lzo adaptive
comp-noadapt
compat-mode 2.4.0
data-ciphers AES-256-GCM:AES-128-CBC
data-ciphers-fallback AES-256-CBC
ecdh-curve secp384r1
explicit-exit-notify 2
float
fragment 1300 mtu
keepalive 10 60
key-direction 1
ns-cert-type server
pull-filter ignore auth-token
rcvbuf 0
remote-cert-eku "TLS Web Server Authentication"
remote-cert-ku a0 88
reneg-bytes 0
reneg-pkts 0
reneg-sec 3600 300
replay-window 64 15
sndbuf 0
tls-cert-profile legacy
tls-cipher "DEFAULT:@SECLEVEL=0"
tls-ciphersuites TLS_AES_256_GCM_SHA384
tls-groups X25519
tls-timeout 2
tls-version-max 1.3
tls-version-min 1.2 or-highest
tran-window 60
tun-mtu 1400 1600
verify-x509-name 'C=CH, CN="a\\b"' subject
"""


@pytest.mark.parametrize("more", [PASSED, "ping 10\nping-restart 60\n"])  # which keepalive means, too
def test_openvpn_itself_takes_all_that_is_passed_on(openvpns: Chain, world: World, more: str) -> None:
    profile = ovpn.parse(openvpn_file(world, "udp", more=more))
    assert not {line.split()[0] for line in more.splitlines()} - {name for name, *_ in profile.directives}
    text = config.document(profile, {}, profile.remotes[0], "192.0.2.7", "/tmp/none")
    told = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith(("management", "auth-user-pass")))
    told += "<auth-user-pass>\nuser\nword\n</auth-user-pass>\n"
    script = "cat >/tmp/all.conf; timeout 5 openvpn --config /tmp/all.conf; rm /tmp/all.conf"
    said = docker("exec", "-i", openvpns.container("exit-udp"), "sh", "-c", script, stdin=told)
    assert "error" not in said, said
    assert "link remote: [AF_INET]192.0.2.7:1194" in said, said


@pytest.mark.parametrize("name", WAYS)
def test_each_way_in_carries_traffic(openvpns: Chain, world: World, name: str) -> None:
    eventually(partial(openvpns.is_open, name), 60, f"{name} is open")
    made = str(json.loads(openvpns.run("client", "add", name, "--group", name, "--json").stdout)["config"])
    world.exec(SERVICE, "python3", "client.py", "up", stdin=made)
    openvpns.knock(SERVICE)
    outside = world.site.openvpn.outside
    assert openvpns.answered(SERVICE)["seen"] == outside
    assert world.exec(SERVICE, "curl", "-sS", "-m", "20", f"http://{INTERNET_HOST}/").strip() == outside
    names = json.loads(world.exec(SERVICE, "python3", "client.py", "dns", "10.13.13.1", f"{name}.example"))
    assert names == [INTERNET_HOST, outside]
    # The largest packet that a client may send, unfragmented.
    state = json.loads((openvpns.folder / "run" / "entry" / "state.json").read_text())
    size = str(state["mtu"] - 28)
    said = world.exec(SERVICE, "ping", "-c", "3", "-W", "5", "-M", "do", "-s", size, INTERNET_HOST)
    assert " 0% packet loss" in said, said


def test_the_server_decides_no_routes(openvpns: Chain, world: World) -> None:
    """It pushes a default route, one to 192.0.2.0/24, and a resolver."""
    eventually(partial(openvpns.is_open, "udp"), 60, "udp is open")
    pid = docker("inspect", "-f", "{{.State.Pid}}", openvpns.container("exit-udp")).strip()
    routes = world.exec("observer", "nsenter", "-t", pid, "-n", "ip", "-4", "route", "show", "table", "all")
    assert "192.0.2.0" not in routes
    assert "0.0.0.0/1" not in routes
    ways = [line for line in routes.splitlines() if "dev vpn0" in line and not line.startswith("local ")]
    assert [line.split()[0] for line in ways] == ["default"]


def test_what_is_wrong_is_named(openvpns: Chain, ground: Ground, tell: Callable[[str], None]) -> None:
    table = []
    for name, (_, _, wanted, evidence) in WRONG.items():
        eventually(partial(says, openvpns, name, wanted, evidence), 60 * ground.patience, f"{name}: {wanted.key}")
        table.append(f"{name:10} {of(openvpns, name)['cause']}")
    tell("\n".join(table))
    log = openvpns.run("logs", "exit-password").stdout
    assert "AUTH_FAILED" in log


def test_a_server_that_is_gone_is_noticed_and_met_again(
    openvpns: Chain, world: World, tell: Callable[[str], None]
) -> None:
    for name in WAYS:
        eventually(partial(openvpns.is_open, name), 60, f"{name} is open")
    provider = world.container(world.site.openvpn.name)
    before = world.logs(world.site.openvpn.name).splitlines().count("ready")
    began = time.monotonic()
    docker("kill", provider)
    try:
        for name in WAYS:
            eventually(partial(is_closed, openvpns, name), 60, f"{name} is closed")
        noticed = time.monotonic() - began
        said = {name: of(openvpns, name)["cause"] for name in WAYS}
    finally:
        docker("start", provider)
    eventually(
        lambda: world.logs(world.site.openvpn.name).splitlines().count("ready") > before, 60, "the server is ready"
    )
    began = time.monotonic()
    for name in WAYS:
        eventually(partial(openvpns.is_open, name), 90, f"{name} is open again")
    tell(f"noticed after {noticed:.1f} s ({said}); open again {time.monotonic() - began:.1f} s after the server")


def test_a_server_that_says_goodbye_is_left_at_once(openvpns: Chain, world: World) -> None:
    eventually(partial(openvpns.is_open, "udp"), 60, "udp is open")
    provider = world.container(world.site.openvpn.name)
    world.exec(world.site.openvpn.name, "pkill", "-TERM", "-f", "server1.conf")
    try:
        eventually(lambda: "it restarts" in of(openvpns, "udp").get("cause", ""), 30, "its goodbye is heard")
    finally:
        docker("wait", provider)  # it ends with any of its servers
        docker("start", provider)
    eventually(partial(openvpns.is_open, "udp"), 90, "udp is open again")


def test_without_openvpn_packets_are_refused_and_not_sent_elsewhere(chain: Chain, world: World, ground: Ground) -> None:
    """The chain's other exit is kept out of it, so that there is no way around."""
    with watched(world, chain, ground) as (capture, allowed), chain.silenced("oslo"):
        eventually(lambda: not chain.is_open("oslo"), 60, "oslo is closed")
        for _ in range(3):
            chain.answered()
            before = chain.refused()
            kill_program(chain.container("exit-paris"), "openvpn", world)
            eventually(partial(refuses_more, chain, before), 30, "packets are refused")
            eventually(lambda: chain.is_open("paris"), 60, "paris is open again")
    assert_no_leak(capture, allowed)


def is_closed(chain: Chain, name: str) -> bool:
    return not chain.is_open(name)


def refuses_more(chain: Chain, before: int) -> bool:
    return chain.refused() > before


def of(chain: Chain, name: str) -> dict[str, str]:
    return next((exit_ for exit_ in chain.entry_status().get("exits", ()) if exit_["name"] == name), {})


def says(chain: Chain, name: str, wanted: Cause, evidence: str) -> bool:
    found = of(chain, name)
    known = re.sub(r"\\\{.*?\\\}", ".*", re.escape(wanted.sentence))
    said = found.get("cause", "")
    return found.get("state") != "up" and bool(re.fullmatch(known, said)) and evidence in said

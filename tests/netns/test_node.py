"""The runtime's small parts that only a kernel can answer for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from chain.contract import REPORT_PORT
from tests.netns.ground import Namespace, acquaint, eventually, join, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PING = """\
import asyncio, sys
from chain.node.probe import ping
print(asyncio.run(ping(sys.argv[1], sys.argv[2], 1, float(sys.argv[3]))) is not None)
"""


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with namespaces("near", "far") as (near, far):
        join(near, "vpn0", far, "tun0")
        acquaint(near, "vpn0", far, "tun0", ("10.64.0.2", "10.64.0.1"))
        near.run("sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 2147483647")  # as container engines set it
        yield near, far


def test_a_probe_is_answered_by_whoever_is_there_and_by_nobody_else(pair: tuple[Namespace, Namespace]) -> None:
    near, far = pair
    assert near.python(PING, "10.64.0.1", "vpn0", "5") == "True\n"
    assert near.python(PING, "10.64.0.9", "vpn0", "0.1") == "False\n"
    far.ip("link set dev tun0 down")
    assert near.python(PING, "10.64.0.1", "vpn0", "0.1") == "False\n"
    assert near.python(PING, "10.64.0.1", "vpn7", "0.1") == "False\n"


def test_a_probe_carries_its_mark_and_stays_in_its_interface(pair: tuple[Namespace, Namespace]) -> None:
    near, _ = pair
    near.watch(after_probe="oifname vpn0 meta mark 2 icmp type echo-request", after_other="oifname != vpn0")
    assert near.python(PING, "10.64.0.1", "vpn0", "5") == "True\n"
    assert (near.seen("after_probe"), near.seen("after_other")) == (1, 0)


CARRIER = """\
import asyncio, subprocess
from chain.node.netlink import Carrier
async def scene():
    changed = asyncio.Event()
    carrier = Carrier("near0", changed.set)
    said = [carrier.there]
    for state in ("down", "up"):
        changed.clear()
        subprocess.run(["ip", "link", "set", "dev", "other0", "up"], check=True)  # another one's does not count
        subprocess.run(["ip", "link", "set", "dev", "far0", state], check=True)
        await asyncio.wait_for(changed.wait(), 5)
        said.append(carrier.there)
    print(said)
asyncio.run(scene())
"""


def test_a_carrier_that_goes_and_comes_is_noticed() -> None:
    with namespaces("near") as (near,):
        join(near, "near0", near, "far0")
        near.ip("link add other0 type veth peer name other1")
        assert near.python(CARRIER) == "[True, False, True]\n"


CONNECT = """\
import asyncio, sys
from chain.node.probe import connect
async def scene():
    reader, writer = await connect("10.64.0.1", 7, sys.argv[1])
    print((await reader.read(100)).decode())
    writer.close()
try:
    asyncio.run(scene())
except OSError:
    print("refused")
"""


def test_a_connection_for_a_test_goes_as_probes_do(pair: tuple[Namespace, Namespace]) -> None:
    near, far = pair
    far.serve("serve", "10.64.0.1", 7)
    near.watch(
        after_marked="oifname vpn0 meta mark 2 meta l4proto tcp",
        after_other="oifname != lo meta l4proto tcp meta mark != 2",
    )
    assert near.python(CONNECT, "vpn0") == "10.64.0.2\n"
    assert near.seen("after_marked") > 2
    assert near.seen("after_other") == 0
    assert near.python(CONNECT, "vpn7") == "refused\n"
    # Without an interface it goes where probes are routed, whatever the usual way is.
    near.ip("route replace unreachable 10.64.0.1/32", "route add 10.64.0.1/32 dev vpn0 table 101")
    near.ip("rule add priority 130 fwmark 2 lookup 101")
    assert near.python(CONNECT, "") == "10.64.0.2\n"


LARGE = """\
import asyncio, sys
from chain.node.probe import largest, ping
async def passes(size): return await ping("10.64.0.1", "vpn0", size, 0.2, size) is not None
print(asyncio.run(largest(1500, passes)))
"""


def test_the_largest_packet_that_passes_is_measured(pair: tuple[Namespace, Namespace]) -> None:
    near, far = pair
    assert near.python(LARGE) == "None\n"
    far.nft("table inet small { chain i { type filter hook input priority 0; ip length > 1281 drop; }; }\n")
    near.watch(after_large="ip length > 1281 ip frag-off & 0x4000 == 0x4000", after_pieces="ip frag-off & 0x3fff != 0")
    assert near.python(LARGE) == "1281\n"
    assert near.seen("after_large") > 0  # nobody may cut them in pieces
    assert near.seen("after_pieces") == 0


OBJECTION = """\
import asyncio, sys
from chain.node.probe import objection
said = asyncio.run(objection(sys.argv[1], 500))
print(said.cause if said else None)
"""


def test_who_says_that_a_server_is_not_there_is_named(pair: tuple[Namespace, Namespace]) -> None:
    near, far = pair
    far.nft("table inet fault { chain i { type filter hook input priority 0; udp dport 500 reject; }; }\n")
    assert "10.64.0.1 answers `Connection refused` about UDP port 500" in near.python(OBJECTION, "10.64.0.1")
    far.nft("flush ruleset\ntable inet fault { chain i { type filter hook input priority 0; udp dport 500 drop; }; }\n")
    assert near.python(OBJECTION, "10.64.0.1") == "None\n"
    near.ip("route add unreachable 203.0.113.0/24")
    assert "no way to the server by the uplink: No route to host" in near.python(OBJECTION, "203.0.113.7")


def test_interfaces_are_found_by_their_address(pair: tuple[Namespace, Namespace]) -> None:
    code = "from chain.node.run import interfaces_by_address; print(interfaces_by_address())"
    assert pair[0].python(code) == "{'127.0.0.1': 'lo', '10.64.0.2': 'vpn0'}\n"


REPORTER = """\
import asyncio
from chain.contract import ExitReport, Link
from chain.node.report import Reporter
link = Link("10.64.0.0/24", sender_address="10.64.0.1", exit_address="10.64.0.2", sender_mac="", exit_mac="")
reporter = Reporter(link, lambda: ExitReport("paris", "up", 1.0, ""), print, print, who="the entry")
asyncio.run(reporter.run())
"""
AWAY = """\
table inet watch {
  counter tries {}
  counter repeated {}
  set known { type inet_service; flags dynamic; }
  chain in { type filter hook input priority 0; tcp dport PORT jump try; }
  chain try { tcp sport @known counter name repeated; add @known { tcp sport }; counter name tries; drop; }
}
"""


def test_an_exit_tries_again_sooner_than_the_kernel_would(pair: tuple[Namespace, Namespace]) -> None:
    near, far = pair
    far.nft(AWAY.replace("PORT", str(REPORT_PORT)))
    with near.running(REPORTER):
        eventually(lambda: far.seen("tries") >= 6, "six tries")
    assert far.seen("repeated") == 0


def test_an_interfaces_own_network_is_found(pair: tuple[Namespace, Namespace]) -> None:
    code = "from chain.node.run import network_of as find; print(find('vpn0'))"
    assert pair[0].python(code) == "10.64.0.0/24\n"


def test_a_batch_ends_at_the_first_line_that_fails(pair: tuple[Namespace, Namespace]) -> None:
    near, _ = pair
    lines = ["route add 198.51.100.0/24 dev vpn0", "route add nonsense", "route add 203.0.113.0/24 dev vpn0"]
    with pytest.raises(AssertionError, match=r"CommandError: ip -batch -"):
        near.python(
            "import json, sys; from chain.node.run import ip_batch; ip_batch(json.loads(sys.argv[1]))",
            json.dumps(lines),
        )
    routes = {route["dst"] for route in near.show("route", "show")}
    assert "198.51.100.0/24" in routes
    assert "203.0.113.0/24" not in routes


def test_a_capability_given_up_is_gone_for_children_too(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text("value")
    secret.chmod(0o600)
    pair[0].run("chown", "12345", str(secret))
    code = """\
import ctypes, subprocess, sys
from chain.node import caps
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # no new privileges, as in every container of ours
print(open(sys.argv[1]).read())
caps.drop(caps.CAP_DAC_OVERRIDE)
caps.drop(2)  # DAC_READ_SEARCH, which opens the same door and which no container of ours has
for attempt in range(2):
    try:
        print(open(sys.argv[1]).read())
    except PermissionError:
        print("refused")
    caps.drop(caps.CAP_DAC_OVERRIDE)
print(subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout.split()[1][-1])
"""
    assert pair[0].python(code, str(secret)).split() == ["value", "refused", "refused", "9"]


EXIT = """\
import asyncio, sys
from pathlib import Path
from chain.contract import ExitSettings, Link, Uplink
from chain.node import exit, kinds
from chain.node.kinds.base import DialError, Tunnel
exit.NEAR_INTERVAL = exit.PROBE_TIMEOUT = 0.2
exit.HEALTH = Path(sys.argv[1])
link = Link("10.0.0.0/29", sender_address="10.0.0.2", exit_address="10.0.0.3", sender_mac="", exit_mac="")
uplink = Uplink(gateway="", table=1)
settings = ExitSettings(
    "test", "home", "direct", link, uplink, routed=(), carried=(), tunnel_table=101, mtu=1420, bootstrap_dns=(),
    probe_targets=(), public_targets=("10.64.0.9",), options={"refused": []},
)
async def scene():
    one = exit.Exit(settings)
    one._uplink = "vpn0"  # by which this kind sends
    one._kind = kinds.create(settings, {})
    one._kind.patience = 0.2
    try:
        await one._probe_forever(Tunnel("10.64.0.2", near="10.64.0.1"))
    except DialError as error:
        print(error.found.cause, flush=True)
asyncio.run(scene())
"""


def test_while_strangers_answer_an_exit_does_not_dial_anew(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, far = pair
    far.ip("address add 10.64.0.9/32 dev tun0")
    # A kind that has no interface of its own: its probes go where they are routed.
    near.ip("route add 10.64.0.0/24 dev vpn0 table 101", "rule add priority 130 fwmark 2 lookup 101")
    far.watch(
        before_near="ip daddr 10.64.0.1 icmp type echo-request",
        before_stranger="ip daddr 10.64.0.9 icmp type echo-request",
    )
    with near.running(EXIT, str(tmp_path / "healthy")) as process:
        assert process.stdout is not None
        eventually(lambda: far.seen("before_near") > 2, "the near target is asked")
        assert far.seen("before_stranger") == 0, "strangers are left alone while the near one answers"
        far.nft("table inet fault { chain i { type filter hook input priority 0; ip daddr 10.64.0.1 drop; }; }\n")
        eventually(lambda: far.seen("before_stranger") > 2, "strangers are asked instead, and nothing is dialled")
        assert process.poll() is None
        far.ip("link set dev tun0 down")
        said = process.stdout.readline()
    assert "10.64.0.1" in said, "nobody answers any more: it dials anew, and says why"

"""The whole entry in namespaces: lock, routes and switch, with a client before it and two exits behind it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chain import topology
from chain.config.models import Config
from chain.contract import to_json
from chain.exits import REGISTRY
from chain.node import lock
from tests.choices import all_by, buckets, by_flow
from tests.netns.ground import ROOT, TRAFFIC, Namespace, acquaint, eventually, join

if TYPE_CHECKING:
    from chain.contract import DesiredState

BESIDE = Path(__file__).with_name("beside")  # what the agent finds in its own image

CLIENT, INTERNET, PORT, COUNT = "10.13.13.2", "203.0.113.9", 9, 20
DNS = 53
CLIENT6, INTERNET6 = "fd00:c::2", "2001:db8::9"
KEY = "posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ="
INSTALL = """\
import json, sys
from chain.agent import routes
from chain.contract import DesiredState, from_json
state, links = from_json(DesiredState, sys.argv[1]), json.loads(sys.argv[2])
routes.install(state, links)
routes.install(state, links)
"""


def state_with(*exits: str) -> DesiredState:
    config = {
        "entry": {"endpoint": "vpn.example.org"},
        "exits": {name: REGISTRY["l2tp"].settings.model_validate({"kind": "l2tp"}) for name in exits},
        "clients": {"phone": {"address": CLIENT, "public_key": KEY}},
    }
    return topology.build(Config.model_validate(config), REGISTRY).state


def install(entry: Namespace, state: DesiredState, links: dict[str, str]) -> None:
    entry.python(INSTALL, to_json(state), json.dumps(links))


# `ip netns exec` gives a mount namespace of one's own: nothing of this is seen outside.
PRELUDE = """\
import asyncio, contextlib, json, os, signal, subprocess, sys, time
from pathlib import Path
for folder in ("/run", "/var/lib"):
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
for folder in ("/run/chain", "/var/lib/chain"):
    Path(folder).mkdir()
os.environ["PYTHONPATH"] = os.pathsep.join(sys.argv[3:5])
os.environ["PATH"] = sys.argv[4] + os.pathsep + os.environ["PATH"]
from chain.contract import ExitReport
from chain.node import entry
entry.CONFIG_DIR = sys.argv[1]
loaded, load = [], entry.nft
entry.nft = lambda text: (loaded.append(text), load(text))
supervisor = entry.Entry()
supervisor._links = json.loads(sys.argv[2])
def up(name):
    return ExitReport(exit=name, state="up", since=1.0, cause="it is", near=(sys.argv[5],))
def elements(name):
    found = json.loads(subprocess.run(["nft", "-j", "list", "set", "inet", "vpn", name], capture_output=True).stdout)
    return [each for item in found["nftables"] for each in item.get("set", {}).get("elem", ())]
said = []
def say(what, **more):
    said.append({"what": what, "open": elements("open_marks"), "links": elements("open_links"),
        "pairs": len(elements("open_pairs")) + len(elements("up_pairs")), "members": len(elements("open_members")),
        "healthy": entry.HEALTH.exists(), "loaded": len(loaded), **more})
async def eventually(check, what):
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.02)
    say(what)
"""


class Fork:
    def __init__(self, client: Namespace, entry: Namespace, paris: Namespace, oslo: Namespace) -> None:
        self.client, self.entry, self.exits = client, entry, {"paris": paris, "oslo": oslo}
        self.state = state_with("paris", "oslo")
        self.links = {"paris": "link1", "oslo": "link2"}
        join(client, "wg0", entry, "wg0")  # its place alone matters here, not that it encrypts
        acquaint(client, "wg0", entry, "wg0", (CLIENT, "10.13.13.1"), (CLIENT6, "fd00:c::1"))
        client.ip("route add default via 10.13.13.1", "route add default via fd00:c::1")
        for exit_ in self.state.exits:
            place = self.exits[exit_.name]
            join(entry, self.links[exit_.name], place, "link0")
            addresses = (exit_.link.sender_address, exit_.link.exit_address)
            acquaint(entry, self.links[exit_.name], place, "link0", addresses)
            place.ip(
                f"address add {INTERNET}/32 dev lo",
                *(
                    f"route add {network} via {exit_.link.sender_address}"
                    for network in ("10.13.13.0/24", self.state.resolvers_subnet)
                ),
            )
            place.watch(
                before_client=f"iifname link0 ip saddr {CLIENT}",
                before_resolver=f"iifname link0 ip saddr {self.state.resolvers_subnet}",
            )
            place.serve("serve", INTERNET, PORT)
            place.serve("serve", INTERNET, DNS)
        entry.serve("serve", "10.13.13.1", self.state.groups[0].resolver_port)  # where its resolver listens
        entry.watch(
            before_client="iifname wg0 meta l4proto udp",
            asked_client="iifname wg0 meta l4proto udp",
            after_front='oifname != { "wg0", "link1", "link2", "lo" }',
            after_links=f'oifname {{ "link1", "link2" }} {TRAFFIC}',
        )
        entry.run("sysctl", "-q", "-w", "net/ipv4/ping_group_range=0 2147483647")  # as Docker has it
        entry.sysctl(ipv4__ip_forward=1, ipv4__conf__all__rp_filter=0, ipv4__conf__all__src_valid_mark=1)
        code = "import sys; from chain.node.netlink import set_lenient; [set_lenient(name) for name in sys.argv[1:]]"
        entry.python(code, "wg0", *self.links.values())
        entry.ip(
            "rule add priority 110 to 10.13.13.0/24 lookup main",
            f"rule add priority 900 from {self.state.resolvers_subnet} lookup 99",
            "rule add priority 1000 iif wg0 unreachable",
            "route add default dev wg0 table 99",
            f"address add {self.resolver}/32 dev lo",
        )
        self.lock()
        install(entry, self.state, self.links)

    def lock(self) -> None:
        """Load the lock, all exits closed."""
        clients = lock.entry_clients(self.state, buckets(self.state), by_flow(self.state))
        self.entry.nft(lock.entry_lock(self.state, front="front0", links=self.links) + clients)

    def without_redirect(self) -> None:
        self.state = replace(self.state, dns=replace(self.state.dns, redirect=False))
        self.lock()

    def use(self, name: str | None, *opened: str, suspect: str = "", up: tuple[str, ...] = ()) -> None:
        """Open these exits and send the clients to one of them. `up`: closed ones that say that they are up."""
        marks = {exit_.name: exit_.mark for exit_ in self.state.exits}
        chosen = all_by(self.state, {group.name: name for group in self.state.groups} if name else {})
        members = [(group.mark, marks[member]) for group in self.state.groups for member in group.exits]
        exits = lock.Exits(
            {marks[exit_]: self.links[exit_] for exit_ in (*opened, *up)},
            open=frozenset(marks[exit_] for exit_ in opened),
            suspect=frozenset(marks[exit_] for exit_ in opened if exit_ == suspect),
        )
        self.entry.nft(lock.entry_switch(exits, chosen, members))

    def share(self, *names: str) -> None:
        """Open these exits, and send the buckets of the first group to them by turns."""
        marks = {exit_.name: exit_.mark for exit_ in self.state.exits}
        group = self.state.groups[0]
        of_buckets = {
            first + number: marks[names[number % len(names)]]
            for first, count in by_flow(self.state).items()
            for number in range(count)
        }
        exits = lock.Exits.well({marks[name]: self.links[name] for name in names})
        members = [(group.mark, marks[name]) for name in names]
        self.entry.nft(lock.entry_switch(exits, lock.Choice({group.mark: marks[names[0]]}, of_buckets), members))

    def mark(self, name: str) -> int:
        return next(exit_.mark for exit_ in self.state.exits if exit_.name == name)

    @property
    def resolver(self) -> str:
        """The address under which the clients' resolver asks."""
        return self.state.groups[0].resolver_address

    def ask(self) -> str:
        return self.client.talk("ask", CLIENT, INTERNET, PORT)

    def arrive(self) -> None:
        before = self.entry.seen("before_client")
        self.client.talk("send", CLIENT, INTERNET, PORT, COUNT)
        eventually(lambda: self.entry.seen("before_client") > before, "a packet at the entry")

    def reached(self) -> dict[str, bool]:
        return {name: place.seen("before_client") > 0 for name, place in self.exits.items()}

    def supervised(self, folder: Path, scene: str) -> tuple[str, ...]:
        """Give code and arguments for Python in the entry, which plays this scene with its supervisor."""
        (folder / "state.json").write_text(to_json(self.state))
        return PRELUDE + scene, str(folder), json.dumps(self.links), str(ROOT), str(BESIDE), INTERNET

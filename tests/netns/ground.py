"""Throw-away network namespaces, joined by veth, in which the runtime's rules meet a real kernel."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
TALK = Path(__file__).with_name("talk.py")

# Not the kernel's own words about groups and neighbours, which may come at any time.
TRAFFIC = "meta l4proto { icmp, tcp, udp }"
# What comes in, what a forward hook sees before the lock does, and what has passed all of the lock's hooks.
_WATCH = """\
table inet watch {{
  {counters}
  chain before {{ type filter hook prerouting priority -450; {before} }}
  chain asked {{ type filter hook forward priority -450; {asked} }}
  chain after {{ type filter hook postrouting priority 450; {after} }}
}}
"""


def eventually(check: Callable[[], T], what: str, seconds: float = 10.0) -> T:
    """Wait until `check` gives something true, and give that."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return found


class Namespace:
    """One namespace. Its name is unique, so that runs beside each other do not meet."""

    def __init__(self, role: str) -> None:
        self.name = f"chain-{secrets.token_hex(4)}-{role}"
        self._servers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        host("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.kill()
            server.communicate()
        host("ip", "netns", "delete", self.name)

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a program in here to its end; give its output."""
        return host("ip", "netns", "exec", self.name, *command, stdin=stdin)

    def ip(self, *lines: str) -> None:
        host("ip", "-netns", self.name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def show(self, *command: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(host("ip", "-netns", self.name, "-json", *command) or "[]")
        return found

    def nft(self, ruleset: str) -> None:
        self.run("nft", "-f", "-", stdin=ruleset)

    def sysctl(self, **values: int) -> None:
        """Set values below /proc/sys/net; `__` stands for the slash, `_all` for all interfaces and those to come."""
        lines = [f"net/{name.replace('__', '/')}={value}" for name, value in values.items()]
        self.run("sysctl", "-q", "-w", *lines)

    def python(self, code: str, *arguments: str) -> str:
        """Run Python with the project on its path in here."""
        return self.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-c", code, *arguments)

    @contextlib.contextmanager
    def running(self, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run Python with the project on its path in here while the block does; it is killed in the end."""
        command = "ip", "netns", "exec", self.name, "env", f"PYTHONPATH={ROOT}", sys.executable, "-c", code
        pipe = subprocess.PIPE
        with subprocess.Popen([*command, *arguments], stdin=pipe, stdout=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def talk(self, *arguments: object) -> str:
        """Run one verb of talk.py to its end; give what it printed."""
        return self.run(sys.executable, str(TALK), *map(str, arguments)).strip()

    def serve(self, *arguments: object) -> None:
        """Start a server of talk.py; returns when it listens."""
        self._servers.append(self.begin(*arguments))

    def begin(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a verb of talk.py that says `ready` and then waits for a line; its last line is its answer."""
        command = ["ip", "netns", "exec", self.name, sys.executable, str(TALK), *map(str, arguments)]
        begun = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert begun.stdout is not None
        assert begun.stdout.readline() == "ready\n"
        return begun

    def watch(self, **matches: str) -> None:
        """Count packets. A name begins with the place: `before_…` the lock, `asked_…` of it, or `after_…` it."""
        places: dict[str, list[str]] = {"before": [], "asked": [], "after": []}
        for name, match in matches.items():
            places[name.partition("_")[0]].append(f"{match} counter name {name};")
        rules = {place: " ".join(found) for place, found in places.items()}
        self.nft(_WATCH.format(counters="\n  ".join(f"counter {name} {{}}" for name in matches), **rules))

    def seen(self, name: str) -> int:
        """Give how many packets a counter of `watch` has seen."""
        listed = json.loads(self.run("nft", "-j", "list", "counter", "inet", "watch", name))["nftables"]
        return sum(int(item["counter"]["packets"]) for item in listed if "counter" in item)


def host(*command: str, stdin: str | None = None) -> str:
    """Run a program on this machine; fails with its own words."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}"
    return done.stdout


@contextlib.contextmanager
def namespaces(*roles: str) -> Iterator[tuple[Namespace, ...]]:
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(Namespace(role)) for role in roles)


def join(one: Namespace, name: str, other: Namespace, other_name: str) -> None:
    """Join two namespaces; both ends are up, and know each other's MAC from the start, IPv6 included."""
    host("ip", "link", "add", name, "netns", one.name, "type", "veth", "peer", "name", other_name, "netns", other.name)
    for place, end in ((one, name), (other, other_name)):
        place.ip(f"link set dev {end} addrgenmode none", f"link set dev {end} up")


def acquaint(one: Namespace, name: str, other: Namespace, other_name: str, *addresses: tuple[str, str]) -> None:
    """Give both ends their addresses, and each the other's MAC, so that no lock stops it from being asked for."""
    mac = {
        place: place.show("link", "show", "dev", end)[0]["address"] for place, end in ends(one, name, other, other_name)
    }
    for own, peer in addresses:
        length = "/64 nodad" if ":" in own else "/24"
        one.ip(f"address add {own}{length} dev {name}", f"neighbour add {peer} lladdr {mac[other]} dev {name}")
        other.ip(
            f"address add {peer}{length} dev {other_name}", f"neighbour add {own} lladdr {mac[one]} dev {other_name}"
        )


def ends(one: Namespace, name: str, other: Namespace, other_name: str) -> tuple[tuple[Namespace, str], ...]:
    return ((one, name), (other, other_name))

"""Many clients of one chain: how they come into chain.yaml, the program that plays them, and an entry's restart."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import yaml
from dialogue import Dialogue, inside
from world import docker, eventually

from chain.api import keys
from chain.api.project import make_folder, write_atomic
from chain.contract import MEMORY_DIR
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scene import Chain
    from world import World

# One address each, as clients behind routers of their own have: an entry under load takes but a few handshakes of one.
SOURCES = "198.18.64.0/22"
SUBNET = "10.13.12.0/22"
KEEPALIVE = 25.0
PROGRAMS = ("chain.agent", "chain.node", "wireguard-go", "unbound")  # of an entry


@dataclass(frozen=True)
class Member:
    name: str
    private_key: str
    preshared_key: str
    address: str
    source: str


def members(count: int) -> list[Member]:
    """Make so many clients."""
    addresses, sources = ip_network(SUBNET), ip_network(SOURCES)
    return [
        Member(
            f"crowd{number}",
            keys.new_private_key().reveal(),
            keys.new_preshared_key().reveal(),
            str(addresses[number]),
            str(sources[number]),
        )
        for number in range(2, count + 2)  # the subnet's first address is the entry's
    ]


def admit(chain: Chain, crowd: list[Member], group: Mapping[str, Any]) -> None:
    """Write a chain's configuration for these clients and no other ones, all of one group; `up` lets them in."""
    folder = chain.folder / "secrets" / "peers"
    make_folder(folder, 0o700)
    for member in crowd:
        write_atomic(folder / member.name, member.preshared_key + "\n", 0o600)
    config = yaml.safe_load(chain.file.read_text())
    config["entry"]["subnet"] = SUBNET
    config["groups"] = {"default": dict(group)}
    config["clients"] = {
        member.name: {"address": member.address, "public_key": keys.public_key(Secret(member.private_key))}
        for member in crowd
    }
    chain.file.write_text(yaml.safe_dump(config, sort_keys=False))


def dismiss(chain: Chain, crowd: list[Member]) -> None:
    """Remove their keys."""
    for member in crowd:
        (chain.folder / "secrets" / "peers" / member.name).unlink()


class Crowd(Dialogue):
    """The program that plays them: tests/providers/toolbox/crowd.py."""

    def __init__(
        self, chain: Chain, crowd: list[Member], service: str, *, interval: float, begin_within: float, flows: int = 1
    ) -> None:
        """Each asks the internet every `interval` seconds who it is; the first questions come within some time.

        `flows`: it uses so many in turn. Many make Docker slow, which reads all that the machine knows of connections.
        """
        world = chain.world
        self.size = len(crowd)
        super().__init__(*inside(world.container(service), "python3", "crowd.py"))
        entry = yaml.safe_load(chain.file.read_text())["entry"]
        private = Secret((chain.folder / "secrets" / "entry_private_key").read_text().strip())
        settings = {
            "server": keys.public_key(private),
            "endpoint": [entry["endpoint"], entry["port"]],
            "host": world.site.internet_host,
            "flows": flows,
            "interval": interval,
            "begin_within": begin_within,
            "keepalive": KEEPALIVE,
            "clients": [vars(member) for member in crowd],
        }
        if self._asked(json.dumps(settings)) != "ready":
            raise RuntimeError("the crowd's program did not start")

    def ask(self, word: str) -> dict[str, Any]:
        """Say one of its words; give the answer."""
        found: dict[str, Any] = json.loads(self._asked(word))
        return found

    def all_are(self, what: str, seconds: float) -> dict[str, Any]:
        """Wait until all of them are `answered`, or `back`; then look."""
        eventually(lambda: self.ask("count")[what] == self.size, seconds, f"all of the crowd are {what}")
        return self.ask("look")


@dataclass(frozen=True)
class Restart:
    """How an entry's restart went. Times in milliseconds since it was asked for."""

    ended: float  # the entry that was there
    started: float  # the process of the one that is there now
    sessions: tuple[float, ...]  # of clients, in order
    back: tuple[float, ...]  # of clients that are answered again, in order
    called: int  # of them those with which the entry began
    silences: int  # clients that noticed by themselves, by WireGuard's own rule, that nobody was there
    cookies: int  # times that a client was asked for a proof of its address, and tried again later
    moved: int  # clients that the entry called from elsewhere than they had found it
    processors: Mapping[str, float]  # used since the start, or since the restart was asked for

    @property
    def total(self) -> float:
        return self.back[-1]

    @property
    def ours(self) -> float:
        """Give what is left without Docker's part."""
        return self.back[-1] - self.started

    def __str__(self) -> str:
        spent = ", ".join(f"{name} {used:.0f}" for name, used in self.processors.items())
        begin = self.started
        return (
            f"{len(self.back)} clients back {self.total:.0f} ms after the restart was asked for: Docker"
            f" {begin:.0f} (the former process' end {self.ended:.0f}), then {self.ours:.0f}\n"
            f"since the process began: sessions {self.sessions[0] - begin:.0f} to {self.sessions[-1] - begin:.0f},"
            f" answers {self.back[0] - begin:.0f}, half {self.back[len(self.back) // 2] - begin:.0f},"
            f" all {self.ours:.0f} ms\n"
            f"called {self.called}, cookies {self.cookies}, called from elsewhere {self.moved}\n"
            f"processors' ms: {spent}"
        )


def remembered(chain: Chain) -> set[str]:
    """Give where its clients are, as the entry has it on its disk."""
    text = docker("exec", chain.container("entry"), "cat", f"{MEMORY_DIR}/endpoints.json", check=False)
    return set(json.loads(text).values()) if text else set()


def restart_entry(chain: Chain, crowd: Crowd) -> Restart:
    """Have Docker restart the entry once it knows where all clients are; wait until all are answered again."""
    places = {client["endpoint"] for client in crowd.ask("look")["clients"].values()}
    eventually(lambda: remembered(chain) == places, 60, "the entry remembers where all clients are")
    return restart(chain.world, chain.container("entry"), crowd)


def restart(world: World, container: str, crowd: Crowd, seconds: float = 30) -> Restart:
    """Have Docker restart the container to which these clients send; wait until all are answered again."""
    before, asked = crowd.ask("look"), time.time() * 1e3
    marked = crowd.ask("mark")
    docker("restart", container)
    found = crowd.all_are("back", seconds)
    state = json.loads(docker("inspect", "-f", "{{json .State}}", container))
    backs = [client["back"] for client in found["clients"].values()]

    def more(what: str) -> int:
        had = before["clients"]
        return int(sum(client[what] - had[name][what] for name, client in found["clients"].items()))

    return Restart(
        ended=_calendar(state["FinishedAt"]) - asked,
        started=_calendar(state["StartedAt"]) - asked,
        sessions=tuple(sorted(back["session"] + found["epoch"] - asked for back in backs)),
        back=tuple(sorted(back["at"] + found["epoch"] - asked for back in backs)),
        called=sum(back["called"] for back in backs),
        silences=more("silences"),
        cookies=more("cookies"),
        moved=more("moved"),
        processors={**_used(world, container), "the crowd": found["processor_ms"] - marked["processor_ms"]},
    )


def _calendar(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1e3


def _used(world: World, container: str) -> dict[str, float]:
    """Give the milliseconds of a processor that each program of a container has used."""
    rows = [line.split(maxsplit=1) for line in docker("top", container, "-eo", "pid,args").splitlines()[1:]]
    tick = 1e3 / os.sysconf("SC_CLK_TCK")
    found: dict[str, float] = {}
    for pid, arguments in rows:
        stat = world.exec("observer", "cat", f"/proc/{pid}/stat").rpartition(")")[2].split()
        name = next((word for word in PROGRAMS if word in arguments), "")
        if name:  # user's and system's time, and those of programs that it ran and that have ended
            found[name] = found.get(name, 0.0) + sum(map(int, stat[11:15])) * tick
    return found

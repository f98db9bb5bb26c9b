"""The demo: three chains in containers, with providers and an internet of their own, and the proof that they work.

`demo.py up` starts them, the last in a virtual machine where this kernel has no L2TP; `demo.py down` removes them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from gaps import Stopwatch, lost_of
from rich.console import Console
from rich.text import Text
from world import DEMO, Failed, Provider, World, docker, eventually, l2tp_exit, wireguard_exit, xray_exit

from chain.api import keys
from chain.api.load import Loaded, load
from chain.api.project import Project, make_folder, write_atomic
from chain.cli import Terminal
from chain.engine import images
from chain.engine.connection import Engine
from chain.errors import ChainError
from chain.exits import REGISTRY
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable
    from subprocess import CompletedProcess

CHECKOUT = images.PACKAGE.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chain"
VM = CHECKOUT / "tests" / "lab" / "vm.sh"
COMMAND = ".venv/bin/chain"
PHONE = "phone"
SITE = "www.example.org"
SECOND = "bern"  # stands in for the WireGuard chain's exit
STREAM, IDLE = 500, 20  # packets a second, and connections that say nothing, while an exit is killed
LONGEST_HOLD = 320.0  # seconds; an exit that died again and again has to prove itself for up to 300
NOWHERE6 = "2001:db8::1"  # for documentation (RFC 3849): if it were reached, something would be very wrong

REFUSED6 = f"""
import socket, time
begin, channel = time.monotonic(), socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
channel.settimeout(10)
try:
    channel.connect(("{NOWHERE6}", 80))
    print("connected")
except TimeoutError:
    print("silence")
except OSError as error:
    print(f"{{error.strerror}} after {{(time.monotonic() - begin) * 1e3:.0f}} ms")
"""

console = Console(highlight=False, soft_wrap=True)
terminal = Terminal()


@dataclass(frozen=True)
class Ground:
    """Where a chain of the demo stands: this machine's engine, or the virtual machine's."""

    folder: Path  # seen by the engine's host under the same path; one of its folders is the world's
    host: str = ""  # DOCKER_HOST of the virtual machine
    patience: float = 60

    @property
    def world(self) -> Path:
        return self.folder / "world"

    @property
    def prefix(self) -> str:
        """What stands before a command that is to be pasted."""
        return f"DOCKER_HOST={self.host} " if self.host else ""


@dataclass(frozen=True)
class Plan:
    """One chain of the demo. Its port and pool are clear of the usual ones: its owner may have a chain already."""

    title: str
    name: str
    exit: str
    kind: str
    client: str  # the world's container
    port: int
    pool: str

    @property
    def provider(self) -> Provider:
        return {WIREGUARD.kind: DEMO.wireguard, XRAY.kind: DEMO.xray, L2TP.kind: DEMO.l2tp}[self.kind]


WIREGUARD = Plan("WireGuard", "demo", "paris", "wireguard", "client", 51830, "10.215.0.0/20")
XRAY = Plan("VLESS with Reality", "demo-xray", "tokyo", "xray", "client-xray", 51832, "10.215.32.0/20")
L2TP = Plan("L2TP/IPsec", "demo-l2tp", "oslo", "l2tp", "client-l2tp", 51831, "10.215.16.0/20")


class Wrong(Exception):  # noqa: N818 - it reads well where it is raised
    """The demo shows something else than it should."""


class Told(Wrong):
    """A command failed, and has shown the logs of the chain's containers that it blames."""


class Chain:
    """One chain: its project folder, and the commands on it as its owner would type them."""

    def __init__(self, plan: Plan, ground: Ground, world: World) -> None:
        self.plan, self.ground, self.world = plan, ground, world
        self.project = Project(ground.folder / plan.kind / "config" / "chain.yaml")

    def write_project(self) -> None:
        """Write chain.yaml and the secrets. Clients of an earlier run stay."""
        provider = self.plan.provider
        if self.plan.kind == WIREGUARD.kind:
            server = keys.public_key(Secret(self.world.keys["server"]))
            exits = {
                name: wireguard_exit(each)
                # Somebody beyond the provider who answers: the demo's internet has no public resolvers.
                | {"public_key": server, "probe": {"public": [DEMO.internet_host]}}
                for name, each in ((self.plan.exit, provider), (SECOND, DEMO.wireguard2))
            }
            credentials = {
                f"{name}_{role}": self.world.keys[key]
                for name, own in zip(exits, ("exit", "exit2"), strict=True)
                for role, key in (("wg_private_key", own), ("wg_preshared_key", "preshared"))
            }
        elif self.plan.kind == XRAY.kind:
            exits = {self.plan.exit: xray_exit(self.world, {"reality": {}})}
            credentials = {f"{self.plan.exit}_xray_id": self.world.keys["id"]}
        else:
            exits = {self.plan.exit: l2tp_exit(provider)}
            credentials = {f"{self.plan.exit}_{role}": value for role, value in self.world.l2tp_secrets().items()}
        config = {
            "name": self.plan.name,
            "entry": {"endpoint": DEMO.clients_gateway, "port": self.plan.port},
            "network": {"pool": self.plan.pool},
            "dns": self.world.dns(),
            "exits": exits,
            "groups": {"default": {"exits": [*exits], "fail_back": "when-better"}},
        }
        file = self.project.file
        before = yaml.safe_load(file.read_text()) if file.exists() else {}
        clients = before.pop("clients", None)
        if before != config:
            make_folder(file.parent, 0o755)
            config |= {"clients": clients} if clients else {}
            write_atomic(file, yaml.safe_dump(config, sort_keys=False), 0o644)
        make_folder(self.project.secrets, 0o700)
        for name, value in credentials.items():
            path = self.project.secrets / name
            # A running container keeps the file that it was given: another one in its place would not reach it.
            if not path.exists() or path.read_text() != f"{value}\n":
                write_atomic(path, f"{value}\n", 0o600)

    def text(self, *arguments: str) -> str:
        """Write a command down so that it can be pasted in the checkout."""
        return f"{self.ground.prefix}{COMMAND} {' '.join(arguments)} -f {shlex.quote(str(self.project.file))}"

    def run(self, *arguments: str) -> None:
        """Run one command, shown, with its output."""
        console.print(f"\n$ {self.text(*arguments)}", style="bold", markup=False)
        if self._start(arguments, capture=False).returncode:
            raise Told(f"`chain {' '.join(arguments)}` failed: its own words are above")

    def remove(self) -> None:
        """Take the chain down, by its labels when a later version of `chain` no longer reads its project."""
        try:
            self.run("down")
        except Wrong:
            docker("compose", "-p", self.container(""), "down", "-v", "--remove-orphans")

    def ask(self, *arguments: str) -> Any:
        """Run one command for its JSON."""
        done = self._start([*arguments, "--json"], capture=True)
        if not done.stdout:
            raise Wrong(f"`chain {' '.join(arguments)}` said nothing: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def _start(self, arguments: Iterable[str], *, capture: bool) -> CompletedProcess[str]:
        command = [str(CHECKOUT / COMMAND), *arguments, "-f", str(self.project.file)]
        return subprocess.run(command, text=True, check=False, capture_output=capture, timeout=900)

    def refuse_strangers(self) -> None:
        """Stop when a chain of this name belongs to another project."""
        label = '{{.Label "com.docker.compose.project.config_files"}}'
        known = docker(
            "ps", "-a", "--filter", f"label=com.docker.compose.project={self.container('')}", "--format", label
        )
        others = set(known.split()) - {str(self.project.run / "compose.yaml")}
        if others:
            raise Wrong(f"a chain named {self.plan.name} is there already, from {', '.join(sorted(others))}")

    def container(self, service: str) -> str:
        return f"chain-{self.plan.name}-{service}-1" if service else f"chain-{self.plan.name}"

    @cached_property
    def loaded(self) -> Loaded:
        return load(self.project, self.world.engine)

    def connect(self) -> None:
        """Add a client and hand its configuration to the world's client, as a phone would scan it."""
        known = {client["name"] for client in self.ask("client", "list")["clients"]}
        verb = "show" if PHONE in known else "add"
        console.print(f"\n$ {self.text('client', verb, PHONE)}", style="bold", markup=False)
        made = self.ask("client", verb, PHONE)
        container = self.world.container(self.plan.client)
        console.print(f"{PHONE} has the address {made['address']}; {container} takes its configuration.")
        self.world.exec(self.plan.client, "python3", "client.py", "up", stdin=made["config"])

    def prove(self) -> None:
        """Show that traffic leaves at the provider and nowhere else. Raises Wrong."""
        internet, outside = DEMO.internet_host, self.plan.provider.outside
        phone = self.plan.client
        patience = str(self.ground.patience)
        udp = self._seen_udp()
        tcp = self.world.exec(phone, "curl", "-sS", "--max-time", patience, f"http://{internet}/").strip()
        own = self._own_address()
        resolver = self.loaded.topology.state.address.partition("/")[0]
        address, asker = json.loads(self.world.exec(phone, "python3", "client.py", "dns", resolver, SITE))
        refused = self.world.exec(phone, "python3", "-c", REFUSED6).strip()
        seen = {"TCP": tcp, "UDP": udp}
        if self.plan.kind != XRAY.kind:  # which carries no ICMP
            seen["ICMP"] = self._seen_icmp()
        exits = set(seen.values())
        console.print()
        good = [
            _line(
                "exit address", ", ".join(exits), f"seen by the internet over {', '.join(seen)}", ok=exits == {outside}
            ),
            _line("this host's own", own, "the same internet, asked beside the chain", ok=own == DEMO.internet_gateway),
            _line("DNS", f"{SITE} is {address}", f"asked for by {asker}", ok=(address, asker) == (internet, outside)),
            _line("IPv6", "rejected at once", refused, ok="after" in refused),
        ]
        if not all(good):
            raise Wrong(f"a line above is not right; the exit's address is {outside}, and there came {seen}")

    def prove_failover(self) -> None:
        """Kill the exit under a client's traffic; show that another takes over, and that it is used again.

        Raises Wrong.
        """
        victim = self.container(f"exit-{self.plan.exit}")
        _typed(f"docker kill {victim}")
        try:
            good = self._survived(victim)
        finally:
            docker("start", victim)
        _typed(f"docker start {victim}")
        self.settle()
        self.run("events")
        if not all(good):
            raise Wrong("a line above is not right")

    def _survived(self, victim: str) -> list[bool]:
        """Kill it, and show what its client noticed."""
        looks: list[dict[str, Any]] = []
        with Stopwatch.of(self.world, "demo", STREAM, IDLE) as watch:
            eventually(lambda: watch.look()["idle"] == IDLE, 30, "all connections are open")
            docker("kill", victim)

            def ended() -> bool:
                looks.append(watch.look())
                return sum(len(each["resets"]) for each in looks) == IDLE

            def answered() -> bool:
                looks.append(watch.look())
                return bool(looks[-1]["stream"]["answered_at"] > then)

            eventually(ended, self.ground.patience, f"all {IDLE} connections by it are ended")
            then = looks[-1]["now"]
            eventually(answered, self.ground.patience, "the client is answered again")
        streams = [each["stream"] for each in looks]
        longest = max((gap["until"] - gap["from"] for each in streams for gap in each["gaps"]), default=0)
        lost, sent = sum(map(lost_of, streams)), sum(each["sent"] for each in streams)
        seen, used = self._seen_udp(), self._used()
        console.print()
        gap, remark = f"{longest:.0f} ms without an answer", f"{SECOND} took over; {lost} of {sent} packets were lost"
        return [
            _line("failover", gap, remark, ok=used == SECOND),
            _line("exit address", seen, "seen by the internet now", ok=seen == DEMO.wireguard2.outside),
            _line("connections", f"{IDLE} ended", "so that programs begin anew at once", ok=True),  # it was waited for
        ]

    def settle(self) -> None:
        """Have the first exit used, whatever was drained or chosen by hand before."""
        for exit_ in (self.plan.exit, SECOND) if self.plan.kind == WIREGUARD.kind else ():
            self._start(["undrain", exit_], capture=True)
        self._start(["switch", "default"], capture=True)
        if self._used() != self.plan.exit:
            with terminal.step(f"Waiting until {self.plan.exit} has proved itself"):
                eventually(lambda: self._used() == self.plan.exit, LONGEST_HOLD, f"{self.plan.exit} is used again")

    def _seen_udp(self) -> str:
        """Ask the internet by UDP until it answers; give the address that it saw."""
        patience = self.ground.patience
        command = ("python3", "client.py", "answered", DEMO.internet_host, "7", str(patience), "demo")
        return str(json.loads(self.world.exec(self.plan.client, *command, timeout=patience + 60))["seen"])

    def _used(self) -> str | None:
        """Name the exit that the group's clients use."""
        return next((group["exit"] for group in self.ask("status")["groups"]), None)

    def _seen_icmp(self) -> str:
        """Ping the internet; give the address that it saw."""
        number = str(1 + secrets.randbelow(60000))
        watch = f"icmp[icmptype]=icmp-echo and icmp[4:2]={number}"
        command = ["timeout", "60", "tcpdump", "-Z", "root", "-lnni", "any", "-c", "1", watch]
        process = subprocess.Popen(
            ["docker", "exec", self.world.container("internet"), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            lines = []
            for line in process.stdout or ():
                lines.append(line)
                if "listening on" in line:
                    self.world.exec(
                        self.plan.client, "ping", "-q", "-c", "3", "-i", "0.2", "-e", number, DEMO.internet_host
                    )
                if found := re.search(r"IP (\S+) > ", line):
                    return found[1]
        raise Wrong(f"the internet saw no ping: {' '.join(lines).strip()}")

    def _own_address(self) -> str:
        """Ask the internet beside the chain, from the engine's host."""
        address = f"http://{DEMO.internet_host}/"
        if self.ground.host:
            toolbox = self.world.wanted_images()[0].name
            return docker("run", "--rm", "--network", "host", "--entrypoint", "curl", toolbox, "-sS", address).strip()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=10) as answer:
            return str(answer.read().decode().strip())

    def draw(self) -> None:
        """Show the way of a packet, hop by hop, with the addresses it meets."""
        topology, provider = self.loaded.topology, self.plan.provider
        exit_ = topology.exits[0]
        found = self.ask("status")["exits"][0]
        latency = f", a probe came back in {found['latency_ms']} ms" if found.get("latency_ms") is not None else ""
        entry, client = self.container("entry"), self.world.container(self.plan.client)
        container = self.container(f"exit-{exit_.name}")
        phone = topology.state.clients[0].address
        link = exit_.settings.link
        hops = [
            ("client", phone, f"{client}, itself {_address(client, DEMO.network('clients'))}"),
            (f"WireGuard to {DEMO.clients_gateway}:{self.plan.port}, the port that this host publishes",),
            ("entry", topology.state.address.partition("/")[0], entry),
            (f"from {link.sender_address} to {link.exit_address}, a network with nobody else in it",),
            ("exit", exit_.name, f"{container}: {found['state']}{latency}"),
            (f"{self.plan.title} from {_address(container, provider.network)} to {provider.wan}",),
            ("provider", provider.outside, self.world.container(provider.name)),
            (f"plain, under {provider.outside}",),
            ("internet", DEMO.internet_host, self.world.container("internet")),
        ]
        console.print()
        for hop in hops:
            if len(hop) == 1:
                console.print(Text.assemble("      │  ", (hop[0], "dim")))
            else:
                console.print(Text.assemble(f"  {hop[0]:<11}", (f"{hop[1]:<15}", "bold"), (hop[2], "dim")))

    def explain(self) -> None:
        """Say how to look further."""
        logs = f"docker logs {self.world.container(self.plan.provider.name)}"
        commands = [
            (self.text("status"), "exits and clients, as they are"),
            (self.text("logs", f"exit-{self.plan.exit}"), "what a container says"),
            *(
                [(self.text("drain", self.plan.exit), f"new flows go by {SECOND}; `undrain` ends that")]
                if self.plan.kind == WIREGUARD.kind
                else []
            ),
            (self.text("events", "--follow"), "what becomes of exits, and who is sent where"),
            (self.text("client", "add", "laptop"), "one more client, let in at once"),
            (f"cat {shlex.quote(str(self.project.file))}", "all there is to configure"),
            (f"{self.ground.prefix}{logs}", "the other end"),
        ]
        console.print("\nTo look further, paste here:")
        for command, meaning in commands:
            console.print(Text.assemble(f"  {command}", (f"   # {meaning}", "dim")))
        if self.ground.host:
            console.print(
                "Tests use the same virtual machine and may restart it; `make demo` then starts this half anew."
            )

    def blamed(self) -> list[str]:
        """Name the containers whose logs tell most about a failure, going along a packet's way."""
        services = [*(provider.name for provider in self.world.providers()), "internet", self.plan.client]
        dead = [name for name in map(self.world.container, services) if _state(name) != "running"]
        entry, exit_ = self.container("entry"), self.container(f"exit-{self.plan.exit}")
        if dead:
            return dead
        if _state(exit_) != "running" or not docker("exec", exit_, "ls", "/run/chain/healthy", check=False):
            return [exit_, self.world.container(self.plan.provider.name)]
        handshake = docker(
            "exec", self.world.container(self.plan.client), "wg", "show", "wg0", "latest-handshakes", check=False
        )
        return [exit_, entry] if handshake.split()[1:] not in ([], ["0"]) else [entry]


def _typed(command: str) -> None:
    console.print(f"\n$ {command}", style="bold", markup=False)


def _line(name: str, value: str, remark: str, *, ok: bool) -> bool:
    mark = ("✓ ", "green") if ok else ("✗ ", "bold red")
    console.print(Text.assemble(mark, f"{name}: ", (value, "bold"), (f"   {remark}", "dim")))
    return ok


def _state(container: str) -> str:
    return docker("inspect", "-f", "{{.State.Status}}", container, check=False).strip()


def _address(container: str, network: str) -> str:
    networks = json.loads(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", container))
    return str(networks[network]["IPAddress"])


def show(plan: Plan, ground: Ground, world: World) -> None:
    """Start one world and one chain, and prove that it works. Raises Wrong."""
    chain = Chain(plan, ground, world)
    chain.refuse_strangers()
    try:
        build(world.engine, world.wanted_images())
        with terminal.step("Starting providers, an internet and clients"):
            world.start()
        chain.write_project()
        chain.run("up", "--wait", f"{ground.patience:.0f}")
        chain.connect()
        chain.settle()
        chain.prove()
        chain.draw()
        if plan.kind == WIREGUARD.kind:
            chain.prove_failover()
        chain.explain()
    except (ChainError, Failed, OSError, ValueError, LookupError, Wrong, subprocess.TimeoutExpired) as error:
        detail = f"\n{error.detail}" if isinstance(error, ChainError) and error.detail else ""
        blamed = chain.blamed()
        if isinstance(error, Told):
            blamed = [name for name in blamed if name.startswith(f"{DEMO.project}-")]
        raise Wrong(f"{error}{detail}\n{_logs(blamed)}") from error


def _logs(containers: Iterable[str]) -> str:
    parts = []
    for container in containers:
        done = subprocess.run(
            ["docker", "logs", "--tail", "40", container],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        parts.append(f"\n── {container} ({_state(container) or 'not there'}) ──\n{done.stdout.strip()}")
    return "\n".join(parts)


def build(engine: Engine, wanted: Iterable[images.Image]) -> None:
    for image in images.missing(engine, wanted):
        with terminal.step(f"Building image {image.name}"):
            images.build(engine, image, terminal.detail)


def lacking(engine: Engine) -> list[str]:
    """Ask this kernel for what L2TP needs, after loading its modules where that can be done; name what is missing."""
    needs = REGISTRY[L2TP.kind].kernel
    described = images.describe(["entry"])["entry"]
    build(engine, [described])
    entry = described.name

    def ask() -> list[str]:
        found = json.loads(engine.run_check(entry, ["check-kernel", *(need.check for need in needs)]))
        return [need.why for need in needs if not found.get(need.check)]

    missing = ask()
    if missing and shutil.which("modprobe"):
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        modules = [module for need in needs for module in need.modules]
        subprocess.run([*root, "modprobe", "-a", "-q", *modules], check=False, capture_output=True)
        missing = ask()
    return missing


def start_vm(engine: Engine) -> Ground:
    """Start the virtual machine with the images that the L2TP half needs, which this machine's engine builds."""
    mine = list(images.describe(["entry", f"exit-{L2TP.kind}"]).values())
    wanted = [*mine, *World(Path(), engine, with_l2tp=True, site=DEMO).wanted_images()]
    build(engine, wanted)
    host = _vm("up", *(image.name for image in wanted))
    return Ground(Path(_vm("share"), "demo"), host, patience=240)


def _vm(*arguments: str) -> str:
    done = subprocess.run([str(VM), *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Wrong("the virtual machine could not be started: the words above say why")
    return done.stdout.strip()


def up() -> None:
    here, engine = Ground(CACHE / "demo"), Engine()
    phones = (WIREGUARD.client, XRAY.client, L2TP.client)
    missing = lacking(engine)
    world = World(
        here.world,
        engine,
        clients=phones,
        site=DEMO,
        with_observer=False,
        with_xray=True,
        with_l2tp=not missing,
    )
    for number, plan in enumerate((WIREGUARD, XRAY), start=1):
        console.rule(f"{number}. {plan.title}, on this machine", align="left")
        show(plan, here, world)
        console.print()
    if not missing:
        console.rule(f"3. {L2TP.title}, on this machine: its kernel has what it takes", align="left")
        show(L2TP, here, world)
        return
    console.rule(f"3. {L2TP.title}, in a virtual machine", align="left")
    console.print("This machine's kernel lacks:")
    for why in missing:
        console.print(f"  - {why}", markup=False)
    console.print("So this half runs in a virtual machine with a stock Debian kernel; without KVM that is slow.")
    there = start_vm(engine)
    # From here on everything that talks to Docker means the one in the virtual machine.
    os.environ["DOCKER_HOST"] = there.host
    os.environ.pop("DOCKER_CONTEXT", None)
    world = World(
        there.world,
        Engine(),
        clients=(L2TP.client,),
        site=DEMO,
        with_observer=False,
        with_wireguard=False,
        with_l2tp=True,
    )
    show(L2TP, there, world)


def down() -> None:
    """Remove the chains, the world, the virtual machine's half, and the folders; nothing else."""
    here, there = Ground(CACHE / "demo"), Ground(CACHE / "share" / "demo")
    if there.folder.exists():
        with terminal.step("Switching the virtual machine off"):
            _vm("down")
        shutil.rmtree(there.folder)
    if not here.folder.exists():
        console.print("No demo is running.")
        return
    world = World(here.world, Engine(), site=DEMO)
    for plan in (L2TP, XRAY, WIREGUARD):
        chain = Chain(plan, here, world)
        if chain.project.file.exists():
            chain.refuse_strangers()
            chain.remove()
    with terminal.step("Removing providers, internet and clients"):
        world.stop()
    shutil.rmtree(here.folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["up", "down"])
    parser.add_argument("--began", type=float, default=time.time(), help="when the whole command began, in Unix time")
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in step with what commands say
    try:
        if options.verb == "down":
            down()
            return 0
        up()
    except (ChainError, Failed, Wrong) as error:
        console.print(f"\nThe demo failed: {error}", style="red", markup=False)
        if isinstance(error, ChainError) and error.detail:
            console.print(error.detail, markup=False)
        return 1
    console.print()
    console.rule(
        f"The chains run, after {time.time() - options.began:.0f} s. `make demo-down` removes them.", align="left"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

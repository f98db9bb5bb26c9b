"""A chain in the test ground, driven as its user would: by the command line, against a real engine."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from world import (
    INTERNET_HOST,
    OPENVPN_USER,
    PROVIDERS,
    WIREGUARD2,
    Provider,
    World,
    address_in,
    docker,
    eventually,
    l2tp_exit,
    name_of,
    openvpn_exit,
    openvpn_file,
    wireguard_exit,
    xray_exit,
)

from chain.api import keys
from chain.api.project import make_folder, write_atomic
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ground import Ground

REPOSITORY = Path(__file__).resolve().parents[2]
UDP_ECHO = "7"
PORT, POOL = 51821, "10.214.0.0/20"
# Both ends and everything between share the processors of one machine: its hiccups are not to look like an exit's.
# Tests of failover itself have the usual values. In emulation an exit's own word has to do.
PATIENT = {"suspect_after": "2s", "dead_after": "6s", "hold_down": "200ms"}
if os.environ.get("CHAIN_LAB_HOST"):
    PATIENT |= {"suspect_after": "10s", "dead_after": "30s"}
FAR_HOST, FAR_CLIENT = "198.18.4.1", "198.18.4.2"


@dataclass
class Chain:
    """One chain's project folder and the commands on it."""

    world: World
    folder: Path
    exits: Mapping[str, Mapping[str, Any]]
    secrets: Mapping[str, str]
    name: str = "yard"  # sorts after the uplink's network, which then has the default route: the worst case
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        make_folder(self.folder / "config", 0o755)
        make_folder(self.folder / "secrets", 0o700)
        config = {
            "name": self.name,
            # Clear of the usual values, so that a chain of the machine's owner does not stand in the way.
            "entry": {"endpoint": self.world.clients_gateway, "port": PORT},
            "network": {"pool": POOL},
            "dns": self.extra["dns"] if "dns" in self.extra else self.world.dns(),
            "failover": PATIENT,
            "exits": {name: dict(fields) for name, fields in self.exits.items()},
            **self.extra,
        }
        self.file.write_text(yaml.safe_dump(config, sort_keys=False))
        for name, value in self.secrets.items():
            write_atomic(self.folder / "secrets" / name, value + "\n", 0o600)

    @property
    def file(self) -> Path:
        return self.folder / "config" / "chain.yaml"

    @property
    def project(self) -> str:
        return f"chain-{self.name}"

    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "chain", *arguments, "-f", str(self.file)]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command of the CLI to its end."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, cwd=REPOSITORY, check=False, timeout=600
        )
        if check and done.returncode:
            raise AssertionError(
                f"chain {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def start(self, *arguments: str, own_session: bool = False) -> subprocess.Popen[str]:
        """Run one command of the CLI beside the test."""
        return subprocess.Popen(
            self.command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            start_new_session=own_session,
        )

    def up(self) -> None:
        self.run("up", "--wait", "240")

    def down(self) -> None:
        self.run("down")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json", check=False).stdout)
        return found

    def entry_status(self) -> dict[str, Any]:
        """Ask the entry directly, which is quicker than the whole command; an empty object while it can't be asked."""
        text = docker("exec", self.container("entry"), "chain-node", "status", check=False)
        found: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
        return {} if "error" in found else found

    def refused(self) -> int:
        """Count packets of clients that the entry refused since its lock was loaded."""
        return int(self.entry_status().get("refused_packets", 0))

    def add_client(self, name: str) -> str:
        """Add a client; give its configuration."""
        return str(json.loads(self.run("client", "add", name, "--json").stdout)["config"])

    def connect(self, name: str, service: str = "client") -> None:
        """Add a client and bring its tunnel up in one of the world's client containers."""
        self.world.exec(service, "python3", "client.py", "up", stdin=self.add_client(name))

    def answered(self, service: str = "client", seconds: float = 120, token: str = "-") -> dict[str, Any]:
        """Wait until a client's packets are answered from the internet."""
        output = self.world.exec(
            service,
            "python3",
            "client.py",
            "answered",
            INTERNET_HOST,
            UDP_ECHO,
            str(seconds),
            token,
            timeout=seconds + 60,
        )
        found: dict[str, Any] = json.loads(output)
        return found

    def knock(self, service: str = "client", seconds: float = 120) -> None:
        """Have a client start new handshakes until the entry answers."""
        self.world.exec(service, "python3", "client.py", "knock", INTERNET_HOST, str(seconds), timeout=seconds + 60)

    def link_bridges(self) -> set[str]:
        """Name the bridges of the transit links, where clients' packets may be seen in clear."""
        names = docker(
            "network",
            "ls",
            "--filter",
            f"label=com.docker.compose.project={self.project}",
            "--format",
            "{{.ID}} {{.Name}}",
        )
        return {f"br-{line.split()[0][:12]}" for line in names.splitlines() if f"{self.project}_link-" in line}

    def kill(self, service: str) -> None:
        """Kill a container's main process from outside, as the kernel's out-of-memory killer would."""
        pid = docker("inspect", "-f", "{{.State.Pid}}", self.container(service)).strip()
        self.world.exec("observer", "kill", "-9", pid)

    @contextmanager
    def silenced(self, exit_name: str) -> Iterator[None]:
        """Keep an exit from reporting, from inside its own network namespace, while its data path stands."""
        self.silence(exit_name)
        try:
            yield
        finally:
            self._in_exit(exit_name, "nft", "delete", "table", "inet", "test")

    def silence(self, exit_name: str) -> None:
        """Keep an exit from reporting for as long as its container lives."""
        rules = "table inet test { chain o { type filter hook output priority -10; tcp dport 7411 drop; }; }\n"
        self._in_exit(exit_name, "nft", "-f", "-", stdin=rules)

    def is_open(self, exit_name: str) -> bool:
        """Tell whether the entry sends clients to an exit."""
        return any(exit_["name"] == exit_name and exit_["open"] for exit_ in self.entry_status().get("exits", ()))

    def _in_exit(self, exit_name: str, *command: str, stdin: str | None = None) -> None:
        self.world.inside(self.container(f"exit-{exit_name}"), *command, stdin=stdin)


@dataclass
class Capture:
    """What a capture on all interfaces of the engine's host saw of one token."""

    token: str
    packets: int = 0
    dropped: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def outside(self, allowed: set[str]) -> dict[str, int]:
        """Give where, and how often, the token was seen on other bridges and interfaces than these."""
        return {place: count for place, count in self.seen.items() if place not in allowed}


@contextmanager
def capturing(world: World, token: str) -> Iterator[Capture]:
    """Capture while the block runs; the result is filled in at its end."""
    result = Capture(token)
    output = f"/tmp/capture-{secrets.token_hex(4)}.json"
    process = subprocess.Popen(
        ["docker", "exec", world.container("observer"), "python3", "capture.py", token, output],
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdout is None or process.stdout.readline() != "ready\n":
        raise AssertionError("the capture did not start")
    try:
        yield result
    finally:
        world.exec("observer", "sh", "-c", f"kill -TERM $(cat {output.removesuffix('json')}pid)")
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            world.exec("observer", "sh", "-c", f"kill -KILL $(cat {output.removesuffix('json')}pid)")
            raise
        found = json.loads(world.exec("observer", "cat", output))
        result.packets, result.dropped = found["packets"], found["dropped"]
        result.seen, result.samples = found["seen"], found["samples"]


@contextmanager
def streaming(world: World, token: str, rate: int, service: str = "client") -> Iterator[dict[str, Any]]:
    """Send numbered packets from a client while the block runs; the figures are filled in at its end."""
    result: dict[str, Any] = {}
    world.exec(service, "rm", "-f", "/tmp/stream.pid")
    process = subprocess.Popen(
        [
            "docker",
            "exec",
            world.container(service),
            "python3",
            "client.py",
            "stream",
            INTERNET_HOST,
            UDP_ECHO,
            str(rate),
            "3600",
            token,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    eventually(
        lambda: world.exec(service, "sh", "-c", "cat /tmp/stream.pid 2>/dev/null || true").strip(), 120, "stream"
    )
    try:
        yield result
    finally:
        world.exec(service, "sh", "-c", "kill -TERM $(cat /tmp/stream.pid)")
        output, _ = process.communicate(timeout=60)
        result.update(json.loads(output))


@contextmanager
def pushing(
    world: World, provider: str, token: str, rate: int, *targets: str, restarting: bool = False
) -> Iterator[None]:
    """Have a provider push packets into its tunnel while the block runs. `restarting`: it may be meanwhile."""
    script = (PROVIDERS / "toolbox" / "push.py").read_text()  # handed over: the image may be anybody's
    command = ["docker", "exec", "-i", world.container(provider), "python3", "-c", script, token, str(rate), *targets]
    over = threading.Event()
    process = _begun(command)
    if process is None:
        raise AssertionError(f"{provider} does not push")

    def go_on() -> None:
        nonlocal process
        while not over.is_set():
            if process is None or process.poll() is not None:
                process = _begun(command)
            over.wait(0.2)

    keeper = threading.Thread(target=go_on)
    if restarting:
        keeper.start()
    try:
        yield
        if not restarting and process.poll() is not None:
            raise AssertionError(f"{provider} stopped pushing, with {process.returncode}: this run proves less")
    finally:
        over.set()
        if restarting:
            keeper.join()
        if process is not None:
            process.communicate(timeout=60)  # closes its input, at which it ends


def _begun(command: list[str]) -> subprocess.Popen[str] | None:
    """Start a program that says when it is ready; None if it does not come to that."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    if process.stdout is None or process.stdout.readline() != "ready\n":
        process.communicate(timeout=60)
        return None
    return process


@contextmanager
def downloading(world: World, token: str, rate: int, seconds: float, service: str = "client") -> Iterator[None]:
    """Have the internet send a client a stream while the block runs; cut off, it goes on for some seconds."""
    process = subprocess.Popen(
        [
            *("docker", "exec", world.container(service), "python3", "client.py"),
            *("download", world.site.internet_host, UDP_ECHO, str(rate), str(seconds), token),
        ]
    )
    try:
        yield
    finally:
        world.exec(service, "pkill", "-TERM", "-f", "client.py download")
        process.wait(60)


@contextmanager
def deaf_providers(world: World) -> Iterator[None]:
    """Keep providers from hearing anything. A paused one would not do: its kernel goes on answering for it."""
    rules = "table inet deaf { chain i { type filter hook input priority -200; policy drop; }; }\n"
    for provider in world.providers():
        world.inside(world.container(provider.name), "nft", "-f", "-", stdin=rules)
    try:
        yield
    finally:
        for provider in world.providers():
            world.inside(world.container(provider.name), "nft", "delete", "table", "inet", "deaf")


@contextmanager
def from_afar(world: World, service: str, network: str = "") -> Iterator[None]:
    """Let a client reach the host from outside Docker's networks, as real ones do: its address is then seen.

    `network`: it has all addresses of that one too.
    """
    pid = docker("inspect", "-f", "{{.State.Pid}}", world.container(service)).strip()
    host = partial(world.exec, "observer", "ip")
    host("link", "add", "chain-far", "type", "veth", "peer", "name", "far0", "netns", pid)
    try:
        host("address", "add", f"{FAR_HOST}/30", "dev", "chain-far")
        host("link", "set", "chain-far", "up")
        inside = partial(world.inside, world.container(service), "ip")
        inside("address", "add", f"{FAR_CLIENT}/30", "dev", "far0")
        inside("link", "set", "far0", "up")
        inside("route", "replace", world.clients_gateway, "via", FAR_HOST, "dev", "far0")
        if network:
            inside("route", "replace", "local", network, "dev", "lo")
            host("route", "add", network, "via", FAR_CLIENT)
        yield
    finally:
        host("link", "delete", "chain-far")


def wireguard_files(world: World, name: str, customer: str) -> dict[str, str]:
    """Give the secrets' files of one WireGuard exit."""
    return {f"{name}_wg_private_key": world.keys[customer], f"{name}_wg_preshared_key": world.keys["preshared"]}


def openvpn_files(world: World, name: str, text: str, password: str = "") -> dict[str, str]:
    """Give the secrets' files of one OpenVPN exit; another password than the provider's, if it is given."""
    login = {"username": OPENVPN_USER, "password": password or world.keys["password"]}
    files = {"config": text.removesuffix("\n")} | (login if "auth-user-pass" in text else {})
    return {f"{name}_ovpn_{role}": value for role, value in files.items()}


def l2tp_files(world: World, name: str) -> dict[str, str]:
    """Give the secrets' files of one L2TP exit."""
    return {f"{name}_{role}": value for role, value in world.l2tp_secrets().items()}


def two_exits(world: World, ground: Ground, extra: Mapping[str, Any] | None = None) -> Chain:
    """Give the scenarios' chain: the ground's preferred exit is `paris`, a WireGuard one beside it `oslo`.

    The first is reached by its provider's name, the other by its address.
    """
    paris, paris_files = exit_at(world, "paris", ground.preferred, name_of(ground.preferred))
    oslo, oslo_files = exit_at(world, "oslo", WIREGUARD2, WIREGUARD2.wan)
    return Chain(
        world,
        world.folder / "project",
        exits={"paris": paris, "oslo": oslo},
        secrets=paris_files | oslo_files,
        extra={"bootstrap_dns": [world.site.names_host], **(extra or {})},
    )


def exit_at(world: World, name: str, provider: Provider, server: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Give chain.yaml's fields and the secrets' files of an exit at this provider, under this name or address."""
    site = world.site
    if provider == site.l2tp:
        return l2tp_exit(provider), l2tp_files(world, name) | {f"{name}_vpn_server_ip": server}
    if provider == site.openvpn:
        return openvpn_exit(provider), openvpn_files(world, name, openvpn_file(world, "udp", server=server))
    if provider == site.xray:
        return xray_exit(world, {"server": server, "reality": {}}), {f"{name}_xray_id": world.keys["id"]}
    key = "exit" if provider == site.wireguard else "exit2"
    public = {"public_key": keys.public_key(Secret(world.keys["server"]))}
    return wireguard_exit(provider, server) | public, wireguard_files(world, name, key)


def beside(
    world: World,
    name: str,
    place: int,
    exits: Mapping[str, Mapping[str, Any]],
    secrets: Mapping[str, str],
    *,
    folder: str = "",
    **extra: Any,
) -> Chain:
    """Give another chain than the scenarios' own. Those of different places can be up at a time."""
    network = ip_network(POOL)
    pool = f"{network.network_address + place * network.num_addresses}/{network.prefixlen}"
    entry = {"endpoint": world.clients_gateway, "port": PORT + place}
    settings = {"entry": entry, "network": {"pool": pool}, **extra}
    return Chain(world, world.folder / (folder or name), exits=exits, secrets=secrets, name=name, extra=settings)


@contextmanager
def brought_up(made: Chain, service: str = "client2") -> Iterator[Chain]:
    """Bring a chain up while the block runs, with one of the world's clients."""
    try:
        made.up()
        made.connect("phone", service)
        yield made
    finally:
        made.run("down", check=False)


@contextmanager
def stood_down(chain: Chain) -> Iterator[None]:
    """Take a chain down while the block runs, for others that need its accounts."""
    chain.down()
    try:
        yield
    finally:
        chain.up()
        chain.knock()


def uplink_address(chain: Chain, world: World) -> str:
    """Give the address of the exit `paris` on the providers' network."""
    return address_in(chain.container("exit-paris"), world.site.network("wan"))


def new_token() -> str:
    """Give text that no other packet on this machine holds."""
    return f"tok{secrets.token_hex(12)}"


@contextmanager
def packets_on(world: World, network: str) -> Iterator[Callable[[str], int]]:
    """Keep what is on a network while the block runs; gives a function that counts what an expression describes."""
    file = f"/tmp/{secrets.token_hex(4)}.pcap"
    bridge = f"br-{docker('network', 'inspect', '-f', '{{.Id}}', network)[:12]}"

    def count(what: str) -> int:
        text = world.exec("observer", "sh", "-c", f"tcpdump -nn -r {file} 'ip and ({what})' 2>/dev/null || true")
        return len(text.splitlines())

    with world.background("observer", "tcpdump", "-U", "-nn", "-i", bridge, "-s", "100", "-w", file):
        eventually(lambda: world.exec("observer", "sh", "-c", f"test -s {file} && echo yes || true"), 60, "a capture")
        yield count

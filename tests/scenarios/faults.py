"""What can go wrong around a chain, done on purpose. Each fault returns when whatever it broke is whole again."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scene import deaf_providers
from world import World, address_in, docker, eventually, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground
    from scene import Chain
    from world import Provider

    Fault = Callable[[Chain, World, Ground], None]

ABSENT_SECONDS, LONG_ABSENT_SECONDS = 5.0, 40.0
STARTING_SECONDS = 60.0


def pids_of(container: str, program: str) -> list[str]:
    """Give the host's numbers of one of a container's programs. Raises AssertionError if it has none of that name."""
    rows = [line.split(maxsplit=1) for line in docker("top", container, "-eo", "pid,args").splitlines()[1:]]
    pids = [pid for pid, arguments in rows if program in arguments.partition(" ")[0] or f" -m {program}" in arguments]
    assert pids, f"{container} runs no {program}: {rows}"
    return pids


def kill_program(container: str, program: str, world: World, signal: str = "KILL") -> None:
    """End one of a container's programs from outside. Raises AssertionError if it has none of that name."""
    world.exec("observer", "kill", f"-{signal}", *pids_of(container, program))


def dropping_rules(hook: str, match: str) -> str:
    """Give the ruleset that drops what matches, before all else."""
    return (
        f"table inet fault {{ chain c {{ type filter hook {hook} priority -400; policy accept; {match} drop; }}; }}\n"
    )


@contextmanager
def dropping(world: World, provider: Provider, hook: str, match: str = "") -> Iterator[None]:
    """Have a provider drop packets while the block runs, and its kernel say nothing of it."""
    container = world.container(provider.name)
    world.inside(container, "nft", "-f", "-", stdin=dropping_rules(hook, match))
    try:
        yield
    finally:
        world.inside(container, "nft", "delete", "table", "inet", "fault")


def _program_of(service: str, program: str) -> Fault:
    return lambda chain, world, _: kill_program(chain.container(service), program, world)


def _container_killed(service: str) -> Fault:
    def act(chain: Chain, _: World, ground: Ground) -> None:
        container = chain.container(service)

        def begun() -> str:
            return docker("inspect", "-f", "{{if .State.Running}}{{.State.StartedAt}}{{end}}", container).strip()

        before = begun()
        chain.kill(service)
        eventually(lambda: begun() not in ("", before), STARTING_SECONDS * ground.patience, f"{service} runs again")

    return act


def _container_restarted(service: str) -> Fault:
    def act(chain: Chain, *_: object) -> None:
        docker("compose", "-f", str(chain.folder / "run" / "compose.yaml"), "restart", "-t", "1", service)

    return act


@contextmanager
def _ready_again(world: World, ground: Ground) -> Iterator[str]:
    """Give the provider's container; wait until it has said once more that it answers."""
    name = ground.preferred.name

    def said() -> int:
        return world.logs(name).splitlines().count("ready")

    before = said()
    yield world.container(name)
    eventually(lambda: said() > before, STARTING_SECONDS * ground.patience, f"{name} is ready again")


def _provider_restarted(_: Chain, world: World, ground: Ground) -> None:
    with _ready_again(world, ground) as provider:
        docker("restart", "-t", "1", provider)


def _provider_killed(_: Chain, world: World, ground: Ground) -> None:
    with _ready_again(world, ground) as provider:
        docker("kill", provider)
        docker("start", provider)


def _providers_program(program: str, signal: str = "KILL", *, ends_it: bool = False) -> Fault:
    def act(_: Chain, world: World, ground: Ground) -> None:
        provider = world.container(ground.preferred.name)
        if not ends_it:
            kill_program(provider, program, world, signal)
            return
        with _ready_again(world, ground):
            kill_program(provider, program, world, signal)
            docker("wait", provider)
            docker("start", provider)

    return act


def _silence(seconds: float) -> Fault:
    def act(_: Chain, world: World, __: Ground) -> None:
        with deaf_providers(world):
            time.sleep(seconds)  # it is the fault itself that lasts so long

    return act


def uplinks_end(chain: Chain, world: World, exit_: str, network: str) -> str:
    """Name the host's end of an exit's uplink, which is in that network."""
    container = chain.container(f"exit-{exit_}")
    networks = json.loads(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", container))
    mac = networks[network]["MacAddress"]
    pid = docker("inspect", "-f", "{{.State.Pid}}", container).strip()
    links = json.loads(world.exec("observer", "nsenter", "-t", pid, "-n", "ip", "-json", "link"))
    peer = next(link["link_index"] for link in links if link.get("address") == mac)
    here = json.loads(world.exec("observer", "ip", "-json", "link"))
    return str(next(link["ifname"] for link in here if link["ifindex"] == peer))


def _uplink_cut(chain: Chain, world: World, ground: Ground) -> None:
    """Take the carrier off the exit's uplink for a while, at the host's end."""
    name = uplinks_end(chain, world, "paris", ground.preferred.network)
    world.exec("observer", "ip", "link", "set", name, "down")
    try:
        time.sleep(ABSENT_SECONDS)  # it is the fault itself that lasts so long
    finally:
        world.exec("observer", "ip", "link", "set", name, "up")


def has_moved(world: World, ground: Ground) -> bool:
    """Tell whether the preferred provider is at its other address."""
    provider = ground.preferred
    return address_in(world.container(provider.name), provider.network) == world.site.moved(provider)


def _provider_moved(_: Chain, world: World, ground: Ground) -> None:
    """Give the provider another address, and its name that one; the next time, the first ones again."""
    provider, container = ground.preferred, world.container(ground.preferred.name)
    address = provider.wan if has_moved(world, ground) else world.site.moved(provider)
    docker("network", "disconnect", provider.network, container)
    docker("network", "connect", "--ip", address, provider.network, container)
    world.set_names({name_of(provider): address})


def _ike_deleted(_: Chain, world: World, ground: Ground) -> None:
    world.exec(ground.preferred.name, "swanctl", "--terminate", "--ike", "l2tp-v1", "--force", "--timeout", "5")


def _sas_forgotten(_: Chain, world: World, ground: Ground) -> None:
    world.exec(ground.preferred.name, "ip", "xfrm", "state", "flush")


FAULTS: dict[str, Fault] = {
    "exit killed": _container_killed("exit-paris"),
    "exit restarted": _container_restarted("exit-paris"),
    "entry killed": _container_killed("entry"),
    "entry restarted": _container_restarted("entry"),
    "agent killed": _program_of("entry", "chain.agent"),
    "resolver killed": _program_of("entry", "unbound"),
    "provider killed": _provider_killed,
    "provider restarted": _provider_restarted,
    f"provider silent for {ABSENT_SECONDS:.0f} s": _silence(ABSENT_SECONDS),
    "provider's address changed": _provider_moved,
    f"uplink cut for {ABSENT_SECONDS:.0f} s": _uplink_cut,
}
WIREGUARD_FAULTS: dict[str, Fault] = {
    "exit's wireguard-go killed": _program_of("exit-paris", "wireguard-go"),
    "entry's wireguard-go killed": _program_of("entry", "wireguard-go"),
}
L2TP_FAULTS: dict[str, Fault] = {
    "charon killed": _program_of("exit-paris", "charon-systemd"),
    "xl2tpd killed": _program_of("exit-paris", "xl2tpd"),
    "pppd killed": _program_of("exit-paris", "pppd"),
    "provider deletes IKE": _ike_deleted,
    "provider forgets IPsec": _sas_forgotten,
    "provider ends PPP": _providers_program("pppd", "TERM"),
    "provider ends the call": _providers_program("pppd"),
    "provider ends the L2TP tunnel": _providers_program("xl2tpd", "TERM", ends_it=True),
    "provider forgets L2TP": _providers_program("xl2tpd", ends_it=True),
    f"provider silent for {LONG_ABSENT_SECONDS:.0f} s": _silence(LONG_ABSENT_SECONDS),
}


XRAY_FAULTS: dict[str, Fault] = {
    "exit's xray killed": _program_of("exit-paris", "xray"),
    "provider's xray killed": _providers_program("xray", ends_it=True),
}
OPENVPN_FAULTS: dict[str, Fault] = {
    "exit's openvpn killed": _program_of("exit-paris", "openvpn"),
    "provider's openvpn killed": _providers_program("openvpn", ends_it=True),
    f"provider silent for {LONG_ABSENT_SECONDS:.0f} s": _silence(LONG_ABSENT_SECONDS),
}
OF_KIND = {"wireguard": WIREGUARD_FAULTS, "l2tp": L2TP_FAULTS, "xray": XRAY_FAULTS, "openvpn": OPENVPN_FAULTS}


def faults_for(ground: Ground) -> dict[str, Fault]:
    """Give those that the ground's preferred exit can meet."""
    return FAULTS | OF_KIND[ground.kind]

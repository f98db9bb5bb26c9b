"""A client's packets through the whole chain: TCP, UDP, ICMP, names; what may not pass is refused at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml
from scene import FAR_CLIENT, from_afar, new_token, streaming
from world import INTERNET_HOST, World, both_outputs, docker, eventually

from chain.api.project import write_atomic

if TYPE_CHECKING:
    from ground import Ground
    from scene import Chain

pytestmark = pytest.mark.docker


def test_tcp_udp_icmp_arrive_from_the_provider(world: World, chain: Chain, ground: Ground) -> None:
    assert chain.answered()["seen"] == ground.preferred.outside
    seen = world.exec("client", "curl", "-s", "--max-time", "10", f"http://{INTERNET_HOST}/").strip()
    assert seen == ground.preferred.outside
    if not ground.xray:  # which carries no pings: test_xray
        assert " 0% packet loss" in world.exec("client", "ping", "-c", "3", "-W", "5", INTERNET_HOST)


def test_names_are_resolved_through_the_exit(world: World, chain: Chain, ground: Ground) -> None:
    chain.answered()
    answers = json.loads(world.exec("client", "python3", "client.py", "dns", "10.13.13.1", f"{new_token()}.example"))
    assert answers == [INTERNET_HOST, ground.preferred.outside]


def test_ipv6_is_rejected_at_once(world: World, chain: Chain) -> None:
    chain.answered()
    script = (
        "import socket; s=socket.socket(socket.AF_INET6,socket.SOCK_STREAM); s.settimeout(20)\n"
        "try: s.connect(('2001:db8::1',80)); print('connected')\n"
        "except OSError as e: print(repr(e))"
    )
    # A time-out would say TimeoutError; a rejection says so.
    found = world.exec("client", "python3", "-c", script).strip()
    assert found.startswith("ConnectionRefusedError"), found


def test_a_client_cannot_reach_the_containers_networks(world: World, chain: Chain, ground: Ground) -> None:
    chain.answered()
    state = json.loads((chain.folder / "run" / "entry" / "state.json").read_text())
    inside = [state["exits"][0]["link"]["exit_address"]]
    if not ground.xray:  # which takes any connection at once, wherever to
        inside.append(state["front"]["gateway"])
    for address in inside:
        script = f"import socket; s=socket.socket(); s.settimeout(2); print(s.connect_ex(('{address}', 7411)))"
        assert world.exec("client", "python3", "-c", script).strip() != "0"


def test_a_second_client_comes_in_while_the_first_streams(world: World, chain: Chain, ground: Ground) -> None:
    def closings() -> int:
        return both_outputs(chain.container("entry")).count(": closed")

    # An exit that is lost meanwhile, on a machine too busy for its heartbeat, costs packets too: that run says nothing.
    for _ in range(3):
        chain.answered()
        before = closings()
        # Xray carries UDP in a TCP connection, and drops what comes too quickly for it.
        rate = 50 if ground.patience > 1 else 200 if ground.xray else 1000
        with streaming(world, new_token(), rate) as figures:
            chain.connect("tablet", "client2")
            seen = chain.answered("client2")["seen"]
        assert figures["sent"] > rate  # a second's
        chain.run("client", "remove", "tablet")
        names = [client["name"] for client in chain.status()["clients"]]
        assert names == ["phone"]
        if closings() == before:
            break
    assert seen == ground.preferred.outside
    assert figures["lost"] == 0, figures


@pytest.mark.long
def test_a_client_is_called_back_by_an_entry_that_was_started_anew(world: World, chain: Chain, ground: Ground) -> None:
    """By WireGuard's rules the client itself would notice after 15 s that its session is void."""
    entry = chain.container("entry")
    memory = ("exec", entry, "cat", "/var/lib/chain/endpoints.json")
    with from_afar(world, "client2"):
        chain.connect("tablet", "client2")
        chain.answered("client2")
        eventually(lambda: f'"{FAR_CLIENT}:' in docker(*memory, check=False), 60, "the client's address is remembered")
        with streaming(world, new_token(), 20, "client2") as figures:
            docker("restart", "-t", "1", entry)
            eventually(chain.entry_status, 120, "the entry is back")
            chain.answered("client2")
        assert "calling 1 client(s) back" in chain.run("logs", "entry").stdout
        assert figures["gap_ms"] < 12_000 * ground.patience, figures
    chain.run("client", "remove", "tablet")
    chain.knock()


def test_up_again_changes_nothing(chain: Chain) -> None:
    before = [container["started_at"] for container in chain.status()["containers"]]
    found = json.loads(chain.run("up", "--json").stdout)
    assert found["steps"] == []
    assert [container["started_at"] for container in chain.status()["containers"]] == before
    # Nor does it leave a process in the entry, as it did until that was out of memory.
    running = ("top", chain.container("entry"), "-eo", "pid,args")
    eventually(lambda: " watch " not in docker(*running), 30, "nobody watches any more")


@pytest.mark.long
def test_rendered_files_run_with_plain_compose(chain: Chain, ground: Ground) -> None:
    chain.down()
    file = str(chain.folder / "run" / "compose.yaml")
    chain.run("render")
    docker("compose", "-f", file, "up", "-d")
    chain.knock()
    # Whichever exit opens first is used until the preferred one is open too.
    eventually(lambda: chain.answered()["seen"] == ground.preferred.outside, 30, "the preferred exit is used")
    docker("compose", "-f", file, "down")
    chain.up()
    chain.knock()


@pytest.mark.long
def test_down_leaves_nothing(chain: Chain, world: World) -> None:
    rules = "nft --stateless list ruleset"  # counters of the engine's own rules move
    chain.down()
    before = world.exec("observer", "sh", "-c", rules)
    chain.up()
    chain.down()
    label = f"label=com.docker.compose.project={chain.project}"
    for kind in ("container", "network", "volume"):
        listing = ["ps", "-aq"] if kind == "container" else [kind, "ls", "-q"]
        assert docker(*listing, "--filter", label) == ""
    assert world.exec("observer", "sh", "-c", rules) == before
    chain.up()
    chain.knock()


def test_a_secret_that_is_written_anew_reaches_its_exit(chain: Chain) -> None:
    def started() -> dict[str, str]:
        return {container["service"]: container["started_at"] for container in chain.status()["containers"]}

    before = started()
    name, value = next((name, value) for name, value in chain.secrets.items() if name.startswith("oslo_"))
    write_atomic(chain.folder / "secrets" / name, value + "\n", 0o600)
    steps = json.loads(chain.run("up", "--json").stdout)["steps"]
    assert steps[-1].startswith("compose up")
    after = started()
    assert {service for service in after if after[service] != before[service]} == {"exit-oslo"}


@pytest.mark.long
def test_an_exit_taken_out_of_the_file_leaves_no_network(chain: Chain) -> None:
    text = chain.file.read_text()
    config = yaml.safe_load(text)
    del config["exits"]["oslo"]
    try:
        chain.file.write_text(yaml.safe_dump(config, sort_keys=False))
        chain.up()
        label = f"label=com.docker.compose.project={chain.project}"
        names = docker("network", "ls", "--filter", label, "--format", "{{.Name}}").split()
        assert sorted(names) == [f"{chain.project}_front", f"{chain.project}_link-paris"]
    finally:
        chain.file.write_text(text)
        chain.up()
        chain.knock()

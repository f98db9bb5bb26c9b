from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jinja2 import UndefinedError

from chain.api.load import load_template
from chain.contract import to_json
from chain.exits import REGISTRY
from chain.render import render
from chain.topology import alone

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.config.models import Config
    from chain.topology import Topology

IMAGES = {"entry": "chain-entry:tag", "exit-l2tp": "chain-exit-l2tp:tag", "exit-wireguard": "chain-exit-wireguard:tag"}
TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp, server: 203.0.113.10, username: {file: /etc/vpn/$USER}, password: {file: secrets/it's}}
  oslo:
    kind: wireguard
    endpoint: oslo.provider.example
    public_key: 3hSkUNaT6/OFOBQR2O6IevrHpJzR6t8xSDnCikOJbTM=
    address: 10.64.12.7/32
    uplink: {network: dsl, gateway: 192.168.178.1}
"""


@pytest.fixture
def compose(built: Callable[[str], Topology]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render(built(TEXT), REGISTRY, IMAGES, load_template)["compose.yaml"])
    return found


def test_the_same_input_gives_the_same_bytes(built: Callable[[str], Topology]) -> None:
    assert render(built(TEXT), REGISTRY, IMAGES, load_template) == render(built(TEXT), REGISTRY, IMAGES, load_template)


def test_every_service_is_hardened(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"entry", "exit-paris", "exit-oslo"}
    for service in compose["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["read_only"] is True
        assert service["init"] is True
        assert not service.get("privileged")
        assert not service.get("network_mode")
        assert {"NET_ADMIN", "DAC_OVERRIDE"} <= set(service["cap_add"])
        assert not set(service["cap_add"]) & {"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE"}
        assert service["sysctls"]["net.ipv4.ip_forward"] == "0"
        assert not [volume for volume in service["volumes"] if "docker.sock" in str(volume)]
        assert all(volume["read_only"] for volume in service["volumes"] if volume["type"] == "bind")
        assert service["mem_limit"]
        assert service["pids_limit"]


def test_only_the_entry_is_published(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"entry": ["51820:51820/udp"]}


def test_links_are_neither_masqueraded_nor_reachable_from_the_host(compose: dict[str, Any]) -> None:
    links = {name: network for name, network in compose["networks"].items() if name.startswith("link-")}
    assert set(links) == {"link-paris", "link-oslo"}
    for network in links.values():
        assert network["driver_opts"] == {
            "com.docker.network.bridge.inhibit_ipv4": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "false",
        }


def test_the_entrys_front_sorts_before_its_other_networks(compose: dict[str, Any]) -> None:
    """Docker gives the default route and the published port to the first one by name."""
    assert min(compose["services"]["entry"]["networks"]) == "front"


def test_each_exit_sees_its_own_secrets_only(compose: dict[str, Any]) -> None:
    for name in ("paris", "oslo"):
        sources = [secret["source"] for secret in compose["services"][f"exit-{name}"]["secrets"]]
        assert sources
        assert all(source.startswith(f"{name}_") for source in sources)
    assert compose["services"]["entry"]["secrets"] == ["entry_private_key"]


def test_paths_of_secrets_are_kept_from_compose_and_the_shell(compose: dict[str, Any]) -> None:
    files = {name: secret["file"] for name, secret in compose["secrets"].items()}
    assert files["paris_vpn_username"] == "/etc/vpn/$$USER"  # an absolute path stays one; $$ is Compose's own $
    assert files["paris_vpn_password"] == "../secrets/it's"
    assert files["oslo_wg_private_key"] == "../secrets/oslo_wg_private_key"


def test_an_existing_network_is_used_and_not_made(compose: dict[str, Any]) -> None:
    assert compose["networks"]["external-dsl"] == {"name": "dsl", "external": True}
    assert set(compose["services"]["exit-oslo"]["networks"]) == {"link-oslo", "external-dsl"}
    assert "uplink-oslo" not in compose["networks"]


def test_changed_settings_recreate_that_exit_and_no_other(built: Callable[[str], Topology]) -> None:
    def labels(text: str) -> dict[str, str]:
        rendered = yaml.safe_load(render(built(text), REGISTRY, IMAGES, load_template)["compose.yaml"])
        return {name: service["labels"].get("chain.settings", "") for name, service in rendered["services"].items()}

    before, after = labels(TEXT), labels(TEXT.replace("kind: wireguard", "kind: wireguard\n    keepalive: 0"))
    assert {name for name in before if before[name] != after[name]} == {"exit-oslo"}
    client = "clients:\n  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}\n"
    assert labels(TEXT + client) == before


ENTRY = "entry: {endpoint: vpn.example.org"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (ENTRY, f"{ENTRY}, subnet: 10.13.14.0/24"),
        (ENTRY, f"{ENTRY}, mtu: 1300"),
        ("server: 203.0.113.10", "server: 203.0.113.10, mtu: 1300"),  # the tightest exit is the clients' limit
        (ENTRY, f"network: {{pool: 10.217.0.0/20}}\n{ENTRY}"),
    ],
)
def test_what_the_entry_reads_at_its_start_alone_recreates_it(
    built: Callable[[str], Topology], old: str, new: str
) -> None:
    assert entry_labels(built, TEXT.replace(old, new)) != entry_labels(built, TEXT)


def test_what_a_running_entry_takes_over_does_not_recreate_it(built: Callable[[str], Topology]) -> None:
    groups = "groups:\n  far: {exits: [oslo]}\ndns: {upstreams: [192.0.2.53]}\n"
    client = "clients:\n  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}\n"
    assert entry_labels(built, TEXT + groups + client) == entry_labels(built, TEXT)


def test_a_new_key_of_the_entry_recreates_it(built: Callable[[str], Topology]) -> None:
    assert entry_labels(built, TEXT, "1-2") != entry_labels(built, TEXT, "1-3")


def entry_labels(built: Callable[[str], Topology], text: str, key_stamp: str = "") -> dict[str, str]:
    files = render(built(text), REGISTRY, IMAGES, load_template, key_stamp=key_stamp)
    found: dict[str, str] = yaml.safe_load(files["compose.yaml"])["services"]["entry"]["labels"]
    return found


def test_settings_and_state_are_readable_json(built: Callable[[str], Topology]) -> None:
    files = render(built(TEXT), REGISTRY, IMAGES, load_template)
    assert json.loads(files["exits/paris/settings.json"])["options"]["server"] == "203.0.113.10"
    assert files["entry/state.json"].count("\n") > 20


def test_a_template_that_asks_for_what_is_not_there_fails(built: Callable[[str], Topology]) -> None:
    with pytest.raises(UndefinedError):
        render(built(TEXT), REGISTRY, IMAGES, lambda _: "{{ no_such_thing }}")


def test_settings_are_the_contracts_json_with_an_indent(built: Callable[[str], Topology]) -> None:
    clients = f"clients: {{phone: {{address: 10.13.13.2, public_key: {'A' * 43}=}}}}\n"
    for text in (TEXT, TEXT + clients):
        topology = built(text)
        files = render(topology, REGISTRY, IMAGES, load_template)
        settings = {f"exits/{exit_.name}/settings.json": exit_.settings for exit_ in topology.exits}
        for name, value in {"entry/state.json": topology.state, **settings}.items():
            assert files[name] == json.dumps(json.loads(to_json(value)), indent=2, ensure_ascii=False) + "\n"


def test_exits_by_themselves_have_no_entry_and_do_not_come_back(configured: Callable[[str], Config]) -> None:
    config = configured(TEXT)
    files = render(alone(config, REGISTRY, "paris"), REGISTRY, IMAGES, load_template, "../..")
    assert set(files) == {"exits/paris/settings.json", "compose.yaml"}
    compose = yaml.safe_load(files["compose.yaml"])
    assert compose["name"] == "chain-main_test"
    assert set(compose) == {"name", "services", "networks", "secrets"}
    assert set(compose["networks"]) == {"link-paris", "uplink-paris"}
    (service,) = compose["services"].values()
    assert service["restart"] == "no"
    assert service["labels"]["chain.name"] == "main_test"
    assert {secret["file"].partition("/secrets/")[0] for secret in compose["secrets"].values()} == {
        "../..",
        "/etc/vpn/$$USER",
    }
    direct = "entry: {endpoint: vpn.example.org}\nexits: {home: {kind: direct}}\ngroups: {default: {exits: [home]}}\n"
    built = alone(configured(direct), REGISTRY, "home")
    images = {"exit-direct": "chain-exit-direct:tag"}
    assert "secrets" not in yaml.safe_load(render(built, REGISTRY, images, load_template)["compose.yaml"])

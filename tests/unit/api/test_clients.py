from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from chain.api import clients, keys
from chain.api.load import load
from chain.config import edit
from chain.engine.connection import Engine
from chain.errors import ChainError, ExitCode
from chain.secret import Secret, read_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.api.project import Project
    from chain.config.models import Config

ENGINE = Engine()  # asks nothing until it has to


def fields(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) = (.+)$", text, re.MULTILINE))


def test_a_new_client_has_a_configuration_that_fits_what_the_entry_is_told(project: Project) -> None:
    made = clients.add(project, ENGINE, "phone", None)
    found = fields(made.text.reveal())
    loaded = load(project, ENGINE)
    (client,) = loaded.topology.state.clients
    assert (made.name, made.address) == ("phone", "10.13.13.2")
    assert found["Address"] == f"{client.address}/32, {client.address6}/128"
    assert keys.public_key(Secret(found["PrivateKey"])) == client.public_key
    assert found["PresharedKey"] == read_secret(project.peer_keys / client.psk_file).reveal()
    assert found["PublicKey"] == keys.public_key(read_secret(project.entry_key))
    assert found["Endpoint"] == "vpn.example.org:51820"
    assert found["DNS"] == "10.13.13.1"
    assert int(found["MTU"]) == loaded.topology.client_mtu
    assert found["AllowedIPs"] == "0.0.0.0/0, ::/0"


def test_the_endpoints_own_port_goes_before_the_entrys(project: Project) -> None:
    project.file.write_text(project.file.read_text().replace("example.org", "example.org:443"))
    assert fields(clients.add(project, ENGINE, "phone", None).text.reveal())["Endpoint"] == "vpn.example.org:443"


def test_showing_a_client_again_gives_the_same(project: Project) -> None:
    made = clients.add(project, ENGINE, "phone", None)
    assert clients.show(load(project, ENGINE), "phone") == made


def test_keys_are_for_their_owner_alone(project: Project) -> None:
    clients.add(project, ENGINE, "phone", None)
    for file in (project.entry_key, project.client_keys / "phone", project.peer_keys / "phone"):
        assert file.stat().st_mode & 0o777 == 0o600
    for folder in (project.secrets, project.client_keys, project.peer_keys):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_configurations_file_keeps_its_mode_its_comments_and_its_link(project: Project) -> None:
    text = "# ours\r\n" + project.file.read_text().replace("\n", "\r\n")
    target = project.root / "elsewhere.yaml"
    target.write_bytes(text.encode())
    target.chmod(0o640)
    project.file.unlink()
    project.file.symlink_to(target)
    clients.add(project, ENGINE, "phone", None)
    assert project.file.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert target.read_bytes().decode().startswith(text)
    clients.remove(project, ENGINE, "phone")
    assert target.read_bytes().decode() == text + "clients:\r\n"


def test_clients_get_the_lowest_free_address(project: Project) -> None:
    made = [clients.add(project, ENGINE, name, None).address for name in ("a", "b", "c")]
    assert made == ["10.13.13.2", "10.13.13.3", "10.13.13.4"]
    clients.remove(project, ENGINE, "b")
    assert clients.add(project, ENGINE, "d", None).address == "10.13.13.3"


def test_a_full_network_is_named(configured: Callable[[str], Config], minimal: str) -> None:
    letters = "AEIMQUYcgkosw048"
    client = "  c{n}: {{address: 10.13.13.{n}, public_key: {n:042d}{letter}=}}\n"
    text = minimal.replace("exits", "  subnet: 10.13.13.0/29\nexits") + "clients:\n"
    text += "".join(client.format(n=n, letter=letters[n]) for n in range(2, 6))
    assert str(clients.free_address(configured(text))) == "10.13.13.6"
    with pytest.raises(ChainError, match=r"all addresses of 10\.13\.13\.0/29 are taken"):
        clients.free_address(configured(text + client.format(n=6, letter="A")))


def test_a_client_can_be_put_in_a_group(project: Project) -> None:
    project.file.write_text(project.file.read_text() + "groups:\n  no: {exits: [paris]}\n")
    clients.add(project, ENGINE, "phone", "no")
    assert load(project, ENGINE).topology.state.clients[0].group == "no"


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "a\n", "x" * 49, "é", "a/b", ".x"])
def test_what_is_no_name_is_refused_and_nothing_is_written(project: Project, name: str) -> None:
    before = project.file.read_text()
    with pytest.raises(ChainError, match="no name for a client") as refused:
        clients.add(project, ENGINE, name, None)
    assert refused.value.code is ExitCode.CONFIG
    assert project.file.read_text() == before
    assert not project.secrets.exists()


def test_a_client_is_added_once_and_to_groups_that_there_are(project: Project) -> None:
    made = clients.add(project, ENGINE, "phone", None)
    with pytest.raises(ChainError, match="this client exists"):
        clients.add(project, ENGINE, "phone", None)
    assert clients.show(load(project, ENGINE), "phone") == made
    with pytest.raises(ChainError, match="there is no such group"):
        clients.add(project, ENGINE, "laptop", "far")
    assert [client.name for client in load(project, ENGINE).topology.state.clients] == ["phone"]


def test_an_interrupted_add_is_done_again_from_the_start(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(edit, "add_client", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clients.add(project, ENGINE, "phone", None)
    assert not load(project, ENGINE).config.clients
    made = clients.add(project, ENGINE, "phone", None)
    assert clients.show(load(project, ENGINE), "phone") == made


def interrupt(*_: object) -> str:
    raise KeyboardInterrupt


def test_a_removed_client_leaves_no_keys(project: Project) -> None:
    before = project.file.read_text()
    clients.add(project, ENGINE, "phone", None)
    clients.forget(project, ENGINE, "phone")  # it is still in chain.yaml
    assert clients.show(load(project, ENGINE), "phone")
    clients.remove(project, ENGINE, "phone")
    clients.remove(project, ENGINE, "phone")  # as after a call that was ended before it could forget the keys
    clients.forget(project, ENGINE, "phone")
    assert project.file.read_text() == before + "clients:\n"
    assert not list(project.client_keys.iterdir())
    assert not list(project.peer_keys.iterdir())
    for again in (clients.remove, lambda *_: clients.show(load(project, ENGINE), "phone")):
        with pytest.raises(ChainError, match="no such client"):
            again(project, ENGINE, "phone")


def test_a_private_key_that_is_another_ones_is_not_shown(project: Project) -> None:
    clients.add(project, ENGINE, "phone", None)
    (project.client_keys / "phone").write_text(keys.new_private_key().reveal())
    with pytest.raises(ChainError, match="is not the one whose public key stands in"):
        clients.show(load(project, ENGINE), "phone")
    (project.client_keys / "phone").write_text("hunter2")
    with pytest.raises(ChainError, match="no WireGuard private key: not base64") as refused:
        clients.show(load(project, ENGINE), "phone")
    assert "hunter2" not in str(refused.value)


def test_the_entrys_key_is_made_once(project: Project) -> None:
    first = clients.ensure_entry_key(load(project, ENGINE))
    assert clients.ensure_entry_key(load(project, ENGINE)) == first


def test_a_key_that_clients_know_the_entry_by_is_not_made_anew(project: Project) -> None:
    clients.add(project, ENGINE, "phone", None)
    project.entry_key.unlink()
    for again in (
        lambda: clients.ensure_entry_key(load(project, ENGINE)),
        lambda: clients.add(project, ENGINE, "pc", None),
    ):
        with pytest.raises(ChainError, match=r"the configuration of 1 client\(s\) was made"):
            again()
    assert not project.entry_key.exists()


def test_a_client_whose_private_key_is_elsewhere_is_not_shown(project: Project) -> None:
    clients.add(project, ENGINE, "phone", None)
    (project.client_keys / "phone").unlink()
    with pytest.raises(ChainError, match=r"private key is not kept here.*\n.*restore"):
        clients.show(load(project, ENGINE), "phone")


def test_clients_added_at_once_are_all_there(project: Project) -> None:
    names = [f"client{number}" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as pool:
        made = list(pool.map(lambda name: clients.add(project, ENGINE, name, None), names))
    found = load(project, ENGINE).topology.state.clients
    assert sorted(client.name for client in found) == sorted(names)
    assert len({client.address for client in made}) == len(names)


def test_keys_outside_of_the_clients_folders_are_nobodys(project: Project) -> None:
    clients.add(project, ENGINE, "phone", None)
    with pytest.raises(ChainError, match="no such client"):
        clients.remove(project, ENGINE, "../entry_private_key")
    clients.forget(project, ENGINE, "../entry_private_key")
    assert project.entry_key.exists()

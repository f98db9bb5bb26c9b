from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chain.api.load import (
    alone,
    check_secrets,
    check_secrets_of,
    crowding,
    keep,
    load,
    load_running,
    problem_with_secret,
)
from chain.api.project import Project, make_folder, write_atomic
from chain.engine.connection import Engine
from chain.engine.images import PACKAGE
from chain.errors import ChainError, ExitCode

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = Engine()
SECRETS_EXAMPLE = PACKAGE.parent / "secrets.example"
ROLES = ("vpn_server_ip", "vpn_ipsec_psk", "vpn_username", "vpn_password")
KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
TWO = "entry: {endpoint: vpn.example.org}\nexits:\n  paris: {kind: l2tp}\n  oslo: {kind: l2tp}\n"


def write(project: Project, *names: str, value: str = "value\n") -> None:
    project.secrets.mkdir(exist_ok=True)
    for name in names:
        file = project.secrets / name
        file.write_text(value)
        file.chmod(0o600)


def paths(project: Project) -> dict[str, str]:
    return {
        f"{exit_.name} {secret.role}": secret.path
        for exit_ in load(project, ENGINE).topology.exits
        for secret in exit_.secrets
    }


def test_the_plain_name_serves_where_only_one_exit_could_mean_it(project: Project) -> None:
    write(project, *ROLES)
    assert set(paths(project).values()) == {f"secrets/{role}" for role in ROLES}


def test_the_exits_own_name_goes_before_the_plain_one(project: Project) -> None:
    write(project, *ROLES, "paris_vpn_password")
    assert paths(project)["paris vpn_password"] == "secrets/paris_vpn_password"
    assert paths(project)["paris vpn_username"] == "secrets/vpn_username"


def test_with_two_exits_the_plain_name_serves_none(project: Project) -> None:
    project.file.write_text(TWO)
    write(project, *ROLES)
    assert paths(project)["paris vpn_password"] == "secrets/paris_vpn_password"
    assert paths(project)["oslo vpn_password"] == "secrets/oslo_vpn_password"


def test_what_was_brought_up_is_meant_while_chain_yaml_is_wrong(project: Project) -> None:
    make_folder(project.run, 0o700)
    project.file.write_text(TWO)
    loaded, problems = load_running(project, ENGINE)
    assert (list(loaded.config.exits), problems) == (["paris", "oslo"], [])
    keep(loaded)
    assert project.kept.stat().st_mode & 0o777 == 0o600
    assert (loaded.kept, load_running(project, ENGINE)[0].kept) == (False, False)
    project.file.write_text(TWO.replace("l2tp", "l2pt"))
    kept, problems = load_running(project, ENGINE)
    assert kept.topology.state == loaded.topology.state
    assert kept.kept
    assert "chain.yaml:3" in problems[0].where
    assert problems[-1].what == "it can't be used as it is; what was in force before is meant instead"
    for spoilt in (b"of another version: 1\n", b"\xff\xfe"):
        project.kept.write_bytes(spoilt)
        with pytest.raises(ChainError, match="l2pt"):
            load_running(project, ENGINE)
    keep(loaded)  # whatever is there
    assert load_running(project, ENGINE)[0].kept
    project.kept.unlink()
    with pytest.raises(ChainError, match="l2pt"):
        load_running(project, ENGINE)


def test_what_was_brought_up_from_another_file_is_not_meant(project: Project) -> None:
    make_folder(project.run, 0o700)
    keep(load(project, ENGINE))
    other = Project(project.file.with_name("other.yaml"))
    assert other.run == project.run
    with pytest.raises(ChainError, match="no such file"):
        load_running(other, ENGINE)
    other.file.write_text("exits: [")
    with pytest.raises(ChainError, match=r"other\.yaml"):
        load_running(other, ENGINE)
    project.file.unlink()  # it is not half edited: it is gone
    with pytest.raises(ChainError, match="no such file"):
        load_running(project, ENGINE)


def test_what_is_wrong_in_a_document_is_told_with_its_line(project: Project) -> None:
    project.file.write_text("entry: {endpoint: vpn.example.org}\nexits:\n  rome: {kind: openvpn}\n")
    write(project, "ovpn_username", "ovpn_password")
    write(project, "ovpn_config", value="client\nup /bin/hunter2\n")
    with pytest.raises(ChainError) as refused:
        check_secrets(load(project, ENGINE))
    said = [(problem.where, problem.what) for problem in refused.value.problems]
    file = str(project.secrets / "ovpn_config")
    about = "(exit rome: the provider's .ovpn file)"
    assert (f"{file}:2", f"`up` is refused: it runs a program {about}") in said
    assert (file, f"it names no server that can be reached {about}") in said
    assert "hunter2" not in str(said)


def test_a_named_file_is_that_file(project: Project) -> None:
    project.file.write_text(TWO.replace("oslo: {kind: l2tp", "oslo: {kind: l2tp, password: {file: secrets/x}"))
    write(project, *ROLES)
    assert paths(project)["oslo vpn_password"] == "secrets/x"


def test_all_that_is_wrong_with_secrets_is_said_at_once(project: Project) -> None:
    write(project, "vpn_server_ip", "vpn_password")
    write(project, "vpn_username", value="CHANGE-ME\n")
    (project.secrets / "vpn_password").chmod(0o644)
    with pytest.raises(ChainError) as refused:
        check_secrets(load(project, ENGINE))
    assert refused.value.code is ExitCode.CONFIG
    root = f"{project.root}/secrets"
    assert [str(problem).splitlines()[0] for problem in refused.value.problems] == [
        f"{root}/paris_vpn_ipsec_psk: this secret's file is missing (exit paris: the IPsec pre-shared key)",
        f"{root}/vpn_username: this secret still says CHANGE-ME (exit paris: the user name)",
        f"{root}/vpn_password: everybody on this machine has access to this secret (exit paris: the password)",
    ]


CLIENT = "clients:\n  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}\n"


def test_a_client_without_the_key_that_it_shares_with_the_entry_is_found(project: Project) -> None:
    write(project, *ROLES)
    project.file.write_text(project.file.read_text() + CLIENT)
    with pytest.raises(ChainError, match=r"secrets/peers/phone: this secret's file is missing \(client phone: the key"):
        check_secrets(load(project, ENGINE))
    project.peer_keys.mkdir()
    write_atomic(project.peer_keys / "phone", "no key\n", 0o600)
    with pytest.raises(ChainError, match="this is no WireGuard key"):
        check_secrets(load(project, ENGINE))
    write_atomic(project.peer_keys / "phone", KEY, 0o600)
    with pytest.raises(ChainError, match="the entry's key is missing, for which"):
        check_secrets(load(project, ENGINE))
    write_atomic(project.entry_key, KEY, 0o600)
    check_secrets(load(project, ENGINE))


def test_the_url_of_a_hook_is_a_secret_like_others(project: Project) -> None:
    write(project, *ROLES)
    names = ("missing", "open", "no_url", "good")
    hooks = "".join(f"  - webhook: {{file: secrets/{name}}}\n" for name in names)
    project.file.write_text(f"{project.file.read_text()}hooks:\n  - command: [none]\n{hooks}")
    write(project, "open", "good", value="https://hooks.example.org/T0K3N\n")
    write(project, "no_url", value="hooks.example.org/T0K3N\n")
    (project.secrets / "open").chmod(0o644)
    with pytest.raises(ChainError) as refused:
        check_secrets(load(project, ENGINE))
    root = f"{project.root}/secrets"
    assert "T0K3N" not in str(refused.value)
    assert [str(problem).splitlines()[0] for problem in refused.value.problems] == [
        f"{root}/missing: this secret's file is missing (hook 2: the URL that it posts to)",
        f"{root}/open: everybody on this machine has access to this secret (hook 3: the URL that it posts to)",
        f"{root}/no_url: this is no URL of http or https (hook 4: the URL that it posts to)",
    ]


def test_keys_that_chain_made_and_folders_are_not_for_everybody(project: Project) -> None:
    write(project, *ROLES)
    write_atomic(project.entry_key, KEY, 0o644)
    project.client_keys.mkdir()
    write_atomic(project.client_keys / "former", KEY, 0o604)
    project.secrets.chmod(0o777)
    with pytest.raises(ChainError) as refused:
        check_secrets(load(project, ENGINE))
    assert [problem.what for problem in refused.value.problems] == [
        "everybody on this machine has access to this secret",
        "everybody on this machine has access to this secret",
        "everybody on this machine can write to this folder of secrets",
    ]


def test_plain_names_that_no_longer_do_are_said_to_be_there(project: Project) -> None:
    write(project, *ROLES)
    project.file.write_text(project.file.read_text().replace("exits:\n", "exits:\n  rome: {kind: l2tp}\n"))
    with pytest.raises(ChainError, match="secrets/vpn_password is there, but more than one exit has such a secret"):
        check_secrets(load(project, ENGINE))


def test_what_a_daemon_would_not_take_is_refused(project: Project) -> None:
    write(project, *ROLES)
    write_atomic(project.secrets / "vpn_password", "x" * 256, 0o600)
    write_atomic(project.secrets / "vpn_ipsec_psk", "ö" * 513, 0o600)
    with pytest.raises(ChainError) as refused:
        check_secrets(load(project, ENGINE))
    assert [problem.what.partition(" (")[0] for problem in refused.value.problems] == [
        "this secret is longer than 1024 bytes",
        "this secret is longer than 255 bytes",
    ]


@pytest.mark.parametrize("text", ["not a host!", "198.51.100.7:1701", "2001:db8::1", "http://vpn.example.org"])
def test_a_servers_name_is_one(project: Project, text: str) -> None:
    write(project, *ROLES)
    write_atomic(project.secrets / "vpn_server_ip", f"{text}\n", 0o600)
    with pytest.raises(ChainError, match="this is no server's name or address") as refused:
        check_secrets(load(project, ENGINE))
    assert text not in str(refused.value)
    write_atomic(project.secrets / "vpn_server_ip", " vpn.example.org\n", 0o600)
    check_secrets(load(project, ENGINE))


def test_complete_secrets_are_no_problem(project: Project) -> None:
    write(project, *ROLES)
    check_secrets(load(project, ENGINE))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o660])
def test_a_secret_may_be_open_to_its_group(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "password"
    file.write_text("value")
    file.chmod(mode)
    assert problem_with_secret(file) is None


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o777])
def test_a_secret_may_not_be_open_to_everybody(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "password"
    file.write_text("value")
    file.chmod(mode)
    problem = problem_with_secret(file)
    assert problem is not None
    assert problem.hint == f"chmod 600 {file}, or 640 where its group is to read it too"


def test_every_example_of_a_secret_is_refused() -> None:
    examples = [path for path in SECRETS_EXAMPLE.iterdir() if path.name in ROLES]
    assert len(examples) == len(ROLES)
    for example in examples:
        problem = problem_with_secret(example)
        assert problem is not None
        assert "CHANGE-ME" in problem.what


def test_an_exit_by_itself_has_the_secrets_that_it_has_in_the_chain(project: Project) -> None:
    project.file.write_text(TWO)
    write(project, *ROLES, *(f"paris_{role}" for role in ROLES))
    loaded = load(project, ENGINE)
    made = alone(loaded, ENGINE, "paris", ())
    (paris,) = made.topology.exits
    assert paris.secrets == loaded.topology.exits[0].secrets
    assert made.project.run == project.run / "test"
    assert list(made.images) == ["exit-l2tp"]
    assert made.examiner == made.images["exit-l2tp"].name
    assert loaded.examiner == loaded.images["entry"].name
    check_secrets_of(loaded, ("paris",))
    with pytest.raises(ChainError, match="but more than one exit has such a secret") as refused:
        check_secrets_of(loaded, ("oslo",))
    assert len(refused.value.problems) == len(ROLES)


def test_the_servers_of_exits_that_crowd_are_found_in_secrets_too(project: Project) -> None:
    project.file.write_text(TWO.replace("oslo: {kind: l2tp", "oslo: {kind: l2tp, server: a.example.com"))
    assert crowding(project, load(project, ENGINE).config) == {"oslo": "a.example.com"}
    write(project, "paris_vpn_server_ip", value="b.example.com\n")
    assert crowding(project, load(project, ENGINE).config) == {"paris": "b.example.com", "oslo": "a.example.com"}

from __future__ import annotations

import io
import json
import os
import pty
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from chain.api import importing
from chain.api.importing import Outcome, Source
from chain.config import loader
from chain.errors import ChainError, ExitCode
from chain.exits import SETTINGS
from chain.imports import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from chain.api.project import Project

KEY = "aEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEs="
WIREGUARD = (
    f"[Interface]\nPrivateKey = {KEY}\nAddress = 10.9.0.2/32\nListenPort = 7\n"
    f"[Peer]\nPublicKey = {KEY}\nAllowedIPs = 0.0.0.0/0\nEndpoint = vpn.example.com:51820\n"
)
LINK = "trojan://hunter2@vpn.example.com:443#tokyo"
OTHER = "trojan://hunter3@vpn.example.com:443#osaka"
L2TP = "Server: l2tp.example.com\nPSK: hunter2\nUser: ann\nPassword: hunter3\n"


COMMENTED = "# Ours.\nentry: {endpoint: vpn.example.org}  # here\nexits:\n  # first\n  paris: {kind: l2tp}\n"


def add(
    project: Project,
    text: str,
    name: str = "oslo",
    *,
    pick: str | None = None,
    ask: Callable[[str, str], str] | None = None,
    dry_run: bool = False,
) -> Outcome:
    return importing.add(project, name, Source("a.conf", text.encode()), pick=pick, ask=ask, dry_run=dry_run)


def files(project: Project) -> dict[str, str]:
    return {
        str(path.relative_to(project.root)): path.read_text()
        for path in sorted(project.root.rglob("*"))
        if path.is_file()
    }


def refused(project: Project, text: str, name: str = "oslo", pick: str | None = None) -> ChainError:
    """Check that it is refused and nothing touched."""
    before = files(project)
    with pytest.raises(ChainError) as caught:
        add(project, text, name, pick=pick)
    assert caught.value.code == ExitCode.CONFIG
    assert files(project) == before
    assert "hunter" not in f"{caught.value}{caught.value.detail}"
    return caught.value


def test_an_exit_is_written_with_its_secrets_and_comments_stay(project: Project) -> None:
    project.file.write_text(
        "# Ours.\nentry: {endpoint: vpn.example.org}  # here\nexits:\n  # first\n  paris: {kind: l2tp}\n"
    )
    done = add(project, WIREGUARD)
    text = project.file.read_text()
    assert text.startswith(
        "# Ours.\nentry: {endpoint: vpn.example.org}  # here\nexits:\n  # first\n  paris: {kind: l2tp}\n  oslo:\n"
    )
    assert list(loader.load(project.file, SETTINGS).exits) == ["paris", "oslo"]
    secret = project.secrets / "oslo_wg_private_key"
    assert secret.read_text() == f"{KEY}\n"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert project.secrets.stat().st_mode & 0o777 == 0o700
    assert done.groups == {"oslo": ("default",)}
    assert [problem.where for problem in done.warnings] == ["line 4"]


def test_the_first_exit_of_a_chain_may_come_so(project: Project) -> None:
    project.file.write_text("entry: {endpoint: vpn.example.org}\n")
    add(project, LINK)
    assert list(loader.load(project.file, SETTINGS).exits) == ["oslo"]


def test_a_dry_run_touches_nothing_and_says_all(project: Project) -> None:
    before = files(project)
    done = add(project, L2TP.replace("Password: hunter3\n", ""), dry_run=True)
    assert files(project) == before
    (exit_,) = done.exits
    assert exit_.lines() == ["oslo:", "  kind: l2tp", "  server: l2tp.example.com"]
    public = exit_.public()
    assert public["secrets"] == [
        {"role": "vpn_ipsec_psk", "file": "secrets/oslo_vpn_ipsec_psk", "given": True, "value": "***"},
        {"role": "vpn_username", "file": "secrets/oslo_vpn_username", "given": True, "value": "***"},
        {"role": "vpn_password", "file": "secrets/oslo_vpn_password", "given": False},
    ]
    assert "hunter" not in json.dumps(public)
    assert "hunter" not in repr(done)


def test_what_is_left_out_is_asked_for(project: Project) -> None:
    asked = []

    def ask(name: str, about: str) -> str:
        asked.append((name, about))
        return "hunter4 "

    add(project, L2TP.replace("Password: hunter3\n", ""), ask=ask)
    assert asked == [("oslo", "the password")]
    assert (project.secrets / "oslo_vpn_password").read_text() == "hunter4 \n"


def test_where_nobody_can_be_asked_the_file_is_named_and_then_used(project: Project) -> None:
    text = L2TP.replace("Password: hunter3\n", "")
    error = refused(project, text)
    assert [problem.where for problem in error.problems] == ["secrets/oslo_vpn_password"]
    project.secrets.mkdir(mode=0o700)
    (project.secrets / "oslo_vpn_password").write_text("hunter4\n")
    done = add(project, text)
    assert [problem.where for problem in done.warnings] == ["secrets/oslo_vpn_password"]
    assert (project.secrets / "oslo_vpn_password").read_text() == "hunter4\n"


def test_an_answer_that_would_not_arrive_is_refused(project: Project) -> None:
    with pytest.raises(ChainError, match="longer than 255 bytes"):
        add(project, L2TP.replace("Password: hunter3\n", ""), ask=lambda *_: "x" * 256)
    assert not project.secrets.exists()


def test_an_exit_does_not_take_the_place_of_a_group(project: Project) -> None:
    groups = "groups: {default: {exits: [fast]}, fast: {exits: [paris]}}\n"
    project.file.write_text("entry: {endpoint: vpn.example.org}\nexits: {paris: {kind: l2tp}}\n" + groups)
    assert "exits.fast: a group is called so" in str(refused(project, WIREGUARD, "fast"))
    assert add(project, WIREGUARD).groups == {"oslo": ()}


def test_no_exit_and_no_secret_is_overwritten(project: Project) -> None:
    assert "this exit exists" in str(refused(project, WIREGUARD, "paris"))
    project.secrets.mkdir(mode=0o700)
    secret = project.secrets / "oslo_wg_private_key"
    secret.write_text("hunter9\n")
    assert "is there already, with another value" in str(refused(project, WIREGUARD))
    secret.unlink()
    secret.symlink_to("nowhere")
    assert "is there already" in str(refused(project, WIREGUARD))


def test_a_secret_that_an_interrupted_call_left_is_no_obstacle(project: Project) -> None:
    project.secrets.mkdir(mode=0o700)
    (project.secrets / "oslo_wg_private_key").write_text(f"{KEY}\n")
    add(project, WIREGUARD)
    assert "oslo" in loader.load(project.file, SETTINGS).exits


@pytest.mark.parametrize("name", ["Oslo", "1", "a" * 25, "../x", ""])
def test_names_are_names(project: Project, name: str) -> None:
    assert "no name for an exit" in str(refused(project, WIREGUARD, name))


def test_what_was_wrong_before_is_told_with_its_own_line(project: Project) -> None:
    project.file.write_text("entry: {endpoint: vpn.example.org}\nexits:\n  paris: {kind: l2tp}\ndns: {upstream: []}\n")
    assert str(project.file) + ":4: dns.upstream: unknown key" in str(refused(project, WIREGUARD))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("entry:\n\tendpoint: x\n", ":2: not valid YAML"),
        ("exits: " + "[" * 5000, "too deeply nested"),
        ("a: &a [*a]\n", ":1: aliases are not read here"),
        ("a: 1\na: 2\n", ":2: the key 'a' stands twice"),
        ("", "the file holds no mapping"),
    ],
)
def test_a_file_that_is_no_configuration_is_not_edited(project: Project, text: str, words: str) -> None:
    project.file.write_text(text)
    problem = str(refused(project, WIREGUARD))
    assert problem.startswith(str(project.file))
    assert words in problem


def test_an_exit_that_relies_on_plain_names_keeps_its_secrets(project: Project) -> None:
    project.secrets.mkdir(mode=0o700)
    for role in ("vpn_server_ip", "vpn_ipsec_psk", "vpn_username", "vpn_password"):
        (project.secrets / role).write_text("hunter5\n")
    error = refused(project, L2TP)
    assert [problem.hint for problem in error.problems] == [
        f"mv secrets/{role} secrets/paris_{role}" for role in ("vpn_ipsec_psk", "vpn_username", "vpn_password")
    ]
    add(project, WIREGUARD)  # which has no such secrets


def test_a_plain_name_serves_the_only_exit_of_its_kind(project: Project) -> None:
    project.secrets.mkdir(mode=0o700)
    (project.secrets / "wg_private_key").write_text(f"{KEY}\n")
    done = add(project, WIREGUARD.replace(f"PrivateKey = {KEY}", "PrivateKey ="))
    assert [problem.where for problem in done.warnings] == ["line 4", "secrets/wg_private_key"]


BUNDLE = f"{LINK}\nhysteria2://hunter2@vpn.example.com:443#no\n{OTHER}\n{LINK.replace('hunter2', 'hunter6')}\n"


def test_of_several_one_has_to_be_picked(project: Project) -> None:
    error = refused(project, BUNDLE)
    assert error.problems[0].what == "it holds 4 exits"
    assert error.detail.splitlines() == [
        "   1  tokyo",
        "   2  can't be taken: this is a link for Hysteria, which is not read",
        "   3  osaka",
        "   4  tokyo",
    ]


@pytest.mark.parametrize(
    ("pick", "secret"), [("1", "hunter2"), ("osaka", "hunter3"), (" osaka ", "hunter3"), ("4", "hunter6")]
)
def test_one_is_picked_by_number_or_name(project: Project, pick: str, secret: str) -> None:
    add(project, BUNDLE, pick=pick)
    assert (project.secrets / "oslo_xray_password").read_text() == f"{secret}\n"


@pytest.mark.parametrize(
    ("pick", "words"),
    [
        ("tokyo", "2 of them are called so: numbers 1, 4"),
        ("5", "none is called so"),
        ("2", "Hysteria"),
        (" ", "none is called so"),
    ],
)
def test_a_pick_has_to_be_one(project: Project, pick: str, words: str) -> None:
    assert words in str(refused(project, BUNDLE, pick=pick))


def test_all_are_taken_that_can_be_under_their_numbers(project: Project) -> None:
    done = add(project, BUNDLE, pick="all")
    assert [exit_.name for exit_ in done.exits] == ["oslo-1", "oslo-3", "oslo-4"]
    assert [problem.where for problem in done.left] == ["a.conf: number 2: the link"]
    assert list(yaml.safe_load(project.file.read_text())["exits"]) == ["paris", "oslo-1", "oslo-3", "oslo-4"]
    assert (project.secrets / "oslo-4_xray_password").read_text() == "hunter6\n"
    assert "too long" in str(refused(project, BUNDLE, "a" * 23, pick="all"))
    assert "Hysteria" in str(refused(project, BUNDLE.splitlines()[1] + "\n" + BUNDLE.splitlines()[1], "b", pick="all"))


def test_one_alone_needs_no_pick_and_may_have_one(project: Project) -> None:
    add(project, LINK, "a", pick="all")
    add(project, LINK, "b", pick="1")
    add(project, LINK, "c", pick="tokyo")
    assert "none is called so" in str(refused(project, LINK, "d", pick="osaka"))


def test_two_at_one_server_are_warned_of(project: Project) -> None:
    add(project, L2TP, "rome")
    done = add(project, L2TP.replace("l2tp.example.com", "L2TP.example.com."), "oslo")
    (warning,) = done.warnings
    assert "exits rome and oslo dial one server" in warning.what
    assert add(project, L2TP.replace("l2tp.", "l2tp2."), "bern").warnings == ()


def test_an_exit_that_is_there_already_is_warned_of(project: Project) -> None:
    assert add(project, LINK, "rome").warnings == ()
    (warning,) = add(project, LINK, "oslo").warnings
    assert (warning.where, "the same as exit rome" in warning.what) == ("exits.oslo", True)
    assert add(project, OTHER, "bern").warnings == ()  # another password
    assert add(project, LINK.replace("443", "444"), "wien").warnings == ()
    done = add(project, f"{LINK}\n{OTHER}\n{OTHER.replace('osaka', 'kobe')}\n", "x", pick="all", dry_run=True)
    assert [warning.where for warning in done.warnings] == ["exits.x-1", "exits.x-2", "exits.x-3"]


def take(source: str, standard_input: BinaryIO) -> Source:
    return importing.take(source, standard_input, secrets=Path("secrets"))


def test_a_file_a_link_and_standard_input_are_taken(project: Project) -> None:
    path = project.root / "a.conf"
    path.write_bytes(b"\xffx")
    assert take(str(path), io.BytesIO()).data == b"\xffx"
    assert take(LINK, io.BytesIO()).data == LINK.encode()
    assert take(f" {LINK}", io.BytesIO()).data == f" {LINK}".encode()  # as it is pasted
    assert take("-", io.BytesIO(b"abc")).data == b"abc"
    assert len(take("-", io.BytesIO(b"x" * 2 * MOST_BYTES)).data) == MOST_BYTES + 1
    assert "hunter2" not in repr(take(LINK, io.BytesIO()))


def test_a_line_that_a_terminal_cuts_short_is_noticed() -> None:
    ours, terminal = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as keys, os.fdopen(terminal, "rb") as read:
        keys.write(LINK.encode() + b"\n\x04")
        assert take("-", read).data == LINK.encode() + b"\n"
        with ThreadPoolExecutor(1) as pool:
            typing = pool.submit(keys.write, b"x" * 5000 + b"\n\x04")
            with pytest.raises(ChainError, match="has cut a long line short"):
                take("-", read)
            typing.result()


def test_what_is_no_file_is_refused_without_being_repeated(project: Project) -> None:
    os.mkfifo(project.root / "pipe")
    (project.root / "large").write_bytes(b"x" * (MOST_BYTES + 1))
    for name, words in (
        ("hunter2", "no such file"),
        (".", "a directory"),
        ("pipe", "no regular"),
        ("large", "larger"),
    ):
        path = Path(name) if name == "hunter2" else project.root / name
        with pytest.raises(ChainError, match=f"(?i){words}") as caught:
            take(str(path), io.BytesIO())
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ChainError, match="can't be read"):
        take("a\0b", io.BytesIO())


STATIC = "-----BEGIN OpenVPN Static key V1-----\nhunter4\n-----END OpenVPN Static key V1-----"
OVPN = (
    "client\nremote vpn.example.com 1194\nauth-user-pass login.txt\ntls-auth ta.key 1\nverb 3\n"
    f"remote-cert-tls server\npeer-fingerprint {':'.join(['AB'] * 32)}\n"
)


@pytest.fixture
def provider(tmp_path: Path) -> Path:
    """Give a folder with an .ovpn file in it, and what it names."""
    folder = tmp_path / "provider"
    folder.mkdir()
    (folder / "rome.ovpn").write_text(OVPN)
    (folder / "ta.key").write_text(STATIC + "\n")
    (folder / "login.txt").write_text("ann\nhunter2\n")
    return folder


def bring(
    project: Project, folder: Path, *, ask: Callable[[str, str], str] | None = None, dry_run: bool = False
) -> Outcome:
    source = importing.take(str(folder / "rome.ovpn"), io.BytesIO(), secrets=project.secrets)
    return importing.add(project, "rome", source, ask=ask, dry_run=dry_run)


def not_brought(project: Project, folder: Path) -> str:
    before = files(project)
    with pytest.raises(ChainError) as caught:
        bring(project, folder)
    assert files(project) == before
    assert caught.value.code == ExitCode.CONFIG
    assert "hunter" not in f"{caught.value}{caught.value.detail}"
    return str(caught.value)


def test_an_openvpn_file_comes_with_those_beside_it(project: Project, provider: Path) -> None:
    done = bring(project, provider)
    kept = {path.name: path for path in project.secrets.glob("rome_*")}
    assert {name: path.read_text() for name, path in kept.items()} == {
        "rome_ovpn_config": OVPN,
        "rome_ovpn_tls_auth": f"{STATIC}\n",
        "rome_ovpn_username": "ann\n",
        "rome_ovpn_password": "hunter2\n",
    }
    assert {path.stat().st_mode & 0o777 for path in kept.values()} == {0o600}
    assert loader.load(project.file, SETTINGS).exits["rome"].kind == "openvpn"
    assert [problem.where for problem in done.warnings] == ["line 3", "line 5"]


def test_a_dry_run_of_an_openvpn_file_shows_no_secret(project: Project, provider: Path) -> None:
    before = files(project)
    done = bring(project, provider, dry_run=True)
    assert files(project) == before
    (exit_,) = done.exits
    assert exit_.lines() == ["rome:", "  kind: openvpn", "  tls_auth: true"]
    public: dict[str, Any] = exit_.public()
    assert [(each["role"], each.get("value")) for each in public["secrets"]] == [
        ("ovpn_config", "***"),
        ("ovpn_tls_auth", "***"),
        ("ovpn_username", "***"),
        ("ovpn_password", "***"),
    ]
    assert "hunter" not in json.dumps(public)
    assert "hunter" not in repr(done)


def test_an_interrupted_call_goes_on_with_documents_that_are_there(project: Project, provider: Path) -> None:
    project.secrets.mkdir(mode=0o700, exist_ok=True)
    (project.secrets / "rome_ovpn_config").write_text(OVPN)
    bring(project, provider)
    (project.secrets / "rome_ovpn_config").write_text(f"{OVPN}# hunter3\n")
    text = project.file.read_text().replace("rome", "oslo")
    project.file.write_text(text)
    assert "secrets/rome_ovpn_config: this secret is there already" in not_brought(project, provider)


def test_the_same_openvpn_exit_again_is_warned_of(project: Project, provider: Path) -> None:
    bring(project, provider)
    done = importing.add(
        project, "oslo", importing.take(str(provider / "rome.ovpn"), io.BytesIO(), secrets=project.secrets)
    )
    assert "it is the same as exit rome" in "".join(map(str, done.warnings))


def test_a_login_that_is_not_there_is_asked_for(project: Project, provider: Path) -> None:
    (provider / "login.txt").unlink()
    said = not_brought(project, provider)
    assert "secrets/rome_ovpn_username: the input leaves it out: the user name (exit rome)" in said
    assert "secrets/rome_ovpn_password: the input leaves it out: the password (exit rome)" in said
    asked = []

    def ask(name: str, about: str) -> str:
        asked.append((name, about))
        return "hunter5"

    done = bring(project, provider, ask=ask)
    assert asked == [("rome", "the user name"), ("rome", "the password")]
    assert "it is not beside the input: what it would hold is asked for" in str(done.warnings[0])


def test_by_standard_input_nothing_stands_beside(project: Project, provider: Path) -> None:
    source = importing.take("-", io.BytesIO((provider / "rome.ovpn").read_bytes()), secrets=project.secrets)
    with pytest.raises(ChainError) as caught:
        importing.add(project, "rome", source)
    assert str(caught.value).startswith("standard input: line 4: `tls-auth` names a file, and nothing stands beside")
    assert "as <tls-auth>" in str(caught.value)


@pytest.mark.parametrize("way", ["above", "absolute", "link", "folder-link", "own-absolute"])
def test_nothing_is_taken_from_outside_of_the_folder(project: Project, provider: Path, way: str) -> None:
    outside = provider.parent / "outside"
    outside.mkdir()
    (outside / "ta.key").write_text(STATIC)
    (provider / "ta.key").unlink()
    (provider / "own.key").write_text(STATIC)
    name = {
        "above": "../outside/ta.key",
        "absolute": str(outside / "ta.key"),
        "link": "ta.key",
        "folder-link": "sub/ta.key",
        "own-absolute": str(provider / "own.key"),
    }[way]
    (provider / "ta.key").symlink_to(outside / "ta.key")
    (provider / "sub").symlink_to(outside)
    (provider / "rome.ovpn").write_text(OVPN.replace("ta.key", name))
    said = not_brought(project, provider)
    assert "rome.ovpn: line 4: `tls-auth` names a file, and its name leads out of the input's folder" in said
    assert "outside/" not in said


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("pipe", "it can't be read: it is no regular file"),
        ("folder", "it can't be read: Is a directory"),
        ("device", "its name leads out"),
        ("large", "it can't be read: it is larger than 262144 bytes"),
        ("loop", "it can't be read: "),
        ("missing", "it is not beside the input"),
    ],
)
def test_what_stands_beside_has_to_be_a_small_file(project: Project, provider: Path, way: str, words: str) -> None:
    path = provider / "ta.key"
    path.unlink()
    match way:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "large":
            path.write_bytes(b"x" * 300_000)
        case "loop":
            path.symlink_to("ta.key")
    assert f"line 4: `tls-auth` names a file, and {words}" in not_brought(project, provider)


@pytest.mark.parametrize("name", [".netrc", ".ssh/id", "project/secrets/id", "plain"])
def test_no_hidden_file_and_no_secret_is_taken(project: Project, name: str) -> None:
    """As where the input lies in somebody's home, or in the project."""
    folder = project.root.parent
    path = folder / name.replace("project", project.root.name)
    hidden = folder / ".netrc" if name == "plain" else path
    hidden.parent.mkdir(exist_ok=True)
    hidden.write_text("hunter6\nhunter7\n")
    if name == "plain":
        path.symlink_to(hidden)
    named = str(path.relative_to(folder))
    (folder / "rome.ovpn").write_text(OVPN.replace("login.txt", named).replace("tls-auth ta.key 1\n", ""))
    done = bring(project, folder, ask=lambda *_: "asked for")
    assert "it is hidden, or one of the chain's secrets, and no such file is taken" in str(done.warnings[0])
    assert (project.secrets / "rome_ovpn_username").read_text() == "asked for\n"


def test_links_and_folders_within_are_followed(project: Project, provider: Path) -> None:
    (provider / "keys").mkdir()
    (provider / "ta.key").rename(provider / "keys" / "seal")
    (provider / "ta.key").symlink_to("keys/seal")
    bring(project, provider)
    assert (project.secrets / "rome_ovpn_tls_auth").read_text() == f"{STATIC}\n"


def test_the_folder_may_be_the_one_of_the_command(
    project: Project, provider: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(provider)
    source = importing.take("rome.ovpn", io.BytesIO(), secrets=project.secrets)
    done = importing.add(project, "rome", source, dry_run=True)
    assert done.exits[0].imported.secrets["ovpn_tls_auth"].reveal() == STATIC

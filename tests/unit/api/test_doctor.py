from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chain.api import clients
from chain.api import doctor as module
from chain.api.doctor import OF_ENGINE, OF_HOST, doctor, of_folder, resolve
from chain.api.progress import Silent
from chain.api.project import write_atomic
from chain.checks import verdict
from chain.contract import HostFacts, HostRoute
from chain.engine.connection import Engine
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from chain.api.project import Project
    from chain.checks import Finding
    from tests.unit.api.conftest import ScriptedEngine

ROLES = ("vpn_server_ip", "vpn_ipsec_psk", "vpn_username", "vpn_password")


@pytest.fixture
def able(engine: ScriptedEngine) -> ScriptedEngine:
    """An engine on a host that can run the chain, and has the image already."""
    engine.host = HostFacts(time=1_800_000_000.0, routes=(HostRoute("172.17.0.0/16", "docker0"),), udp_ports=())
    engine.kernel = dict.fromkeys(("ppp", "l2tp", "xfrm", "esp"), True)
    return engine


@pytest.fixture(autouse=True)
def _resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests from asking the machine's resolver."""
    monkeypatch.setattr(module, "resolve", lambda _: ["1.2.3.4"])


def by_name(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.level for finding in findings}


def complete(project: Project) -> None:
    project.secrets.mkdir()
    for role in ROLES:
        file = project.secrets / role
        file.write_text("value\n")
        file.chmod(0o600)


def test_a_chain_that_can_start_has_no_failure(project: Project, able: ScriptedEngine) -> None:
    complete(project)
    found = doctor(project.file, able, Silent())
    assert [finding for finding in found if finding.level == "fail"] == []
    assert set(OF_ENGINE + OF_HOST) <= by_name(found).keys()
    assert by_name(found)["kernel"] == by_name(found)["entry.port"] == by_name(found)["entry.endpoint"] == "ok"
    assert not project.run.exists()


def test_without_an_engine_the_rest_is_examined(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    complete(project)
    found = doctor(project.file, Engine(), Silent())
    levels = by_name(found)
    assert levels["engine"] == "fail"
    assert {levels[name] for name in OF_ENGINE + OF_HOST} == {"unchecked"}
    assert levels["configuration"] == levels["secrets"] == levels["folder"] == levels["entry.endpoint"] == "ok"
    assert verdict(found) is ExitCode.ENGINE


def test_a_broken_file_leaves_the_engine_to_be_examined(project: Project, able: ScriptedEngine) -> None:
    project.file.write_text("entry: {endpoint: vpn.example.org}\nexits: {paris: {kind: nonsense}}\nodd: 1\n")
    found = doctor(project.file, able, Silent())
    assert [finding.found.partition(": ")[0] for finding in found if finding.level == "fail"] == [
        f"{project.file}:2",
        f"{project.file}:3",
    ]
    levels = by_name(found)
    assert levels["engine"] == "ok"
    assert levels["entry.port"] == levels["secrets"] == "unchecked"
    assert levels["uplink"] == "warn"  # this host has no default route
    assert verdict(found) is ExitCode.CONFIG


def test_a_folder_without_a_file_is_a_finding(
    tmp_path: Path, able: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded, found = of_folder(None, able)
    assert loaded is None
    assert (found[0].name, found[0].level) == ("configuration", "fail")


def test_secrets_and_generated_keys_that_are_open_to_all_are_found(project: Project, able: ScriptedEngine) -> None:
    complete(project)
    project.entry_key.write_text("3hSkUNaT6/OFOBQR2O6IevrHpJzR6t8xSDnCikOJbTM=\n")
    for file in (project.entry_key, project.secrets / "vpn_password"):
        file.chmod(0o644)
    _, found = of_folder(project.file, able)
    failed = [finding for finding in found if finding.level == "fail"]
    assert [finding.name for finding in failed] == ["secrets", "secrets"]
    assert {finding.fix.split()[2].rpartition("/")[2] for finding in failed} == {"vpn_password,", "entry_private_key,"}


def test_a_clients_key_that_is_missing_or_wrong_is_found_once(project: Project, able: ScriptedEngine) -> None:
    complete(project)
    clients.add(project, able, "phone", None)
    peer = project.peer_keys / "phone"
    key = peer.read_text()
    peer.unlink()
    for value, mode in (("", 0), ("no key\n", 0o600), (key, 0o644)):
        if value:
            write_atomic(peer, value, mode)
        failed = [finding for finding in of_folder(project.file, able)[1] if finding.level == "fail"]
        assert len(failed) == 1
        assert "secrets/peers/phone: " in failed[0].found


def test_old_packages_are_to_look_at(project: Project, able: ScriptedEngine) -> None:
    complete(project)
    assert by_name(doctor(project.file, able, Silent()))["packages"] == "ok"
    able.packages -= 61 * 86400
    (found,) = [each for each in doctor(project.file, able, Silent()) if each.name == "packages"]
    assert found.level == "warn"
    assert "(61 days)" in found.found
    assert "--fresh" in found.fix


def test_another_folders_chain_of_this_name_is_a_finding(project: Project, able: ScriptedEngine) -> None:
    able.runs("entry", folder="/srv/other/run")
    found = doctor(project.file, able, Silent())
    assert by_name(found)["name"] == "fail"


def test_a_host_that_can_not_be_looked_at_is_not_checked(project: Project, able: ScriptedEngine) -> None:
    able.host = None
    found = doctor(project.file, able, Silent())
    assert {by_name(found)[name] for name in OF_HOST} == {"unchecked"}
    assert by_name(found)["kernel"] == "ok"


def test_a_kernel_and_an_image_that_can_not_be_asked_are_findings(
    project: Project, able: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise ChainError(Problem("engine's host", "no"), ExitCode.ENGINE)

    monkeypatch.setattr(able, "run_check", refuse)
    assert by_name(doctor(project.file, able, Silent()))["kernel"] == "fail"
    monkeypatch.setattr(module, "build_images", refuse)
    levels = by_name(doctor(project.file, able, Silent()))
    assert levels["image"] == "fail"
    assert {levels[name] for name in OF_ENGINE + OF_HOST} == {"unchecked"}


def test_an_address_resolves_to_itself() -> None:
    assert resolve("192.0.2.7") == ["192.0.2.7"]
    assert resolve("2001:db8::7") == ["2001:db8::7"]
    assert resolve("no such name") == []


def test_what_is_left_of_a_test_of_an_exit_is_a_finding(project: Project, able: ScriptedEngine) -> None:
    complete(project)
    assert by_name(doctor(project.file, able, Silent()))["exit test"] == "ok"
    able.project = "chain-main_test"
    able.runs("exit-paris", folder=str(project.test.run))
    assert by_name(doctor(project.file, able, Silent()))["exit test"] == "warn"


def test_two_exits_at_one_server_are_warned_of(project: Project, engine: ScriptedEngine) -> None:
    exits = "  paris: {kind: l2tp, server: a.example.com}\n  oslo: {kind: l2tp, server: a.example.com}\n"
    project.file.write_text("entry: {endpoint: vpn.example.org}\nexits:\n" + exits)
    assert by_name(of_folder(project.file, engine)[1])["servers"] == "warn"

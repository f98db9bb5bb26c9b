"""Wrong configurations, and all that `chain` says about them. `make goldens` writes what is expected anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chain import cli
from chain.errors import ExitCode

if TYPE_CHECKING:
    from tests.conftest import Golden

HERE = Path(__file__).parent
INPUTS = sorted(HERE.glob("*.yaml"))


@pytest.mark.parametrize("name", [path.name for path in INPUTS])
def test_message_is_as_expected(
    name: str, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(HERE)  # so that messages name the file alone
    monkeypatch.setattr(sys, "argv", ["chain", "render", "-f", name, "-o", str(tmp_path / "out")])
    code = cli.run()
    out, err = capsys.readouterr()
    assert (code, out) == (ExitCode.CONFIG, "")
    assert "a-secret" not in err
    assert not (tmp_path / "out").exists()
    golden.check(HERE / f"{Path(name).stem}.stderr", err)


# Inputs that are not a chain.yaml alone: what is wrong with the files of a WireGuard exit's two secrets.
KEY = "aEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEs=\n"
SECRETS: dict[str, dict[str, tuple[bytes, int] | None]] = {
    "secrets-missing": {"oslo_wg_private_key": None, "oslo_wg_preshared_key": None},
    "secrets-empty": {"oslo_wg_private_key": (b"", 0o600), "oslo_wg_preshared_key": (b"\n", 0o600)},
    "secrets-world-readable": {"oslo_wg_private_key": (KEY.encode(), 0o644)},
    "secrets-placeholder": {"oslo_wg_private_key": (b"CHANGE-ME\n", 0o600)},
    "secrets-no-keys": {"oslo_wg_private_key": (b"hunter2\n", 0o600), "oslo_wg_preshared_key": (b"\xff\xfe", 0o600)},
    "secrets-lines": {"oslo_wg_private_key": (b"one\ntwo\n", 0o600)},
}
SECRETS_CONFIG = """\
entry: {endpoint: vpn.example.org}
exits:
  oslo:
    kind: wireguard
    endpoint: 192.0.2.7:51820
    public_key: aEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEt2bEs=
    address: 10.66.0.2/32
    preshared_key: true
"""


@pytest.mark.parametrize("name", SECRETS)
def test_message_about_secrets_is_as_expected(
    name: str, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")  # secrets come before the engine
    Path("chain.yaml").write_text(SECRETS_CONFIG)
    folder = Path("secrets")
    folder.mkdir(mode=0o700)
    good: dict[str, tuple[bytes, int] | None] = dict.fromkeys(
        ("oslo_wg_private_key", "oslo_wg_preshared_key"), (KEY.encode(), 0o600)
    )
    for file, content in (good | SECRETS[name]).items():
        if content:
            (folder / file).write_bytes(content[0])
            (folder / file).chmod(content[1])
    before = sorted(path for path in tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["chain", "up", "-f", "chain.yaml"])
    code = cli.run()
    out, err = capsys.readouterr()
    assert (code, out) == (ExitCode.CONFIG, "")
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert "hunter2" not in err
    golden.check(HERE / f"{name}.stderr", err.replace(str(tmp_path), "PROJECT"))


def test_a_file_of_ten_megabytes_is_not_read(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("huge.yaml").write_text("# " + "x" * 10_000_000)
    monkeypatch.setattr(sys, "argv", ["chain", "render", "-f", "huge.yaml"])
    assert cli.run() == ExitCode.CONFIG
    golden.check(HERE / "huge.stderr", capsys.readouterr().err)


def test_no_expected_message_is_left_of_an_input_that_is_gone() -> None:
    inputs = {path.stem for path in INPUTS} | set(SECRETS) | {"huge"}
    assert {path.stem for path in HERE.glob("*.stderr")} == inputs

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
    assert not (tmp_path / "out").exists()
    golden.check(HERE / f"{Path(name).stem}.stderr", err)


def test_no_expected_message_is_left_of_an_input_that_is_gone() -> None:
    assert {path.stem for path in HERE.glob("*.stderr")} == {path.stem for path in INPUTS}

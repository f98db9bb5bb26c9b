"""The tests mirror the package: whoever looks for a module's test knows its name."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "chain"
TESTS = [path.relative_to(HERE) for path in HERE.rglob("test_*.py") if path.name != Path(__file__).name]


@pytest.mark.parametrize("test", TESTS, ids=str)
def test_each_module_here_has_its_source(test: Path) -> None:
    name = test.name.removeprefix("test_")
    module = PACKAGE / test.parent / name
    package = PACKAGE / test.parent / name.removesuffix(".py") / "__init__.py"
    assert module.exists() or package.exists()

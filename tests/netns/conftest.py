from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session", autouse=True)
def machine(cannot: Callable[[str], NoReturn]) -> None:
    """Root, the two programs, and a kernel that lets namespaces be made."""
    if os.geteuid():
        cannot("network namespaces need root")
    for program in ("ip", "nft", "sysctl"):
        if shutil.which(program) is None:
            cannot(f"{program} is not installed")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        cannot("this kernel makes no network namespaces")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/netns/" in item.path.as_posix():
            item.add_marker(pytest.mark.netns)

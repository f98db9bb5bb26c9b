"""What the engine's host must offer, checked before anything is touched. The host may be another machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chain.errors import ChainError, ExitCode, Problem
from chain.exits import REGISTRY

if TYPE_CHECKING:
    from chain.api.load import Loaded
    from chain.engine.connection import Engine
    from chain.exits.base import KernelNeed


def check_kernel(loaded: Loaded, engine: Engine) -> None:
    """Ask the engine's kernel, by trying, for what the configured kinds need. Raises ChainError (ENGINE)."""
    needs: dict[str, KernelNeed] = {}
    users: dict[str, list[str]] = {}
    for exit_ in loaded.topology.exits:
        for need in REGISTRY[exit_.kind].kernel:
            needs[need.check] = need
            users.setdefault(need.check, []).append(exit_.name)
    if not needs:
        return
    output = engine.run_check(loaded.images["entry"].name, ["check-kernel", *needs])
    found = json.loads(output)
    problems = [
        Problem(
            f"exit {', '.join(users[name])}",
            f"the kernel of the engine's host lacks {need.why}",
            f"there: `modprobe -a {' '.join(need.modules)}`; where modprobe does not find them, install the"
            " distribution's full kernel (Debian: linux-image-amd64, not the cloud one; Ubuntu:"
            " linux-modules-extra-$(uname -r)); to load them at boot, write them to /etc/modules-load.d/chain.conf",
        )
        for name, need in needs.items()
        if not found.get(name)
    ]
    if problems:
        raise ChainError(problems, ExitCode.ENGINE)

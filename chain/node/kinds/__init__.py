"""What each kind of exit does inside its container."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.contract import SECRETS_DIR
from chain.secret import read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import ExitSettings
    from chain.node.kinds.base import Kind
    from chain.secret import Secret


def create(settings: ExitSettings, secrets: Mapping[str, Secret]) -> Kind:
    """Load one kind by its name; an image carries only what its own kind needs."""
    kind: Kind = _module(settings).create(settings, secrets)
    return kind


def read_secrets(settings: ExitSettings) -> dict[str, Secret]:
    """Read an exit's secrets, by role; a kind names those with many lines in `DOCUMENTS`. Raises ChainError."""
    documents = getattr(_module(settings), "DOCUMENTS", ())
    return {
        role: read_secret(Path(SECRETS_DIR, name), document=role in documents)
        for role, name in settings.secrets.items()
    }


def _module(settings: ExitSettings) -> Any:
    return importlib.import_module(f"chain.node.kinds.{settings.kind}")

"""What each kind of exit does inside its container."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import ExitSettings
    from chain.node.kinds.base import Kind
    from chain.secret import Secret


def create(settings: ExitSettings, secrets: Mapping[str, Secret]) -> Kind:
    """Load one kind by its name; an image carries only what its own kind needs."""
    module = importlib.import_module(f"chain.node.kinds.{settings.kind}")
    kind: Kind = module.create(settings, secrets)
    return kind

"""Names that a shell completes: from chain.yaml alone, in a moment, and silent on errors, since a key was pressed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from chain.api.project import locate

if TYPE_CHECKING:
    from pathlib import Path


def clients(file: Path | None) -> list[str]:
    return _keys(file, "clients")


def groups(file: Path | None) -> list[str]:
    return _keys(file, "groups") or ["default"]


def exits(file: Path | None) -> list[str]:
    return _keys(file, "exits")


def services(file: Path | None) -> list[str]:
    return ["entry", *(f"exit-{name}" for name in _keys(file, "exits"))]


def _keys(file: Path | None, section: str) -> list[str]:
    """List a section's keys. The models stay out of it: loading them takes longer than the rest."""
    with contextlib.suppress(Exception):  # no file, no YAML, no mapping: whatever is wrong, nothing can be completed
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        root: Any = yaml.compose(locate(file).file.read_text(encoding="utf-8"), loader)
        return [key.value for name, value in root.value if name.value == section for key, _ in value.value]
    return []

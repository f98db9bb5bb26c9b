"""What happens, told to the supervisor, which keeps it for those who ask."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection


def tell(event: str, **fields: Any) -> None:
    _say({"event": {"time": round(time.time(), 3), "event": event, **fields}})


def tell_needed(exits: Collection[str]) -> None:
    """Name the cold exits that have to be connected."""
    _say({"needed": sorted(exits)})


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()

"""What happens, told to the supervisor, which keeps it for those who ask."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def tell(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": {"time": round(time.time(), 3), "event": event, **fields}}) + "\n")
    sys.stdout.flush()

"""The agent's image has Debian's pyroute2; newer ones refuse to work in a thread that runs an event loop.

Python imports this by itself at its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyroute2

if TYPE_CHECKING:
    from collections.abc import Callable

IPRoute = pyroute2.IPRoute


class Apart:
    """The same, in a thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._own = self._thread.submit(IPRoute).result()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **fields: Any) -> Any:
            found = getattr(self._own, name)(*arguments, **fields)
            return list(found) if isinstance(found, Iterator) else found

        return lambda *arguments, **fields: self._thread.submit(call, *arguments, **fields).result()


pyroute2.IPRoute = Apart

"""`chain` and `python -m chain`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    try:
        from chain.cli import run
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)  # as later on, when all is loaded
    sys.exit(run())


if __name__ == "__main__":
    main()

"""`chain` and `python -m chain`."""

from __future__ import annotations

import sys


def main() -> None:
    from chain.cli import run

    sys.exit(run())


if __name__ == "__main__":
    main()

"""A hostile provider: pushes packets nobody asked for into a tunnel. `push.py TOKEN RATE SECONDS ADDRESS…`."""

from __future__ import annotations

import contextlib
import socket
import sys
import time


def main() -> None:
    token, rate, seconds, *targets = sys.argv[1:]
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end, number = time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        for target in targets:
            # Refused or unreachable at the moment: the tunnel may be on its way back.
            with contextlib.suppress(OSError):
                channel.sendto(f"{token} pushed {number}".encode(), (target, 40000 + number % 1000))
        number += 1
        time.sleep(1 / float(rate))


if __name__ == "__main__":
    main()

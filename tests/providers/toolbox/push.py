"""A hostile provider: pushes packets nobody asked for into a tunnel. `push.py TOKEN RATE ADDRESS…`.

Says `ready`, and ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys


def astray(target: str) -> bool:
    """Tell whether a packet would follow the default route: a provider that has just started has no other one yet."""
    found = subprocess.run(["ip", "-json", "route", "get", target], capture_output=True, check=False)
    return not found.returncode and "gateway" in json.loads(found.stdout)[0]


def main() -> None:
    token, rate, *targets = sys.argv[1:]
    while any(astray(target) for target in targets):
        if select.select([sys.stdin], [], [], 0.05)[0]:
            return
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    number = 0
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], 1 / float(rate))[0]:
        for target in targets:
            # Refused or unreachable at the moment: the tunnel may be on its way back.
            with contextlib.suppress(OSError):
                channel.sendto(f"{token} pushed {number}".encode(), (target, 40000 + number % 1000))
        number += 1


if __name__ == "__main__":
    main()

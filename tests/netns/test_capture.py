"""The leak tests' own eye: whatever it has not looked at, it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.netns.ground import ROOT, Namespace, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "tok0123456789abcdef"
SEND = """\
import socket, sys
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[1])):
    channel.sendto(b"noise", ("127.0.0.1", 9))
channel.sendto(sys.argv[2].encode(), ("127.0.0.1", 9))
"""
SILENT = "table inet quiet { chain i { type filter hook input priority 0; udp dport 9 drop; }; }"


@contextmanager
def halted(place: Namespace, output: Path) -> Iterator[dict[str, Any]]:
    """Capture, halted while the block runs, and told to end before it goes on; the result is filled in afterwards."""
    program = ROOT / "tests" / "providers" / "toolbox" / "capture.py"
    command = ("ip", "netns", "exec", place.name, sys.executable, program, TOKEN, output)
    found: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        yield found
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGCONT)
        eventually(lambda: process.poll() is not None, "the capture has ended", 60)
    found.update(json.loads(output.read_text()))


def test_what_the_kernel_kept_is_looked_at_to_its_end(tmp_path: Path) -> None:
    with Namespace("capture") as place:
        place.nft(SILENT)
        with halted(place, tmp_path / "found.json") as found:
            place.python(SEND, "20000", TOKEN)
    assert found["dropped"] == 0
    assert found["packets"] > 20000
    assert found["seen"] == {"lo": 2}  # out of it, and into it


def test_what_was_too_much_to_keep_is_counted(tmp_path: Path) -> None:
    with Namespace("capture") as place:
        place.nft(SILENT)
        with halted(place, tmp_path / "found.json") as found:
            place.python(SEND, "200000", TOKEN)
    assert found["dropped"] > 0
    assert found["packets"] + found["dropped"] >= 2 * 200001

"""Start short-lived programs. Arguments show in process lists, so secrets go in by `stdin` only."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from typing import Any

WORST_METRIC = 4_294_967_295  # of a route that is to be the last resort


class CommandError(RuntimeError):
    """A program failed. The text holds its name and its own words, but none where its input was secret."""


def run(*command: str, stdin: str | None = None, secret: bool = False) -> str:
    """Run to the end, give its output; raises CommandError, which quotes nothing of what is `secret`."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode and secret:
        raise CommandError(f"{' '.join(command[:2])} failed; its words are withheld, since a secret may be among them")
    if done.returncode:
        raise CommandError(f"{' '.join(command[:4])}: {done.stderr.strip()}")
    return done.stdout


def succeeds(*command: str) -> bool:
    """Tell whether a program ends well; what it prints is dropped."""
    return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0


def ip_batch(lines: list[str]) -> None:
    """Give iproute2 many commands in one process; it stops at the first that fails."""
    run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")


def nft(ruleset: str) -> None:
    """Load a ruleset in one transaction: all of it or nothing."""
    run("nft", "-f", "-", stdin=ruleset)


def interfaces_by_address() -> dict[str, str]:
    """Give the interface of each IPv4 address: their names change from start to start."""
    links = json.loads(run("ip", "-json", "-4", "address", "show"))
    return {entry.get("local", ""): str(link["ifname"]) for link in links for entry in link.get("addr_info", ())}


def network_of(interface: str) -> str:
    """Give the network that an interface's first IPv4 address is in. Raises CommandError."""
    addresses = json.loads(run("ip", "-json", "-4", "address", "show", "dev", interface))[0]["addr_info"]
    if not addresses:
        raise CommandError(f"{interface} has no IPv4 address")
    return str(ipaddress.ip_interface(f"{addresses[0]['local']}/{addresses[0]['prefixlen']}").network)


def interfaces() -> list[dict[str, Any]]:
    """List all interfaces as iproute2 shows them."""
    links: list[dict[str, Any]] = json.loads(run("ip", "-json", "link", "show"))
    return links

"""WireGuard interfaces of the test ground: the kernel's, or wireguard-go's where it has none."""

import json
import subprocess
import time


def run(*command: str, stdin: str | None = None) -> str:
    return subprocess.run(command, input=stdin, check=True, text=True, stdout=subprocess.PIPE).stdout


def create(interface: str) -> None:
    if subprocess.run(
        ["ip", "link", "add", interface, "type", "wireguard"], stderr=subprocess.DEVNULL, check=False
    ).returncode:
        subprocess.Popen(["wireguard-go", interface], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while subprocess.run(
            ["wg", "show", interface], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError("wireguard-go did not start")
            time.sleep(0.02)


def interface_with(address: str) -> str:
    for link in json.loads(run("ip", "-json", "-4", "address", "show")):
        if any(entry.get("local") == address for entry in link["addr_info"]):
            return str(link["ifname"])
    raise LookupError(address)

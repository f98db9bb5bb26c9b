"""WireGuard interfaces of the test ground: the kernel's, or wireguard-go's where it has none."""

import json
import subprocess
import time
from pathlib import Path

START_SECONDS, ATTEMPTS = 20, 3


def run(*command: str, stdin: str | None = None) -> str:
    return subprocess.run(command, input=stdin, check=True, text=True, stdout=subprocess.PIPE).stdout


def create(interface: str) -> None:
    """Make the interface. Raises RuntimeError with wireguard-go's own words."""
    if not _quiet("ip", "link", "add", interface, "type", "wireguard"):
        return
    for attempt in range(ATTEMPTS):
        words = Path(f"/tmp/{interface}.log")  # no pipe: this program may end before wireguard-go does
        with words.open("w") as output:
            process = subprocess.Popen(
                ["wireguard-go", "--foreground", interface], stderr=output, stdout=output, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if not _quiet("wg", "show", interface):
                return
            time.sleep(0.02)
        code = process.poll()
        process.kill()
        process.wait()
        print(f"wireguard-go, attempt {attempt + 1}: ended with {code}: {words.read_text()}", flush=True)
    raise RuntimeError("wireguard-go did not start")


def _quiet(*command: str) -> int:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode


def interface_with(address: str) -> str:
    for link in json.loads(run("ip", "-json", "-4", "address", "show")):
        if any(entry.get("local") == address for entry in link["addr_info"]):
            return str(link["ifname"])
    raise LookupError(address)

"""Secrets stay where they belong: their own files and the memory of who needs them."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
import urllib.parse
from typing import TYPE_CHECKING

import pytest
from world import both_outputs, docker

if TYPE_CHECKING:
    from scene import Chain
    from world import World

pytestmark = pytest.mark.docker

# The mounts by which secrets come into a container. No copy may lie anywhere else, not even in memory.
MOUNTS = ("/run/secrets/", "/run/peers/")


# Where keys stand in a provider's file; a certificate may be seen by anybody.
KEYS = re.compile(r"<(key|tls-auth|tls-crypt|tls-crypt-v2)>(.*?)</\1>", re.DOTALL)


def forms(value: str) -> set[bytes]:
    """Give the ways in which a value, or each line of the keys in a file, could be written down."""
    if "\n" in value:
        lines = (line for _, block in KEYS.findall(value) for line in block.split("\n"))
        return set().union(*(forms(line) for line in lines if line and "-----" not in line))
    raws = {value.encode()}
    with contextlib.suppress(binascii.Error):
        raws.add(base64.b64decode(value, validate=True))  # a WireGuard key is base64 already
    found = set(raws)
    for raw in raws:
        found |= {raw.hex().encode(), raw.hex().upper().encode()}
        found |= {base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"=")}
        found |= {urllib.parse.quote_from_bytes(raw, safe=safe).encode() for safe in ("", "/")}
    return {form for form in found if len(form) >= 8 and b"\n" not in form and b"\0" not in form}


def all_secrets(chain: Chain) -> dict[str, str]:
    """Give every secret of the chain by its file's name. A server's address is private, not secret."""
    folder = chain.folder / "secrets"
    return {
        str(path.relative_to(folder)): path.read_text().rstrip("\n")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("_server_ip", "_username"))
    }


def found_in(text: bytes, needles: dict[str, set[bytes]]) -> list[str]:
    return [name for name, written in needles.items() if any(form in text for form in written)]


def test_no_secret_is_anywhere_but_in_its_own_file(world: World, chain: Chain) -> None:
    chain.answered()
    needles = {name: forms(value) for name, value in all_secrets(chain).items()}
    assert len(needles) >= 6  # two exits, the entry, a client
    places: dict[str, str] = {}
    names = docker("ps", "-a", "--format", "{{.Names}}", "--filter", f"name={chain.project}-").split()
    assert len(names) == 3  # entry and two exits
    pids = {}
    for name in names:
        places[f"inspect of {name}"] = docker("inspect", name)
        places[f"log of {name}"] = both_outputs(name)
        pids[name] = [line.split()[1] for line in docker("top", name, "-ef").splitlines()[1:]]
        for pid in pids[name]:
            script = f"tr '\\0' '\\n' </proc/{pid}/cmdline; tr '\\0' '\\n' </proc/{pid}/environ"
            places[f"process {pid} of {name}"] = world.exec("observer", "sh", "-c", script)
    places["networks"] = docker("network", "inspect", *docker("network", "ls", "-q").split())
    places["images"] = "".join(docker("history", "--no-trunc", image) for image in images_of(names))
    places["engine's events"] = docker("events", "--since", "30m", "--until", "0s")
    places["status"] = chain.run("status", "--json").stdout
    for path in (chain.folder / "run").rglob("*"):
        if path.is_file():
            places[f"rendered {path.name}"] = path.read_bytes().decode("latin-1")
    places["chain.yaml"] = chain.file.read_text()
    shown = {place: found_in(text.encode(), needles) for place, text in places.items()}
    assert {place: found for place, found in shown.items() if found} == {}

    # Files in the containers, seen as the host's root sees them. grep itself is shown to see: the mounts are found.
    pattern = b"\n".join(sorted({form for written in needles.values() for form in written if form.isascii()})).decode()
    for name in names:
        main = docker("inspect", "-f", "{{.State.Pid}}", name).strip()
        root = f"/proc/{main}/root"
        command = f"grep -rlaF -D skip -f - --exclude-dir=proc --exclude-dir=sys {root}/ 2>/dev/null || true"
        files = [
            line.removeprefix(root) for line in world.exec("observer", "sh", "-c", command, stdin=pattern).splitlines()
        ]
        assert any(file.startswith("/run/secrets/") for file in files), "the search sees nothing"
        assert [file for file in files if not file.startswith(MOUNTS)] == []


def images_of(containers: list[str]) -> set[str]:
    return set(docker("inspect", "-f", "{{.Config.Image}}", *containers).split())


def test_the_search_finds_what_is_there(world: World, chain: Chain) -> None:
    """The same search over a text that does hold secrets, in each form: a search that finds nothing proves nothing."""
    # The second is made of what the encodings differ in.
    for value in (all_secrets(chain)["entry_private_key"], base64.b64encode(b"\xfb\xff\xbf" * 10 + b"\0\xff").decode()):
        needles = {"key": forms(value)}
        raw = base64.b64decode(value)
        quoted = (urllib.parse.quote(value, safe=""), urllib.parse.quote(value))
        for form in (value, value.rstrip("="), raw.hex(), raw.hex().upper(), *quoted):
            assert found_in(f"key={form};".encode(), needles) == ["key"]
    assert found_in(json.dumps({"key": value}).encode(), needles) == ["key"]
    assert world.exec("observer", "sh", "-c", "grep -caF -f - /proc/self/cmdline || true", stdin=value).strip() == "0"

"""What is made of providers' files and links, given to what reads it: a real `wg`, Xray's own test, a real `openvpn`.

No chain runs for it: the exits' images are enough.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from corpus import VALUES, cases, items
from fuzz import SERVER, Fuzzer, openvpn_documents, small
from world import docker

from chain import topology
from chain.config import edit, loader
from chain.engine import images
from chain.exits import REGISTRY, SETTINGS
from chain.imports import Imported
from chain.node import wireguard
from chain.node.kinds.xray import config

if TYPE_CHECKING:
    from pathlib import Path

    from chain.contract import ExitSettings
    from chain.engine.connection import Engine

pytestmark = [pytest.mark.docker, pytest.mark.long]

MUTATIONS = 400  # of which some are taken

TRY_XRAY = """\
import json, subprocess, sys
found = {}
for name, document in json.load(sys.stdin).items():
    with open("/tmp/xray.json", "w") as file:
        json.dump(document, file)
    done = subprocess.run(["xray", "run", "-c", "/tmp/xray.json", "-test"], capture_output=True, text=True)
    found[name] = "" if done.returncode == 0 else (done.stdout + done.stderr)[-500:]
print(json.dumps(found))
"""
TRY_WG = """\
import json, subprocess, sys
def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, **more)
if run("ip", "link", "add", "vpn0", "type", "wireguard").returncode:
    run("wireguard-go", "vpn0")
found = {}
for name, text in json.load(sys.stdin).items():
    done = run("wg", "setconf", "vpn0", "/dev/stdin", input=text)
    found[name] = [done.stderr, run("wg", "showconf", "vpn0").stdout]
print(json.dumps(found))
"""
# OpenVPN reads all of its file, keys too, before it sends its first packet, which it says.
TRY_OPENVPN = """\
import json, subprocess, sys
question, found = json.load(sys.stdin), {}
with open("/tmp/pass", "w") as file:
    file.write(question["password"])
for name, text in question["texts"].items():
    with open("/tmp/openvpn.conf", "w", newline="") as file:
        file.write(text)
    run = subprocess.Popen(["openvpn", "--config", "/tmp/openvpn.conf"], stdout=subprocess.PIPE, text=True)
    said = []
    for line in run.stdout:
        said.append(line)
        if " link remote: " in line or "Attempting to establish TCP connection" in line:
            break
    else:
        said.append("it ended")
    run.kill()
    run.wait()
    found[name] = "" if said[-1] != "it ended" else "".join(said)[-500:]
print(json.dumps(found))
"""


def taken() -> dict[str, Imported]:
    """Give all that is written for the tests and is to be taken, and what is taken of its mutations."""
    inputs = {case.name: case.data for case in cases("accepted")}
    fuzzer = Fuzzer(80, small("accepted"), small("refused"))
    inputs |= {f"mutation {number}": data for number, data in enumerate(fuzzer.mutations(MUTATIONS))}
    return {
        f"{name} {number}": item.found
        for name, data in inputs.items()
        for number, item in enumerate(items(data))
        if isinstance(item.found, Imported)
    }


def rendered(imported: Imported, folder: Path) -> ExitSettings:
    """Take an exit the way that it takes to its container."""
    text = "entry: {endpoint: vpn.example.org}\n"
    text = edit.add_exits(text, {"tokyo": {"kind": imported.kind, **imported.settings}})
    built = topology.build(loader.check(folder / "chain.yaml", text, SETTINGS), REGISTRY)
    return built.exits[0].settings


def asked(image: str, script: str, question: object, *options: str) -> dict[str, Any]:
    """Ask a script inside an image."""
    name = next(iter(images.describe([image]).values())).name
    answer = docker(
        *("run", "--rm", "-i", "--network", "none", *options, "--entrypoint", "python3", name, "-c", script),
        stdin=json.dumps(question),
        timeout=600,
    )
    found: dict[str, Any] = json.loads(answer)
    return found


@pytest.fixture(scope="module", autouse=True)
def _built(engine: Engine) -> None:
    for image in images.missing(engine, images.describe(["exit-xray", "exit-wireguard", "exit-openvpn"]).values()):
        images.build(engine, image, lambda _: None)


def clamped(key: str) -> str:
    """Give a private key as every program uses and shows it (RFC 7748), which is how providers' are made."""
    raw = bytearray(base64.b64decode(key))
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return base64.b64encode(raw).decode()


def test_xray_starts_with_what_is_made_of_links(tmp_path: Path) -> None:
    documents = {
        name: config.document(
            rendered(each, tmp_path).options,
            next(iter(each.secrets.values())).reveal(),
            SERVER,
            ["9.9.9.9"],
        )
        for name, each in taken().items()
        if {"xray_id", "xray_password"} & set(each.secrets)
    }
    assert len(documents) > 60
    found = asked("exit-xray", TRY_XRAY, documents)
    assert {name: said for name, said in found.items() if said} == {}
    # It does say no: else its silence would mean nothing.
    broken = {"broken": next(iter(documents.values())) | {"outbounds": [{"protocol": "vless", "settings": {}}]}}
    assert asked("exit-xray", TRY_XRAY, broken)["broken"]


def test_wg_takes_what_is_made_of_files_and_has_the_keys_unchanged(tmp_path: Path) -> None:
    texts: dict[str, str] = {}
    for name, each in taken().items():
        if "wg_private_key" not in each.secrets:
            continue
        options = rendered(each, tmp_path).options
        shared = each.secrets["wg_preshared_key"].reveal() if "wg_preshared_key" in each.secrets else ""
        peer = wireguard.peer(
            options["public_key"], shared, ["0.0.0.0/0"], f"{SERVER}:{options['port']}", options["keepalive"]
        )
        texts[name] = wireguard.config(each.secrets["wg_private_key"].reveal(), None, 1, [peer])
    assert len(texts) > 20
    found = asked("exit-wireguard", TRY_WG, texts, "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun")
    for name, (said, shown) in found.items():
        assert said == "", name
        key = next(line for line in texts[name].splitlines() if line.startswith("PrivateKey = "))
        wanted = {line for line in texts[name].splitlines() if line and not line.startswith("FwMark")} - {key}
        assert {*wanted, f"PrivateKey = {clamped(key.removeprefix('PrivateKey = '))}"} <= set(shown.splitlines()), name


def alone(text: str) -> str:
    """Put into the file what the exit tells OpenVPN over the management interface."""
    lines = [line for line in text.split("\n") if not line.startswith(("management", "auth-user-pass"))]
    asked = "auth-user-pass" in text.split("\n")
    return "\n".join(["askpass /tmp/pass", *lines, *(["<auth-user-pass>\nu\nw\n</auth-user-pass>\n"] if asked else [])])


def test_openvpn_takes_what_is_made_of_files_and_loads_the_keys() -> None:
    texts: dict[str, str] = {}
    for case in cases("accepted"):
        for item in items(case.data):
            if isinstance(item.found, Imported) and item.found.kind == "openvpn":
                secrets = {role: value.reveal() for role, value in item.found.secrets.items()}
                for number, document in enumerate(openvpn_documents(secrets)):
                    texts[f"{case.name} {number}"] = alone(document)
    assert len(texts) > 30
    question = {"password": VALUES["PASSWORD"], "texts": texts}
    found = asked("exit-openvpn", TRY_OPENVPN, question, "--cap-add", "NET_ADMIN")
    assert found.keys() == texts.keys()
    assert {name: said for name, said in found.items() if said} == {}
    # It does say no: to a line, and to a key.
    text = next(text for text in texts.values() if "<key>" in text)
    broken = {"line": f"unheard-of x\n{text}", "key": re.sub(r"(<key>\n.*\n)....", r"\1AAAA", text)}
    found = asked("exit-openvpn", TRY_OPENVPN, question | {"texts": broken}, "--cap-add", "NET_ADMIN")
    assert "unheard-of" in found["line"]
    assert "private key" in found["key"]

"""Change what providers hand out in many small ways, and see that nothing bad comes of it.

    PYTHONPATH=. python tests/imports/fuzz.py [COUNT] [SEED]

Of each mutation: the reader ends, within a second, with exits or with its own error; no message has a part of a secret;
what is taken loads as chain.yaml, renders into the files that it should and no more, and stands in the daemons' own
files as it was read.
"""

from __future__ import annotations

import base64
import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from corpus import SECRETS, cases, items

from chain import ovpn, topology
from chain.api.load import load_template
from chain.config import edit, loader
from chain.exits import REGISTRY, SETTINGS
from chain.imports import Imported, RefusedError
from chain.node import wireguard
from chain.node.kinds import openvpn
from chain.node.kinds.l2tp import files
from chain.node.kinds.openvpn import config as openvpn_config
from chain.node.kinds.openvpn.management import Management
from chain.node.kinds.xray import config
from chain.render import render
from chain.secret import Secret, read_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chain.contract import ExitSettings
    from chain.errors import Problem
    from chain.exits.base import SecretSpec
    from chain.imports import Item

SECONDS = 1.0
BASE = "# Ours.\nentry: {endpoint: vpn.example.org}   # here\nexits:\n  home: {kind: l2tp, server: 203.0.113.250}\n"
IMAGES = {"entry": "chain-entry:tag", **{f"exit-{kind}": f"chain-exit-{kind}:tag" for kind in REGISTRY}}
SERVER = "203.0.113.250"  # an address: daemons get nothing else


class Ground:
    """A folder in which a chain is written down again and again."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "chain.yaml"
        self.secret = folder / "secret"
        self.shapes: dict[str, Any] = {}

    def check(self, imported: Imported) -> None:
        """Take an exit all the way to the files of its daemon."""
        fields = {"kind": imported.kind, **imported.settings}
        text = edit.add_exits(BASE, {"tokyo": fields})
        assert text.startswith(BASE)
        built = topology.build(loader.check(self.file, text, SETTINGS), REGISTRY)
        rendered = render(built, REGISTRY, IMAGES, load_template)
        settings = next(exit_.settings for exit_ in built.exits if exit_.name == "tokyo")
        self._compose(imported.kind, fields, rendered)
        specs = {spec.role: spec for spec in self._specs(imported)}
        assert set(imported.secrets) <= set(specs)
        secrets = {
            role: self._kept(value.reveal(), document=specs[role].form == "document")
            for role, value in imported.secrets.items()
        }
        DAEMONS[imported.kind](settings, secrets)

    def _specs(self, imported: Imported) -> tuple[SecretSpec, ...]:
        model = SETTINGS[imported.kind].model_validate({"kind": imported.kind, **imported.settings})
        return REGISTRY[imported.kind].secrets(model)

    def _kept(self, value: str, *, document: bool) -> str:
        """Write a secret as `exit add` does, and read it as the container does."""
        self.secret.write_text(value + "\n", encoding="utf-8", newline="")
        found = read_secret(self.secret, document=document).reveal()
        assert found == value
        return found

    def _compose(self, kind: str, fields: dict[str, Any], rendered: dict[str, str]) -> None:
        """See that the Compose file has the services, and these the keys, that any exit of the kind makes of it."""
        assert sorted(rendered) == [
            "compose.yaml",
            "entry/state.json",
            "exits/home/settings.json",
            "exits/tokyo/settings.json",
        ]
        document = yaml.load(rendered["compose.yaml"], loader.Loader)  # noqa: S506 - a safe one, and the quick one
        assert set(document["services"]) == {"entry", "exit-home", "exit-tokyo"}
        shape = outline(document)
        key = f"{kind} {sorted(fields)} {fields.get('protocol')}"
        assert self.shapes.setdefault(key, shape) == shape
        for name, content in rendered.items():
            if name.endswith(".json"):
                json.loads(content)


def outline(value: Any) -> Any:
    """Give a document's keys without its values."""
    if isinstance(value, dict):
        return {key: outline(item) for key, item in value.items()}
    return [outline(item) for item in value] if isinstance(value, list) else type(value).__name__


def _wireguard(settings: ExitSettings, secrets: dict[str, str]) -> None:
    options = settings.options
    shared = secrets.get("wg_preshared_key", "")
    private = secrets.get("wg_private_key", "")
    peer = wireguard.peer(
        options["public_key"], shared, ["0.0.0.0/0"], f"{SERVER}:{options['port']}", options["keepalive"]
    )
    lines = [line.partition(" = ")[::2] for line in wireguard.config(private, None, 1, [peer]).splitlines()]
    wanted = ["[Interface]", "PrivateKey", "FwMark", "[Peer]", "PublicKey", "AllowedIPs"]
    wanted += ["PresharedKey"] if shared else []
    wanted += ["Endpoint", *(["PersistentKeepalive"] if options["keepalive"] else [])]
    assert [key for key, _ in lines] == wanted
    assert dict(lines)["PrivateKey"] == private
    assert re.fullmatch(r"[0-9.]+/[0-9]+", options["address"])
    assert re.fullmatch(r"[0-9.]*", options["near"])


def _xray(settings: ExitSettings, secrets: dict[str, str]) -> None:
    (secret,) = secrets.values()
    document = json.loads(json.dumps(config.document(settings.options, secret, SERVER, ["9.9.9.9"])))
    assert [outbound["tag"] for outbound in document["outbounds"]] == ["nowhere", "server"]
    outbound = document["outbounds"][1]
    place = (outbound["settings"].get("vnext") or outbound["settings"]["servers"])[0]
    assert (place["address"], place["port"]) == (SERVER, settings.options["port"])
    assert secret in (place.get("password"), place.get("users", [{}])[0].get("id"))
    assert set(outbound["streamSettings"]) - {"network", "security", "sockopt"} <= STREAM
    assert outbound["streamSettings"]["sockopt"] == {"mark": 1}


STREAM = {f"{name}Settings" for name in ("reality", "tls", "xhttp", "ws", "httpupgrade", "grpc")}
PPP_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _l2tp(settings: ExitSettings, secrets: dict[str, str]) -> None:
    user, password = secrets.get("vpn_username", "u"), secrets.get("vpn_password", "p")
    found = files.ppp_options(
        user=user, password=password, mtu=settings.mtu, auth=settings.options["ppp_auth"], number=1
    )
    usual = files.ppp_options(user="u", password="p", mtu=settings.mtu, auth=settings.options["ppp_auth"], number=1)
    lines = found.split("\n")
    assert lines[2:] == usual.split("\n")[2:]
    for line, key, value in zip(lines, ("user", "password"), (user, password), strict=False):
        word = PPP_WORD.fullmatch(line.removeprefix(f"{key} "))
        assert word
        assert re.sub(r"\\(.)", r"\1", word[1]) == value
    if shared := secrets.get("vpn_ipsec_psk"):
        assert files.shared_key(shared)["data"] == shared.encode()


PROFILE = ovpn.parse("client\nremote a.example\nauth-user-pass\npeer-fingerprint " + ":".join(["AB"] * 20))
NOWHERE = "/run/nowhere"


def openvpn_documents(secrets: dict[str, str]) -> list[str]:
    """Give what OpenVPN is given for each of the servers, in the way of the exit itself."""
    profile = ovpn.parse(secrets[openvpn.CONFIG])
    beside = {openvpn.BESIDE[role]: value for role, value in secrets.items() if role in openvpn.BESIDE}
    return [openvpn_config.document(profile, beside, remote, SERVER, NOWHERE) for remote in profile.remotes]


def _openvpn(settings: ExitSettings, secrets: dict[str, str]) -> None:
    """See that OpenVPN's file has the lines of every such file, those that may be passed on, and whole blocks."""
    whole = {"ovpn_username": "u", "ovpn_password": "p", **secrets}
    openvpn.create(settings, {role: Secret(value) for role, value in whole.items()})
    profile = ovpn.parse(secrets[openvpn.CONFIG])
    usual = openvpn_config.document(PROFILE, {}, PROFILE.remotes[0], SERVER, NOWHERE)
    known = {line.partition(" ")[0] for line in usual.splitlines()} | ovpn.PASSED.keys()
    given = set(profile.blocks) | {openvpn.BESIDE[role] for role in secrets if role in openvpn.BESIDE}
    for text, remote in zip(openvpn_documents(secrets), profile.remotes, strict=True):
        lines = iter(text.split("\n")[:-1])
        blocks = set()
        for line in lines:
            if line.startswith("<"):
                blocks.add(line[1:-1])
                assert f"</{line[1:-1]}>" in lines  # which goes on behind it
                continue
            name, *rest = ovpn.words(line)
            assert name in known, line
            assert name != "remote" or rest == [SERVER, str(remote.port)]
            assert name != "script-security" or rest == ["0"]
            assert len(line.encode()) <= ovpn.LONGEST_LINE
        assert blocks == given
    user, password = profile.credentials or (secrets.get("ovpn_username", "u"), secrets.get("ovpn_password", "p"))
    management = Management(Path(NOWHERE), {"Auth": (user, password)}, on_hold=lambda: None)
    said = management.heard(">PASSWORD:Need 'Auth' username/password").decode()
    wanted = [["username", "Auth", user], ["password", "Auth", password]]
    assert [ovpn.words(line) for line in said.removesuffix("\n").split("\n")] == wanted


DAEMONS: dict[str, Callable[[ExitSettings, dict[str, str]], None]] = {
    "wireguard": _wireguard,
    "xray": _xray,
    "l2tp": _l2tp,
    "openvpn": _openvpn,
}

# What a mutation puts in: signs that mean something to one of the readers or writers, and what could steer one.
TOKENS = (
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"\t",
        b" ",
        b"\xff",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
    ),
    *(
        b"%",
        b"%0a",
        b"%00",
        b"%22",
        b"%25",
        b"+",
        b"=",
        b"==",
        b"&",
        b"&amp;",
        b"#",
        b"?",
        b"@",
        b":",
        b"/",
        b"//",
        b"\\",
    ),
    *(
        b'"',
        b"'",
        b"`",
        b"{",
        b"}",
        b"{{",
        b"}}",
        b"{%",
        b"${x}",
        b"$(id)",
        b"$$",
        b"!",
        b"|",
        b";",
        b"<",
        b">",
        b"*",
        b"&a",
    ),
    *(
        b"[Peer]\n",
        b"[Interface]\n",
        b"PostUp = id\n",
        b"Endpoint = 192.0.2.1:1\n",
        b"AllowedIPs = 0.0.0.0/0\n",
        b"MTU = 1\n",
    ),
    *(b"allowInsecure=1", b"&security=none", b"&type=ws", b"&flow=x", b"vless://", b"ss://", b"\ntrojan://x@h:1\n"),
    *(
        b"Server: h\n",
        b"PSK: x\n",
        b"Password: y\n",
        b"<key>",
        b"</dict>",
        b"<!ENTITY a 'b'>",
        b"0x",
        b"0s",
        b"%any",
        b"-",
    ),
    *(
        b"\nup /bin/sh\n",
        b"\nplugin x\n",
        b"\nconfig ca.crt\n",
        b"\n--remote x 1 tcp\n",
        b"\nca ca.crt\n",
        b"\nca ../../x\n",
        b"\nauth-user-pass login.txt\n",
        b"\nverify-x509-name 'a\\b\"' name\n",
        b"\n<ca>\n",
        b"\n</ca>\n",
        b"\n</key>\nup x\n",
        b"\n<connection>\n",
        b"\nignore-unknown-option up x\n",
        b"setenv opt ",
    ),
    *(
        b"99999999999999999999",
        b"0",
        b"\xd9\xa2",
        b"\xe2\x80\x8b",
        b"CHANGE-ME",
        b"file://",
        b"env:",
        b"yes",
        b"null",
        b"~",
    ),
)


class Fuzzer:
    """Makes mutations; the same ones for the same seed."""

    def __init__(self, seed: int, good: list[bytes], bad: list[bytes]) -> None:
        """Take inputs of both sorts; most mutations are of good ones, since what is taken goes the longer way."""
        self._random = random.Random(seed)  # noqa: S311 - to be repeated, not to be hidden
        self._good = good
        self._inputs = [*good, *bad]

    def mutations(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            data = self._random.choice(self._good if self._random.random() < 0.8 else self._inputs)
            for _ in range(self._random.choice((1, 1, 1, 1, 2, 5))):
                data = self._mutated(data)
            yield data

    def _mutated(self, data: bytes) -> bytes:
        draw = self._random
        inner = self._inside(data) if draw.random() < 0.3 else None
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((1, 1, 4, 16, 64)))
        other = draw.choice(self._inputs)
        cut = draw.randrange(len(other) + 1)
        put = (
            data[at:end] * draw.choice((2, 3, 50)),
            other[cut : cut + draw.choice((8, 64, 4096))],
            data[at:end].swapcase(),
            bytes([draw.randrange(256)]),
            b"",
            *(draw.choice(TOKENS) for _ in range(4)),
        )
        changed = data[:at] + draw.choice(put) + data[draw.choice((at, end)) :]
        return inner or draw.choice((changed,) * 9 + (data[:at],))

    def _inside(self, data: bytes) -> bytes | None:
        """Change what stands in base64, or percent-encoded, as what it says."""
        found = [match for match in re.finditer(rb"[A-Za-z0-9+/_-]{16,}={0,2}|%[0-9A-F]{2}", data) if match]
        if not found:
            return None
        match = self._random.choice(found)
        if match[0].startswith(b"%"):
            changed = b"%%%02X" % self._random.randrange(256)
        else:
            try:
                raw = base64.b64decode(
                    match[0] + b"=" * (-len(match[0]) % 4), altchars=b"-_" if b"_" in match[0] else None
                )
            except ValueError:
                return None
            changed = base64.b64encode(self._mutated(raw))
        return data[: match.start()] + changed + data[match.end() :]


def examined(data: bytes, ground: Ground) -> int:
    """Read one input and check what comes of it; give how many exits were taken."""
    began = time.process_time()  # a busy machine is no failure
    found = items(data)
    took = time.process_time() - began
    assert took < SECONDS, f"{took:.1f} s for {data!r}"
    assert found
    shown = "".join(str(problem) for item in found for problem in problems(item))
    assert not [secret for secret in SECRETS if secret in shown], data
    taken = 0
    for item in found:
        if isinstance(item.found, RefusedError):
            assert item.found.problems
            assert all(problem.what for problem in item.found.problems), data
        else:
            taken += 1
            try:
                ground.check(item.found)
            except Exception as error:
                raise AssertionError(f"{error!r} for {data!r}") from error
    return taken


def problems(item: Item) -> tuple[Problem, ...]:
    """Give all that is said of an item."""
    return item.found.problems if isinstance(item.found, RefusedError) else item.found.warnings


def small(folder: str) -> list[bytes]:
    """Give the inputs that are no test of size."""
    return [case.data for case in cases(folder) if len(case.data) < 20_000]


def main(count: int, seed: int) -> None:
    began, slowest, taken, refused = time.monotonic(), 0.0, 0, 0
    fuzzer = Fuzzer(seed, small("accepted"), small("refused"))
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        for number, data in enumerate(fuzzer.mutations(count), start=1):
            start = time.process_time()
            exits = examined(data, ground)
            slowest = max(slowest, time.process_time() - start)
            taken += exits
            refused += not exits
            if number % 5000 == 0:
                print(f"{number} mutations, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(
        f"{count} mutations (seed {seed}): {refused} refused, {taken} exits taken and checked; the slowest took"
        f" {slowest:.2f} s of the processor with all checks; {time.monotonic() - began:.0f} s in all"
    )


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["100000"])[0]), int((sys.argv[2:] or ["8"])[0]))

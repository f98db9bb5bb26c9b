"""Odd credentials reach strongSwan and pppd unchanged. The server's files are written by other code than the exit's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from world import docker, eventually

from chain.api.project import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ground import Ground
    from scene import Chain
    from world import World

pytestmark = [pytest.mark.docker, pytest.mark.l2tp]

# Pre-shared key, user, password. What looks like hex, base64, a file, a comment, a variable or a quote to some program
# on the way must still arrive as it is.
ODD = {
    "many at once": ("0x'\"#$%\\ ünï", 'us er"#\\', '0s"quo\\te# $HOME %d'),
    "at and long": ("@" + "k" * 127, "@user", "p" * 100),
    "spaces": (" a key ", "a user", " pass word "),
    "double quotes": ('"key"', 'us"er', '"pass"word'),
    "single quotes": ("'key'", "us'er", "'pass'word"),
    "hashes": ("#key", "#user", "pass#word"),
    "dollars": ("$key", "${USER}", "$$pass$(id)"),
    "percents": ("%any", "%s", "100%%"),
    "backslashes": ("\\key\\", "DOMAIN\\user", "pass\\n\\\\word\\"),
    "hex": ("0xdeadbeef", "0x41", "0xcafe"),
    "base64": ("0sZGVhZA==", "0suser", "0sYmVlZg=="),
    "braces": ("{key}", "us}er", "}{pass"),
    "commas": ("a,key;", "us,er", "pass,;word"),
    "equals": ("key=value", "user=me", "=password"),
    "63 characters": ("k" * 63, "u" * 63, "p" * 63),
    "64 characters": ("k" * 64, "u" * 64, "p" * 64),
    "255 characters": ("k" * 255, "u" * 200, "p" * 250),
    "tabs": ("a\tkey", "us\ter", "pass\tword"),
    "unicode": ("ключ鍵🔑", "user", "pässwörd鍵"),  # a pppd that serves takes user names in ASCII only
    "options": ("-key", "-user", "--password"),
    "shell": ("`id`", "us|er", "pass;reboot&"),
    "stars": ("*", "us*er", "*pass*"),
}
ROLES = ("vpn_ipsec_psk", "vpn_username", "vpn_password")
IN_EACH_RUN = 1  # each takes half a minute in emulation


@pytest.fixture(scope="module")
def account(world: World, chain: Chain, ground: Ground) -> Iterator[Account]:
    made = Account(world, chain, ground.patience)
    yield made
    made.restore()


class Account:
    """What the provider and its customer know."""

    def __init__(self, world: World, chain: Chain, patience: float) -> None:
        self._world, self._chain, self._patience = world, chain, patience
        self._file = world.folder / "provider-l2tp.json"
        self._before = self._file.read_text()
        self._files = {role: chain.secrets[f"paris_{role}"] for role in ROLES}

    def server_has(self, psk: str, user: str, password: str) -> None:
        settings = json.loads(self._before) | {"psk": psk, "user": user, "password": password}
        self._file.write_text(json.dumps(settings))  # in place: it is mounted as a file

    def customer_has(self, psk: str, user: str, password: str) -> None:
        for role, value in zip(self._files, (psk, user, password), strict=True):
            # Without a newline at the end; the files of all other tests have one.
            write_atomic(self._chain.folder / "secrets" / f"paris_{role}", value, 0o600)

    def dial(self) -> None:
        """Start both sides anew, with what they have now."""
        self._restart_server()
        docker("restart", "-t", "1", self._chain.container("exit-paris"))

    def _restart_server(self) -> None:
        server = self._world.site.l2tp.name
        before = self._ready(server)
        docker("restart", "-t", "1", self._world.container(server))
        # A server that is not there yet would cost the exit a whole round of retransmissions.
        eventually(lambda: self._ready(server) > before, 60 * self._patience, "the server is ready")

    def _ready(self, server: str) -> int:
        return self._world.logs(server).splitlines().count("ready")

    def opens(self) -> None:
        eventually(lambda: self._exit().get("open"), 60 * self._patience, "paris is open")

    def fails(self, *words: str) -> str:
        """Wait for a cause with one of these words; give it."""

        def cause() -> str:
            found: str = self._exit().get("cause", "")
            return found if any(word in found for word in words) else ""

        said: str = eventually(cause, 60 * self._patience, f"a cause with one of {words}")
        assert not self._exit()["open"]
        return said

    def restore(self) -> None:
        self._file.write_text(self._before)
        for role, value in self._files.items():
            write_atomic(self._chain.folder / "secrets" / f"paris_{role}", value + "\n", 0o600)
        self._restart_server()
        self._chain.up()  # which starts the exit anew, since its secrets' files are others
        self.opens()

    def _exit(self) -> dict[str, Any]:
        exits = self._chain.entry_status().get("exits", ())
        return next((exit_ for exit_ in exits if exit_["name"] == "paris"), {})


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if index >= IN_EACH_RUN else []) for index, name in enumerate(ODD)],
)
def test_odd_credentials_dial(account: Account, chain: Chain, ground: Ground, name: str) -> None:
    account.server_has(*ODD[name])
    account.customer_has(*ODD[name])
    account.dial()
    account.opens()
    eventually(lambda: chain.answered()["seen"] == ground.preferred.outside, 30, "the preferred exit is used")


WRONG = {
    "the key's last byte": (0, ("pre-shared key",)),
    "the user's last byte": (1, ("user name or the password",)),
    "the password's last byte": (2, ("user name or the password",)),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if index else []) for index, name in enumerate(WRONG)]
)
def test_one_changed_byte_fails(account: Account, name: str) -> None:
    which, words = WRONG[name]
    right = list(ODD["many at once"])
    account.server_has(*right)
    right[which] = right[which][:-1] + chr(ord(right[which][-1]) ^ 1)
    account.customer_has(*right)
    account.dial()
    account.fails(*words)

"""From a project's files to a checked configuration, its topology and its rendered files."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from chain import topology
from chain.api.project import is_missing, is_there, write_atomic
from chain.config import loader
from chain.config.models import is_server, is_web_address
from chain.engine import images as image_store
from chain.errors import ChainError, ExitCode, Problem
from chain.exits import REGISTRY, SETTINGS
from chain.render import render
from chain.secret import MOST_BYTES, is_wireguard_key, read_secret
from chain.topology import SecretMount

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from ipaddress import IPv4Network
    from pathlib import Path

    from chain.api.project import Project
    from chain.config.models import Config
    from chain.engine.connection import Engine
    from chain.engine.images import Image
    from chain.topology import ExternalNetwork, Topology


# What a secret may have to be, beyond one line of text: a test, and what to say of one that fails it.
FORMS: dict[str, tuple[Callable[[str], bool], str, str]] = {
    "wireguard-key": (
        is_wireguard_key,
        "this is no WireGuard key",
        "44 characters of base64, the last one '=', nothing else",
    ),
    "host": (
        lambda text: is_server(text.strip()),
        "this is no server's name or address",
        "a name or an IPv4 address, without a port",
    ),
    "web-address": (
        lambda text: is_web_address(text.strip()),
        "this is no URL of http or https",
        "https://NAME/…, as the service that is to be told gives it",
    ),
}


@dataclass(frozen=True)
class Loaded:
    project: Project
    config: Config
    topology: Topology
    text: str  # of chain.yaml
    kept: bool = False  # this is an earlier chain.yaml, which can't be used as it is now

    @property
    def images(self) -> dict[str, Image]:
        """Describe the images this chain needs, by folder."""
        entry = ["entry"] if self.topology.has_entry else []
        return image_store.describe([*entry, *dict.fromkeys(f"exit-{exit_.kind}" for exit_ in self.topology.exits)])

    @property
    def examiner(self) -> str:
        """Name an image for the containers that look at the engine's host: all have what it takes."""
        return next(iter(self.images.values())).name

    def files(self, root: str = "..") -> dict[str, str]:
        """Render everything that goes below `run/`, or another folder with `root` as its way to the project's."""
        names = {folder: image.name for folder, image in self.images.items()}
        return render(self.topology, REGISTRY, names, load_template, root, key_stamp=_stamp(self.project.entry_key))


def load_template(name: str) -> str:
    return (image_store.data_folder("compose") / name).read_text(encoding="utf-8")


def load(project: Project, engine: Engine) -> Loaded:
    """Load a project. The engine is asked only about networks that chain.yaml names without their gateway."""
    return _load(project, engine, project.file)


def _load(project: Project, engine: Engine, file: Path) -> Loaded:
    text = loader.read(file)
    config = loader.check(file, text, SETTINGS)
    built = topology.build(config, REGISTRY, _external(config, engine))
    return Loaded(project, config, _with_plain_names(built, project), text)


def load_running(project: Project, engine: Engine) -> tuple[Loaded, list[Problem]]:
    """Load a project, or, where chain.yaml is there and can't be used, what a command last had the entry take.

    Gives what is wrong with chain.yaml then. Raises ChainError (CONFIG) where no such copy helps.
    """
    try:
        return load(project, engine), []
    except ChainError as error:
        if error.code is not ExitCode.CONFIG or is_missing(project.file) or not is_there(project.kept):
            raise
        try:
            found = replace(_load(project, engine, project.kept), kept=True)
        except ChainError as second:
            if second.code is not ExitCode.CONFIG:
                raise
            raise error from None  # the copy is of another version, or spoilt
        note = Problem(str(project.file), "it can't be used as it is; what was in force before is meant instead")
        return found, [*error.problems, note]


def keep(loaded: Loaded) -> None:
    """Keep a copy of chain.yaml, for `load_running`. Raises ChainError (CONFIG)."""
    write_atomic(loaded.project.kept, loaded.text, 0o600)


def alone(loaded: Loaded, engine: Engine, name: str, taken: Collection[IPv4Network]) -> Loaded:
    """Give one exit of a loaded project, with those that it runs through, to be started without a chain.

    Its networks are clear of those that are `taken`.
    """
    config = loaded.config
    built = topology.alone(config, REGISTRY, name, _external(config, engine), taken)
    # Which files hold its secrets depends on all of the chain's exits.
    secrets = {exit_.name: exit_.secrets for exit_ in loaded.topology.exits}
    exits = tuple(replace(exit_, secrets=secrets[exit_.name]) for exit_ in built.exits)
    return replace(loaded, project=loaded.project.test, topology=replace(built, exits=exits))


def _external(config: Config, engine: Engine) -> Mapping[str, ExternalNetwork]:
    found = {}
    for exit_ in config.exits.values():
        if exit_.uplink and exit_.uplink.gateway is None:
            network = engine.network(exit_.uplink.network)
            if network:
                found[exit_.uplink.network] = topology.ExternalNetwork(*network)
    return found


def _with_plain_names(built: Topology, project: Project) -> Topology:
    """Let the plain name, such as secrets/vpn_password, serve where only one exit could mean it."""
    users = Counter(secret.role for exit_ in built.exits for secret in exit_.secrets)
    return replace(
        built,
        exits=tuple(
            replace(
                exit_,
                secrets=tuple(
                    SecretMount(secret.role, path, _stamp(project.root / path))
                    for secret in exit_.secrets
                    for path in [file_of(project, exit_.name, secret.role, secret.path, users)]
                ),
            )
            for exit_ in built.exits
        ),
    )


def file_of(project: Project, exit_name: str, role: str, path: str, users: Mapping[str, int]) -> str:
    """Give the file of an exit's secret: the plain one where it alone is there, and but one exit has such a secret."""
    plain = f"secrets/{role}"
    usual = path == f"secrets/{exit_name}_{role}"
    if usual and users.get(role) == 1 and not is_there(project.root / path) and is_there(project.root / plain):
        return plain
    return path


def crowding(project: Project, config: Config) -> dict[str, str]:
    """Give the servers of those exits that may be in each other's way there."""
    users = Counter(spec.role for exit_ in config.exits.values() for spec in REGISTRY[exit_.kind].secrets(exit_))
    found = {}
    for name, exit_ in config.exits.items():
        server = exit_.crowds()
        for spec in REGISTRY[exit_.kind].secrets(exit_) if server == "" else ():
            path = file_of(project, name, spec.role, spec.override or f"secrets/{name}_{spec.role}", users)
            if spec.form == "host" and problem_with_secret(project.root / path, "host") is None:
                server = read_secret(project.root / path).reveal().strip()
        if server:
            found[name] = server
    return found


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""  # an exit's is reported by `check_secrets`, the entry's is yet to be made
    return f"{found.st_ino}-{found.st_mtime_ns}"


def check_secrets(loaded: Loaded) -> None:
    """Read every secret once, to say all that is wrong with them before anything is touched. Raises ChainError."""
    problems = [
        *_exits_secrets(loaded),
        *_clients_secrets(loaded),
        *_generated(loaded),
        *problems_with_webhooks(loaded),
        *_open_folders(loaded.project),
    ]
    if problems:
        raise ChainError(problems, ExitCode.CONFIG)


def check_secrets_of(loaded: Loaded, names: Collection[str]) -> None:
    """Read those of these exits only. Raises ChainError (CONFIG)."""
    problems = [*_exits_secrets(loaded, names), *_open_folders(loaded.project)]
    if problems:
        raise ChainError(problems, ExitCode.CONFIG)


def _exits_secrets(loaded: Loaded, names: Collection[str] | None = None) -> list[Problem]:
    problems: list[Problem] = []
    specs = {
        (name, spec.role): spec
        for name, exit_ in loaded.config.exits.items()
        for spec in REGISTRY[exit_.kind].secrets(exit_)
    }
    users = Counter(secret.role for exit_ in loaded.topology.exits for secret in exit_.secrets)
    for exit_ in loaded.topology.exits:
        for secret in exit_.secrets if names is None or exit_.name in names else ():
            path = loaded.project.root / secret.path
            spec = specs[exit_.name, secret.role]
            problem = problem_with_secret(path, spec.form, spec.limit)
            about = f"exit {exit_.name}: {spec.about}"
            if problem:
                hint = problem.hint
                if not is_there(path) and spec.override is None:
                    plain = f"secrets/{secret.role}"
                    if users[secret.role] == 1:
                        hint += f"; the name {plain} does too"
                    elif is_there(loaded.project.root / plain):
                        hint += f"; {plain} is there, but more than one exit has such a secret: rename it for its own"
                problems.append(Problem(problem.where, f"{problem.what} ({about})", hint))
            elif spec.examine:
                value = read_secret(path, document=spec.form == "document").reveal()
                for fault in spec.examine(value, datetime.now(UTC)):
                    where = f"{path}:{fault.line}" if fault.line else str(path)
                    problems.append(Problem(where, f"{fault.what} ({about})", fault.hint))
    return problems


def _clients_secrets(loaded: Loaded) -> list[Problem]:
    problems: list[Problem] = []
    for client in loaded.topology.state.clients:
        path = loaded.project.peer_keys / client.psk_file
        problem = problem_with_secret(path, "wireguard-key")
        if problem:
            hint = problem.hint
            if is_missing(path):
                hint = f"restore it from your copy; or `chain client remove {client.name}`, and add it again"
            about = f"client {client.name}: the key that it shares with the entry"
            problems.append(Problem(problem.where, f"{problem.what} ({about})", hint))
    return problems


def problems_with_webhooks(loaded: Loaded) -> list[Problem]:
    """Examine the files that hold the URLs of hooks."""
    problems: list[Problem] = []
    for number, hook in enumerate(loaded.config.hooks, 1):
        if hook.webhook and (problem := problem_with_secret(loaded.project.root / hook.webhook.file, "web-address")):
            problems.append(replace(problem, what=f"{problem.what} (hook {number}: the URL that it posts to)"))
    return problems


def _generated(loaded: Loaded) -> list[Problem]:
    """Examine the keys that `chain` made itself, but for those that the present clients share with the entry."""
    project = loaded.project
    shared = {project.peer_keys / client.psk_file for client in loaded.topology.state.clients}
    folders = [folder for folder in (project.client_keys, project.peer_keys) if is_there(folder)]
    found = {key for folder in folders if os.access(folder, os.R_OK | os.X_OK) for key in folder.glob("*")} - shared
    keys = [*([project.entry_key] if is_there(project.entry_key) else []), *sorted(found)]
    lost = [problem for problem in [lost_entry_key(loaded)] if problem]
    return lost + [problem for key in keys if (problem := problem_with_secret(key, "wireguard-key"))]


def _open_folders(project: Project) -> list[Problem]:
    """Find folders of secrets in which everybody can put files of their own."""
    folders = (project.secrets, project.client_keys, project.peer_keys)
    return [
        Problem(str(folder), "everybody on this machine can write to this folder of secrets", f"chmod 700 {folder}")
        for folder in folders
        if is_there(folder) and folder.stat().st_mode & stat.S_IWOTH
    ]


def lost_entry_key(loaded: Loaded) -> Problem | None:
    """Say that the entry's key is gone though clients were made for it, or nothing."""
    key, clients = loaded.project.entry_key, loaded.topology.state.clients
    if not clients or not is_missing(key):
        return None
    hint = (
        f"restore it from your copy; or make a new one, `(umask 077; wg genkey >{key})`, after which each of them needs"
        " its configuration again: `chain client show NAME`"
    )
    what = f"the entry's key is missing, for which the configuration of {len(clients)} client(s) was made"
    return Problem(str(key), what, hint)


def check_entry_key(loaded: Loaded) -> None:
    """Refuse to go on without the key that clients know the entry by. Raises ChainError (CONFIG)."""
    if problem := lost_entry_key(loaded):
        raise ChainError(problem, ExitCode.CONFIG)


def problem_with_secret(path: Path, form: str = "text", limit: int = MOST_BYTES) -> Problem | None:
    """Say what is wrong with one secret's file, or nothing. Never says what is in it."""
    try:
        secret = read_secret(path, document=form == "document")
    except ChainError as error:
        return error.problems[0]
    if len(secret.reveal().encode()) > limit:
        return Problem(str(path), f"this secret is longer than {limit} bytes", "is it really this one's value?")
    if form in FORMS:
        fits, what, hint = FORMS[form]
        if not fits(secret.reveal()):
            return Problem(str(path), what, hint)
    if path.stat().st_mode & stat.S_IRWXO:
        hint = f"chmod 600 {path}, or 640 where its group is to read it too"
        return Problem(str(path), "everybody on this machine has access to this secret", hint)
    return None

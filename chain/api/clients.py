"""Clients: their keys, their place in chain.yaml, and their configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chain.api import keys
from chain.api.load import check_entry_key, load
from chain.api.progress import SILENT
from chain.api.project import changing, is_missing, make_folder, rewrite, write_atomic
from chain.config import edit
from chain.config.models import CLIENT_NAME_PATTERN, NAME_RULES, Endpoint
from chain.errors import ChainError, ExitCode, Problem
from chain.render.clients import client_config
from chain.secret import Secret, read_secret

if TYPE_CHECKING:
    from ipaddress import IPv4Address
    from pathlib import Path

    from chain.api.load import Loaded
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.config.models import Config
    from chain.engine.connection import Engine


@dataclass(frozen=True)
class ClientFile:
    """A client's configuration; `text` is secret."""

    name: str
    address: str
    text: Secret


def missing_keys(project: Project) -> tuple[str, ...]:
    """Name the keys that `up` makes, relative to the project's folder."""
    return () if project.entry_key.exists() else (str(project.entry_key.relative_to(project.root)),)


def ensure_entry_key(loaded: Loaded) -> str:
    """Make the entry's key at first need; give its public half. Raises ChainError (CONFIG) when it has been lost."""
    project = loaded.project
    check_entry_key(loaded)
    make_folder(project.secrets, 0o700)
    make_folder(project.peer_keys, 0o700)
    if not project.entry_key.exists():
        write_atomic(project.entry_key, keys.new_private_key().reveal() + "\n", 0o600)
    return _public(project.entry_key, read_secret(project.entry_key))


def add(project: Project, engine: Engine, name: str, group: str | None, progress: Progress = SILENT) -> ClientFile:
    """Make a client's keys and write it into chain.yaml; whoever calls applies the change. Raises ChainError (CONFIG).

    The keys come first: an interrupted call leaves files that the next call of the same name replaces, never a
    client in chain.yaml without its keys.
    """
    with changing(project, progress):
        return _add(project, engine, name, group)


def _add(project: Project, engine: Engine, name: str, group: str | None) -> ClientFile:
    loaded = load(project, engine)
    if not re.fullmatch(CLIENT_NAME_PATTERN, name):
        raise ChainError(
            Problem(
                f"client {name!r}", "this is no name for a client", f"a name has {NAME_RULES[CLIENT_NAME_PATTERN]}"
            ),
            ExitCode.CONFIG,
        )
    if name in loaded.config.clients:
        raise ChainError(
            Problem(
                f"client {name}",
                "this client exists",
                f"`chain client show {name}` prints its configuration; `chain up` lets it in where that was cut off",
            ),
            ExitCode.CONFIG,
        )
    known = {known_group.name for known_group in loaded.topology.state.groups}
    if group is not None and group not in known:
        raise ChainError(
            Problem(f"group {group}", "there is no such group", f"known: {', '.join(sorted(known))}"), ExitCode.CONFIG
        )
    address = free_address(loaded.config)
    ensure_entry_key(loaded)
    make_folder(project.client_keys, 0o700)
    private = keys.new_private_key()
    write_atomic(project.client_keys / name, private.reveal() + "\n", 0o600)
    write_atomic(project.peer_keys / name, keys.new_preshared_key().reveal() + "\n", 0o600)
    fields = {"address": str(address), "public_key": keys.public_key(private)} | ({"group": group} if group else {})
    rewrite(project, lambda text: edit.add_client(text, name, fields))
    return show(load(project, engine), name)


def free_address(config: Config) -> IPv4Address:
    """Give the lowest address that is neither the entry's nor a client's. Raises ChainError (CONFIG)."""
    taken = {client.address for client in config.clients.values()}
    taken.add(config.entry.subnet.network_address + 1)
    for address in config.entry.subnet.hosts():
        if address not in taken:
            return address
    raise ChainError(
        Problem("entry.subnet", f"all addresses of {config.entry.subnet} are taken", "choose a larger subnet"),
        ExitCode.CONFIG,
    )


def show(loaded: Loaded, name: str) -> ClientFile:
    """Build a client's configuration again. Raises ChainError (CONFIG) when it or its private key is not here."""
    client = next((client for client in loaded.topology.state.clients if client.name == name), None)
    if client is None:
        raise ChainError(Problem(f"client {name}", "no such client", "`chain client list` shows them"), ExitCode.CONFIG)
    project = loaded.project
    private = _client_key(project, name)
    if _public(project.client_keys / name, private) != client.public_key:
        raise ChainError(
            Problem(
                f"client {name}",
                "the private key in secrets/clients is not the one whose public key stands in chain.yaml",
                "remove the client and add it again, or restore the matching file",
            ),
            ExitCode.CONFIG,
        )
    entry = loaded.config.entry
    endpoint = Endpoint(host=entry.endpoint.host, port=entry.endpoint.port or entry.port)
    text = client_config(
        loaded.topology.state,
        client,
        endpoint,
        entry_public_key=_public(project.entry_key, read_secret(project.entry_key)),
        private_key=private,
        preshared=read_secret(project.peer_keys / name),
    )
    return ClientFile(name, client.address, Secret(text))


def _client_key(project: Project, name: str) -> Secret:
    path = project.client_keys / name
    if is_missing(path):
        what = "its private key is not kept here: the device that has it is the only one that can"
        hint = f"restore {path} from your copy; or `chain client remove {name}`, and add it again"
        raise ChainError(Problem(f"client {name}", what, hint), ExitCode.CONFIG)
    return read_secret(path)


def remove(project: Project, engine: Engine, name: str, progress: Progress = SILENT) -> None:
    """Take a client out of chain.yaml; whoever calls applies the change, then forgets the keys.

    In this order, since the keys are what is left to tell of a call that was ended between: the next one goes on from
    there. Raises ChainError (CONFIG) when there is no such client, and no keys of one.
    """
    with changing(project, progress):
        known = load(project, engine).config.clients
        if name in known or not any(path.exists() for path in _key_files(project, name)):
            rewrite(project, lambda text: edit.remove_client(text, name))


def forget(project: Project, engine: Engine, name: str, progress: Progress = SILENT) -> None:
    """Remove the keys of a client that is no longer in chain.yaml."""
    with changing(project, progress):
        if name not in load(project, engine).config.clients:  # it may have been added again meanwhile
            for path in _key_files(project, name):
                path.unlink(missing_ok=True)


def _key_files(project: Project, name: str) -> list[Path]:
    """Name a client's key files; none for what is no name, such as a way out of their folders."""
    if not re.fullmatch(CLIENT_NAME_PATTERN, name):
        return []
    return [folder / name for folder in (project.client_keys, project.peer_keys)]


def _public(path: object, private: Secret) -> str:
    try:
        return keys.public_key(private)
    except ValueError as error:
        raise ChainError(
            Problem(str(path), f"this is no WireGuard private key: {error}", "restore it from your copy"),
            ExitCode.CONFIG,
        ) from None

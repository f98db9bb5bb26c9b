"""Examine everything a chain relies on: folder, engine, and the engine's host. Goes on past what fails."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from chain import checks
from chain.api.down import running_tests
from chain.api.load import check_secrets, crowding, load
from chain.api.preflight import Look, check_owner, check_writable, look, try_kernel
from chain.api.project import locate
from chain.api.up import build_images
from chain.checks import Finding, failures, unchecked
from chain.engine import images
from chain.errors import ChainError
from chain.exits import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from chain.api.load import Loaded
    from chain.api.progress import Progress
    from chain.engine.connection import Engine
    from chain.engine.images import Image

NO_CONFIG = "chain.yaml is to be mended first"
# Checks that need the engine, in the order in which they are told; those behind need a look at its host.
OF_CHAIN = ("name", "exit test", "kernel", "entry.port", "network.pool")
OF_ENGINE = ("packages", *OF_CHAIN)
OF_HOST = ("clock", "uplink", "ip_forward", "conntrack", "rp_filter", "firewall")


def doctor(file: Path | None, engine: Engine, progress: Progress) -> list[Finding]:
    """Give what was found, in the order of what comes first in a start. Raises nothing that can be a finding."""
    with progress.step("Examining the configuration and the programs"):
        loaded, found = of_folder(file, engine)
        programs = of_programs(engine)
    found += programs
    if any(finding.level == "fail" for finding in programs if finding.name == "engine"):
        seen, more = _unseen("the engine can't be asked")
    else:
        seen, more = _of_engine_with_image(loaded, engine, progress)
    found += [*more, *of_host(loaded, seen)]
    if loaded is not None:
        with progress.step(f"Looking up {loaded.config.entry.endpoint.host}"):
            found += of_endpoint(loaded, seen)
    return found


def _unseen(reason: str) -> tuple[Look, list[Finding]]:
    return Look(None, 0, 0, reason), [unchecked(name, reason) for name in OF_ENGINE]


def _of_engine_with_image(loaded: Loaded | None, engine: Engine, progress: Progress) -> tuple[Look, list[Finding]]:
    """Build the image that looks, which does not depend on chain.yaml, and examine the engine with it."""
    described = images.describe(["entry"])
    try:
        build_images(described, engine, progress)
    except ChainError as error:
        seen, more = _unseen("the entry's image, which looks there, can't be built")
        return seen, [*failures("image", error, "the entry runs from it"), *more]
    with progress.step("Examining the engine's host"):
        seen, found = of_engine(loaded, described["entry"].name, engine)
    return seen, [of_images(loaded.images if loaded else described, engine), *found]


def of_images(described: Mapping[str, Image], engine: Engine) -> Finding:
    """Examine the age of those images that are built."""
    names = [image.name for image in described.values() if engine.has_image(image.name)]
    return checks.packages({name: engine.packages_time(name) for name in names}, time.time())


def of_folder(file: Path | None, engine: Engine) -> tuple[Loaded | None, list[Finding]]:
    """Examine the project's folder: configuration, secrets, and whether it can be written to."""
    found: list[Finding] = []
    try:
        project = locate(file)
        loaded = load(project, engine)
    except ChainError as error:
        found += failures("configuration", error, "nothing can be started from it")
        found += [unchecked(name, NO_CONFIG) for name in ("secrets", "folder", "entry.endpoint")]
        return None, found
    found.append(Finding("configuration", "ok", f"{project.file}, with {', '.join(loaded.config.exits)}"))
    clients = [client.name for client in loaded.topology.state.clients]
    webhooks = [hook for hook in loaded.config.hooks if hook.webhook]
    needed = sum(len(exit_.secrets) for exit_ in loaded.topology.exits) + len(clients) + len(webhooks)
    found += _tried(
        "secrets",
        lambda: check_secrets(loaded),
        f"{needed} found, none open to everybody",
        "exits and hooks need them, and they are for nobody else's eyes",
    )
    found += [checks.crowded(names) for names in checks.neighbours(loaded.config, crowding(project, loaded.config))]
    why = "`chain up` writes run/ and makes keys"
    found += _tried("folder", lambda: check_writable(project), f"{project.root} can be written to", why)
    return loaded, found


def of_programs(engine: Engine) -> list[Finding]:
    """Examine the engine, and the docker command's plugins on this machine."""
    return [
        *_tried("engine", engine.version, "", "everything runs in it"),
        *_tried("compose", engine.check_compose, "", "`chain up` makes containers and networks with it"),
        *_tried("buildx", engine.check_buildx, "", "images are built with it"),
    ]


def of_engine(loaded: Loaded | None, image: str, engine: Engine) -> tuple[Look, list[Finding]]:
    """Examine what the engine's kernel, lists and host say about this chain."""
    if loaded is None:
        return look(image, engine), [unchecked(name, NO_CONFIG) for name in OF_CHAIN]
    with ThreadPoolExecutor() as pool:
        looking = pool.submit(look, image, engine)
        trying = pool.submit(try_kernel, loaded, engine)
        owned = _tried(
            "name",
            lambda: check_owner(loaded, engine),
            f"no other folder runs a chain called {loaded.topology.name}",
            "two chains of one name take each other's containers",
        )
        publishers, networks = engine.publishers(loaded.topology.port), engine.networks()
        seen = looking.result()
        try:
            tried = trying.result()
        except ChainError as error:
            tried = failures("kernel", error, "what the exits need was to be tried there")
    return seen, [
        *owned,
        checks.exit_test(running_tests(loaded.project, engine)),
        *tried,
        *checks.port(loaded.topology, publishers, seen.host),
        *checks.overlaps(loaded.topology, networks, seen.host),
    ]


def of_host(loaded: Loaded | None, seen: Look) -> list[Finding]:
    """Judge what was seen of the host that concerns any chain."""
    host = seen.host
    if host is None:
        return [unchecked(name, seen.why_not) for name in OF_HOST]
    config, built = (loaded.config, loaded.topology) if loaded else (None, None)
    return [
        checks.clock(host.time, seen.before, seen.after),
        checks.uplink(host, config, built, REGISTRY),
        checks.forwarding(host),
        checks.conntrack(host),
        checks.rp_filter(host),
        *checks.firewalls(host, built.port if built else None),
    ]


def of_endpoint(loaded: Loaded, seen: Look) -> list[Finding]:
    """Look up the name that clients are given, as this machine's resolver sees it."""
    configured = loaded.config.entry.endpoint
    return checks.endpoint(configured.host, loaded.topology.port, resolve(configured.host), seen.host)


def resolve(host: str) -> list[str]:
    """Give a name's addresses, or an address itself; an empty list where there are none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def _tried(name: str, check: Callable[[], str | None], well: str, why: str) -> list[Finding]:
    """Run a check that raises ChainError; `well` is what to say where it says nothing itself."""
    try:
        return [Finding(name, "ok", check() or well)]
    except ChainError as error:
        return failures(name, error, why)

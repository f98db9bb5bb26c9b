"""What has to be done, and why: (what should be, what is) → steps. Pure; Compose reconciles containers by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from chain.config.loader import Loader
from chain.render import COMPOSE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AWAY = "clients are away for some seconds"


@dataclass(frozen=True)
class Step:
    """One thing to do. `cause` is for people."""

    verb: str  # build, make, end, write, remove, compose, apply
    subject: str
    cause: str

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}: {self.cause}"


@dataclass(frozen=True)
class Observed:
    """What was found: files below run/, images and keys not there, the entry's generation (None: not running)."""

    files: Mapping[str, str]
    missing_images: tuple[str, ...]
    generation: str | None
    running: frozenset[str]  # services
    unfinished: bool = False  # files were written, and Compose has not taken them since
    overlaid: frozenset[str] = frozenset()  # services whose containers were made with other Compose files too
    outdated: frozenset[str] = frozenset()  # services whose images were built anew since
    missing_keys: tuple[str, ...] = ()  # secrets that are made here, not given
    kept_out: tuple[str, ...] = ()  # clients whose keys the entry did not find when it last looked
    tests: tuple[str, ...] = ()  # Compose projects of tests of exits
    opened: frozenset[str] = frozenset()  # exits by which clients' packets may go
    used: frozenset[str] = frozenset()  # exits by which they do


def plan(files: Mapping[str, str], services: Iterable[str], generation: str, observed: Observed) -> tuple[Step, ...]:
    """List the steps in order; an empty list means that nothing has to change."""
    steps = [Step("build", name, "not on this engine") for name in observed.missing_images]
    steps += [Step("make", path, "not there") for path in observed.missing_keys]
    steps += [Step("end", project, "a test of an exit goes on there, or was killed") for project in observed.tests]
    for path, text in files.items():
        if path not in observed.files:
            steps.append(Step("write", path, "not there"))
        elif observed.files[path] != text:
            steps.append(Step("write", path, "changed"))
    steps += [Step("remove", path, "no longer in chain.yaml") for path in observed.files if path not in files]
    # The entry reads its own file again without being recreated; everything else is Compose's business.
    recreating = [
        step.subject for step in steps if step.verb in ("write", "remove") and not step.subject.startswith("entry/")
    ]
    if cause := _compose_cause(frozenset(services), recreating, observed):
        if anew := made_anew(files, observed):
            cause += f"; made anew: {', '.join(sorted(anew))}"
            away = f"; {AWAY}" if "entry" in anew else ""
            cause += "; one after the other" if len(one_by_one(files, observed)) > 1 else away
        steps.append(Step("compose", "up", cause))
    if observed.generation is not None and observed.generation != generation:
        steps.append(Step("apply", "entry", f"it runs generation {observed.generation}, wanted is {generation}"))
    elif observed.kept_out:
        steps.append(Step("apply", "entry", f"kept out so far: {', '.join(observed.kept_out)}"))
    return tuple(steps)


def made_anew(files: Mapping[str, str], observed: Observed) -> frozenset[str]:
    """Name the running services that Compose replaces, as far as the files tell.

    After an earlier change that it has not taken, containers differ from the files, and more may be replaced.
    """
    changed = _changed(observed.files.get(COMPOSE_FILE, ""), files.get(COMPOSE_FILE, ""))
    return (changed | observed.outdated | observed.overlaid) & observed.running


def one_by_one(files: Mapping[str, str], observed: Observed) -> tuple[str, ...]:
    """Name the exits' services that can be replaced each by itself, so that others serve clients meanwhile.

    Not with the entry, or while it can't be asked; nor where networks change, which they may have in common.
    """
    anew = made_anew(files, observed)
    before, after = observed.files.get(COMPOSE_FILE, ""), files.get(COMPOSE_FILE, "")
    apart = "entry" not in anew and observed.generation is not None and _networks(before) == _networks(after)
    return tuple(sorted(anew)) if apart else ()


def _networks(text: str) -> object:
    """Give the networks of a Compose file, or nothing of another one's."""
    try:
        return yaml.load(text, Loader)["networks"]  # noqa: S506 - it is the safe one
    except (yaml.YAMLError, KeyError, TypeError):
        return None


def _changed(before: str, after: str) -> frozenset[str]:
    """Name the services of which the Compose file says something else than before, or of their networks."""
    if before == after:
        return frozenset()
    try:
        old, new = (yaml.load(text, Loader) or {} for text in (before, after))  # noqa: S506 - it is the safe one
        networks = {
            name for name, network in new["networks"].items() if old.get("networks", {}).get(name, network) != network
        }
        return frozenset(
            name
            for name, service in new["services"].items()
            if old.get("services", {}).get(name, service) != service or networks & set(service.get("networks", ()))
        )
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):  # not ours, or of another version
        return frozenset()


def _compose_cause(services: frozenset[str], recreating: list[str], observed: Observed) -> str:
    """Say why Compose has to go over the containers; empty: it has not."""
    unwanted = sorted(observed.running - services)
    for cause, names in (
        ("not running", services - observed.running),
        ("changed", recreating or unwanted),
        ("made with other Compose files than the rendered one", observed.overlaid),
        ("images were built anew", observed.outdated),
    ):
        if names:
            return f"{cause}: {', '.join(sorted(names))}"
    return "an earlier change has not been taken over" if observed.unfinished else ""

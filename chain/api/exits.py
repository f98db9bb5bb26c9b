"""Exits as chain.yaml has them, and the kinds that there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chain.api.progress import SILENT
from chain.api.project import changing, is_there, rewrite
from chain.config import edit, loader
from chain.errors import ChainError, ExitCode, Problem
from chain.exits import REGISTRY, SETTINGS
from chain.topology import DEFAULT_GROUP, members_of

if TYPE_CHECKING:
    from chain.api.load import Loaded
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.config.models import Config


def kinds() -> list[dict[str, Any]]:
    """Describe each kind: what it is, what its tunnel carries, and what the kernel of the engine's host must have."""
    return [
        {
            "name": kind.name,
            "about": (kind.settings.__doc__ or "").partition("\n")[0],
            "carries": sorted(kind.settings.carries),
            "kernel": [{"needs": need.why, "modules": list(need.modules)} for need in kind.kernel],
        }
        for kind in REGISTRY.values()
    ]


def listing(loaded: Loaded) -> list[dict[str, Any]]:
    """List the exits in the file's order, with what each runs through and the groups it is in."""
    groups = loaded.topology.state.groups
    return [
        {
            "name": exit_.name,
            "kind": exit_.kind,
            "via": exit_.via,
            "groups": [group.name for group in groups if exit_.name in group.exits],
            "mtu": exit_.mtu,
        }
        for exit_ in loaded.topology.exits
    ]


def show(loaded: Loaded, name: str) -> dict[str, Any]:
    """Describe one exit: its settings, which hold no secret, and where its secrets are. Raises ChainError (CONFIG)."""
    config = config_of(loaded.config, name)
    built = next(exit_ for exit_ in loaded.topology.exits if exit_.name == name)
    found = next(each for each in listing(loaded) if each["name"] == name)
    settings = config.model_dump(mode="json", exclude_none=True, exclude={"kind", "via", "mtu"})
    secrets = [
        {"role": secret.role, "file": secret.path, "there": is_there(loaded.project.root / secret.path)}
        for secret in built.secrets
    ]
    return {
        **found,
        "carried": [each.name for each in built.settings.carried],
        "settings": settings,
        "secrets": secrets,
    }


def remove(project: Project, name: str, progress: Progress = SILENT) -> list[str]:
    """Take an exit out of chain.yaml; give the files of its secrets, which stay. Raises ChainError (CONFIG).

    The engine is not asked: an exit may well be removed because its network is gone.
    """
    with changing(project, progress):
        before = loader.load(project.file, SETTINGS)
        exit_ = config_of(before, name)
        if problems := _needed(before, name):
            raise ChainError(problems, ExitCode.CONFIG)
        rewrite(project, lambda text: _without(project, text, before, name))
        own = {f"secrets/{name}_{spec.role}" for spec in REGISTRY[exit_.kind].secrets(exit_) if not spec.override}
        return sorted(path for path in own if is_there(project.root / path))


def _without(project: Project, text: str, before: Config, name: str) -> str:
    """Give the text without an exit, if it says no more and no less than before about all others."""
    edited = edit.remove_exit(text, name)
    after = loader.check(project.file, edited, SETTINGS)
    new = set(members_of(after)[DEFAULT_GROUP]) - set(members_of(before)[DEFAULT_GROUP])
    if new:
        what = f"clients would then go out by {', '.join(sorted(new))}, through which it runs"
        hint = "write `groups: {default: {exits: […]}}` first, with the exits that they are to use"
        raise ChainError(Problem(f"exit {name}", what, hint), ExitCode.CONFIG)
    return edited


def config_of(config: Config, name: str) -> Any:
    """Give an exit's settings. Raises ChainError (CONFIG) when there is no such exit."""
    if name not in config.exits:
        known = f"there are: {', '.join(config.exits)}"
        raise ChainError(Problem(f"exit {name}", "no such exit", known), ExitCode.CONFIG)
    return config.exits[name]


def _needed(config: Config, name: str) -> list[Problem]:
    """Say what in chain.yaml would be wrong without this exit."""
    where = f"exit {name}"
    problems = [
        Problem(where, f"exit {other} runs through it", f"remove that one first, or change `exits.{other}.via`")
        for other, exit_ in config.exits.items()
        if exit_.via == name
    ]
    problems += [
        Problem(where, f"group {group} has it", f"take it out of `groups.{group}.exits` first")
        for group, found in config.groups.items()
        if name in found.exits
    ]
    if len(config.exits) == 1:
        problems.append(Problem(where, "it is the only one", "`chain down` ends the chain; or add another exit first"))
    return problems

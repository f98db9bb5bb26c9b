"""What a provider handed out → exits in chain.yaml, and their secrets' files."""

from __future__ import annotations

import errno
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from chain import checks, imports, topology
from chain.api.load import crowding, file_of
from chain.api.project import changing, is_missing, make_folder, rewrite, write_atomic
from chain.config import edit, loader
from chain.config.models import NAME_PATTERN, NAME_RULES
from chain.contract import printable
from chain.errors import ChainError, ExitCode, Problem
from chain.exits import REGISTRY, SETTINGS
from chain.imports.base import SPACES, flaw
from chain.imports.links import scheme_of
from chain.secret import MOST_BYTES_OF_DOCUMENT, Secret, read_regular, read_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chain.api.project import Project
    from chain.config.models import Config
    from chain.exits.base import SecretSpec
    from chain.imports import Imported, Item
    from chain.imports.base import Aside

ALL = "all"
MOST_LISTED = 60  # of a bundle's exits, in the message that asks which one is meant
_NAME_SHOWN = 60
_TERMINALS_LINE = 4095  # bytes; the kernel drops what is typed or pasted behind them


@dataclass(frozen=True)
class Source:
    """Bytes, and what messages call the place that they are from."""

    label: str
    data: bytes = field(repr=False)
    aside: Aside = imports.nothing_aside  # gives the files that it names


@dataclass(frozen=True)
class Exit:
    """An exit that is to be added, under its name in chain.yaml."""

    name: str
    imported: Imported

    @property
    def fields(self) -> dict[str, object]:
        return {"kind": self.imported.kind, **self.imported.settings}

    @property
    def specs(self) -> tuple[SecretSpec, ...]:
        model = SETTINGS[self.imported.kind].model_validate(self.fields)
        return REGISTRY[self.imported.kind].secrets(model)

    def path(self, role: str) -> str:
        """Give the file of a secret, relative to the project's folder."""
        return f"secrets/{self.name}_{role}"

    def files(self) -> list[tuple[str, str, bool]]:
        """Give each secret's role, its file, and whether the input holds it."""
        return [(spec.role, self.path(spec.role), spec.role in self.imported.secrets) for spec in self.specs]

    def lines(self) -> list[str]:
        """Give what is written into chain.yaml."""
        return edit.exit_block(self.name, self.fields).splitlines()

    def public(self) -> dict[str, object]:
        """Give what scripts get: all but the secrets."""
        secrets = [
            {"role": role, "file": path, "given": given} | ({"value": "***"} if given else {})
            for role, path, given in self.files()
        ]
        return {
            "name": self.name,
            "kind": self.imported.kind,
            "settings": self.imported.settings,
            "secrets": secrets,
        }


@dataclass(frozen=True)
class Outcome:
    """What was added, or would be; `left` are those of a bundle that could not be taken, each with its first reason."""

    exits: tuple[Exit, ...]
    warnings: tuple[Problem, ...]
    left: tuple[Problem, ...]
    groups: Mapping[str, tuple[str, ...]]  # exit → those that have it


@dataclass(frozen=True)
class _Plan:
    """What adding comes to, seen against the files that are there."""

    after: Config
    lacking: tuple[tuple[Exit, SecretSpec], ...]  # credentials that neither the input nor a file has
    warnings: tuple[Problem, ...]


def take(source: str, standard_input: BinaryIO, *, secrets: Path) -> Source:
    """Get what `--from` names: a link itself, a file, or `-`. Raises ChainError (CONFIG), without repeating it.

    `secrets`: the folder from which a file that it names is not taken.
    """
    if source == "-":
        data = standard_input.read(imports.MOST_BYTES + 1)
        if standard_input.isatty() and max(map(len, data.split(b"\n"))) >= _TERMINALS_LINE:
            what, hint = "the terminal has cut a long line short", "put it into a file, and name that"
            raise ChainError(Problem("standard input", what, hint), ExitCode.CONFIG)
        return Source("standard input", data)
    if scheme_of(source.lstrip(SPACES)):
        return Source("--from", source.encode(errors="surrogateescape"))
    try:
        data = read_regular(Path(source), imports.MOST_BYTES)
        return Source(Path(source).name, data, partial(_beside, Path(source).parent, secrets))
    except FileNotFoundError:
        what, hint = "no such file, and no link", "FILE, LINK, or - for standard input"
    except (OSError, ValueError) as error:
        what = f"the file can't be read: {getattr(error, 'strerror', '') or 'its name is none'}"
        hint = "is it the right one? What a program writes: `… | chain exit add NAME --from -`"
        if getattr(error, "errno", None) == errno.EACCES:
            hint = "check its owner and mode"
    raise ChainError(Problem("--from", what, hint), ExitCode.CONFIG)


def _beside(folder: Path, secrets: Path, name: str) -> bytes:
    """Read a file that the input names. Raises AsideError, without the name, unless it is one in the input's folder.

    The input is anybody's text, and must not have the first lines of any file sent to its author's server. Where that
    folder is somebody's home or project, its hidden files (.netrc, .ssh) and the chain's own secrets are such, too.
    """
    try:
        home, path = folder.resolve(), (folder / name).resolve()
        if Path(name).is_absolute() or home not in path.parents:
            raise imports.AsideError("its name leads out of the input's folder, and nothing is taken from elsewhere")
        if any(part.startswith(".") for part in path.relative_to(home).parts) or path.is_relative_to(secrets.resolve()):
            raise imports.AsideError("it is hidden, or one of the chain's secrets, and no such file is taken")
        return read_regular(path, MOST_BYTES_OF_DOCUMENT)
    except FileNotFoundError:
        raise imports.AsideError("it is not beside the input") from None
    except (OSError, ValueError, RuntimeError) as error:  # links that go round are a RuntimeError
        why = getattr(error, "strerror", "") or "its name is none"
        raise imports.AsideError(f"it can't be read: {why}") from None


def add(
    project: Project,
    name: str,
    source: Source,
    *,
    pick: str | None = None,
    ask: Callable[[str, str], str] | None = None,
    dry_run: bool = False,
) -> Outcome:
    """Add what a source holds. `ask`, where there is somebody to ask, gets a credential by its exit and description.

    Secrets come first: an interrupted call leaves files with which the same call goes on, never an exit without them.
    Raises ChainError (CONFIG); then nothing was touched.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        what, hint = "this is no name for an exit", f"a name has {NAME_RULES[NAME_PATTERN]}"
        raise ChainError(Problem(f"exit {name!r}", what, hint), ExitCode.CONFIG)
    exits, left = _chosen(name, source, pick)
    plan = _plan(project, exits)
    if not dry_run:
        if plan.lacking:
            exits = _completed(exits, plan.lacking, ask)
        with changing(project):
            plan = _plan(project, exits)
            _write(project, exits)
    members = topology.members_of(plan.after)
    return Outcome(
        tuple(exits),
        plan.warnings,
        tuple(left),
        {exit_.name: tuple(group for group, names in members.items() if exit_.name in names) for exit_ in exits},
    )


def _chosen(name: str, source: Source, pick: str | None) -> tuple[list[Exit], list[Problem]]:
    try:
        items = imports.read(source.data, datetime.now(UTC), source.aside)
    except imports.RefusedError as error:
        raise _refused(source.label, error) from None
    if len(items) == 1 and pick in (None, ALL, "1"):
        return [Exit(name, _taken(source.label, items[0]))], []
    if pick is None:
        what, hint = f"it holds {len(items)} exits", "add `--pick` with a number, a name, or all"
        raise ChainError(Problem(source.label, what, hint), ExitCode.CONFIG, _listing(items))
    if pick == ALL:
        return _all(name, source, items)
    return [Exit(name, _taken(source.label, items[_number(source, items, pick) - 1]))], []


def _taken(label: str, item: Item) -> Imported:
    if isinstance(item.found, imports.RefusedError):
        raise _refused(label, item.found)
    return item.found


def _refused(label: str, error: imports.RefusedError) -> ChainError:
    problems = [replace(problem, where=f"{label}: {problem.where}") for problem in error.problems]
    return ChainError(problems, ExitCode.CONFIG)


def _number(source: Source, items: Sequence[Item], pick: str) -> int:
    """Find which one is meant, counted from one: by its number, or by what it is called."""
    name = pick.strip()
    if re.fullmatch("[0-9]{1,5}", name) and 1 <= int(name) <= len(items):
        return int(name)
    found = [number for number, item in enumerate(items, start=1) if name and item.name.strip() == name]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} of them are called so: numbers {', '.join(map(str, found))}" if found else "none is called so"
    raise ChainError(
        Problem(f"{source.label}: --pick", what, f"give a number from 1 to {len(items)}"),
        ExitCode.CONFIG,
        _listing(items),
    )


def _all(name: str, source: Source, items: Sequence[Item]) -> tuple[list[Exit], list[Problem]]:
    """Take all that can be taken, each under its number."""
    exits, left = [], []
    for number, item in enumerate(items, start=1):
        if isinstance(item.found, imports.RefusedError):
            problem = item.found.problems[0]
            left.append(replace(problem, where=f"{source.label}: number {number}: {problem.where}"))
        else:
            exits.append(Exit(f"{name}-{number}", item.found))
    if not exits:
        raise ChainError(left, ExitCode.CONFIG)
    longest = max(exits, key=lambda exit_: len(exit_.name)).name
    if not re.fullmatch(NAME_PATTERN, longest):
        hint = f"choose a shorter one than {name}: a name has {NAME_RULES[NAME_PATTERN]}"
        raise ChainError(Problem(f"exit {longest}", "this name is too long", hint), ExitCode.CONFIG)
    return exits, left


def _listing(items: Sequence[Item]) -> str:
    """Show what can be picked. What could not be read has no name here, since it might be a credential."""
    lines = []
    for number, item in enumerate(items[:MOST_LISTED], start=1):
        if isinstance(item.found, imports.RefusedError):
            lines.append(f"{number:>4}  can't be taken: {item.found.problems[0].what}")
        else:
            lines.append(f"{number:>4}  {printable(item.name, _NAME_SHOWN) or item.found.kind}")
    more = len(items) - MOST_LISTED
    return "\n".join([*lines, *([f"      and {more} more"] if more > 0 else [])])


def _plan(project: Project, exits: Sequence[Exit]) -> _Plan:
    """See what adding would come to. Raises ChainError (CONFIG) with all that speaks against it."""
    before = loader.read(project.file)
    loader.check_form(project.file, before)  # which editing relies on; a file without any exit is not yet right
    text = _added(before, exits)
    try:
        after = loader.check(project.file, text, SETTINGS)
    except ChainError:
        loader.check(project.file, before, SETTINGS)  # what was wrong before has its line there
        raise
    topology.assign_slots(after.exits)
    users = _users(after, set())
    problems = [*_groups(after, exits), *_conflicts(project, exits), *_plain_names(project, after, exits)]
    if problems:
        raise ChainError(problems, ExitCode.CONFIG)
    lacking, warnings = [], [warning for exit_ in exits for warning in _said(exit_, several=len(exits) > 1)]
    for exit_ in exits:
        for spec in exit_.specs:
            if spec.role in exit_.imported.secrets:
                continue
            path = file_of(project, exit_.name, spec.role, exit_.path(spec.role), users)
            if is_missing(project.root / path):
                lacking.append((exit_, spec))
            else:
                warnings.append(Problem(path, f"it was there before, and is what is used for {spec.about}"))
    warnings += [*_twins(project, after, exits), *_crowded(project, after, exits)]
    return _Plan(after, tuple(lacking), tuple(dict.fromkeys(warnings)))


def _added(text: str, exits: Sequence[Exit]) -> str:
    return edit.add_exits(text, {exit_.name: exit_.fields for exit_ in exits})


def _said(exit_: Exit, *, several: bool) -> list[Problem]:
    before = f"{exit_.name}: " if several else ""
    return [replace(warning, where=before + warning.where) for warning in exit_.imported.warnings]


def _users(config: Config, without: set[str]) -> Counter[str]:
    """Count the exits that have a secret of each role."""
    return Counter(
        spec.role
        for name, exit_ in config.exits.items()
        if name not in without
        for spec in REGISTRY[exit_.kind].secrets(exit_)
    )


def _groups(after: Config, exits: Sequence[Exit]) -> list[Problem]:
    """Find exits that would take a group's place where other groups name it."""
    hint = "choose another name for the exit"
    return [
        Problem(f"exits.{exit_.name}", "a group is called so", hint) for exit_ in exits if exit_.name in after.groups
    ]


def _conflicts(project: Project, exits: Sequence[Exit]) -> list[Problem]:
    """Find files that have another value than is to be written; the same one is what an interrupted call left."""
    problems = []
    for exit_ in exits:
        for role, value in exit_.imported.secrets.items():
            path = project.root / exit_.path(role)
            if not is_missing(path) and not _holds(path, value):
                hint = "move it away if nobody needs it, or choose another name for the exit"
                problems.append(Problem(exit_.path(role), "this secret is there already, with another value", hint))
    return problems


def _holds(path: Path, value: Secret) -> bool:
    try:
        return read_secret(path, document=True) == value
    except ChainError:
        return False


def _plain_names(project: Project, after: Config, exits: Sequence[Exit]) -> list[Problem]:
    """Find exits whose secrets have names that serve only while no other exit has such secrets."""
    new = {exit_.name for exit_ in exits}
    before, now = _users(after, new), _users(after, set())
    problems = []
    for name, config in after.exits.items():
        if name in new:
            continue
        for spec in REGISTRY[config.kind].secrets(config):
            own = f"secrets/{name}_{spec.role}"
            usual = spec.override or own
            plain = file_of(project, name, spec.role, usual, before)
            if plain != file_of(project, name, spec.role, usual, now):
                what = f"exit {name} has it by this name, which serves while only one exit has such a secret"
                problems.append(Problem(plain, what, f"mv {plain} {own}"))
    return problems


def _twins(project: Project, after: Config, exits: Sequence[Exit]) -> list[Problem]:
    """Find exits that say the same as one before them, credentials and all."""
    new = {exit_.name: exit_.imported.secrets for exit_ in exits}

    def has(name: str, role: str, value: Secret) -> bool:
        return new[name].get(role) == value if name in new else _holds(project.secrets / f"{name}_{role}", value)

    what = "it is the same as exit {}, with the same credentials, and many providers allow but one session"
    problems = []
    for exit_ in exits:
        for name, config in after.exits.items():
            if name == exit_.name:
                break  # those behind it have it before them
            if config == after.exits[exit_.name] and all(has(name, *secret) for secret in new[exit_.name].items()):
                problems.append(Problem(f"exits.{exit_.name}", what.format(name), "keep one of the two"))
                break
    return problems


def _crowded(project: Project, after: Config, exits: Sequence[Exit]) -> list[Problem]:
    new = {exit_.name for exit_ in exits}
    together = [names for names in checks.neighbours(after, crowding(project, after)) if new & set(names)]
    found = [checks.crowded(names) for names in together]
    return [Problem(each.name, f"{each.found}: {each.why}", each.fix) for each in found]


def _completed(
    exits: Sequence[Exit],
    lacking: Sequence[tuple[Exit, SecretSpec]],
    ask: Callable[[str, str], str] | None,
) -> list[Exit]:
    """Ask for what the input leaves out. Raises ChainError (CONFIG) that names the files, where nobody can be asked."""
    if ask is None:
        hint = "write it there, on one line, mode 0600, and repeat the command; on a terminal it is asked for"
        raise ChainError(
            [
                Problem(exit_.path(spec.role), f"the input leaves it out: {spec.about} (exit {exit_.name})", hint)
                for exit_, spec in lacking
            ],
            ExitCode.CONFIG,
        )
    found: dict[str, dict[str, Secret]] = {exit_.name: {} for exit_ in exits}
    for exit_, spec in lacking:
        value = ask(exit_.name, spec.about)
        if wrong := flaw(value, spec):
            raise ChainError(Problem(f"exit {exit_.name}: {spec.about}", wrong, "try again"), ExitCode.CONFIG)
        found[exit_.name][spec.role] = Secret(value)
    return [
        replace(exit_, imported=replace(exit_.imported, secrets=exit_.imported.secrets | found[exit_.name]))
        for exit_ in exits
    ]


def _write(project: Project, exits: Sequence[Exit]) -> None:
    make_folder(project.secrets, 0o700)
    for exit_ in exits:
        for role, value in exit_.imported.secrets.items():
            path = project.root / exit_.path(role)
            if is_missing(path):
                write_atomic(path, value.reveal() + "\n", 0o600)
    rewrite(project, lambda text: _added(text, exits))

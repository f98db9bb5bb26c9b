"""chain.yaml → `Config`, or every error in it at once, each with its line, its path and a hint."""

from __future__ import annotations

import difflib
import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from chain.config.models import FORMS, NAME_RULES, Config, ExitConfig, SecretFile
from chain.errors import ChainError, ExitCode, Problem
from chain.secret import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from ipaddress import IPv4Network
    from pathlib import Path

    from pydantic_core import ErrorDetails

MAX_BYTES = 10_000_000  # far above 10,000 clients, far below what would exhaust the machine

MAX_DEPTH = 50  # a chain.yaml has six levels; the parser in C crashes at tens of thousands

Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT, _MAP, _SEQUENCE = (f"tag:yaml.org,2002:{form}" for form in ("str", "map", "seq"))
_FORM = "config.example/ shows the form, and `chain schema` all there is"
_HINTS = {
    "entry": "at least `entry: {endpoint: vpn.example.org}`",
    "entry.endpoint": "the name or address under which clients reach this machine",
    "exits": "at least one exit, such as `paris: {kind: l2tp}`",
    "dns.upstreams": "give each a name, as in `9.9.9.9#dns.quad9.net`, or none of them",
}


def load(path: Path, kinds: Mapping[str, type[ExitConfig]]) -> Config:
    """Read and check one file. `kinds` maps an exit's kind to its settings model.

    Raises ChainError (CONFIG) with all problems of the first phase that fails: file, YAML, then all that it says.
    """
    return check(path, read(path), kinds)


def check(path: Path, text: str, kinds: Mapping[str, type[ExitConfig]]) -> Config:
    """Check what a file says, or would say. Raises ChainError (CONFIG) as `load` does."""
    data, lines = _parse(path, text.replace("\r\n", "\n").replace("\r", "\n"))
    problems: list[Problem] = []
    config = _fields(data, kinds, problems)
    if config is not None:
        problems.extend(_references(config))
    if problems or config is None:
        raise ChainError(_located(problems, path, lines), ExitCode.CONFIG)
    return config


def read(path: Path) -> str:
    """Give a file's text, with its own line ends. Raises ChainError (CONFIG)."""
    try:
        return read_regular(path, MAX_BYTES).decode()
    except FileNotFoundError:
        raise _refuse(path, "no such file", "name the file with -f, or copy one of config.example/ there") from None
    except UnicodeDecodeError:
        raise _refuse(path, "the file is not UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _refuse(path, f"the file is larger than {MAX_BYTES} bytes", "is this really a chain.yaml?") from None
        raise _refuse(path, f"can't be read: {error.strerror}", "check the file's owner and mode") from None


def check_form(path: Path, text: str) -> None:
    """See whether a text is of the form that is read here, whatever it says. Raises ChainError (CONFIG)."""
    _parse(path, text)


def _parse(path: Path, text: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Give the file's content, and the line of each dotted path in it."""
    lines: dict[str, int] = {}
    found: list[Problem] = []
    try:
        _check_events(path, text)
        root = yaml.compose(text, Loader)
        walk(root, "", lines, found)
        if found:
            problems = [replace(problem, where=f"{path}:{problem.where}") for problem in found]
            raise ChainError(problems, ExitCode.CONFIG)
        data = content(root)
    except yaml.MarkedYAMLError as error:
        where = _at(path, error.problem_mark or error.context_mark)
        hint = "look at this line and the one above it"
        if "cannot start any token" in str(error.problem):
            hint = "is there a tab? YAML wants spaces"
        raise _refuse(where, f"not valid YAML: {error.problem}", hint) from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise _refuse(path, f"not valid YAML: {reason}", _FORM) from None
    if not isinstance(data, dict):
        raise _refuse(path, "the file holds no mapping", "start with `entry:` and `exits:`, as in config.example/")
    return data, lines


def _at(path: Path, mark: Any) -> str:
    return f"{path}:{mark.line + 1}" if mark else str(path)


def _check_events(path: Path, text: str) -> None:
    """Refuse what YAML allows but a configuration never means, before anything recursive reads it."""
    depth = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _refuse(_at(path, event.start_mark), "aliases are not read here", "write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _refuse(_at(path, event.start_mark), "too deeply nested", _FORM)


def walk(node: yaml.Node | None, path: str, lines: dict[str, int], found: list[Problem]) -> None:
    """Note the line of every path below `node`, and each key that is no name or stands twice."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                found.append(Problem(str(line), "this key is no name", _FORM))
                continue
            key.tag = _TEXT  # every key is a name here: `no:` is an exit called no, not a false one
            if key.value in seen:
                found.append(Problem(str(line), f"the key {key.value!r} stands twice", "keep one of the two"))
            seen.add(key.value)
            below = f"{path}.{key.value}" if path else key.value
            lines[below] = line
            walk(value, below, lines, found)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[f"{path}.{index}"] = value.start_mark.line + 1
            walk(value, f"{path}.{index}", lines, found)


def content(node: yaml.Node | None) -> Any:
    """Build what a node says, after `walk`: as yaml does, without the generators that make that slow."""
    if isinstance(node, yaml.ScalarNode) and node.tag == _TEXT:
        return node.value
    if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
        return {key.value: content(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
        return [content(value) for value in node.value]
    return Loader("").construct_document(node) if node else None


def _refuse(where: object, what: str, hint: str) -> ChainError:
    return ChainError(Problem(str(where), what, hint), ExitCode.CONFIG)


def _fields(data: dict[str, Any], kinds: Mapping[str, type[ExitConfig]], problems: list[Problem]) -> Config | None:
    exits = data.get("exits")
    checked: dict[str, ExitConfig] = {}
    for name, raw in exits.items() if isinstance(exits, dict) else ():
        where = f"exits.{name}"
        if not isinstance(raw, dict):
            problems.append(Problem(where, "not a mapping", f"give it a kind: {_listed(kinds)}"))
            continue
        kind = raw.get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            what = f"unknown kind {kind!r}" if "kind" in raw else "the kind is missing"
            problems.append(Problem(f"{where}.kind" if "kind" in raw else where, what, _nearest(str(kind), kinds)))
            continue
        try:
            checked[name] = kinds[kind].model_validate(raw)
        except ValidationError as error:
            problems.extend(_problem(detail, kinds[kind], where) for detail in error.errors())
    # Exits with problems were reported above; a stand-in lets the rest of the file be checked all the same.
    stand_in = {name: checked.get(name, ExitConfig(kind="")) for name in exits} if isinstance(exits, dict) else exits
    try:
        return Config.model_validate(data if exits is None else {**data, "exits": stand_in})
    except ValidationError as error:
        problems.extend(_problem(detail, Config, "") for detail in error.errors())
        return None


def _references(config: Config) -> Iterable[Problem]:
    for name, group in config.groups.items():
        known = [*config.exits, *config.groups]
        for index, member in enumerate(group.exits):
            if member not in known:
                yield Problem(f"groups.{name}.exits.{index}", f"no exit {member!r}", _nearest(member, known))
        if len(set(group.exits)) != len(group.exits):
            yield Problem(f"groups.{name}.exits", "an exit stands here twice", "list each exit once")
        if circle := _circle(config, [name]):
            what = f"runs in a circle: {' → '.join(circle)}"
            yield Problem(f"groups.{name}.exits", what, "let the last of these groups have exits only")
        else:
            yield from _hiding(config, name, _exits_of(config, name))
    if "default" not in config.groups and not any(exit_.hides for exit_ in config.exits.values()):
        what = "no exit is left for the group `default`: a direct one is used only where a group names it"
        yield Problem("exits", what, "write `groups: {default: {exits: […]}}`, if that is what you want")
    for name, exit_ in config.exits.items():
        yield from _allowed(config, name, exit_.lets_to())
        if exit_.via is not None:
            yield from _way(config, name, exit_.via)
    if config.entry.subnet.overlaps(config.network.pool):
        yield Problem(
            "network.pool", f"{config.network.pool} overlaps the clients' {config.entry.subnet}", "choose another /20"
        )
    yield from _clients(config)
    yield from _hooks(config)


def _hooks(config: Config) -> Iterable[Problem]:
    """Refuse two hooks that do the same: how far each has come is remembered by what it does."""
    targets = [(hook.command, hook.webhook) for hook in config.hooks]
    for index, target in enumerate(targets):
        if (first := targets.index(target)) != index:
            yield Problem(f"hooks.{index}", f"it does the same as hook {first + 1}", "list all its events there")


def _allowed(config: Config, name: str, networks: Iterable[IPv4Network]) -> Iterable[Problem]:
    """Refuse to let clients by an exit to the networks that the chain itself is made of."""
    own = {"network.pool": config.network.pool, "entry.subnet": config.entry.subnet}
    for network in networks:
        for what, taken in own.items():
            if network.overlaps(taken):
                yield Problem(f"exits.{name}.allow", f"{network} overlaps {what}, {taken}", "list smaller networks")


def _circle(config: Config, way: list[str]) -> list[str] | None:
    """Give a way from the first group of `way`, down to its last, and back to the first, if there is one."""
    for member in config.groups[way[-1]].exits:
        if member in config.exits or member not in config.groups:
            continue
        if member == way[0]:
            return [*way, member]
        if member not in way and (circle := _circle(config, [*way, member])):
            return circle
    return None


def _exits_of(config: Config, group: str, above: tuple[str, ...] = ()) -> list[str]:
    """Name the exits of a group and of the groups in it, as far as they are there."""
    found = []
    for member in config.groups[group].exits:
        if member in config.groups and member not in config.exits:
            found += [] if member in above else _exits_of(config, member, (*above, group))
        else:
            found.append(member)
    return list(dict.fromkeys(found))


def _hiding(config: Config, group: str, members: list[str]) -> Iterable[Problem]:
    """Refuse a group that would fall back to this machine's own address."""
    open_ = [name for name in members if name in config.exits and not config.exits[name].hides]
    if open_ and len(members) > 1:
        what = f"exit {open_[0]} goes out under this machine's own address, and must not stand in for another"
        yield Problem(f"groups.{group}.exits", what, "give it a group of its own, for the clients that are to use it")


def _way(config: Config, name: str, via: str) -> Iterable[Problem]:
    """Check what an exit runs through."""
    where = f"exits.{name}.via"
    if via not in config.exits:
        yield Problem(where, f"no exit {via!r}", _nearest(via, config.exits))
        return
    hops = [name]
    while (hop := config.exits[hops[-1]].via) in config.exits and hop is not None:
        if hop in hops:
            if hop == name:  # said at each exit of the loop, and not at those that lead into it
                yield Problem(where, f"runs in a circle: {' → '.join([*hops, hop])}", "let the last hop have no `via:`")
            return
        hops.append(hop)
    if not config.exits[via].carries:
        yield Problem(where, f"exit {via} has no tunnel that another one could run through", "leave `via` out")
        return
    for protocol, instead in config.exits[name].sends().items():
        if protocol not in config.exits[via].carries:
            what = f"exit {via} carries no {protocol.upper()}, which this exit sends"
            yield Problem(where, what, instead or "let it run through an exit of another kind")


def _clients(config: Config) -> Iterable[Problem]:
    known = {"default", *config.groups}
    taken = {config.entry.subnet.network_address + 1: "the entry"}
    keys: dict[str, str] = {}
    for name, client in config.clients.items():
        where = f"clients.{name}"
        if client.group is not None and client.group not in known:
            yield Problem(f"{where}.group", f"no group {client.group!r}", _nearest(client.group, known))
        network = config.entry.subnet
        if client.address not in network or client.address in (network.network_address, network.broadcast_address):
            yield Problem(
                f"{where}.address", f"{client.address} is no host of {network}", "choose one inside entry.subnet"
            )
        elif client.address in taken:
            yield Problem(
                f"{where}.address", f"{client.address} is taken by {taken[client.address]}", "choose a free one"
            )
        taken.setdefault(client.address, name)
        if client.public_key in keys:
            yield Problem(
                f"{where}.public_key", f"the same key as {keys[client.public_key]}", "each client has a key of its own"
            )
        keys.setdefault(client.public_key, name)


def _problem(detail: ErrorDetails, model: type[BaseModel], prefix: str) -> Problem:
    """Say in our words what pydantic found."""
    path = [str(part) for part in detail["loc"] if part != "[key]"]
    where = ".".join([prefix, *path] if prefix else path)
    context = detail.get("ctx", {})
    hint = _HINTS.get(where, _FORM)
    match detail["type"]:
        case "extra_forbidden":
            what, hint = "unknown key", _nearest(path[-1], _fields_at(model, path[:-1]))
        case "missing":
            what = "this is missing"
        case "string_pattern_mismatch":
            what, hint = _misspelt(context["pattern"], hint)
        case "model_type" if context["class_name"] == SecretFile.__name__:
            what = "a secret does not stand in this file"
            hint = "write it to a file of its own; `{file: …}` names one with an unusual name"
        case "model_type" | "dict_type":
            what = "this must be a mapping"
        case "string_type":
            what, hint = "this must be a text", "put it in quotes; YAML reads `no`, `on` and 12 as something else"
        case "list_type":
            what, hint = "this must be a list", "write it as [ … ], even where it has but one thing in it"
        case "too_short":
            what = "it is empty"
        case _:
            what = detail["msg"].removeprefix("Value error, ").replace("Input should be", "this must be", 1)
            what = what[:1].lower() + what[1:]
    return Problem(where, what, hint)


def _misspelt(pattern: str, hint: str) -> tuple[str, str]:
    """Say that a text has not the form it must have, and what that is; `hint` where there is no word for it."""
    if pattern in NAME_RULES:
        return "not a name", f"a name has {NAME_RULES[pattern]}"
    if pattern in FORMS:
        return "this is not written as it has to be", FORMS[pattern]
    return "it has characters that can't stand here", hint


def _fields_at(model: type[BaseModel], path: list[str]) -> Iterable[str]:
    """Names allowed at `path`, following nested models as far as they can be followed."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = field.annotation if field else None
        else:  # dict[Name, Model] or list[Model]: the part is a name, or a number
            arguments = getattr(current, "__args__", ())
            current = arguments[-1] if arguments else None
        options = [option for option in getattr(current, "__args__", ()) if isinstance(option, type)]
        if current is not None and not isinstance(current, type) and get_origin(current) not in (dict, list):
            current = next((option for option in options if issubclass(option, BaseModel)), None)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return current.model_fields
    return ()


def _nearest(name: str, known: Iterable[str]) -> str:
    """Name the closest of `known`, or list them all."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {_listed(names)}" if names else "remove it"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _located(problems: Iterable[Problem], path: Path, lines: Mapping[str, int]) -> list[Problem]:
    """Put file and line before each problem, in the order of the lines."""
    found = []
    for problem in problems:
        at = problem.where
        while at and at not in lines:
            at = at.rpartition(".")[0]
        line = lines.get(at, 0)
        place = f"{path}:{line}" if line else str(path)
        where = f"{place}: {problem.where}" if problem.where else place
        found.append((line, replace(problem, where=where)))
    return [problem for _, problem in sorted(found)]

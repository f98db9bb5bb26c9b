"""Edits of chain.yaml that leave every other byte as it is. Text in, text out; who writes the file is the caller."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from chain.config.loader import Loader, content, walk
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

_STEP = "  "
_PLAIN = re.compile(r"[A-Za-z0-9_/.+][A-Za-z0-9_/.+=@-]*(:[A-Za-z0-9_/.+=@-]+)*")  # no sign of YAML's own in it


def add_client(text: str, name: str, fields: Mapping[str, str]) -> str:
    """Add one client at the end of `clients:`, which is made when it is not there. Raises ChainError (CONFIG)."""
    return _add(text, "clients", {name: fields})


def add_exits(text: str, exits: Mapping[str, Mapping[str, Any]]) -> str:
    """Add exits at the end of `exits:`, which is made when it is not there. Raises ChainError (CONFIG)."""
    return _add(text, "exits", exits)


def exit_block(name: str, fields: Mapping[str, Any]) -> str:
    """Give the lines that `add_exits` writes into a file of the usual form, without their indentation."""
    return "\n".join(_entry(name, fields))


def _entry(name: str, fields: Mapping[str, Any]) -> list[str]:
    return [f"{name}:", *(_STEP + line for line in _block(fields))]


def _add(text: str, section: str, entries: Mapping[str, Mapping[str, Any]]) -> str:
    root, data = _parse(text)
    there = data.get(section) or {}
    what, hint = f"this {section.removesuffix('s')} exists", "choose another name"
    problems = [Problem(f"{section}.{name}", what, hint) for name in entries if name in there]
    if problems:
        raise ChainError(problems, ExitCode.CONFIG)
    found = next((value for key, value in root.value if key.value == section), None)
    flow = ", ".join(f"{name}: {_flow(fields)}" for name, fields in entries.items())
    block = [line for name, fields in entries.items() for line in _entry(name, fields)]
    if root.flow_style:
        edited = _add_in_braces(text, root, section, found, flow)
    elif found is None:
        pad = " " * root.start_mark.column
        edited = _insert(text, len(text), [f"{pad}{section}:", *(pad + _STEP + line for line in block)])
    elif not isinstance(found, yaml.MappingNode) or not found.value:
        pad = " " * root.start_mark.column + _STEP
        edited = _instead_of(text, found, [pad + line for line in block])
    elif found.flow_style:
        edited = _into_braces(text, found, flow)
    else:
        pad = " " * found.start_mark.column
        edited = _insert(text, _line_end(text, _end(found)), [pad + line for line in block])
    data[section] = there | {name: dict(fields) for name, fields in entries.items()}
    return _checked(edited, data, f"{section}.{next(iter(entries))}", "write it by hand: " + flow)


def remove_client(text: str, name: str) -> str:
    """Remove one client, with the comments inside it. Raises ChainError (CONFIG) when there is none of that name."""
    return _remove(text, "clients", name)


def remove_exit(text: str, name: str) -> str:
    """Remove one exit, with the comments inside it. Raises ChainError (CONFIG) when there is none of that name."""
    return _remove(text, "exits", name)


def _remove(text: str, section: str, name: str) -> str:
    root, data = _parse(text)
    found = next((value for key, value in root.value if key.value == section), None)
    pairs = found.value if isinstance(found, yaml.MappingNode) else []
    index = next((index for index, (key, _) in enumerate(pairs) if key.value == name), None)
    if found is None or index is None:
        one = section.removesuffix("s")
        raise ChainError(
            Problem(f"{section}.{name}", f"no such {one}", f"`chain {one} list` shows them"), ExitCode.CONFIG
        )
    key, value = pairs[index]
    if not found.flow_style:
        start = text.rfind("\n", 0, key.start_mark.index) + 1
        end = _line_end(text, _end(value) if value.end_mark.index > key.end_mark.index else key.end_mark.index)
    elif index + 1 < len(pairs):
        start, end = key.start_mark.index, pairs[index + 1][0].start_mark.index
    else:
        start = pairs[index - 1][1].end_mark.index if index else key.start_mark.index
        end = value.end_mark.index
    del data[section][name]
    return _checked(text[:start] + text[end:], data, f"{section}.{name}", "remove its lines by hand")


def _parse(text: str) -> tuple[yaml.MappingNode, dict[str, Any]]:
    root = yaml.compose(text, Loader)
    if not isinstance(root, yaml.MappingNode):
        raise ChainError(Problem("", "the file holds no mapping", "config.example/ shows the form"), ExitCode.CONFIG)
    walk(root, "", {}, [])
    data: dict[str, Any] = content(root)
    return root, data


def _checked(text: str, wanted: dict[str, Any], where: str, hint: str) -> str:
    """Give the text only if it says what was meant. Files come in more forms than anybody tries out."""
    try:
        _, data = _parse(text)
    except (ChainError, yaml.YAMLError):
        data = {}
    section = where.partition(".")[0]
    if {**data, section: data.get(section) or {}} != wanted:
        what = f"the form of `{section}:` in this file is too unusual to be edited"
        raise ChainError(Problem(where, what, hint), ExitCode.CONFIG)
    return text


def _block(fields: Mapping[str, Any]) -> list[str]:
    """Write a mapping, one key a line; what is a list in it, and what is empty, in braces."""
    lines = []
    for key, value in fields.items():
        if isinstance(value, dict) and value:
            lines += [f"{key}:", *(_STEP + line for line in _block(value))]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return lines


def _flow(value: Any) -> str:
    """Write a value on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(_flow(item) for item in value)}]"
    return _scalar(value) if isinstance(value, str) else json.dumps(value)


def _scalar(value: str) -> str:
    """Write a text so that YAML reads it as that text, in braces too: a group may be called `no`."""
    with contextlib.suppress(ValueError):  # it has the form of a date or a number, and is none
        if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
            return value
    return json.dumps(value, ensure_ascii=False)


def _end(node: yaml.Node) -> int:
    """Find where a node's own text ends; a block's mark lies behind the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        if not isinstance(last, tuple):
            return _end(last)
        key, value = last
        return max(int(key.end_mark.index), _end(value))
    return int(node.end_mark.index)


def _line_end(text: str, index: int) -> int:
    """Find the start of the line after the last character before `index` that is no white space."""
    found = text.find("\n", len(text[:index].rstrip()))
    return len(text) if found < 0 else found + 1


def _insert(text: str, index: int, lines: list[str]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    before = text[:index] if text[:index].endswith("\n") or not index else text[:index] + newline
    return before + "".join(line + newline for line in lines) + text[index:]


def _instead_of(text: str, node: yaml.Node, lines: list[str]) -> str:
    """Put a block in the place of `{}`, `~` or nothing, below its line, whose comment stays."""
    start, end = node.start_mark.index, node.end_mark.index
    line_end = _line_end(text, end)
    rest = text[end:line_end]
    head = text[:start] + rest if rest.strip() else text[:start].rstrip(" ") + rest
    return _insert(head + text[line_end:], len(head), lines)


def _add_in_braces(text: str, root: yaml.MappingNode, section: str, found: yaml.Node | None, entry: str) -> str:
    if found is None:
        return _into_braces(text, root, f"{section}: {{{entry}}}")
    if isinstance(found, yaml.MappingNode):
        return _into_braces(text, found, entry)
    return f"{text[: found.start_mark.index]} {{{entry}}}{text[found.end_mark.index :]}"


def _into_braces(text: str, node: yaml.MappingNode, entry: str) -> str:
    """Add an entry before the closing brace."""
    content = text[: node.end_mark.index - 1].rstrip()
    comma = "" if content.endswith(("{", ",")) else ","
    space = " " if node.value else ""
    return f"{content}{comma}{space}{entry}{text[len(content) :]}"

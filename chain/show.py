"""What commands print for people: tables, ages, sizes, one line for each event. Pure."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from chain import drained

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


def table(header: list[str], rows: list[list[str]], notes: Sequence[Iterable[str]] = ()) -> list[str]:
    """Give rows in columns, as lines. `notes`: lines below each row."""
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    lines = []
    for row, below in zip([header, *rows], [(), *(notes or [()] * len(rows))], strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lines += [f"    {line}" for line in below]
    return lines


def ago(moment: float | None) -> str:
    """Say how long ago that was. `moment`: seconds of the calendar."""
    return f"{max(0, int(time.time() - moment))} s" if moment else ""


def size(count: float) -> str:
    """Give a number of bytes with its unit."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:  # noqa: PLR2004 - what the units mean
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def exits(found: Mapping[str, Any], before: Mapping[str, Any] | None = None, seconds: float = 0.0) -> list[str]:
    """Give a status' exits and groups. `before`: the status so many seconds ago, for how much passes them."""
    shares = _shares(found["groups"])
    past = {each["name"]: each for each in before["exits"]} if before else {}
    header = ["exit", "kind", "state", "since", "latency", "loss", "cause"]
    if past:
        header[-1:-1] = ["in", "out"]
    rows = []
    for each in found["exits"]:
        health = each.get("health", "")
        # That its tunnel is up says less than how clients fare.
        state = health if each["state"] == "up" and health in ("suspect", "dead") else each["state"]
        if reasons := each.get("drained"):
            state += f", drained ({', '.join(reasons)})"
        used = shares.get(each["name"])
        row = [
            each["name"],
            each["kind"],
            state + (f", in use{used}" if used is not None else ""),
            ago(each["since"]),
            f"{each['latency_ms']} ms" if each.get("latency_ms") is not None else "",
            f"{each['loss']:.0%}" if each.get("loss") else "",
            each["cause"],
        ]
        if past:
            row[-1:-1] = _rates(each, past.get(each["name"], {}), seconds)
        rows.append(row)
    notes = [
        [f"{sign} {each[key]}" for key, sign in (("warning", "warning:"), ("advice", "→")) if each.get(key)]
        for each in found["exits"]
    ]
    several = len(found["groups"]) > 1
    remarkable = [each["name"] for each in found["groups"] if several or each["exit"] is None or each.get("pinned")]
    return [*table(header, rows, notes), *groups(found, remarkable)]


def drains(found: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """Say of some exits why they are drained, or that they are not."""
    by_name = {each["name"]: each for each in found["exits"]}
    reasons = {name: by_name.get(name, {}).get("drained") for name in names}
    return [
        f"exit {name}: " + (f"drained: {', '.join(why)}" if why else "not drained") for name, why in reasons.items()
    ]


def groups(found: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """Say of some groups which exits their clients use, and why, where that is by hand or there is none."""
    by_name = {each["name"]: each for each in found["exits"]}
    return [
        f"group {group['name']}: {_way(group, {name: by_name[name] for name in group.get('exits', ())})}"
        for group in found["groups"]
        if group["name"] in names
    ]


def _way(group: Mapping[str, Any], exits: Mapping[str, Mapping[str, Any]]) -> str:
    used = group.get("shares") or dict.fromkeys([group["exit"]] if group["exit"] else [], 1.0)
    pinned = group.get("pinned")
    if not used:
        if reasons := drained.keeping_in(group, exits.values()):
            command = drained.undoing(reasons)
            hint = f"; {command} lets clients out again" if command else ""
            return f"blocked, all exits that could be used are drained: {drained.told(reasons)}{hint}"
        return "blocked, no exit is open" + (f"; {pinned} was chosen by hand" if pinned else "")
    text = ", ".join(name + (f" {share:.0%}" if share < 1 else "") for name, share in used.items())
    if not pinned:
        return text
    if pinned in used:
        return f"{text}, chosen by hand"
    chosen = exits.get(pinned, {})
    state = "drained" if chosen.get("drained") else chosen.get("health")
    return f"{text}; {pinned} was chosen by hand, but is {'not up yet' if state in (None, 'resting') else state}"


def clients(found: Mapping[str, Any]) -> list[str]:
    """Give a status' clients, below an empty line; with their groups where there are several."""
    header = ["client", "address", "exit", "last handshake", "sent", "received"]
    several = len(found.get("groups", ())) > 1
    if several:
        header.insert(2, "group")
    rows = [
        [
            each["name"],
            each["address"],
            *([each.get("group", "")] if several else []),
            each["exit"] or "blocked",
            ago(each["last_handshake"]) or "never",
            size(each["rx_bytes"]),
            size(each["tx_bytes"]),
        ]
        for each in found["clients"]
    ]
    return ["", *table(header, rows)] if rows else []


def event(told: Mapping[str, Any]) -> str:
    """Give one event as a line."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told["time"]))
    match told["event"]:
        case "exit":
            text = f"exit {told['exit']}: {told['source'] or 'new'} → {told['target']} ({told['cause']})"
        case "move":
            share = "" if told["share"] == 1 else f", {told['share']:.0%} of its clients"
            way = f"{told['source'] or 'blocked'} → {told['target'] or 'blocked'}"
            blackout = f", after {_duration(told['blackout'])} without answers" if told.get("blackout") else ""
            text = f"group {told['group']}{share}: {way}{blackout} ({told['cause']})"
        case "switch":
            text = f"group {told['group']}: {told['exit'] or 'as its policy says'} ({told['cause']})"
        case "undrain":
            text = f"exit {told['exit']}: no longer drained (it was: {told['cause']})"
        case verb:
            text = f"exit {told['exit']}: {verb}ed ({told['cause']})"
    return f"{moment}  {text}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - four digits are enough


def _shares(groups: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Say of each exit in use which groups' clients it has, where that is not all of the only group."""
    found = defaultdict(list)
    groups = list(groups)
    for group in groups:
        for exit_, share in group.get("shares", {}).items():
            words = [*([group["name"]] if len(groups) > 1 else []), *([f"{share:.0%}"] if share < 1 else [])]
            found[exit_].append(" ".join(words))
    return {exit_: f" ({', '.join(words)})" if any(words) else "" for exit_, words in found.items()}


def _rates(each: Mapping[str, Any], before: Mapping[str, Any], seconds: float) -> list[str]:
    return [
        f"{size(max(0, each[key] - before[key]) / seconds)}/s" if key in each and key in before and seconds else ""
        for key in ("rx_bytes", "tx_bytes")
    ]

"""Puts what a bench printed into a page of docs/, between two marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain.api.project import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

END = "<!-- Its end. -->\n"


def put(page: Path, begin: str, text: str) -> None:
    """Replace what is between the mark `begin`, one line of the page, and its end. Raises ValueError without them."""
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{page} has no {begin.strip()}, or it has no end")
    write_atomic(page, before + begin + text + END + after, 0o644)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Give a table in Markdown; all columns but the first are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)

"""Pages that show what the code or its tests have: causes, and whose files were tried. `make docs` writes them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING

from corpus import cases

from chain.node.kinds.causes import TABLE, Cause

if TYPE_CHECKING:
    from tests.conftest import Golden

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
BEGIN, END = "<!-- From chain/node/kinds/causes.py, by `make docs`. -->\n", "<!-- End of what is generated. -->\n"
SECTIONS = {
    "": "Any exit",
    "l2tp": "L2TP/IPsec",
    "wireguard": "WireGuard",
    "openvpn": "OpenVPN",
    "xray": "Xray",
    "direct": "Direct",
}


def row(cause: Cause) -> str:
    """Write one row; an ellipsis stands for evidence."""
    names = {name for text in (cause.sentence, cause.advice) for _, name, _, _ in string.Formatter().parse(text)}
    found = cause.found(**{name: "…" for name in names if name})
    return f"| {found.cause} | {found.advice} |\n"


def tables() -> str:
    parts = []
    for kind, title in SECTIONS.items():
        rows = "".join(row(cause) for cause in TABLE if cause.kind == kind)
        parts.append(f"\n## {title}\n\n| what you are told | what to try |\n|---|---|\n{rows}")
    return "".join(parts) + "\n"


def test_the_page_shows_the_table_as_it_is(golden: Golden) -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    golden.check(PAGE, before + BEGIN + tables() + END + after)


def test_no_kind_is_left_out() -> None:
    assert {cause.kind for cause in TABLE} == set(SECTIONS)


IMPORTING = PAGE.parent / "importing.md"
TRIED = "<!-- From tests/imports/accepted, by `make docs`. -->\n"
FORMATS = {
    "wireguard": "WireGuard",
    "openvpn": "OpenVPN",
    "links": "Links",
    "subscriptions": "Subscriptions",
    "l2tp": "L2TP/IPsec",
}


def shapes() -> str:
    parts = []
    for stem, title in FORMATS.items():
        own = [case.shape for case in cases("accepted") if case.name.startswith(f"{stem}/")]
        parts.append(f"\n### {title}\n\n" + "".join(f"- {shape}\n" for shape in own))
    return "".join(parts) + "\n"


def test_the_page_lists_what_was_tried(golden: Golden) -> None:
    before, _, rest = IMPORTING.read_text(encoding="utf-8").partition(TRIED)
    golden.check(IMPORTING, before + TRIED + shapes() + END + rest.partition(END)[2])


def test_no_format_is_left_out() -> None:
    assert {case.name.partition("/")[0] for case in cases("accepted")} == set(FORMATS)

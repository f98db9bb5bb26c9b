from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chain.imports import Imported, RefusedError
from chain.imports.subscription import MOST, read, recognises

NOW = datetime(2026, 9, 1, tzinfo=UTC)
LINK = "trojan://password@vpn.example.com:443#name"


@pytest.mark.parametrize(
    ("text", "well"),
    [
        (LINK, True),
        (f"# comment\n\n{LINK}\nsomething else\n", True),
        ("https://www.example.com/sub", True),  # nothing but a link, which is then refused by name
        ("Hello\nhttps://www.example.com\n", False),
        ("hysteria2://x\nHello", True),
        ("# only a comment\n", False),
    ],
)
def test_links_make_it_a_list_of_links(text: str, well: bool) -> None:  # noqa: FBT001 - a parameter
    assert recognises(text) == well


def test_comments_and_words_about_the_account_are_no_links() -> None:
    found = read(f"#profile-title: x\r\n//announce: y\r\nSTATUS=z\r\nREMARKS=w\r\n\r\n{LINK}\r\n", NOW)
    assert [isinstance(item.found, Imported) for item in found] == [True]


def test_other_lines_keep_their_numbers() -> None:
    found = read(f"{LINK}\nnonsense hunter2\n{LINK}\n", NOW)
    assert [isinstance(item.found, Imported) for item in found] == [True, False, True]
    assert "hunter2" not in str(found)


def test_there_is_a_limit() -> None:
    with pytest.raises(RefusedError, match="more than"):
        read(f"{LINK}\n" * (MOST + 1), NOW)

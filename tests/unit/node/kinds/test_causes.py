from __future__ import annotations

import string

import pytest

from chain.exits import REGISTRY
from chain.node.kinds import causes
from chain.node.kinds.causes import TABLE, Cause
from chain.node.reports import SENTENCE


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("cause", TABLE, ids=lambda cause: cause.key)
def test_a_row_says_what_is_wrong_and_what_to_try(cause: Cause) -> None:
    assert cause.kind in ("", *REGISTRY)
    evidence = dict.fromkeys(placeholders(cause.sentence + cause.advice), "x" * 20)
    found = cause.found(**evidence)
    assert found.key == cause.key
    for text in (found.cause, found.advice):
        assert text
        assert len(text) <= SENTENCE  # the entry shows no more
        assert not text.endswith(".")


def test_each_row_has_a_key_and_a_sentence_of_its_own() -> None:
    assert len({cause.key for cause in TABLE}) == len({cause.sentence for cause in TABLE}) == len(TABLE)


def test_evidence_may_be_anything_and_settings_keep_their_braces() -> None:
    found = causes.NO_IKE_PROPOSAL.found(notify="{NO_PROPOSAL_CHOSEN}", other=2, unused="")
    assert "({NO_PROPOSAL_CHOSEN})" in found.cause
    assert "`ike: {version: 2}`" in found.advice

from __future__ import annotations

import pytest

from chain.node.run import CommandError, run, succeeds


def test_output_is_given() -> None:
    assert run("cat", stdin="hello") == "hello"


def test_an_error_holds_the_programs_words_and_never_its_input() -> None:
    with pytest.raises(CommandError, match=r"^sh -c .*: it went wrong$") as failed:
        run("sh", "-c", "echo it went wrong >&2; exit 1", stdin="hunter2")
    assert "hunter2" not in str(failed.value)


def test_only_a_programs_error_output_is_quoted() -> None:
    with pytest.raises(CommandError, match=r"said here$"):
        run("sh", "-c", "echo 'its output, maybe a key'; echo said here >&2; exit 1")


def test_success_is_told_from_failure() -> None:
    assert succeeds("true")
    assert not succeeds("false")

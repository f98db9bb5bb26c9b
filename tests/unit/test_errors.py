from __future__ import annotations

from chain.errors import ChainError, ExitCode, Problem


def test_a_problem_has_three_parts() -> None:
    assert str(Problem("chain.yaml:3", "unknown key", "did you mean 'port'?")) == (
        "chain.yaml:3: unknown key\n    → did you mean 'port'?"
    )


def test_a_problem_does_not_steer_a_terminal() -> None:
    assert str(Problem("a\x1b]0;x\x07", "b\u202e", "c\x9b2J")) == "a\ufffd]0;x\ufffd: b\ufffd\n    → c\ufffd2J"


def test_a_problem_does_without_place_and_hint() -> None:
    assert str(Problem("", "no engine")) == "no engine"


def test_an_error_keeps_the_order_and_drops_what_stands_twice() -> None:
    first, second = Problem("b", "second letter"), Problem("a", "first letter")
    error = ChainError([first, second, first], ExitCode.CONFIG)
    assert error.problems == [first, second]
    assert str(error) == "b: second letter\na: first letter"

from __future__ import annotations

from chain.agent import endpoints

NOW = 1_700_000_000


def dump(*peers: tuple[str, str, int]) -> str:
    """Write what `wg show wg0 dump` prints: the interface's line, then a line per peer."""
    lines = [f"{key}\t(none)\t{endpoint}\t10.13.13.2/32\t{handshake}\t0\t0\toff" for key, endpoint, handshake in peers]
    return "\n".join(["private\tpublic\t51820\t0x1", *lines]) + "\n"


def test_clients_that_are_there_are_remembered() -> None:
    text = dump(
        ("here", "203.0.113.7:4711", NOW - 100),
        ("six", "[2001:db8::7]:4711", NOW),
        ("old", "203.0.113.8:4711", NOW - endpoints.FRESH),
        ("never", "(none)", 0),
        ("proxied", "10.213.0.1:40000", NOW),
    )
    assert endpoints.recent(text, NOW, ["10.213.0.1"]) == {"here": "203.0.113.7:4711", "six": "[2001:db8::7]:4711"}


def test_only_clients_without_a_handshake_are_lost() -> None:
    text = dump(("back", "203.0.113.7:4711", NOW), ("silent", "(none)", 0))
    remembered = {"back": "203.0.113.7:4711", "silent": "203.0.113.8:4711", "removed": "203.0.113.9:4711"}
    assert endpoints.lost(text, remembered) == {"silent": "203.0.113.8:4711"}


def test_known_are_all_that_the_interface_has() -> None:
    assert endpoints.known(dump(("back", "203.0.113.7:4711", NOW), ("silent", "(none)", 0))) == {"back", "silent"}


def numbered(count: int) -> dict[str, str]:
    return {f"key{number}": f"203.0.113.7:{number}" for number in range(count)}


def test_no_more_are_called_than_can_be_listened_to() -> None:
    everybody = numbered(250)
    calls = endpoints.Calls(everybody)
    first = calls.due(0.0, everybody)
    assert list(first) == list(everybody)[:100]
    assert calls.due(0.1, everybody) == {}
    silent = everybody.keys() - set(list(first)[:60])
    second = calls.due(0.2, silent)
    assert list(second) == list(everybody)[100:160]
    assert not calls.over


def test_who_does_not_answer_while_later_ones_do_is_not_waited_for() -> None:
    everybody = numbered(250)
    calls = endpoints.Calls(everybody)
    first = list(calls.due(0.0, everybody))
    silent = everybody.keys() - {first[-1]}
    assert len(calls.due(0.1, silent)) == 1
    assert len(calls.due(0.2, silent)) == 0
    assert len(calls.due(0.3, silent)) == 99
    assert not calls.over


def test_while_answers_come_in_order_those_behind_are_waited_for() -> None:
    everybody = numbered(250)
    calls = endpoints.Calls(everybody)
    first = list(calls.due(0.0, everybody))
    for step in range(1, 10):  # a slow machine: five answers in half a second
        silent = everybody.keys() - set(first[: 5 * step])
        assert len(calls.due(step * 0.5, silent)) == 5
    assert calls.due(5.0, silent) == {}
    assert len(calls.due(5.6, silent)) == 100  # nobody has answered for a second
    assert not calls.over


def test_where_nobody_is_there_all_are_called_in_time() -> None:
    everybody = numbered(250)
    calls, now = endpoints.Calls(everybody), 0.0
    called: dict[str, str] = {}
    while not calls.over:
        called |= calls.due(now, everybody)
        now += 0.125
    assert called == everybody
    assert now < 1.0

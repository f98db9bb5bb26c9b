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

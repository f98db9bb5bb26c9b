from __future__ import annotations

import asyncio

from chain.agent.endings import Endings


def test_connections_by_an_exit_that_is_open_again_are_left_alone() -> None:
    asked: list[str] = []

    def is_open(name: str) -> bool:
        asked.append(name)
        return True

    async def scene() -> None:
        endings = Endings(is_open)
        for name in ("paris", "oslo", "paris"):
            endings.begin(name, 0x1000)
        await asyncio.gather(*endings._tasks.values())
        assert not endings._tasks

    asyncio.run(scene())
    assert asked == ["oslo", "paris"]


def test_an_exit_that_recovers_is_not_expected_to_die_any_more() -> None:
    async def scene() -> None:
        endings = Endings(lambda _: False)
        endings.expect("paris", 0x1000)
        listing = endings._lists["paris"]
        endings.forget("paris")
        await asyncio.wait([listing])
        assert listing.cancelled()
        assert not endings._lists

    asyncio.run(scene())

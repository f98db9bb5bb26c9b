from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

import pytest

from chain.contract import ExitReport, Need, from_json, to_json
from chain.node import reports
from chain.node.reports import Reports, read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

SECONDS = 10
LINE = to_json(ExitReport(exit="paris", state="up", since=1.0, cause="up")).encode() + b"\n"


PARIS, OSLO = {"paris": "127.0.0.1"}, {"oslo": "127.0.0.2"}

News = asyncio.Queue[tuple[str, ExitReport | None]]


@pytest.fixture(autouse=True)
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A port that nobody else uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        free: int = server.getsockname()[1]
    monkeypatch.setattr(reports, "REPORT_PORT", free)
    return free


def play(scene: Callable[[Reports, News], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        news: News = asyncio.Queue()
        await scene(Reports("agent", lambda name, report: news.put_nowait((name, report))), news)

    asyncio.run(asyncio.wait_for(main(), SECONDS))


def connect(exit_: dict[str, str]) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    (address,) = exit_.values()
    return asyncio.open_connection(address, vars(reports)["REPORT_PORT"])


async def heard(news: News) -> tuple[str, str | None]:
    name, report = await news.get()
    return name, report.state if report else None


def test_an_exit_is_there_while_its_connection_stands_and_not_longer() -> None:
    async def scene(found: Reports, news: News) -> None:
        await found.listen(PARIS | OSLO)
        reader, writer = await connect(PARIS)
        # The entry's word that it is locked comes without being asked.
        assert from_json(Need, await reader.readline()) == Need(None)
        writer.write(LINE)
        assert await heard(news) == ("paris", "up")
        writer.close()
        assert await heard(news) == ("paris", None)

    play(scene)


def test_each_exit_is_told_at_once_whether_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "HEARTBEAT", 3600.0)

    async def scene(found: Reports, _: News) -> None:
        found.need({"paris"})
        await found.listen(PARIS | OSLO)
        told = [await connect(exit_) for exit_ in (PARIS, OSLO)]
        assert [from_json(Need, await reader.readline()).dial for reader, _ in told] == [True, False]
        found.need({"oslo"})
        assert [from_json(Need, await reader.readline()).dial for reader, _ in told] == [False, True]

    play(scene)


def test_which_exit_it_is_follows_from_the_link_and_not_from_what_it_says() -> None:
    async def scene(found: Reports, news: News) -> None:
        await found.listen(PARIS | OSLO)
        _, writer = await connect(OSLO)
        writer.write(LINE)
        assert await heard(news) == ("oslo", "up")

    play(scene)


def test_a_new_connection_takes_the_place_of_the_old_one() -> None:
    async def scene(found: Reports, news: News) -> None:
        await found.listen(PARIS)
        old_reader, old = await connect(PARIS)
        old.write(LINE)
        assert await heard(news) == ("paris", "up")
        _, new = await connect(PARIS)
        new.write(LINE)
        assert await heard(news) == ("paris", "up")
        while await old_reader.readline():
            pass
        new.close()
        assert await heard(news) == ("paris", None)
        assert news.empty()  # the old one's end was no news

    play(scene)


@pytest.mark.parametrize("line", [b"garbage\n", b'{"version": 2}\n', b"\xff\n", b"x" * 100_000])
def test_nonsense_ends_the_connection(line: bytes) -> None:
    async def scene(found: Reports, news: News) -> None:
        await found.listen(PARIS)
        _, writer = await connect(PARIS)
        writer.write(line)
        assert await heard(news) == ("paris", None)

    play(scene)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_time_that_is_no_number_is_nonsense(number: str) -> None:
    line = LINE.replace(b'"since":1.0', f'"since":{number}'.encode())
    assert number.encode() in line
    with pytest.raises(ValueError, match=r"ExitReport\.since: not a number"):
        read("paris", line)


@pytest.mark.parametrize("number", ["-1e308", "1e300", "-1.0"])
def test_a_moment_that_can_not_be_is_taken_for_now(number: str) -> None:
    found = read("paris", LINE.replace(b'"since":1.0', f'"since":{number}'.encode()))
    assert abs(found.since - time.time()) < 60


def test_a_moment_of_thousands_of_digits_is_nonsense() -> None:
    with pytest.raises(ValueError, match="not a number"):
        read("paris", LINE.replace(b'"since":1.0', b'"since":' + b"9" * 4000))


def test_a_flood_of_reports_ends_the_connection() -> None:
    async def scene(found: Reports, news: News) -> None:
        await found.listen(PARIS)
        _, writer = await connect(PARIS)
        writer.write(LINE * 1000)
        seen = [await heard(news) for _ in range(reports.MOST_LINES + 1)]
        assert seen == [("paris", "up")] * reports.MOST_LINES + [("paris", None)]

    play(scene)


def test_an_exits_words_can_not_steer_a_terminal() -> None:
    evil = "\x1b]0;title\x07\x9b2J\r\n\u202e" + "x" * 10_000
    line = to_json(
        ExitReport(exit=evil, state=evil, since=1.0, cause=evil, advice=evil, warning=evil, tunnel_address=evil)
    ).encode()
    found = read("paris", line)
    for text in (found.exit, found.state, found.cause, found.advice, found.warning, found.tunnel_address):
        assert text.isprintable()
        assert len(text) <= reports.SENTENCE
    assert (found.exit, found.cause[:9]) == ("paris", "\ufffd]0;title")


def test_silence_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "SILENCE", 0.2)

    async def scene(found: Reports, news: News) -> None:
        await found.listen(PARIS)
        _, writer = await connect(PARIS)
        writer.write(LINE)
        assert await heard(news) == ("paris", "up")
        assert await heard(news) == ("paris", None)

    play(scene)


def test_an_exit_that_is_no_longer_wanted_can_not_connect() -> None:
    async def scene(found: Reports, _: News) -> None:
        await found.listen(PARIS | OSLO)
        await found.listen(OSLO)
        with pytest.raises(ConnectionRefusedError):
            await connect(PARIS)
        await connect(OSLO)

    play(scene)

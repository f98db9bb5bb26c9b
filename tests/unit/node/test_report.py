from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace

import pytest

from chain.contract import ExitReport, Link, Need, to_json
from chain.node import report
from chain.node.report import Reporter, statistics

REPORT = ExitReport(exit="paris", state="up", since=1.0, cause="a probe was answered")
SECONDS = 10


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A port that nobody else uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        free: int = server.getsockname()[1]
    monkeypatch.setattr(report, "REPORT_PORT", free)
    return free


def test_the_entry_counts_as_there_from_its_first_word_until_its_end(port: int) -> None:
    asyncio.run(asyncio.wait_for(_there_and_gone(port), SECONDS))


async def _there_and_gone(port: int) -> None:
    seen: asyncio.Queue[bool] = asyncio.Queue()
    needs: asyncio.Queue[bool] = asyncio.Queue()
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    entry: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        entry.put_nowait(writer)
        while line := await reader.readline():
            lines.put_nowait(line)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    link = Link("127.0.0.0/8", sender_address="127.0.0.1", exit_address="127.0.0.1", sender_mac="", exit_mac="")
    reporter = Reporter(link, lambda: REPORT, seen.put_nowait, needs.put_nowait, who="the entry")
    task = asyncio.create_task(reporter.run())
    for _ in range(2):  # it comes back by itself
        writer = await entry.get()
        assert json.loads(await lines.get())["state"] == "up"
        assert seen.empty()  # an open connection alone does not say that the entry is locked
        writer.write(to_json(Need()).encode() + b"\n")
        assert await seen.get() is True
        reporter.changed()
        assert json.loads(await lines.get())["exit"] == "paris"
        assert needs.empty()
        for needed in (True, False):
            writer.write(to_json(Need(needed)).encode() + b"\n")
            assert await needs.get() is needed
        writer.close()
        assert await seen.get() is False
        while not lines.empty():
            lines.get_nowait()
    task.cancel()
    server.close()


def test_news_go_out_before_the_caller_does_anything_else(port: int) -> None:
    async def play() -> list[dict[str, str]]:
        link = Link("127.0.0.0/8", sender_address="127.0.0.1", exit_address="127.0.0.1", sender_mac="", exit_mac="")
        loop, state = asyncio.get_running_loop(), "up"
        with socket.create_server(("127.0.0.1", port)) as server:
            server.setblocking(False)  # noqa: FBT003 - the socket module's signature
            reporter = Reporter(
                link, lambda: replace(REPORT, state=state), lambda _: None, lambda _: None, who="the entry"
            )
            task = asyncio.create_task(reporter.run())
            connection, _ = await loop.sock_accept(server)
            with connection:
                said = await loop.sock_recv(connection, 4096)
                state = "down"
                reporter.changed()
                said += connection.recv(4096)  # which nothing awaited
                task.cancel()
        return [json.loads(line) for line in said.splitlines()]

    found = asyncio.run(asyncio.wait_for(play(), SECONDS))
    assert [each["state"] for each in found] == ["up", "down"]


def test_an_interface_that_is_gone_has_no_counters() -> None:
    assert statistics("none-such0") == (0, 0)
    received, sent = statistics("lo")
    assert received == sent

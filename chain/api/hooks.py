"""Run the hooks of chain.yaml on what the entry tells, until one is told to stop.

Nothing waits for them: the entry keeps what happened, and a process on the host reads it. Each hook has a queue and a
thread of its own, so that one that hangs holds up no other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from chain.api.deliver import Command, FailedError, Webhook, is_program
from chain.api.load import problems_with_webhooks
from chain.api.preflight import check_owner
from chain.api.project import make_folder, write_atomic
from chain.api.steer import Place, bearing_with_engine, listen
from chain.contract import printable
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chain.api.deliver import Target
    from chain.api.load import Loaded
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.api.steer import Told
    from chain.config.models import HookConfig
    from chain.engine.connection import Engine

PLACES_FILE = "hooks.json"
MOST_WAITING = 1000  # events of one hook: as many as an entry remembers
ATTEMPTS = 8  # at one event; two minutes, when each fails at once
FIRST_PAUSE, LONGEST_PAUSE, JITTER = 1.0, 60.0, 1.0  # seconds between them
QUIET_END = 1.0  # seconds that ending may take before it is said what is waited for


def run(loaded: Loaded, engine: Engine, progress: Progress) -> None:
    """Run the hooks until KeyboardInterrupt, which then goes on. What has begun comes to its end first.

    Raises ChainError: CONFIG when there is no hook, or one that can't work.
    """
    check(loaded)
    with bearing_with_engine():  # one that is away is waited for below, where the same is looked at again
        check_owner(loaded, engine)
    with alone(loaded.project):
        places = Places(loaded.project.run / PLACES_FILE, progress)
        workers = [
            Worker(
                f"hook {number}",
                hook,
                target(hook, loaded.project.root),
                places,
                chain=loaded.topology.name,
                progress=progress,
            )
            for number, hook in enumerate(loaded.config.hooks, 1)
        ]
        places.keep({identity(hook) for hook in loaded.config.hooks})
        for worker in workers:
            worker.start()
        progress.note(f"{len(workers)} hook(s) wait for what happens in chain {loaded.topology.name}")
        try:
            for told in listen(loaded, engine, progress):
                for worker in workers:
                    worker.take(told)
        finally:
            _end(workers, progress)


def check(loaded: Loaded) -> None:
    """Check that each hook could be run. Raises ChainError (CONFIG) with all that is wrong."""
    if not loaded.config.hooks:
        problem = Problem(str(loaded.project.file), "it has no `hooks:`", "docs/hooks.md shows some")
        raise ChainError(problem, ExitCode.CONFIG)
    problems = problems_with_webhooks(loaded)
    for number, hook in enumerate(loaded.config.hooks, 1):
        if hook.command and not is_program(hook.command[0], loaded.project.root):
            hint = "give the way to it, from the project's folder or from /; and `chmod +x` it"
            problems.append(Problem(f"hook {number} (command)", "there is no such program to run", hint))
    if problems:
        raise ChainError(problems, ExitCode.CONFIG)


@contextlib.contextmanager
def alone(project: Project) -> Iterator[None]:
    """Keep a second process from running the same hooks. Raises ChainError (CONFIG).

    The lock is of the folder, and ends with the process; the one that changes files is of the folder above.
    """
    make_folder(project.run, 0o700)
    try:
        folder = os.open(project.run, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        hint = "run `chain hooks` as the user who runs `chain up`, or give the folder to this one"
        raise ChainError(Problem(str(project.run), error.strerror or str(error), hint), ExitCode.CONFIG) from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = Problem(str(project.run), "another `chain hooks` runs for this chain", "end that one first")
            raise ChainError(problem, ExitCode.CONFIG) from None
        yield
    finally:
        os.close(folder)


def target(hook: HookConfig, root: Path) -> Target:
    """Make what a hook hands events to."""
    if hook.command:
        return Command(hook.command, root)
    file = hook.webhook.file if hook.webhook else ""  # one of both is there
    return Webhook(root / file, file)


def identity(hook: HookConfig) -> str:
    """Name a hook by what it does, so that its place is found again wherever it stands in the file."""
    does = json.dumps([hook.command, hook.webhook and hook.webhook.file])
    return hashlib.sha256(does.encode()).hexdigest()[:16]


class Places:
    """How far each hook has come, in a file, so that the next process goes on from there."""

    def __init__(self, file: Path, progress: Progress) -> None:
        self._file, self._progress = file, progress
        self._lock = threading.Lock()
        self._unsaid = True
        self._found = self._load()

    def _load(self) -> dict[str, Place]:
        try:
            raw = json.loads(self._file.read_bytes())
            return {key: Place(int(entry), int(number)) for key, (entry, number) in raw["hooks"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self._progress.note(f"warning: {self._file} can't be read; hooks begin with what happens from now on")
            return {}

    def of(self, key: str) -> Place | None:
        return self._found.get(key)

    def put(self, key: str, place: Place) -> None:
        """Remember a hook's place. What can't be written is said once, and holds up no hook."""
        with self._lock:
            self._found[key] = place
            text = json.dumps({"hooks": self._found}) + "\n"
            for last in (False, True):
                try:
                    write_atomic(self._file, text, 0o600)
                    break
                except ChainError as error:
                    # Once more, since a command that changes the chain removes what it takes for a killed one's.
                    if last and self._unsaid:
                        self._unsaid = False
                        self._progress.note(f"warning: {error}")

    def keep(self, keys: set[str]) -> None:
        """Forget those of hooks that are no more."""
        with self._lock:
            self._found = {key: place for key, place in self._found.items() if key in keys}


class Worker:
    """One hook: what waits for it, and the thread that hands it over, one event after the other."""

    def __init__(
        self, name: str, hook: HookConfig, target: Target, places: Places, *, chain: str, progress: Progress
    ) -> None:
        self.name = f"{name} ({target.name})"
        self._target, self._chain, self._say = target, chain, progress.note
        self._events = frozenset(hook.events)
        self._places, self._key = places, identity(hook)
        self._taken = self._noted = places.of(self._key)
        self._waiting: queue.Queue[tuple[Place, Mapping[str, Any]] | None] = queue.Queue(MOST_WAITING)
        self._dropped = self._owned_up = (
            0  # how many, and of how many it was said; each is one thread's alone to change
        )
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self, told: Told) -> None:
        """Put what is new, and of its kind, into the queue; never waits. The oldest give way where it is full."""
        if self._taken is None:  # a new hook, which past events are not for
            self._taken = self._noted = told.end
            self._places.put(self._key, told.end)
        for place, event in told.beyond(self._taken):
            self._taken = place
            if event.get("event") in self._events:
                self._put((place, event))
        # Also past what is not for it: it is not to hear of that if it asks for more one day.
        if self._taken != self._noted and not self._waiting.unfinished_tasks:
            self._noted = self._taken
            self._places.put(self._key, self._taken)

    def _put(self, item: tuple[Place, Mapping[str, Any]] | None) -> None:
        while True:
            try:
                self._waiting.put_nowait(item)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._waiting.get_nowait()
                    self._waiting.task_done()
                    self._dropped += 1
            else:
                return

    def end(self) -> None:
        """Begin no attempt any more."""
        self._ending.set()
        with contextlib.suppress(queue.Full):  # then it has something to wake up for
            self._waiting.put_nowait(None)

    def ended(self, seconds: float) -> bool:
        """Wait so long for the attempt that runs."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    @property
    def longest(self) -> float:
        """How many seconds an attempt takes at most, with some to spare."""
        return self._target.seconds + 1.0

    def abandon(self) -> None:
        self._target.abandon()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None and not self._ending.is_set():
            if more := self._dropped - self._owned_up:
                self._owned_up += more
                self._say(f"{self.name}: it can't keep up; {more} event(s) were dropped")
            place, event = item
            if self._handed_over(event):
                self._places.put(self._key, place)
            self._waiting.task_done()

    def _handed_over(self, event: Mapping[str, Any]) -> bool:
        """Hand one event over, or drop it in the end. False: it was to end before that."""
        attempts = Retrying(
            retry=retry_if_exception_type(FailedError),
            stop=stop_after_attempt(ATTEMPTS) | stop_when_event_set(self._ending),
            wait=wait_exponential(FIRST_PAUSE, LONGEST_PAUSE) + wait_random(0, JITTER),
            sleep=sleep_using_event(self._ending),
            reraise=True,
        )
        try:
            attempts(self._deliver, json.dumps({"chain": self._chain, **event}).encode() + b"\n")
        except FailedError as error:
            if self._ending.is_set():
                return False
            what = printable(f"event {event['number']} was dropped after {ATTEMPTS} attempts: {error}", 300)
            self._say(f"{self.name}: {what}")
        return True

    def _deliver(self, event: bytes) -> None:
        if self._ending.is_set():
            raise FailedError("it was to end")
        try:
            self._target.deliver(event)
        except FailedError:
            raise
        except Exception as error:  # noqa: BLE001 - a hook's thread goes on; another error's words may be secret
            raise FailedError(type(error).__name__) from None


def _end(workers: list[Worker], progress: Progress) -> None:
    """End all of them; what has begun may come to its end, unless one is told to stop once more."""
    for worker in workers:
        worker.end()
    try:
        _wait_for(workers, QUIET_END)
        if late := [worker for worker in workers if not worker.ended(0)]:
            with progress.step(f"Waiting for {', '.join(worker.name for worker in late)}"):
                _wait_for(late, max(worker.longest for worker in late))
    finally:
        for worker in workers:
            worker.abandon()


def _wait_for(workers: list[Worker], seconds: float) -> None:
    end = time.monotonic() + seconds
    for worker in workers:
        worker.ended(end - time.monotonic())

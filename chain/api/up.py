"""Bring a chain up, and wait until it carries traffic or it is known why it does not."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chain import drained, topology
from chain.api import load as loading
from chain.api.apply import kept_out
from chain.api.clients import ensure_entry_key, missing_keys
from chain.api.down import end_tests, running_tests
from chain.api.preflight import HostTrial, check_folder, check_host, check_listed, check_owner, together
from chain.api.project import changing, is_there, make_folder, write_atomic
from chain.contract import LINE_LIMIT
from chain.engine import images
from chain.errors import ChainError, ExitCode, Problem
from chain.plan import AWAY, Observed, Step, made_anew, one_by_one, plan
from chain.render import COMPOSE_FILE
from chain.secret import read_regular
from chain.topology import DEFAULT_GROUP

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from chain.api.load import Loaded
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.config.models import Config
    from chain.engine.connection import ContainerState, Engine
    from chain.engine.images import Image

# Stands in run/ from the first written file until Compose has taken them all, so that a run after an interrupted one,
# or after `chain render`, knows that files and containers differ.
UNFINISHED = ".unfinished"
FEW_RESTARTS = 2  # a container that has restarted more often will not come up by waiting
STRAGGLER_SECONDS = 15.0  # how long the other exits are waited for once every group has one


@dataclass(frozen=True)
class Outcome:
    steps: tuple[Step, ...]
    status: dict[str, Any]
    problems: tuple[Problem, ...]


def up(project: Project, engine: Engine, progress: Progress, wait_seconds: float) -> Outcome:
    """Do what is missing, in order. Raises ChainError; CONFIG and ENGINE mean that nothing was touched."""
    with HostTrial(engine) as trial:
        loaded = check(project, engine, progress, trial)
        build_missing(loaded, engine, progress)  # minutes, in which clients may be added
        with changing(project, progress):
            loaded = loading.load(project, engine)
            steps = reconcile(loaded, engine, progress, trial, wait_seconds)
    with progress.step("Waiting for the tunnels"):
        status = wait(loaded, engine, progress, wait_seconds)
    return Outcome(steps, status, tuple(stragglers(status)))


def dry_run(project: Project, engine: Engine, progress: Progress) -> tuple[Step, ...]:
    """Give the steps that `up` would take, and touch nothing: not even its test container on the engine's kernel."""
    loaded = check(project, engine, progress)
    observed = replace(
        observe(loaded, engine),
        missing_images=tuple(image.name for image in images.missing(engine, loaded.images.values())),
    )
    steps = plan(loaded.files(), services(loaded), loaded.topology.state.generation, observed)
    if any(step.verb == "compose" for step in steps):
        check_listed(loaded, engine)
        progress.note("Not looked at: the engine's host (kernel, routes, other programs' ports). `chain doctor` does.")
    return steps


def check(project: Project, engine: Engine, progress: Progress, trial: HostTrial | None = None) -> Loaded:
    """Load a project, and refuse what can't come up. Raises ChainError (CONFIG, ENGINE); touches nothing.

    A trial is begun as soon as it can be, where containers will most likely have to be started.
    """
    with progress.step("Checking the configuration"):
        loaded = loading.load(project, engine)
        check_folder(loaded)

        def check_engine() -> None:
            engine.check()
            if trial and not runs(loaded, engine):
                trial.begin(loaded)

        together(check_engine, engine.check_compose)
    check_owner(loaded, engine)
    return loaded


def runs(loaded: Loaded, engine: Engine) -> bool:
    """Tell whether all of a chain's containers are running."""
    states = engine.containers(loaded.topology.name)
    return {state.service for state in states if state.state == "running"}.issuperset(services(loaded))


def reconcile(
    loaded: Loaded, engine: Engine, progress: Progress, trial: HostTrial, wait_seconds: float = STRAGGLER_SECONDS
) -> tuple[Step, ...]:
    """Write what is to be written and have Compose take it; give the steps. Raises ChainError.

    `wait_seconds`: for each of several exits that are made anew.
    """
    files, observed = loaded.files(), observe(loaded, engine)
    steps = plan(files, services(loaded), loaded.topology.state.generation, observed)
    composing = any(step.verb == "compose" for step in steps)
    if observed.tests:
        end_tests(loaded.project, engine, progress)
    if composing:
        with progress.step("Checking the engine's host"):
            check_host(loaded, engine, progress, trial)
    ensure_entry_key(loaded)
    # Rendered before there was a key, the Compose file lacks its stamp: the next run would take that for a new key.
    write_files(loaded.project, loaded.files() if observed.missing_keys else files, steps)
    if steps or not is_there(loaded.project.kept):
        loading.keep(loaded)
    if composing:
        if "entry" in made_anew(files, observed):
            progress.note(f"The entry is made anew: {AWAY}.")
        exits = in_turn(loaded.config, one_by_one(files, observed), observed.used)
        # The last one is left to what brings up everything.
        replace_exits(loaded, engine, progress, dict.fromkeys(exits[:-1], observed.opened), wait_seconds)
        with progress.step("Starting containers"):
            compose_up(loaded, engine)
        (loaded.project.run / UNFINISHED).unlink(missing_ok=True)
    return steps


def build_missing(loaded: Loaded, engine: Engine, progress: Progress) -> list[str]:
    """Build the images that are not there; give their names."""
    return build_images(loaded.images, engine, progress)


def build_images(wanted: Mapping[str, Image], engine: Engine, progress: Progress) -> list[str]:
    """Build those of these images that are not there; give their names. Raises ChainError (ENGINE)."""
    absent = images.missing(engine, wanted.values())
    if absent:
        engine.check_buildx()
    for image in absent:
        with progress.step(f"Building image {image.name} (once, a minute or two)"):
            images.build(engine, image, progress.detail)
    return [image.name for image in absent]


def build_fresh(loaded: Loaded, engine: Engine, progress: Progress) -> list[str]:
    """Build all images anew, from the newest packages; give their names. Raises ChainError (ENGINE).

    Their names stay the same, being hashes of recipes: nothing but this brings security updates.
    """
    with progress.step(f"Fetching {images.BASE}"):
        if not engine.pull(images.BASE):
            progress.note(f"warning: no registry gives {images.BASE}; what the engine has is used")
    found = images.with_programs(loaded.images.values())
    for image in found:
        with progress.step(f"Building image {image.name} anew (a minute or two)"):
            images.build(engine, image, progress.detail, fresh=True)
    return [image.name for image in found]


def services(loaded: Loaded) -> list[str]:
    return ["entry", *(f"exit-{exit_.name}" for exit_ in loaded.topology.exits)]


def observe(loaded: Loaded, engine: Engine) -> Observed:
    """Look at the files below run/ and at the containers."""
    name = loaded.topology.name
    states = engine.containers(name)
    own_file = str(loaded.project.run / COMPOSE_FILE)
    status: dict[str, Any] = {}
    with contextlib.suppress(ChainError):  # it does not run, or not yet
        status = engine.ask_entry(name, "status")
    return Observed(
        files=read_files(loaded.project.run),
        missing_images=(),
        generation=status.get("generation"),
        running=frozenset(state.service for state in states if state.state == "running"),
        unfinished=(loaded.project.run / UNFINISHED).exists(),
        outdated=_outdated(loaded, engine, states),
        overlaid=frozenset(state.service for state in states if state.compose_files not in ("", own_file)),
        missing_keys=missing_keys(loaded.project),
        kept_out=tuple(status.get("kept_out", ())),
        tests=tuple(sorted(running_tests(loaded.project, engine))),
        opened=frozenset(_opened(status)),
        used=frozenset(exit_ for group in status.get("groups", ()) for exit_ in group.get("shares", ())),
    )


def _outdated(loaded: Loaded, engine: Engine, states: Iterable[ContainerState]) -> frozenset[str]:
    """Name the services whose image has been built anew since their container was made."""
    folders = {"entry": "entry"} | {f"exit-{exit_.name}": f"exit-{exit_.kind}" for exit_ in loaded.topology.exits}
    newest = {folder: engine.image_id(image.name) for folder, image in loaded.images.items()}
    return frozenset(
        state.service
        for state in states
        if state.service in folders and state.image_id not in ("", newest[folders[state.service]])
    )


def read_files(run: Path) -> dict[str, str]:
    """Read what an earlier run rendered."""
    patterns = (COMPOSE_FILE, "entry/*.json", "exits/*/*.json")
    return {str(path.relative_to(run)): _text(path) for pattern in patterns for path in run.glob(pattern)}


def _text(path: Path) -> str:
    """Read a file of ours; whatever else lies in its place is taken for one that has changed."""
    try:
        return read_regular(path, LINE_LIMIT).decode(errors="replace")
    except OSError:
        return ""


def write_files(project: Project, files: dict[str, str], steps: tuple[Step, ...]) -> None:
    """Write what changed, atomically, and remove what is no longer meant."""
    make_folder(project.run, 0o700)
    if any(step.verb in ("write", "remove") and not step.subject.startswith("entry/") for step in steps):
        write_atomic(project.run / UNFINISHED, "", 0o600)
    for step in steps:
        path = project.run / step.subject
        if step.verb == "write":
            # Containers read these through mounts of the subfolders, whatever user they run as; no secret is in them.
            for folder in reversed(path.relative_to(project.run).parents[:-1]):
                make_folder(project.run / folder, 0o755)
            write_atomic(path, files[step.subject], 0o644)
        elif step.verb == "remove":
            path.unlink(missing_ok=True)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def replace_exits(
    loaded: Loaded, engine: Engine, progress: Progress, opened: Mapping[str, Collection[str]], seconds: float
) -> None:
    """Make these exits' containers anew, and wait after each for what was open before to be so again.

    `opened`: by exit, which ones were. Raises ChainError (NOT_UP) when that does not come about: the next ones are as
    they were then, and serve clients.
    """
    name = loaded.topology.name
    for exit_, before in opened.items():
        awaited = set(before).intersection(topology.through(loaded.config, exit_))
        with progress.step(f"Replacing exit {exit_}"):
            _compose_up(loaded, engine, f"exit-{exit_}")
            status: dict[str, Any] | None = None
            for status in engine.watch_entry(name, seconds) if awaited else ():
                if status and awaited.issubset(_opened(status)):
                    break
            else:
                if awaited:
                    raise _not_replaced(name, engine, status, awaited)


def in_turn(config: Config, services: Iterable[str], used: Collection[str]) -> list[str]:
    """Give the exits of these services: first those that nobody uses, and each after the one that it runs through."""

    def place(exit_: str) -> tuple[bool, int, str]:
        serves = not set(used).isdisjoint(topology.through(config, exit_))
        return serves, len(topology.line_of(config, exit_)), exit_

    return sorted((service.removeprefix("exit-") for service in services), key=place)


def _opened(status: Mapping[str, Any]) -> set[str]:
    return {each["name"] for each in status.get("exits", ()) if each["open"]}


def _not_replaced(name: str, engine: Engine, status: dict[str, Any] | None, awaited: Iterable[str]) -> ChainError:
    problems = [problem for problem, exit_ in _closed(status) if exit_ in awaited]
    others = "exits that would have been made anew after it"
    hint = "mend what is wrong with it, or repeat `chain up`, which makes them anew all the same"
    services = [f"exit-{exit_}" for exit_ in awaited]
    problems.append(Problem(others, "they were left as they are, so that clients stay served", hint))
    return ChainError(problems, ExitCode.NOT_UP, detail=last_words(name, engine, services))


def _compose_up(loaded: Loaded, engine: Engine, service: str | None = None) -> None:
    """Let Compose reconcile all containers, or one alone. Raises ChainError (ENGINE) with its words."""
    from python_on_whales import DockerException

    compose = engine.compose(loaded.topology.project, loaded.project.run / COMPOSE_FILE).compose
    try:
        if service is None:
            compose.up(detach=True, remove_orphans=True, quiet=True)
        else:
            compose.up([service], detach=True, quiet=True, dependencies=False)
    except DockerException as error:
        words = (error.stderr or str(error)).strip().splitlines()
        raise ChainError(
            Problem("docker compose up", words[-1] if words else "failed", hint_for(" ".join(words))), ExitCode.ENGINE
        ) from None


def compose_up(loaded: Loaded, engine: Engine) -> None:
    """Let Compose reconcile containers and networks. Raises ChainError (ENGINE) with its words."""
    _compose_up(loaded, engine)
    wanted = {network.key for network in topology.networks(loaded.topology)}
    engine.remove_networks(loaded.topology.project, keep=wanted)


def hint_for(words: str) -> str:
    """Say what to do about the errors of Compose that people meet."""
    if "address already in use" in words or "port is already allocated" in words:
        return "another program has this port; choose another with `entry: {port: …}`"
    if "overlap" in words:
        return "another network has these addresses; choose others with `network: {pool: …/20}`"
    if "could not be found" in words or "could not find" in words or "not found" in words:
        return "a network or device that chain.yaml relies on is not there"
    return "`chain down` and `chain up` start afresh"


def wait(loaded: Loaded, engine: Engine, progress: Progress, seconds: float) -> dict[str, Any]:
    """Wait until every group with clients has an open exit, and a little longer for the rest.

    Raises ChainError (NOT_UP).
    """
    name = loaded.topology.name
    groups = frozenset(client.group for client in loaded.topology.state.clients) or {DEFAULT_GROUP}
    status: dict[str, Any] | None = None
    broken: list[ContainerState] = []
    patience: float | None = None
    generation, applied = loaded.topology.state.generation, False
    restarts = {state.id: state.restarts for state in engine.containers(name)}
    for status in engine.watch_entry(name, seconds):
        if status and (status["generation"] != generation or (status.get("kept_out") and not applied)):
            # Before any waiting: the new state may be what lets a tunnel be used.
            generation, applied = _apply(name, engine, progress), True
            if status["generation"] != generation:
                continue
        if status:
            progress.detail(", ".join(f"{exit_['name']} {exit_['state']}" for exit_ in status["exits"]))
            if _carries(status, groups):
                if all(exit_["open"] or exit_["state"] == "resting" for exit_ in status["exits"]):
                    return status
                patience = patience or time.monotonic() + STRAGGLER_SECONDS
                if time.monotonic() > patience:
                    return status
        if broken := unstable(engine.containers(name), restarts):
            break
    if status and status["generation"] == generation and _carries(status, groups) and not broken:
        return status  # there was no time to wait for the stragglers, who are no more than a warning
    raise _not_up(name, engine, status, broken)


def _apply(name: str, engine: Engine, progress: Progress) -> str:
    """Have the entry read its file; give the generation that is in force then.

    It may be newer than what was loaded here: another command can have added a client meanwhile.
    """
    answer = engine.ask_entry(name, "apply")
    for problem in kept_out(answer):
        progress.note(f"warning: {problem}")
    return str(answer["generation"])


def unstable(states: Iterable[ContainerState], restarts: Mapping[str, int]) -> list[ContainerState]:
    """Pick the containers that do not stay up. `restarts`: how many there had been before, by container."""
    return [
        state
        for state in states
        if state.restarts - restarts.get(state.id, 0) > FEW_RESTARTS or state.state == "exited"
    ]


def _carries(status: dict[str, Any], groups: Collection[str]) -> bool:
    """Tell whether clients of these groups get out, or are kept in because that was asked for, and for nothing else."""
    kept_in = {each["name"] for each in status["exits"] if each["drained"]}
    return all(
        group["exit"] or kept_in.issuperset(group["exits"]) for group in status["groups"] if group["name"] in groups
    )


def _not_up(name: str, engine: Engine, status: dict[str, Any] | None, broken: list[ContainerState]) -> ChainError:
    blamed = [state.service for state in broken]
    problems = [ended(state) for state in broken]
    if status is None and "entry" not in blamed:
        blamed.append("entry")
        problems.append(Problem("container entry", "its runtime does not answer", "its log is below"))
    if any(exit_["state"] == "silent" for exit_ in (status or {}).get("exits", ())):
        blamed.append("entry")  # which of the two ends is at fault shows in both logs
    for problem, exit_ in _closed(status):
        service = f"exit-{exit_}"
        if service not in blamed:
            blamed.append(service)
            problems.append(problem)
    if not problems:
        what = "it did not say in time that it has what chain.yaml asks for"
        problems.append(Problem("container entry", what, "`chain up` goes on from here; `--wait` gives it more time"))
    return ChainError(problems, ExitCode.NOT_UP, detail=last_words(name, engine, blamed))


def ended(state: ContainerState) -> Problem:
    """Say of a container that it does not stay up."""
    what = f"it ended with {state.exit_code} and does not stay up"
    return Problem(f"container {state.service}", what, "its log is below")


def last_words(name: str, engine: Engine, services: Iterable[str]) -> str:
    """Give the ends of these containers' logs, as far as they are there."""
    states = {state.service: state for state in engine.containers(name)}
    logs = [f"── {service} ──\n{engine.log_tail(states[service].id)}" for service in services if service in states]
    return "\n\n".join(logs)


def stragglers(status: dict[str, Any]) -> list[Problem]:
    """Say which exits are not open, and why, of which that are there is something to say, and who is blocked."""
    warned = [
        Problem(f"exit {exit_['name']}", exit_["warning"], exit_["advice"])
        for exit_ in status["exits"]
        if exit_["open"] and exit_.get("warning")
    ]
    return [*(problem for problem, _ in _closed(status)), *warned, *_blocked(status)]


def _blocked(status: dict[str, Any]) -> Iterator[Problem]:
    for group in status["groups"]:
        if not group["exit"] and (reasons := drained.keeping_in(group, status["exits"])):
            what = f"its clients are blocked, all exits that could be used are drained: {drained.told(reasons)}"
            command = drained.undoing(reasons)
            hint = f"{command} lets them out again" if command else "they are let out when that is over"
            yield Problem(f"group {group['name']}", what, hint)


def _closed(status: dict[str, Any] | None) -> list[tuple[Problem, str]]:
    exits = (status or {}).get("exits", ())
    return [(closed(exit_), exit_["name"]) for exit_ in exits if not exit_["open"] and exit_["state"] != "resting"]


def closed(exit_: Mapping[str, Any]) -> Problem:
    """Say of an exit why it is not open, and what to try."""
    return Problem(
        f"exit {exit_['name']}",
        f"{exit_['state']}: {exit_['cause']}",
        exit_.get("advice") or f"`chain logs exit-{exit_['name']}` shows more",
    )

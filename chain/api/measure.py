"""Try one exit: dial it by itself where the chain does not run it, and measure what its tunnel is like."""

from __future__ import annotations

import contextlib
import re
import signal
import statistics
import time
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from chain.api import load as loading
from chain.api.down import end_tests
from chain.api.exits import config_of
from chain.api.preflight import HostTrial, check_host, check_owner
from chain.api.project import RUN, changing
from chain.api.up import build_images, closed, compose_up, ended, last_words, unstable, write_files
from chain.contract import Order, printable
from chain.errors import ChainError, ExitCode, Problem
from chain.plan import Step
from chain.render import COMPOSE_FILE
from chain.topology import line_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from chain.api.load import Loaded
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.config.models import Upstream
    from chain.contract import Measurement
    from chain.engine.connection import ContainerState, Engine

ASKED = 10  # times whether somebody is there
DOWNLOAD_SECONDS, DOWNLOAD_BYTES = 10.0, 100_000_000  # the first that is reached; some customers pay by the byte
FAILED_DIALS = 2  # after which the next one is not waited for
DIALLING = ("running", "restarting", "paused")  # states of a container that may have a session with its provider
WORD, SENTENCE = 40, 300  # characters of what a container says

_WHOAMI = re.compile(r"(ch:|)([A-Za-z0-9_.-]+)@([0-9.]+)")
_LABEL, _NAME = 63, 253  # characters of a part of a name, and of all of it
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_PORT_DNS = 53
_SAID = ("state", "cause", "advice", "warning", "since", "open")  # by an exit, of itself
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Request:
    """What is to be measured of which exit, and how many seconds its tunnel may take."""

    exit: str
    order: Order
    wait: float
    shown_url: str  # as much of the order's as may be printed


@dataclass(frozen=True)
class Tried:
    """What was found, ready for JSON, and what is not as it should be."""

    found: dict[str, Any]
    problems: tuple[Problem, ...]


def request(name: str, whoami: str, url: str | None, wait_seconds: float, *, secret_url: bool = False) -> Request:
    """Read what the command line says. `secret_url`: there may be a secret in it. Raises ChainError (USAGE)."""
    class_, asked, server = _question(whoami)
    order = Order(
        asked=ASKED,
        whoami=asked,
        whoami_server=server,
        chaos=bool(class_),
        url=_checked(url) if url is not None else "",
        seconds=DOWNLOAD_SECONDS,
        most=DOWNLOAD_BYTES,
    )
    parts = urlsplit(order.url)
    shown = f"{parts.scheme}://{parts.netloc}/…" if secret_url else order.url
    return Request(name, order, wait_seconds, shown)


def _question(whoami: str) -> tuple[str, str, str]:
    """Take apart what is asked of whom: the class, a name, an address. Raises ChainError (USAGE)."""
    match = _WHOAMI.fullmatch(whoami)
    if match and not (what := _unaskable(match[2], match[3])):
        return match[1], match[2], match[3]
    what = what if match else f"{whoami!r} is not NAME@ADDRESS"
    hint = "such as ch:whoami.cloudflare@1.1.1.1; `ch:` means class CHAOS, and without it the usual one is asked"
    raise ChainError(Problem("--whoami", what, hint), ExitCode.USAGE)


def _unaskable(name: str, address: str) -> str:
    """Say why a name can't be asked for at an address; empty when it can."""
    labels = name.rstrip(".").split(".")
    if not all(0 < len(label) <= _LABEL for label in labels) or len(name) > _NAME:
        return f"{name!r} is no name: it has {_NAME} characters at most, and 1 to {_LABEL} between its dots"
    try:
        found = IPv4Address(address)
    except ValueError:
        return f"{address} is no IPv4 address"
    return f"nobody beyond a tunnel has the address {address}" if _is_nowhere(found) else ""


def _is_nowhere(address: IPv4Address) -> bool:
    """Tell whether no tunnel leads to an address: this machine itself, a link of its own, or not one machine."""
    return (
        address in _THIS_NETWORK
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
    )


def _checked(url: str) -> str:
    what = ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        what = str(error)
    else:
        if parts.scheme not in ("http", "https") or not host:
            what = "it does not begin with http://HOST or https://HOST"
        elif parts.username is not None:
            what = "it has a user name, and none is ever sent"
        elif ":" in host or port == 0:
            what = "no exit carries IPv6" if ":" in host else "0 is no port"
        elif not (url.isascii() and url.isprintable()) or " " in url:
            what = "it has characters that have to be written as %XX"
    if what:
        hint = "name a file of some MB; one that not everybody may have by `--url -`, from standard input"
        raise ChainError(Problem("--url", what, hint), ExitCode.USAGE)
    return url


def try_exit(project: Project, engine: Engine, progress: Progress, wanted: Request) -> Tried:
    """Measure an exit where the chain runs it; start it for that, and take it down again, where the chain does not.

    It is never dialled twice at a time: many providers allow but one session. Raises ChainError; NOT_UP says why its
    tunnel does not come up.
    """
    with progress.step("Checking the configuration"):
        loaded = _loaded(project, engine, wanted.exit)
        by_itself = not _runs(loaded, engine, wanted.exit)
        if by_itself:
            loading.check_secrets_of(loaded, line_of(loaded.config, wanted.exit))
            engine.check_compose()
    if by_itself:
        with _heard(_interrupt), HostTrial(engine) as trial:
            build_images(loading.alone(loaded, engine, wanted.exit, ()).images, engine, progress)  # takes minutes
            with changing(project, progress):
                loaded = _loaded(project, engine, wanted.exit)
                if not _runs(loaded, engine, wanted.exit):
                    return _alone(loaded, engine, progress, trial, wanted)
    return _measured(loaded, engine, progress, wanted)


def _loaded(project: Project, engine: Engine, name: str) -> Loaded:
    loaded = loading.load(project, engine)
    config_of(loaded.config, name)
    engine.check()
    check_owner(loaded, engine)
    return loaded


def _runs(loaded: Loaded, engine: Engine, name: str) -> bool:
    """Tell whether the chain runs an exit. Raises ChainError (NOT_RUNNING) if only one that it runs through."""
    dialling = {state.service for state in engine.containers(loaded.topology.name) if state.state in DIALLING}
    if f"exit-{name}" in dialling:
        return True
    for other in line_of(loaded.config, name)[1:]:
        if f"exit-{other}" in dialling:
            what = f"it runs through {other}, which the chain runs already, and which is not dialled a second time"
            hint = f"`chain up` takes {name} into the chain; this command tests it there"
            raise ChainError(Problem(f"exit {name}", what, hint), ExitCode.NOT_RUNNING)
    return False


# By itself


def _alone(loaded: Loaded, engine: Engine, progress: Progress, trial: HostTrial, wanted: Request) -> Tried:
    """Start an exit, measure it, and take it down again, whatever happens. Whoever calls holds `changing`."""
    project = loaded.project
    end_tests(project, engine, progress)  # of a command that was killed
    networks = [subnet for network in engine.networks() for subnet in network.subnets]
    made = loading.alone(loaded, engine, wanted.exit, networks)
    _check_name(made, engine)
    with progress.step("Checking the engine's host"):
        check_host(made, engine, progress, trial)
    try:
        with progress.step(f"Starting {', '.join(reversed(line_of(loaded.config, wanted.exit)))}"):
            files = made.files("../..")
            write_files(made.project, files, tuple(Step("write", path, "for this test") for path in files))
            compose_up(made, engine)
        return _measured(made, engine, progress, wanted)
    finally:
        with _heard(signal.SIG_IGN):
            end_tests(project, engine, progress, shielded=True)


def _check_name(made: Loaded, engine: Engine) -> None:
    """Refuse to take over the containers of a test that another folder runs. Raises ChainError (CONFIG)."""
    others = {state.folder for state in engine.containers(made.topology.name)} - {str(made.project.run)}
    if others:
        where = f"name: {made.config.name}"
        what = f"an exit of a chain of this name is being tested from {min(others).removesuffix(f'/{RUN}/test')}"
        raise ChainError(Problem(where, what, "wait for the end of that, or choose another name"), ExitCode.CONFIG)


def _interrupt(_: int, __: FrameType | None) -> None:
    for name in _ENDINGS:  # once is enough: the way out is not to be cut short
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextlib.contextmanager
def _heard(handler: Any) -> Iterator[None]:
    """Have this done about requests to end, those that are not ignored anyway, while the block runs."""
    known = {name: signal.getsignal(name) for name in _ENDINGS}
    before = {name: signal.signal(name, handler) for name in _ENDINGS if known[name] is not signal.SIG_IGN}
    try:
        yield
    finally:
        for name, former in before.items():
            signal.signal(name, former)


# In a chain, or by itself


def _measured(loaded: Loaded, engine: Engine, progress: Progress, wanted: Request) -> Tried:
    """Wait for an exit's tunnel and measure it. Raises ChainError (NOT_UP)."""
    chain, name, line = loaded.topology.name, wanted.exit, line_of(loaded.config, wanted.exit)
    changed = _changed(loaded, engine, line)
    try:
        with progress.step("Waiting for the tunnel"):
            problems = wait(chain, line, engine, progress, wanted.wait) + changed
    except ChainError as error:
        raise ChainError([*error.problems, *changed], error.code, error.detail) from None
    order = replace(wanted.order, resolvers=tuple(map(_in_clear, loaded.config.dns.upstreams)))
    with progress.step("Measuring"):
        measured = engine.measure(chain, name, order, lambda text: progress.detail(_plain(text)))
    if not measured.answers_ms:
        what = f"its tunnel was up, but none of {order.asked} questions was answered"
        raise ChainError(
            Problem(f"exit {name}", what, "once more: it may have been lost at this very moment"), ExitCode.NOT_UP
        )
    found = _public(loaded, wanted, measured)
    fits, made_for = found["mtu"]["fits"], found["mtu"]["tunnel"]
    if fits is not None and fits < made_for:
        what = f"packets of {made_for} bytes, the tunnel's full size, get lost, and those of up to {fits} bytes pass"
        problems.append(Problem(f"exit {name}", what, f"`mtu: {fits}` on this exit, and `chain up`"))
    return Tried(found, tuple(problems))


def _changed(loaded: Loaded, engine: Engine, line: tuple[str, ...]) -> list[Problem]:
    """Name those of these exits that run with other settings or secrets than there are now.

    Raises ChainError (NOT_RUNNING) if one runs an older version, which can't be measured.
    """
    states = {state.service: state for state in engine.containers(loaded.topology.name)}
    services = yaml.safe_load(loaded.files()[COMPOSE_FILE])["services"]
    changed = []
    for name in line:
        state, service = states.get(f"exit-{name}"), services[f"exit-{name}"]
        if state and state.image != service["image"]:
            what = "its container was made by another version of chain, and can't be measured"
            raise ChainError(Problem(f"exit {name}", what, "`chain up` makes it anew"), ExitCode.NOT_RUNNING)
        if state and any(state.labels.get(key) != value for key, value in service["labels"].items()):
            what = "its settings or secrets have changed since it was started: what runs was tested"
            changed.append(Problem(f"exit {name}", what, "`chain up` applies them"))
    return changed


def _in_clear(upstream: Upstream) -> str:
    """Give where a resolver answers questions that are not encrypted, as far as is known."""
    return f"{upstream.address}@{_PORT_DNS if upstream.name else upstream.port}"


def wait(chain: str, line: tuple[str, ...], engine: Engine, progress: Progress, seconds: float) -> list[Problem]:
    """Wait until tunnels are up, that of the outermost exit first; give what is to be said of them.

    Raises ChainError (NOT_UP).
    """
    end = time.monotonic() + seconds
    return [
        Problem(f"exit {exit_['name']}", exit_["warning"], exit_["advice"])
        for name in reversed(line)
        for exit_ in [_opened(chain, line, name, engine, progress=progress, end=end)]
        if exit_["warning"]
    ]


def _opened(
    chain: str, line: tuple[str, ...], name: str, engine: Engine, *, progress: Progress, end: float
) -> dict[str, Any]:
    """Wait until one tunnel is up; give what the exit says then. Raises ChainError (NOT_UP).

    A second dial that fails is reason enough, the first may have been in the way of a former session's end.
    """
    services = {f"exit-{each}" for each in line}
    restarts = {state.id: state.restarts for state in engine.containers(chain)}
    exit_: dict[str, Any] | None = None
    downs, patience = set(), FAILED_DIALS
    # Closed before anything is measured: what tells of the exit there is in the way of that.
    with contextlib.closing(engine.watch_exit(chain, name, max(0.0, end - time.monotonic()))) as statuses:
        for status in statuses:
            if status:
                before, exit_ = exit_, _said(name, status)
                progress.detail(f"{name} {exit_['state']}: {exit_['cause']}")
                if exit_["open"]:
                    return exit_
                if exit_["state"] == "down":
                    downs.add(exit_["since"])
                    patience += before is None  # as it was found: no dial of this time
            broken = unstable((state for state in engine.containers(chain) if state.service in services), restarts)
            if broken or len(downs) >= patience:
                break
    raise _not_up(chain, line, name, engine, said=exit_, broken=broken)


def _said(name: str, status: dict[str, Any]) -> dict[str, Any]:
    """Read what an exit's container says of itself, which strangers may have taken over. Raises ChainError (NOT_UP)."""
    match status:
        case {"exits": [{"state": str(), "cause": str(), "advice": str(), "warning": str(), **said}]} if (
            type(said.get("since")) in (int, float) and type(said.get("open")) is bool
        ):
            (exit_,) = status["exits"]
            return {"name": name} | {key: _plain(exit_[key]) for key in _SAID}
    what = "its container says of itself what no exit says, and may have been taken over"
    raise ChainError(Problem(f"exit {name}", what, f"`chain logs exit-{name}` shows more"), ExitCode.NOT_UP)


def _not_up(
    chain: str,
    line: tuple[str, ...],
    name: str,
    engine: Engine,
    *,
    said: dict[str, Any] | None,
    broken: list[ContainerState],
) -> ChainError:
    """Say why the tunnel of one of these exits is not up. `said`: what that says of itself, if anything."""
    problems, blamed = [ended(state) for state in broken], [state.service for state in broken]
    if not broken:
        silent = Problem(f"container exit-{name}", "its runtime does not answer", "its log is below")
        problems, blamed = [closed(said) if said else silent], [f"exit-{name}"]
    if name != line[0]:
        what = f"it runs through {name}, whose tunnel is not up, and so was not dialled"
        problems.append(Problem(f"exit {line[0]}", what, f"mend {name} first"))
    return ChainError(problems, ExitCode.NOT_UP, detail=last_words(chain, engine, blamed))


def _public(loaded: Loaded, wanted: Request, measured: Measurement) -> dict[str, Any]:
    """Give the result as scripts get it; what a container says is made fit to be shown."""
    name, order = wanted.exit, wanted.order
    built = next(exit_ for exit_ in loaded.topology.exits if exit_.name == name)
    _, *through = line_of(loaded.config, name)
    answers = measured.answers_ms
    return {
        "name": name,
        "kind": built.kind,
        "through": through,
        "alone": not loaded.topology.has_entry,
        "outside": {
            "address": printable(measured.outside, WORD) or None,
            "asked": order.whoami_server,
            "why": printable(measured.outside_why, SENTENCE),
        },
        "latency": {
            "target": printable(measured.target, WORD),
            "asked": order.asked,
            "answered": len(answers),
            "median_ms": round(statistics.median(answers), 2),
            "min_ms": min(answers),
            "max_ms": max(answers),
        },
        "mtu": {
            "computed": built.mtu,
            "tunnel": measured.mtu,
            "fits": measured.fits,
            "why": printable(measured.fits_why, SENTENCE),
        },
        "download": {
            "url": wanted.shown_url,
            "bytes": measured.bytes,
            "seconds": measured.seconds,
            "bytes_per_second": round(measured.bytes / measured.seconds) if measured.seconds else None,
            "why": printable(measured.download_why, SENTENCE),
        }
        if order.url
        else None,
    }


def _plain(value: Any) -> Any:
    return printable(value, SENTENCE) if isinstance(value, str) else value

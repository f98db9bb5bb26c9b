"""The `chain` command: parse, call, print. No logic stands here."""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chain import __version__, drained, show
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console

    from chain.api.importing import Outcome
    from chain.api.load import Loaded
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.engine.connection import Engine
    from chain.plan import Step

app = typer.Typer(
    help="A multi-hop VPN from one YAML file: WireGuard in, any exit out, nothing outside a tunnel.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
client_app = typer.Typer(help="Who may come in.", no_args_is_help=True)
app.add_typer(client_app, name="client")
exit_app = typer.Typer(help="The ways out.", no_args_is_help=True)
app.add_typer(exit_app, name="exit")


def _completer(kind: str) -> Callable[[typer.Context, str], list[str]]:
    """Make a function that completes names of one kind."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from chain.api import complete

        at: Any = context
        file = None
        while at and file is None:  # it may stand before the command's name
            file, at = at.params.get("file"), at.parent
        return [name for name in getattr(complete, kind)(file) if name.startswith(incomplete)]

    return complete


FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", help="The configuration; config/chain.yaml or chain.yaml when not named.", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]


LONGEST_LINE = 8192  # characters that are read of one on standard input
INTERRUPTED = 130  # what shells give for a program that Ctrl-C ended


def run() -> int:
    """Run the command line; every expected error becomes its message and its exit code."""
    gc.set_threshold(200_000)  # a large chain.yaml makes many objects that stay; looking through them again is in vain
    code = _run()
    if code == INTERRUPTED:
        typer.echo("\ninterrupted; the same command goes on from here", err=True)
    return code


def _run() -> int:
    try:
        result = app(standalone_mode=False)
        return int(result or 0)
    except ChainError as error:
        return _failed(error)
    except typer.Exit as done:
        return int(done.exit_code)
    except (KeyboardInterrupt, typer.Abort):  # the parser mostly makes this exit code of it by itself
        return INTERRUPTED
    except Exception as error:
        show = getattr(error, "show", None)  # the parser's own errors; typer does not export their class
        if show is not None:
            show()
            return int(ExitCode.USAGE)
        from chain.engine.connection import lost

        problem = lost(error)
        if problem is None:
            raise
        return _failed(problem)


def _failed(error: ChainError) -> int:
    """Tell a person on standard error; a script, which asked for JSON, gets it on standard output too."""
    for problem in error.problems:
        typer.echo(f"error: {problem}", err=True)
    if error.detail:
        typer.echo(f"\n{error.detail}", err=True)
    if "--json" in sys.argv[1:]:
        problems = [{"where": found.where, "what": found.what, "hint": found.hint} for found in error.problems]
        # On one line, as whatever else a command prints on lines of their own.
        typer.echo(json.dumps({"error": {"code": int(error.code), "problems": problems}}, ensure_ascii=False))
    return int(error.code)


class Terminal:
    """Progress on standard error: a line that moves on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._status: Any = None
        self._title = ""

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console  # which takes a while, and many commands never come to a step

        return Console(stderr=True, highlight=False)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        started = time.monotonic()
        self._title = title
        if self._console.is_terminal:
            with self._console.status(title) as self._status:
                yield
            self._status = None
        else:
            typer.echo(f"{title} …", err=True)
            yield
        typer.echo(f"{title}: done in {time.monotonic() - started:.1f} s", err=True)

    def detail(self, text: str) -> None:
        if self._status is not None:
            from rich.markup import escape

            self._status.update(f"{self._title} · {escape(text[:100])}")

    def note(self, text: str) -> None:
        typer.echo(text, err=True)


def _project(file: Path | None) -> Project:
    from chain.api.project import locate

    return locate(file or _Given.file)


class _Given:
    """What was said before the command's name."""

    file: Path | None = None


def _engine() -> Engine:
    from chain.engine.connection import Engine

    return Engine()


def _load(file: Path | None) -> tuple[Loaded, Engine]:
    from chain.api.load import load

    engine = _engine()
    return load(_project(file), engine), engine


def _load_running(file: Path | None) -> tuple[Loaded, Engine]:
    """Load what runs, if chain.yaml can't be used as it is now: who looks or steers need not mend it first."""
    from chain.api.load import load_running

    engine = _engine()
    loaded, problems = load_running(_project(file), engine)
    _warn(problems)
    return loaded, engine


def _version(show: bool) -> None:  # noqa: FBT001 - typer's callback
    if show:
        typer.echo(f"chain {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    file: FileOption = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del version  # its callback has said it
    _Given.file = file


@app.command()
def up(
    *,
    file: FileOption = None,
    as_json: JsonOption = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the tunnels.")] = 90,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and why; touch nothing.")] = False,
) -> None:
    """Bring the chain up and wait until traffic flows. Repeating it changes nothing."""
    from chain.api.up import dry_run as look_ahead
    from chain.api.up import up as bring_up

    if dry_run:
        _print_steps(look_ahead(_project(file), _engine(), Terminal()), as_json=as_json)
        return
    outcome = bring_up(_project(file), _engine(), Terminal(), wait)
    if as_json:
        _print_json({"steps": [str(step) for step in outcome.steps], "status": outcome.status})
        return
    if not outcome.steps:
        typer.echo("Nothing had to change.")
    _warn(outcome.problems)
    _print(show.exits(outcome.status))


@app.command()
def down(*, file: FileOption = None, as_json: JsonOption = False) -> None:
    """Remove the chain's containers and networks. Nothing is opened on the way."""
    from chain.api.down import down as take_down

    removed = take_down(_project(file), _engine(), Terminal())
    if as_json:
        _print_json({"removed": removed})
    else:
        typer.echo(f"Removed {len(removed)} containers and networks." if removed else "Nothing was running.")


WATCH_SECONDS = 1.0


@app.command()
def status(
    *,
    file: FileOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look every second, until Ctrl-C.")] = False,
) -> None:
    """Show exits, groups and clients as they are."""
    from chain.api.apply import kept_out
    from chain.api.status import status as look

    loaded, engine = _load_running(file)
    if watch:
        seen = _version_of(loaded)

        def anew() -> dict[str, Any]:
            nonlocal loaded, seen
            version = _version_of(loaded)
            if version not in (None, seen):  # without one it is being written
                loaded, _ = _load_running(file)
                seen = version
            return look(loaded, engine)

        _watch_status(anew, as_json=as_json)
        return
    found = look(loaded, engine)
    if as_json:
        _print_json(found)
    else:
        _print(_status_lines(found))
        _warn(kept_out(found) if found["running"] else ())
    if not found["running"]:
        raise typer.Exit(int(ExitCode.NOT_RUNNING))


def _version_of(loaded: Loaded) -> tuple[int, int] | None:
    """Tell one version of chain.yaml from another, without reading it."""
    try:
        found = loaded.project.file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _status_lines(found: dict[str, Any], before: dict[str, Any] | None = None, seconds: float = 0.0) -> list[str]:
    if not found["running"]:
        return [f"chain {found['chain']} is not running: {found['why']}"]
    changed = found["wanted"] not in (None, found["generation"])
    return [
        *show.exits(found, before, seconds),
        *show.clients(found),
        *(["chain.yaml has changed since: `chain up` applies it."] if changed else []),
    ]


@contextmanager
def _until_interrupted() -> Iterator[None]:
    """Take Ctrl-C as the usual end of what goes on by itself."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit from None


def _watch_status(look: Callable[[], dict[str, Any]], *, as_json: bool) -> None:
    """Show the status again and again: in place on a terminal, else below each other; as JSON, one line each."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from chain.api.apply import kept_out

    console = Console(highlight=False)
    in_place = console.is_terminal and not as_json
    with _until_interrupted(), Live(console=console, auto_refresh=False, screen=in_place) as live:
        before, then = None, 0.0
        while True:
            found, now = look(), time.monotonic()
            lines = [*_status_lines(found, before, now - then), *(f"warning: {each}" for each in kept_out(found))]
            if as_json:
                typer.echo(json.dumps(found, ensure_ascii=False))
            elif in_place:
                live.update(Text("\n".join(lines)), refresh=True)
            else:
                _print([*lines, ""])
            before, then = found, now
            time.sleep(WATCH_SECONDS)


@app.command()
def switch(
    *,
    group: Annotated[str, typer.Argument(help="The group.", autocompletion=_completer("groups"))],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[EXIT]", help="The exit that it is to use.", autocompletion=_completer("exits")),
    ] = None,
    file: FileOption = None,
) -> None:
    """Have a group use this exit while it is good, whatever its policy says; without EXIT, as its policy says again."""
    from chain.api import steer

    loaded, engine = _load_running(file)
    _print(show.groups(steer.switch(loaded, engine, group, name), [group]))


@app.command()
def drain(
    *,
    name: Annotated[str, typer.Argument(metavar="EXIT", autocompletion=_completer("exits"))],
    file: FileOption = None,
) -> None:
    """Send nothing new by an exit, nor through it, until `chain undrain`. Connections that it carries stay."""
    from chain.api import steer

    loaded, engine = _load_running(file)
    _print_around(loaded, name, steer.drain(loaded, engine, name))


@app.command()
def undrain(
    *,
    name: Annotated[str, typer.Argument(metavar="EXIT", autocompletion=_completer("exits"))],
    file: FileOption = None,
) -> None:
    """Let a drained exit be used again."""
    from chain.api import steer

    loaded, engine = _load_running(file)
    found = steer.undrain(loaded, engine, name)
    _print_around(loaded, name, found)
    if reasons := next((each["drained"] for each in found["exits"] if each["name"] == name), None):
        command = drained.undoing({name: reasons})
        hint = f"{command} lets it be used again" if command else "maintenance ends by itself, or in chain.yaml"
        _warn([Problem(f"exit {name}", f"it stays drained: {', '.join(reasons)}", hint)])


def _print_around(loaded: Loaded, name: str, found: dict[str, Any]) -> None:
    """Say of this exit and those that run through it which are drained, and by which ones clients of theirs go now."""
    from chain.topology import through

    names = through(loaded.config, name)
    _print(show.groups(found, [each["name"] for each in found["groups"] if not set(names).isdisjoint(each["exits"])]))
    _print(show.drains(found, names))


@app.command()
def events(
    *,
    file: FileOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what happens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each as a JSON object, on a line of its own.")] = False,
) -> None:
    """Show how exits fared and where clients were sent, since the entry's start."""
    from chain.api import steer

    loaded, engine = _load_running(file)
    with _until_interrupted():
        for event in steer.events(loaded, engine, Terminal(), follow=follow):
            typer.echo(json.dumps(event, ensure_ascii=False) if as_json else show.event(event))


@app.command()
def hooks(*, file: FileOption = None) -> None:
    """Run the hooks of chain.yaml when something happens, until Ctrl-C. No other command runs them."""
    from chain.api import hooks as running

    loaded, engine = _load(file)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which is how a service is told to end
    with _until_interrupted():
        running.run(loaded, engine, Terminal())


@app.command()
def render(
    *,
    file: FileOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder to write to, instead of run/.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the Compose file and the containers' settings, start nothing. `docker compose up` runs them too."""
    from chain.api.render import write

    written = write(_project(file), _engine(), output, Terminal())
    if as_json:
        _print_json({"files": [str(path) for path in written]})
    else:
        for path in written:
            typer.echo(path)


@app.command()
def build(
    *,
    file: FileOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Build all of them anew, with the newest packages: security updates.")
    ] = False,
) -> None:
    """Build the images this chain needs and the engine does not have."""
    from chain.api.up import build_fresh, build_missing

    loaded, engine = _load(file)
    if fresh:
        typer.echo("\n".join(build_fresh(loaded, engine, Terminal())))
        typer.echo("`chain up` makes the containers anew from them.", err=True)
        return
    names = build_missing(loaded, engine, Terminal())
    typer.echo("\n".join(names) if names else "All images are there.")


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of chain.yaml, for editors."""
    from chain.config.schema import schema
    from chain.exits import SETTINGS

    _print_json(schema(SETTINGS))


@app.command()
def doctor(*, file: FileOption = None, as_json: JsonOption = False) -> None:
    """Examine what a chain relies on: configuration, secrets, engine, and the engine's host. Starts no chain."""
    from chain.api.doctor import doctor as examine
    from chain.checks import verdict

    findings = examine(file or _Given.file, _engine(), Terminal())
    if as_json:
        _print_json({"findings": [finding.public() for finding in findings]})
    else:
        for finding in findings:
            typer.echo(f"{finding.level:<9}  {finding.name}: {finding.found}")
            for word, text in (("why", finding.why), ("fix", finding.fix)):
                if text:
                    typer.echo(f"{word:>14}: {text}")
        _print_verdict([finding.level for finding in findings])
    raise typer.Exit(int(verdict(findings)))


@app.command()
def logs(
    *,
    service: Annotated[
        str | None,
        typer.Argument(help="entry, or exit-NAME; all when not named.", autocompletion=_completer("services")),
    ] = None,
    file: FileOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as lines come in; for one container.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="How many of the last lines.")] = 100,
    times: Annotated[bool, typer.Option("--times", help="With the time of each line.")] = False,
) -> None:
    """Show what the containers say."""
    loaded, engine = _load_running(file)
    states = engine.containers(loaded.topology.name)
    if not states:
        raise ChainError(
            Problem(f"chain {loaded.topology.name}", "it has no containers", "`chain up` starts it"),
            ExitCode.NOT_RUNNING,
        )
    chosen = [state for state in states if service in (None, state.service, state.service.removeprefix("exit-"))]
    if not chosen:
        known = ", ".join(state.service for state in states)
        raise ChainError(Problem(f"service {service}", "no such container", f"there are: {known}"), ExitCode.CONFIG)
    if follow and len(chosen) > 1:
        known = ", ".join(state.service for state in chosen)
        raise ChainError(Problem("--follow", "it shows one container", f"name one of: {known}"), ExitCode.USAGE)
    if follow:
        for line in engine.follow_logs(chosen[0].id, tail, times=times):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        return
    for state in chosen:
        for line in engine.log_tail(state.id, tail, times=times).splitlines():
            typer.echo(f"{state.service}: {line}")


@client_app.command("add")
def client_add(
    *,
    name: Annotated[str, typer.Argument(help="The device's name, such as phone.")],
    file: FileOption = None,
    group: Annotated[
        str | None, typer.Option(help="The group of exits it uses.", autocompletion=_completer("groups"))
    ] = None,
    qr: Annotated[bool, typer.Option(help="Show a QR code for the phone's app.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Make a client's keys, print its configuration, and let it in at once; the others' traffic flows on."""
    from chain.api import clients
    from chain.api.apply import check_applicable

    project, engine = _project(file), _engine()
    check_applicable(project, engine, group)
    progress = Terminal()
    made = clients.add(project, engine, name, group, progress)
    unprinted: list[Problem] = []
    try:
        _print_client(made, qr=qr, as_json=as_json)  # first: it exists, whatever becomes of the engine
    except OSError as error:  # nobody reads any more, or the disk is full; it comes in all the same
        what = f"its configuration could not be printed: {error.strerror}"
        unprinted = [Problem(f"client {name}", what, f"`chain client show {name}` prints it again")]
    written = Problem(f"client {name}", "it is in chain.yaml all the same", "`chain up` lets it in")
    warnings = _apply(project, engine, progress, written)
    if unprinted:
        raise ChainError([*unprinted, *(warnings or ())])
    if warnings is None:
        typer.echo("The chain is not running; `chain up` lets this client in.", err=True)
    _warn(warnings)


def _apply(project: Project, engine: Engine, progress: Progress, written: Problem) -> list[Problem] | None:
    """Have a running entry take the clients. Raises ChainError, which tells too what is `written` already."""
    from chain.api.apply import apply_if_running

    try:
        return apply_if_running(project, engine, progress)
    except ChainError as error:
        raise ChainError([*error.problems, written], error.code, detail=error.detail) from error


@client_app.command("list")
def client_list(*, file: FileOption = None, as_json: JsonOption = False) -> None:
    """List the clients in chain.yaml."""
    loaded, _ = _load(file)
    clients = [
        {"name": client.name, "address": client.address, "address6": client.address6, "group": client.group}
        for client in loaded.topology.state.clients
    ]
    if as_json:
        _print_json({"clients": clients})
    elif clients:
        _print(show.table(["client", "address", "group"], [[c["name"], c["address"], c["group"]] for c in clients]))
    else:
        typer.echo("No clients yet: `chain client add phone` makes one.")


@client_app.command("show")
def client_show(
    *,
    name: Annotated[str, typer.Argument(help="The client's name.", autocompletion=_completer("clients"))],
    file: FileOption = None,
    qr: Annotated[bool, typer.Option(help="Show a QR code for the phone's app.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Print a client's configuration again. It is secret: it lets its holder in."""
    from chain.api import clients

    loaded, _ = _load(file)
    _print_client(clients.show(loaded, name), qr=qr, as_json=as_json)


@client_app.command("remove")
def client_remove(
    *,
    name: Annotated[str, typer.Argument(help="The client's name.", autocompletion=_completer("clients"))],
    file: FileOption = None,
) -> None:
    """Keep a client out from now on, and forget its keys."""
    from chain.api import clients
    from chain.api.apply import check_applicable

    project, engine = _project(file), _engine()
    check_applicable(project, engine, None)
    progress = Terminal()
    clients.remove(project, engine, name, progress)
    hint = "the same command, or `chain up`, keeps it out of a chain that runs"
    written = Problem(f"client {name}", "it is out of chain.yaml all the same", hint)
    warnings = _apply(project, engine, progress, written)
    clients.forget(project, engine, name, progress)
    typer.echo(f"Removed {name}." + (" The chain is not running." if warnings is None else ""))
    _warn(warnings)


@exit_app.command("add")
def exit_add(
    *,
    name: Annotated[str, typer.Argument(help="What the exit is to be called, such as oslo.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FILE|LINK|-",
            help="What the provider gave: its file for WireGuard's app, or for OpenVPN, with those beside it that it"
            " names; a vless://, trojan://, ss:// or vmess:// link; a subscription's body; a .mobileconfig; or L2TP's"
            " four fields as text. -: by standard input, so that no link stands in the list of processes or the shell's"
            " history.",
        ),
    ],
    file: FileOption = None,
    pick: Annotated[
        str | None, typer.Option(metavar="NAME|NUMBER|all", help="Which of several; all: as NAME-1, NAME-2, …")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be added; touch nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add what a provider handed out to chain.yaml and secrets/; `chain up` then applies it."""
    from chain.api import importing

    project = _project(file)
    if source == "-" and sys.stdin.isatty():
        typer.echo("Paste it here, then press Ctrl-D on a line of its own.", err=True)
    taken = importing.take(source, sys.stdin.buffer, secrets=project.secrets)
    ask = _ask if sys.stdin.isatty() else None
    done = importing.add(project, name, taken, pick=pick, ask=ask, dry_run=dry_run)
    _print_added(done, dry_run=dry_run, as_json=as_json)


def _ask(name: str, about: str) -> str:
    answer: str = typer.prompt(f"{name}: {about}", hide_input=True, err=True)
    return answer


@exit_app.command("list")
def exit_list(*, file: FileOption = None, as_json: JsonOption = False) -> None:
    """List the exits in chain.yaml; `chain status` shows how they are."""
    from chain.api import exits

    loaded, _ = _load(file)
    found = exits.listing(loaded)
    if as_json:
        _print_json({"exits": found})
        return
    rows = [[e["name"], e["kind"], e["via"], ", ".join(e["groups"]), str(e["mtu"])] for e in found]
    _print(show.table(["exit", "kind", "via", "groups", "mtu"], rows))


@exit_app.command("show")
def exit_show(
    *,
    name: Annotated[str, typer.Argument(help="The exit's name.", autocompletion=_completer("exits"))],
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one exit's settings, those that were not given too, and where its secrets are."""
    from chain.api import exits

    loaded, _ = _load(file)
    found = exits.show(loaded, name)
    if as_json:
        _print_json(found)
        return
    for key in ("name", "kind", "via", "carried", "groups", "mtu"):
        value = ", ".join(found[key]) if isinstance(found[key], list) else found[key]
        if value:
            typer.echo(f"{key}: {value}")
    for key, value in found["settings"].items():
        typer.echo(f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    for secret in found["secrets"]:
        typer.echo(f"secret {secret['role']}: {secret['file']}{'' if secret['there'] else ' (not there)'}")


@exit_app.command("test")
def exit_test(
    *,
    name: Annotated[str, typer.Argument(help="The exit's name.", autocompletion=_completer("exits"))],
    file: FileOption = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for its tunnel.")] = 90,
    url: Annotated[
        str | None,
        typer.Option(
            help="Measure the throughput too, by a download of this file. `-`: from standard input, out of sight."
        ),
    ] = None,
    whoami: Annotated[
        str, typer.Option(help="NAME@ADDRESS: the name whose text record says who asks, and of whom it is asked.")
    ] = "ch:whoami.cloudflare@1.1.1.1",
    as_json: JsonOption = False,
) -> None:
    """Dial an exit by itself, or look at it where the chain runs it: the address outside, latency, MTU, throughput."""
    from chain.api import measure

    hidden = url == "-"
    wanted = measure.request(name, whoami, _read_line("URL") if hidden else url, wait, secret_url=hidden)
    tried = measure.try_exit(_project(file), _engine(), Terminal(), wanted)
    if as_json:
        _print_json(tried.found | {"problems": [str(problem) for problem in tried.problems]})
        return
    _print_tried(tried.found)
    _warn(tried.problems)


@exit_app.command("remove")
def exit_remove(
    *,
    name: Annotated[str, typer.Argument(help="The exit's name.", autocompletion=_completer("exits"))],
    file: FileOption = None,
) -> None:
    """Take an exit out of chain.yaml; `chain up` then applies it. Its secrets stay."""
    from chain.api import exits

    left = exits.remove(_project(file), name, Terminal())
    typer.echo(f"Removed {name} from chain.yaml. `chain up` applies it to a running chain.")
    if left:
        typer.echo(f"Its secrets are still there: {', '.join(left)}")


@exit_app.command("kinds")
def exit_kinds(*, as_json: JsonOption = False) -> None:
    """List the kinds of exits that there are."""
    from chain.api import exits

    found = exits.kinds()
    if as_json:
        _print_json({"kinds": found})
        return
    for kind in found:
        typer.echo(f"{kind['name']}: {kind['about']}")
        for need in kind["kernel"]:
            typer.echo(f"    the host's kernel needs {need['needs']} ({', '.join(need['modules'])})")


def _read_line(what: str) -> str:
    """Read what is not to stand on the command line, where others on this machine see it."""
    if sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=True, err=True))
    return sys.stdin.readline(LONGEST_LINE).strip()


def _print_tried(found: dict[str, Any]) -> None:
    where = "by itself" if found["alone"] else "as it runs in the chain"
    typer.echo(f"exit: {found['name']} ({found['kind']}), {where}")
    if found["through"]:
        typer.echo(f"through: {', '.join(found['through'])}")
    outside, latency, mtu, download = found["outside"], found["latency"], found["mtu"], found["download"]
    typer.echo(f"address outside: {outside['address'] or 'not known, ' + outside['why']}")
    typer.echo(
        f"latency: {latency['median_ms']} ms, between {latency['min_ms']} and {latency['max_ms']} ms;"
        f" {latency['answered']} of {latency['asked']} answered ({latency['target']} asked)"
    )
    negotiated = f", {mtu['tunnel']} negotiated" if mtu["tunnel"] != mtu["computed"] else ""
    measured = f"packets of {mtu['fits']} bytes pass" if mtu["fits"] else f"not measured, {mtu['why']}"
    there = f"{mtu['computed']} computed{negotiated}; {measured}"
    typer.echo(f"mtu: {there if mtu['tunnel'] else 'not applicable, ' + mtu['why']}")
    if download and download["bytes_per_second"]:
        speed = f"{8e-6 * download['bytes_per_second']:.1f} Mbit/s"
        typer.echo(f"throughput: {speed} ({show.size(download['bytes'])} in {download['seconds']:.1f} s)")
    elif download:
        typer.echo(f"throughput: not measured, {download['why']}")


def _print_added(done: Outcome, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        _print_json(
            {
                "dry_run": dry_run,
                "exits": [exit_.public() | {"groups": list(done.groups[exit_.name])} for exit_ in done.exits],
                "warnings": [vars(problem) for problem in done.warnings],
                "left": [vars(problem) for problem in done.left],
            }
        )
        return
    for exit_ in done.exits:
        typer.echo(f"{'Would add' if dry_run else 'Added'} {exit_.name} to chain.yaml:")
        typer.echo("".join(f"  {line}\n" for line in exit_.lines()), nl=False)
        for role, path, given in exit_.files():
            typer.echo(f"  secret {role}: {path}{'' if given else ' (not in the input)'}")
    _warn(done.warnings)
    for problem in done.left:
        typer.echo(f"left out: {problem}", err=True)
    for exit_ in done.exits:
        if not done.groups[exit_.name]:
            typer.echo(f"No group has {exit_.name} yet: `groups: {{…: {{exits: […]}}}}` says who uses it.", err=True)
    if not dry_run:
        typer.echo("`chain up` applies it to a running chain.", err=True)


def _warn(problems: Iterable[Problem] | None) -> None:
    for problem in problems or ():
        typer.echo(f"warning: {problem}", err=True)


def _print_client(made: Any, *, qr: bool, as_json: bool) -> None:
    text = made.text.reveal()
    if as_json:
        _print_json({"name": made.name, "address": made.address, "config": text})
        return
    typer.echo(text)
    if qr and sys.stdout.isatty():
        import segno

        segno.make(text, error="l").terminal(compact=True)


def _print_verdict(levels: list[str]) -> None:
    words = {"fail": "failed", "warn": "to look at", "unchecked": "not checked", "ok": "well"}
    typer.echo(", ".join(f"{levels.count(level)} {word}" for level, word in words.items() if level in levels))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_steps(steps: Iterable[Step], *, as_json: bool) -> None:
    lines = [str(step) for step in steps]
    if as_json:
        _print_json({"steps": lines})
    else:
        typer.echo("\n".join(lines) or "Nothing has to change.")


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)

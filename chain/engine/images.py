"""The images: what each is made of, its tag (a hash of that), and building those that are missing."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chain.engine.connection import Engine

BUILD_ATTEMPTS = 3
# What apt, Go and BuildKit say when the other side can't be reached.
_OUT_OF_REACH = re.compile(
    r"Temporary failure|Could not (resolve|connect)|Connection (timed out|reset|refused|failed)|Failed to fetch"
    r"|i/o timeout|TLS handshake timeout|unexpected EOF|50[234] (Bad Gateway|Service Unavailable|Gateway)"
)

PACKAGE = Path(__file__).resolve().parent.parent
RUNTIME = ("__init__.py", "contract.py", "errors.py", "ovpn.py", "secret.py", "node", "agent")
# Programs that are built once, each in an image that nothing runs from. A recipe takes one by this build argument.
PROGRAMS = {"WIREGUARD_GO": "wireguard-go", "XRAY": "xray-core"}
BASE = "debian:trixie-slim"
# The machine's own certificates, for builds behind an intercepting CA. The first that exists is used.
CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def data_folder(name: str) -> Path:
    """Find `compose` or `images`: beside the package in a checkout, inside it when installed."""
    installed = PACKAGE / "_data" / name
    return installed if installed.is_dir() else PACKAGE.parent / name


@dataclass(frozen=True)
class Image:
    """One image: its folder's name, and its full name, whose tag is a hash of everything it is built from."""

    folder: str
    name: str
    path: Path
    program: tuple[str, Image] | None = None  # that it takes, by which build argument
    needs_runtime: bool = True


def describe(folders: Iterable[str], root: Path | None = None) -> dict[str, Image]:
    """Describe images by folder, those of `images/` or of another root; hashing reads their files and the runtime's."""
    found = {}
    for folder in folders:
        path = (root or data_folder("images")) / folder
        recipe = (path / "Dockerfile").read_text()
        argument = next((name for name in PROGRAMS if f"ARG {name}=" in recipe), None)
        program = (argument, _program(PROGRAMS[argument])) if argument else None
        found[folder] = _image(path, program=program, needs_runtime="--from=runtime" in recipe)
    return found


def _program(folder: str) -> Image:
    return _image(data_folder("images") / folder, program=None, needs_runtime=False)


def _image(path: Path, *, program: tuple[str, Image] | None, needs_runtime: bool) -> Image:
    digest = hashlib.sha256(f"{program[1].name if program else ''}\n".encode())
    sources = [path, *(PACKAGE / part for part in RUNTIME)] if needs_runtime else [path]
    for source in sources:
        files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
        for file in files:
            if file.suffix != ".pyc":
                digest.update(f"{file.relative_to(source.parent)}\0".encode() + file.read_bytes() + b"\0")
    return Image(path.name, f"chain-{path.name}:{digest.hexdigest()[:12]}", path, program, needs_runtime)


def missing(engine: Engine, images: Iterable[Image]) -> list[Image]:
    """List what has to be built, each after the program that it takes."""
    wanted: dict[str, Image] = {}
    for image in images:
        if not engine.has_image(image.name):
            program = image.program[1] if image.program else None
            if program and not engine.has_image(program.name):
                wanted[program.name] = program
            wanted[image.name] = image
    return list(wanted.values())


def with_programs(images: Iterable[Image]) -> list[Image]:
    """List images, each after that of the program that it takes."""
    found: dict[str, Image] = {}
    for image in images:
        for part in (*([image.program[1]] if image.program else []), image):
            found[part.name] = part
    return list(found.values())


def build(engine: Engine, image: Image, progress: Callable[[str], None], *, fresh: bool = False) -> None:
    """Build one image; `progress` gets the builder's lines. Raises ChainError (ENGINE) with the last of them.

    `fresh`: with nothing of earlier builds, whose layers keep the packages of their day.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

    bundle = next((path for path in CA_BUNDLES if Path(path).is_file()), None)
    contexts = {"runtime": str(PACKAGE)} if image.needs_runtime else {}
    lines: list[str] = []

    def note(line: str) -> None:
        lines.append(line)
        progress(line)

    def out_of_reach(error: BaseException) -> bool:
        """Mirrors and proxies fail for a moment now and then; a recipe that is wrong fails again."""
        return isinstance(error, RuntimeError) and any(_OUT_OF_REACH.search(line) for line in lines[-40:])

    again = Retrying(
        retry=retry_if_exception(out_of_reach),
        stop=stop_after_attempt(BUILD_ATTEMPTS),
        wait=wait_exponential(multiplier=2),
        before_sleep=lambda _: progress("a package source did not answer; once more in a moment"),
        reraise=True,
    )
    try:
        again(
            engine.build,
            image.path,
            tag=image.name,
            contexts=contexts,
            arguments={image.program[0]: image.program[1].name} if image.program else {},
            labels={"chain.image": image.folder},
            secrets=[f"id=ca,src={bundle}"] if bundle else [],
            cache=not fresh,
            progress=note,
        )
    except RuntimeError as error:
        raise ChainError(
            Problem(
                f"image {image.name}",
                "the build failed",
                "the last lines are below; most often a package mirror or proxy can't be reached from the build",
            ),
            ExitCode.ENGINE,
            detail="\n".join(lines[-20:]) or str(error),
        ) from None

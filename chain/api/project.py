"""A chain's folders, and writing in them so that no file is ever half-written."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from chain.api.progress import SILENT
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chain.api.progress import Progress

TEMPORARY_FORM = ".{name}.{mark}.part"  # what a file is called until it is whole
RUN, TEST = "run", "run/test"  # where files are rendered to: those of the chain, and of the test of an exit
DEFAULT_FILES = ("config/chain.yaml", "chain.yaml")


@dataclass(frozen=True)
class Project:
    """The configuration's file, and the folder that holds `secrets/` and `run/`."""

    file: Path
    rendered: str = RUN

    @property
    def root(self) -> Path:
        folder = self.file.resolve().parent
        return folder.parent if folder.name == "config" else folder

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def run(self) -> Path:
        return self.root / self.rendered

    @property
    def kept(self) -> Path:
        """A copy of the configuration, as it was when a command last had the entry take it."""
        mark = sha256(os.fsencode(self.file.resolve())).hexdigest()[:8]  # several may share the folder
        return self.run / f".{mark}.yaml"

    @property
    def test(self) -> Project:
        """The same one for the test of an exit, which leaves the chain's own files alone."""
        return replace(self, rendered=TEST)

    @property
    def client_keys(self) -> Path:
        return self.secrets / "clients"

    @property
    def peer_keys(self) -> Path:
        return self.secrets / "peers"

    @property
    def entry_key(self) -> Path:
        return self.secrets / "entry_private_key"


def locate(file: Path | None) -> Project:
    """Find the configuration: the named file, or the first usual one. Raises ChainError (CONFIG)."""
    if file is not None:
        try:
            file.resolve()
        except (OSError, RuntimeError):
            problem = Problem(str(file), "this link leads nowhere but to itself", "name the file itself with -f")
            raise ChainError(problem, ExitCode.CONFIG) from None
        return Project(file)
    for name in DEFAULT_FILES:
        if Path(name).is_file():
            return Project(Path(name))
    raise ChainError(
        Problem(
            "chain.yaml",
            f"neither {' nor '.join(DEFAULT_FILES)} is in this folder",
            "name the file with -f, or copy one of config.example/ to config/chain.yaml",
        ),
        ExitCode.CONFIG,
    )


def is_there(path: Path) -> bool:
    """Tell whether something is there, as far as this user may look: in another user's folder nothing is."""
    try:
        return path.exists()
    except OSError:
        return False


def is_missing(path: Path) -> bool:
    """Tell whether nothing is there, which is not the same as that this user may not look."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def changing(project: Project, progress: Progress = SILENT) -> Iterator[None]:
    """Keep other commands from changing this chain's files meanwhile; waits for one that does, and says so.

    Raises ChainError.

    Removes what killed commands have left: nobody else is writing now.

    The lock is the folder's own, so that no file has to be made for it, and ends with the process, however it ends.
    """
    try:
        folder = os.open(project.root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ChainError(
            Problem(str(project.root), f"can't be opened: {error.strerror}", "check the folder's owner and mode"),
            ExitCode.CONFIG,
        ) from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step("Waiting until another command, which is changing this chain, has ended"):
                fcntl.flock(folder, fcntl.LOCK_EX)
        _sweep(project)
        yield
    finally:
        os.close(folder)


def _sweep(project: Project) -> None:
    """Remove temporary files, which may hold secrets."""
    file = project.file.resolve()
    stale = TEMPORARY_FORM.format(name="*", mark="?" * 8)
    for path in (
        *file.parent.glob(TEMPORARY_FORM.format(name=glob.escape(file.name), mark="?" * 8)),
        *project.secrets.rglob(stale),
        *project.run.rglob(stale),
    ):
        with contextlib.suppress(OSError):  # who may not remove it may not write there either, and is told then
            path.unlink()


def write_atomic(path: Path, text: str, mode: int) -> None:
    """Put a whole file in place, or leave the old one: written beside, synced, renamed. Raises ChainError (CONFIG)."""
    temporary = path.with_name(TEMPORARY_FORM.format(name=path.name, mark=secrets.token_hex(4)))
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), mode)  # whatever the umask says
                _keep_owner(path, file.fileno())
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    except OSError as error:
        raise ChainError(
            Problem(str(path), f"can't be written: {error.strerror}", "check the folder's owner and mode"),
            ExitCode.CONFIG,
        ) from None


def _keep_owner(path: Path, descriptor: int) -> None:
    """Leave a user's file the user's when root writes it anew."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        found = path.stat()
        os.fchown(descriptor, found.st_uid, found.st_gid)


def make_folder(path: Path, mode: int) -> None:
    """Make a folder with this mode, whatever the umask says. Raises ChainError (CONFIG)."""
    try:
        if not path.is_dir():
            if not path.parent.is_dir():
                make_folder(path.parent, mode)
            before = os.umask(0)  # not chmod afterwards: a command that is killed between would leave another mode
            try:
                path.mkdir(mode, exist_ok=True)
            finally:
                os.umask(before)
    except OSError as error:
        raise ChainError(
            Problem(str(path), f"can't be made: {error.strerror}", "check the folder's owner and mode"), ExitCode.CONFIG
        ) from None


def rewrite(project: Project, change: Callable[[str], str]) -> None:
    """Edit chain.yaml; whoever calls holds `changing`."""
    file = project.file.resolve()  # a link stays a link
    text = file.read_bytes().decode()  # not read_text, which would rewrite the line ends
    write_atomic(file, change(text), file.stat().st_mode & 0o777)

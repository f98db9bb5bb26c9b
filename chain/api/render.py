"""Render without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chain.api.clients import ensure_entry_key
from chain.api.load import load
from chain.api.progress import SILENT
from chain.api.project import changing, make_folder, write_atomic
from chain.api.up import read_files, write_files
from chain.plan import Observed, plan

if TYPE_CHECKING:
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.engine.connection import Engine


def write(project: Project, engine: Engine, output: Path | None, progress: Progress = SILENT) -> list[Path]:
    """Write the rendered files to run/, or to another folder for a look at them; give their paths."""
    if output is None:
        with changing(project, progress):  # read inside: what another command changes meanwhile is not to be undone
            loaded = load(project, engine)
            ensure_entry_key(loaded)
            files = loaded.files()
            observed = Observed(read_files(project.run), (), None, frozenset())
            write_files(project, files, plan(files, (), "", observed))
        return [project.run / name for name in files]
    files = load(project, engine).files(str(project.root))
    for name, text in files.items():
        path = Path(output, name)
        make_folder(path.parent, 0o755)
        write_atomic(path, text, 0o644)
    return [Path(output, name) for name in files]

"""Build what the engine lacks of all images, the project's and the test ground's; print their names, one a line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from chain.cli import Terminal
from chain.engine import images
from chain.engine.connection import Engine
from chain.errors import ChainError

if TYPE_CHECKING:
    from pathlib import Path

HERE = images.PACKAGE.parent


def folders(root: Path) -> list[str]:
    """Name the images of one root; what others are only built from is none that runs, nor is the one to copy."""
    names = {path.parent.name for path in root.glob("*/Dockerfile")}
    return sorted(names - {*images.PROGRAMS.values(), "exit-_example"})


def main() -> None:
    engine, terminal = Engine(), Terminal()
    roots = (images.data_folder("images"), HERE / "tests" / "providers")
    found = [image for root in roots for image in images.describe(folders(root), root).values()]
    try:
        for image in images.missing(engine, found):
            with terminal.step(f"Building image {image.name}"):
                images.build(engine, image, terminal.detail)
    except ChainError as error:
        sys.exit("\n".join([*(f"error: {problem}" for problem in error.problems), error.detail or ""]))
    sys.stdout.write("".join(f"{image.name}\n" for image in found))


if __name__ == "__main__":
    main()

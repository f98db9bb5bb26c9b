"""List what each image carries, as CycloneDX 1.5 JSON: Debian's packages, Go modules, the chain runtime itself.

`python tests/lab/sbom.py FOLDER` writes one file per image there; images that the engine lacks are built first.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain import __version__
from chain.engine import images
from chain.engine.connection import Engine
from chain.exits import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

_DPKG = ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\n"]
_GO_MODULE = re.compile(r"^(?:require)?\s+(?P<name>[\w.-]+\.[\w./-]+) (?P<version>v\S+)", re.MULTILINE)


def debian(listing: str) -> Iterator[dict[str, str]]:
    """Give the components in dpkg-query's listing."""
    for line in listing.splitlines():
        name, version, architecture = line.split("\t")
        url = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}"
        yield {"type": "library", "name": name, "version": version, "purl": url}


def go(text: str) -> Iterator[dict[str, str]]:
    """Give the modules that a go.mod requires, those it needs in turn included."""
    for match in _GO_MODULE.finditer(text):
        url = f"pkg:golang/{match['name']}@{match['version']}"
        yield {"type": "library", "name": match["name"], "version": match["version"], "purl": url}


def bill(image: images.Image, listing: str) -> dict[str, Any]:
    """Build one image's bill of materials. No time stands in it: the same image gives the same bill."""
    components = list(debian(listing))
    if image.program is not None:
        components += go((image.program[1].path / "go.mod").read_text())
    components.append(
        {"type": "application", "name": "chain", "version": __version__, "purl": f"pkg:pypi/chain-vpn@{__version__}"}
    )
    name, _, tag = image.name.partition(":")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": tag}},
        "components": components,
    }


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    engine = Engine()
    wanted = images.describe(["entry", *(f"exit-{kind}" for kind in REGISTRY)])
    for image in images.missing(engine, wanted.values()):
        sys.stderr.write(f"Building image {image.name} …\n")
        images.build(engine, image, lambda _: None)
    for image in wanted.values():
        raw: bytes = engine.sdk.containers.run(
            image.name, _DPKG[1:], entrypoint=_DPKG[0], network_mode="none", cap_drop=["ALL"], remove=True
        )
        file = folder / f"{image.folder}.cdx.json"
        found = bill(image, raw.decode())
        file.write_text(json.dumps(found, indent=2) + "\n")
        sys.stdout.write(f"{file}: {len(found['components'])} components\n")


if __name__ == "__main__":
    main()

"""Prints what an image holds as CycloneDX 1.6: Python packages and, where there is dpkg, Debian's.

    python sbom.py cyxwiz-operator > sbom.cdx.json

Run by the image's own Python when it is built. The same packages give the same text: it has no time and no serial
number. Licences are as the packages state them; Debian's are in /usr/share/doc.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from email.message import Message
from importlib.metadata import distributions
from typing import Any, cast
from urllib.parse import quote

Component = dict[str, Any]


def python_packages() -> list[Component]:
    """Each distribution once, the first that Python would import."""
    found: dict[str, Component] = {}
    for distribution in distributions():
        metadata = cast(Message, distribution.metadata)
        name, version = metadata["Name"], metadata["Version"]
        if not name or name.lower() in found:
            continue
        component: Component = {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version)}",
        }
        if licences := _licences(metadata):
            component["licenses"] = licences
        found[name.lower()] = component
    return [found[name] for name in sorted(found)]


def _licences(metadata: Message) -> list[Component]:
    if expression := metadata["License-Expression"]:
        return [{"expression": expression}]
    prefix = "License :: "
    names = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier", []) if text.startswith(prefix)]
    stated = metadata["License"] or ""
    if not names and 0 < len(stated) < 80:  # longer ones are whole texts
        names = [stated]
    return [{"license": {"name": name}} for name in names]


def debian_packages() -> list[Component]:
    """Of the base image; none where there is no dpkg."""
    if shutil.which("dpkg-query") is None:
        return []
    form = "${Package}\t${Version}\t${Architecture}\n"
    answer = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={form}"], capture_output=True, text=True, check=True
    )
    rows = sorted(line.split("\t") for line in answer.stdout.splitlines())
    return [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}",
        }
        for name, version, architecture in rows
    ]


def document(image: str) -> Component:
    """The whole bill of materials of `image`."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": image}},
        "components": [*python_packages(), *debian_packages()],
    }


if __name__ == "__main__":
    print(json.dumps(document(sys.argv[1]), indent=1))

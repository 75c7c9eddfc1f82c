"""Writes the generated CRDs, to crds/ and to the chart; with --check it fails when they have drifted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from .crd import compute_node_crd, training_job_crd

HEADER = "# Generated from crds/cyxwiz_crds by `python -m cyxwiz_crds`. Do not edit.\n"
# kubectl's client-side apply keeps the whole object in an annotation of at most this size.
LARGEST_BYTES = 262_144
ROOT = Path(__file__).parents[2]
# Helm reads no file outside its chart, so the chart has a copy.
FOLDERS = ("crds", "helm/cyxwiz/files/crds")


def documents() -> dict[str, str]:
    """File name to YAML text of every generated CRD."""
    crds = (training_job_crd(), compute_node_crd())
    return {f"{crd['metadata']['name']}.yaml": HEADER + _yaml(crd) for crd in crds}


class _Plain(yaml.SafeDumper):
    """Writes a value that occurs twice twice: anchors are not for readers of a CRD."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


def main(argv: list[str] | None = None) -> int:
    """Write the CRDs, or check them. Returns 0 when they are in order, 1 when `--check` found drift."""
    parser = argparse.ArgumentParser(prog="python -m cyxwiz_crds", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file has drifted")
    arguments = parser.parse_args(argv)
    drifted: list[str] = []
    for name, text in documents().items():
        if len(text) > LARGEST_BYTES:
            print(f"{name}: {len(text)} bytes; kubectl apply takes at most {LARGEST_BYTES}", file=sys.stderr)
            return 1
        for folder in FOLDERS:
            path = ROOT / folder / name
            if path.exists() and path.read_text() == text:
                continue
            drifted.append(f"{folder}/{name}")
            if not arguments.check:
                path.write_text(text)
                print(f"wrote {folder}/{name}")
    if arguments.check and drifted:
        print(f"drifted from the models: {', '.join(drifted)}; run python -m cyxwiz_crds", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

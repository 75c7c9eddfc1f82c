"""Compares rendered objects and the examples with the schemas of every supported Kubernetes release.

    python helm/conform.py RENDERED.yaml...      kubeconform, strictly: a field that is not in the schema fails
    python helm/conform.py --take CRD.yaml...    renews helm/schemas from the definitions of others

Nothing is downloaded. Kubernetes' schemas are those of the package kubernetes-validate, ours are made from crds/, and
helm/schemas has the two kinds of the Prometheus operator (0.85, Apache-2.0) that the chart uses, without their texts.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from cyxwiz_devcluster import find_or_build

ROOT = Path(__file__).parents[1]
OTHERS = Path(__file__).parent / "schemas"
KUBERNETES = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
RELEASES = ("1.32.0", "1.33.0", "1.34.0", "1.35.0", "1.36.0", "1.37.0")
# Written only with nodes.gpu.access: dra, which says that it needs 1.34.
NEWER_KINDS = {"resource.k8s.io/v1/ResourceClaimTemplate": "1.34.0"}
SHARED = "/api/_definitions.json#/$defs/"
Schema = dict[str, Any]


def strict(schema: Any) -> Any:
    """The structural schema of a definition as a JSON schema that refuses what it does not name."""
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if isinstance(properties := schema.get("properties"), dict):
        result["properties"] = {name: strict(each) for name, each in properties.items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    return result


def definitions(paths: list[Path]) -> Iterator[tuple[str, Schema]]:
    """(`group/kind_version.json`, schema) of every version of every definition in these files."""
    for path in paths:
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            name = f"{spec['group']}/{spec['names']['kind'].lower()}_{version['name']}.json"
            schema = version["schema"]["openAPIV3Schema"]
            schema["properties"] |= {"metadata": {"type": "object"}}
            yield name, schema


def without_texts(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_texts(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_texts(value)
        for key, value in schema.items()
        if not (key == "description" and isinstance(value, str))
    }


def kubernetes_schema(release: str, kind: str, version: str) -> Schema | None:
    """Kubernetes' own schema of a kind, with all that it refers to inside; None where the release has no such kind."""
    folder = KUBERNETES / f"v{release}-local-strict"
    group, _, number = version.rpartition("/")
    path = folder / f"{'-'.join(filter(None, (kind.lower(), group.partition('.')[0], number)))}.json"
    if not path.exists():
        return None
    definitions: Schema = json.loads((folder / "_definitions.json").read_text())["$defs"]
    schema: Schema = json.loads(path.read_text().replace(SHARED, "#/$defs/"))
    needed: Schema = {}
    unseen = [schema]
    while unseen:
        for name in set(re.findall(rf'"{re.escape(SHARED)}([^"]+)"|"#/\$defs/([^"]+)"', json.dumps(unseen.pop()))):
            key = name[0] or name[1]
            if key not in needed:
                needed[key] = json.loads(json.dumps(definitions[key]).replace(SHARED, "#/$defs/"))
                unseen.append(needed[key])
    return schema | {"$defs": needed}


def write_schemas(folder: Path, release: str, kinds: set[tuple[str, str]]) -> None:
    """`folder` has a schema for each (apiVersion, kind) that the release or we have."""
    others = {str(path.relative_to(OTHERS)): json.loads(path.read_text()) for path in OTHERS.rglob("*.json")}
    theirs = others | dict(definitions(sorted((ROOT / "crds").glob("*.yaml"))))
    found = {name: strict(schema) for name, schema in theirs.items()}
    for version, kind in kinds:
        if (schema := kubernetes_schema(release, kind, version)) is not None:
            group, _, number = version.rpartition("/")
            found[f"{group or number}/{kind.lower()}_{number}.json"] = schema  # kubeconform's name for the core group
    for name, schema in found.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(schema))


def conforms(files: list[Path]) -> bool:
    """Whether each file conforms to each release; says what does not."""
    objects = [each for file in files for each in yaml.safe_load_all(file.read_text()) if each]
    kinds = {(each["apiVersion"], each["kind"]) for each in objects}
    command = [str(find_or_build("kubeconform", log=lambda _: None)), "-strict", "-summary"]
    good = True
    for release in RELEASES:
        with tempfile.TemporaryDirectory() as folder:
            write_schemas(Path(folder), release, kinds)
            place = f"{folder}/{{{{ .Group }}}}/{{{{ .ResourceKind }}}}_{{{{ .ResourceAPIVersion }}}}.json"
            newer = ",".join(kind for kind, since in NEWER_KINDS.items() if release < since)
            flags = ["-schema-location", place, *(["-skip", newer] if newer else [])]
            answer = subprocess.run([*command, *flags, *map(str, files)], capture_output=True, text=True, check=False)
        print(f"Kubernetes {release}: {(answer.stdout or answer.stderr).strip()}")
        good = good and answer.returncode == 0
    return good


def main(arguments: list[str]) -> int:
    """The exit code."""
    if arguments[:1] == ["--take"]:
        for name, schema in definitions([Path(argument) for argument in arguments[1:]]):
            (OTHERS / name).parent.mkdir(parents=True, exist_ok=True)
            (OTHERS / name).write_text(json.dumps(without_texts(schema), separators=(",", ":")) + "\n")
        return 0
    examples = sorted((ROOT / "examples").rglob("*.yaml"))
    return 0 if conforms([*map(Path, arguments), *examples]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The commands of README and docs do what the text beside them says: each is run here, or says why it is not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_devcluster import find_or_build
from cyxwiz_platform import Platform
from cyxwiz_platform.platform import CHART, LOOPBACK, NAMESPACE, reachable_address
from cyxwiz_protocol.job_folder import JobFolder
from tests.thread import TRAINS_WITHIN_S, digits, finished, phase, status_of, stepping

ROOT = Path(__file__).parents[3]
NAMES = ("first-job", "bring-your-data", "install", "operate", "upgrade", "troubleshoot")
PAGES = ["README.md", *(f"docs/{name}.md" for name in NAMES)]
PROGRAMS = ("kubectl", "helm", "make", "docker", "sha256sum", "python")
JOB, NODE = "digits-cnn", "node-b"
PLACEHOLDERS = {"NODE": NODE, "NAME": JOB, "REGISTRY": "registry.example"}
OF_A_JOB = {field.alias for field in TrainingJobSpec.model_fields.values()}
Object = dict[str, Any]

NOT_RUN = {
    r"^make ": "CI is `make test` and more; the demo has its own run",
    r"^docker build": "needs an engine; tests/cluster builds the same files with buildah",
    r"^helm (test|rollback|uninstall)": "needs pods; tests/cluster does it on a kubelet",
    r"\blogs (ds|deployment)/|\bexec ": "no kubelet; tests/cluster reads logs and runs commands in both",
    r"(deployment|ds) cyxwiz-(operator|node)$": "operator and agents are processes here; tests/cluster has the pods",
    r"^kubectl describe pod POD": "no reservation has a pod here; tests/cluster makes some",
    r"delete pod -l app.kubernetes.io/component=node": "ends the token of an agent that is a process here",
    r"^kubectl delete (crd|namespace) |^kubectl drain": "ends what other tests use; tests/cluster",
}
# What a command needs, the first that matches.
NEEDS_A_RUNNING_JOB = r'"(suspend|cancel|control)":|status\.execution\.control'
NEEDS_A_MODEL = rf"(tj|trainingjob)s?[ /]{JOB}|jsonpath"
IN_THE_MODELS_FOLDER = r"^(sha256sum|python) "
# What is true soon after it.
THEN = {
    r'"suspend":true': phase("Suspended"),
    r'"cancel":true': phase("Cancelled"),
    r'"stopAfterEpoch":true': phase("Succeeded"),
}


@dataclass(frozen=True)
class Command:
    page: str
    text: str

    @property
    def why_not(self) -> str | None:
        return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, self.text)), None)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page that are marked so."""
    fenced = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", (ROOT / page).read_text())
    return [text for mark, text in fenced if mark == language]


def commands(page: str) -> Iterator[Command]:
    """What the page tells its reader to type, in order: blocks, then tables."""
    for block in blocks(page, ""):
        lines = block.replace("\\\n", " ").splitlines()
        typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
        for line in typed:
            text = re.sub(r"\s+# .*$", "", line).strip()
            if text.partition(" ")[0] in PROGRAMS:
                yield Command(page, text)
    before = ""
    for cell in re.findall(r"(?m)^\|.*\| (.*) \|$", (ROOT / page).read_text()):
        for text in re.findall(r"`([^`]+)`", cell.replace("\\|", "|")):
            if text.startswith("kubectl "):
                before = text
            elif cell.startswith("the same with") and text.startswith("{"):
                text = re.sub(r"\{\"generation\":[^}]*\}", lambda _: text, before)  # noqa: B023  # used at once
            else:
                continue
            yield Command(page, text)


ALL = [command for page in PAGES for command in commands(page)]


def filled_in(text: str) -> str:
    for name, value in PLACEHOLDERS.items():
        text = re.sub(rf"\b{name}\b", value, text)
    text = text.replace('"epochs":20', '"epochs":9000')  # what comes next needs the job to be there still
    if text.startswith(("helm install", "helm upgrade")):  # the release is installed already, as processes
        text = re.sub(r"^helm (install|upgrade)", "helm template", text)
        text = re.sub(r" --(create-namespace|reset-then-reuse-values)\b", "", text)
    return text


@pytest.fixture
def terminal(thread: Platform, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Runs a line as the administrator of the platform would, in a checkout; the machines are left as they were."""
    for name in ("kubectl", "helm"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(find_or_build(name))
    for name in ("examples", "helm"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = os.environ | {"KUBECONFIG": str(thread.cluster.kubeconfig), "PATH": path}

    def run(line: str) -> str:
        process = subprocess.Popen(
            ["bash", "-c", f"set -o pipefail; {line}"],
            cwd=model_folder(thread, tmp_path) if re.search(IN_THE_MODELS_FOLDER, line) else tmp_path,
            env=environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if re.search(r" (-w|--watch)\b", line):
            assert process.stdout is not None
            first = process.stdout.readline() + process.stdout.readline()
            os.killpg(process.pid, 15)
            process.communicate(timeout=30)
            return first
        said, complained = process.communicate(timeout=180)
        assert process.returncode == 0, f"{line}\n{said}{complained}"
        return said

    yield run
    kubectl = thread.cluster.run_kubectl
    kubectl("uncordon", NODE)
    kubectl("taint", "node", NODE, "cyxwiz.io/dedicated-", check=False)
    kubectl("label", "node", NODE, "cyxwiz.io/dedicated-")
    kubectl("patch", "computenode", NODE, "--type=merge", "-p", '{"spec":{"drain":false}}')
    kubectl("delete", "secret", "--all", "-n", NAMESPACE)
    thread.wait_for("computenode", NODE, phase("Online"), what="Online again", within_s=TRAINS_WITHIN_S)


def job_of(platform: Platform) -> Object:
    return platform.get("trainingjob", JOB)


def anew(platform: Platform, job: Object, ready: Callable[[Object], bool], what: str) -> None:
    platform.cluster.run_kubectl("delete", "trainingjob", JOB, "--ignore-not-found")
    platform.apply(job)
    platform.wait_for("trainingjob", JOB, ready, what=what, within_s=2 * TRAINS_WITHIN_S)


def model_folder(platform: Platform, place: Path) -> Path:
    """A copy of the folder of the job's model, on whichever machine it lies, with samples to ask about."""
    folder = place / "model"
    if not folder.exists():
        assignment = status_of(job_of(platform))["assignment"]
        jobs = platform.machines[assignment["node"]].state
        shutil.copytree(JobFolder.of(jobs, assignment["id"]).model, folder)
        np.save(folder / "samples.npy", np.zeros((3, 1, 8, 8), np.uint8))
    return folder


def prepare(platform: Platform, command: str) -> None:
    """The job is there as the reader of this command has it."""
    job = job_of(platform)
    if re.search(NEEDS_A_RUNNING_JOB, command):
        spec = job.get("spec", {})
        if not (job and spec["epochs"] == 10_000 and stepping(job) and not finished(job) and not spec.get("suspend")):
            anew(platform, digits(JOB, epochs=10_000), stepping, "training")
    elif re.search(NEEDS_A_MODEL, command) and not status_of(job).get("execution", {}).get("model"):
        example = yaml.safe_load((ROOT / "examples" / f"{JOB}.yaml").read_text())
        anew(platform, example, phase("Succeeded"), "Succeeded")


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work(thread: Platform, terminal: Callable[[str], str], page: str) -> None:
    if page in ("README.md", "docs/first-job.md"):
        thread.cluster.run_kubectl("delete", "trainingjob", JOB, "--ignore-not-found")
    for command in commands(page):
        if command.why_not is not None:
            continue
        line = filled_in(command.text)
        if "--raw" in line and reachable_address() == LOOPBACK:
            continue  # the API server passes nothing on to a machine that has no other address
        prepare(thread, line)
        began = time.monotonic()
        said = terminal(line)
        print(f"{time.monotonic() - began:5.1f} s  {line}\n{said[:500]}")
        for pattern, condition in THEN.items():
            if re.search(pattern, line):
                thread.wait_for("trainingjob", JOB, condition, what=line, within_s=TRAINS_WITHIN_S)


def test_every_reason_not_to_run_a_command_has_a_command() -> None:
    for pattern in NOT_RUN:
        assert any(re.search(pattern, command.text) for command in ALL), f"no page says {pattern} any more"
    assert sum(command.why_not is None for command in ALL) > 30


@pytest.mark.parametrize("page", PAGES)
def test_the_yaml_of_a_page_is_taken(thread: Platform, page: str, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "yaml")):
        document = yaml.safe_load(block)
        if document.keys() <= OF_A_JOB:
            document = digits("part")
            document["spec"] |= yaml.safe_load(block)
            block = yaml.safe_dump(document)
        if "kind" in document:
            thread.cluster.run_kubectl("create", "--dry-run=server", "-f", "-", input=block)
        else:  # values of the chart
            values = tmp_path / f"{number}.yaml"
            values.write_text(block)
            subprocess.run(
                [find_or_build("helm"), "template", CHART, "--values", values], check=True, capture_output=True
            )

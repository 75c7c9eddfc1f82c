"""What the two nodes have in common: claims as an NFS server would offer them, an object store, and its keys."""

from __future__ import annotations

import base64
import sys
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import EndpointConnectionError

from cyxwiz_devcluster.machine import FIRST_NODE, Machine
from cyxwiz_platform.platform import NAMESPACE

PORT = 9000
KEYS = {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "hunter2"}
BUCKET = "models"
SECRET = "models-keys"
CLAIMS = ("digits", "models")
Object = dict[str, Any]


class Storage:
    """Folders and a bucket on the machine, and what the chart and the API server are told of them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._folder = machine.folder / "exports"
        for name in (*CLAIMS, "vision"):
            self.of(name).mkdir(parents=True)
        self._endpoint = f"http://{machine.nodes[FIRST_NODE].place.address}:{PORT}"
        keys = {"aws_access_key_id": KEYS["accessKeyId"], "aws_secret_access_key": KEYS["secretAccessKey"]}
        self.bucket = boto3.client("s3", endpoint_url=self._endpoint, region_name="us-east-1", **keys)

    def of(self, name: str) -> Path:
        """The folder behind a volume."""
        return self._folder / name

    def start(self) -> None:
        """The store answers, and has its bucket."""
        address = self._endpoint.removeprefix("http://").partition(":")[0]
        command = [sys.executable, "-m", "moto.server", "-H", address, "-p", str(PORT)]
        self._machine.run_beside("object-store", command)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.bucket.create_bucket(Bucket=BUCKET)
                return
            except EndpointConnectionError:
                assert time.monotonic() < deadline, "the object store did not start"
                time.sleep(0.2)

    def values(self) -> Object:
        """Of the chart, below `nodes`."""
        read_only, writable = CLAIMS
        address = self._endpoint.removeprefix("http://")
        store = {"scheme": "s3", "secretName": SECRET, "buckets": [BUCKET], "endpoint": self._endpoint, "write": True}
        return {
            "volumes": [
                {"name": "digits", "existingClaim": read_only},
                {"name": "models", "existingClaim": writable, "readOnly": False},
                {"name": "vision", "hostPath": str(self.of("vision")), "namespaces": ["vision"]},
            ],
            "remote": {"allow": [address], "stores": [store | {"namespaces": ["default"]}]},
        }

    def objects(self) -> list[Object]:
        """The namespace of the release with the claims and the Secret that `values` name."""
        keys = {key: base64.b64encode(value.encode()).decode() for key, value in KEYS.items()}
        return [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": _named(SECRET), "data": keys},
            *(each for name in CLAIMS for each in self._claim(name)),
        ]

    def _claim(self, name: str) -> list[Object]:
        modes, size = ["ReadWriteMany"], {"storage": "1Gi"}
        claim = {"namespace": NAMESPACE, "name": name}
        volume = {
            "accessModes": modes,
            "capacity": size,
            "hostPath": {"path": str(self.of(name)), "type": "Directory"},
            "claimRef": claim,
            "storageClassName": "",
        }
        wanted = {"accessModes": modes, "resources": {"requests": size}, "storageClassName": "", "volumeName": name}
        return [
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": _named(name), "spec": wanted},
        ]


def _named(name: str) -> Object:
    return {"name": name, "namespace": NAMESPACE}

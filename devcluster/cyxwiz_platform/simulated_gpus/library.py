"""Builds the library on first use and writes the file that it reads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from cyxwiz_devcluster.build import cache_root

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
FILE_VARIABLE = "CYXWIZ_SIMULATED_GPUS"
COMPILE = ("cc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


def build() -> Path:
    """The folder of the library, for LD_LIBRARY_PATH. Raises OSError or CalledProcessError without a C compiler."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(COMPILE).encode()).hexdigest()[:16]
    folder = cache_root() / f"simulated-gpus-{digest}"
    if not (folder / LIBRARY).exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{LIBRARY}.{os.getpid()}.tmp"
        command = [*COMPILE, f"-Wl,-soname,{LIBRARY}", "-o", str(temporary), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        temporary.replace(folder / LIBRARY)
    return folder


class SimulatedGpus:
    """The GPUs of one simulated machine, described by one file."""

    def __init__(self, file: Path, count: int, *, name: str = "H200", memory_mib: int = 143_771) -> None:
        """The file says that there are `count` idle, healthy GPUs; it keeps what an earlier run changed in it."""
        self.file = file
        if not file.exists():
            gpus = [_gpu(index, f"Simulated {name}", memory_mib, file) for index in range(count)]
            self._write({"driver": "570.00 (simulated)", "cuda": 12_080, "devices": gpus})

    @property
    def uuids(self) -> list[str]:
        return [gpu["uuid"] for gpu in self._read()["devices"]]

    @property
    def environ(self) -> dict[str, str]:
        """For the process that is to see these GPUs."""
        return {FILE_VARIABLE: str(self.file.absolute()), "LD_LIBRARY_PATH": str(build())}

    def change(self, index: int, **fields: int | str | None) -> None:
        """GPU `index` has these fields now, and lacks those that are None: `temperature=91`, `error=15` (lost)."""
        content = self._read()
        gpu = {**content["devices"][index], **fields}
        content["devices"][index] = {key: value for key, value in gpu.items() if value is not None}
        self._write(content)

    def tell_xid(self, index: int, number: int) -> None:
        """GPU `index` has one error more to tell."""
        told = int(self._read()["devices"][index].get("xids", 0))
        self.change(index, xid=number, xids=told + 1)

    def _read(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())

    def _write(self, content: dict[str, Any]) -> None:
        """Whole and under a new inode, which is how the library notices."""
        temporary = self.file.with_name(f".{self.file.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(content))
        temporary.replace(self.file)


def _gpu(index: int, name: str, memory_mib: int, file: Path) -> dict[str, int | str]:
    """One idle GPU. A field that is left out is one that the device does not support."""
    seed = hashlib.sha256(f"{file.absolute()}/{index}".encode()).hexdigest()
    return {
        "uuid": f"GPU-{seed[:8]}-{seed[8:12]}-{seed[12:16]}-{seed[16:20]}-{seed[20:32]}",
        "name": name,
        "arch": 9,
        "capability": 90,
        "bus": f"00000000:{0x10 + index:02X}:00.0",
        "memory_mib": memory_mib,
        "reserved_mib": 615,
        "free_mib": memory_mib - 615,
        "temperature": 31 + index,
        "power_mw": 76_000 + 500 * index,
        "energy_mj": 1_000_000,
        "utilization": 0,
        "clocks": 1,
        "ecc": 0,
        "remapped": 0,
        "remap_pending": 0,
        "remap_failed": 0,
        "recovery": 0,
        "xids": 0,
        "processes": 0,
    }

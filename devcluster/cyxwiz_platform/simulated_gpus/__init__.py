"""Simulated GPUs: NVIDIA's management library in 300 lines of C, telling what a JSON file says.

A process that is started with `environ` of a `SimulatedGpus` sees its GPUs, and sees at once what `change` changes:
a temperature, a device that is lost. Their names say that they are simulated, and nothing can compute on them.
"""

from .library import SimulatedGpus, build

__all__ = ["SimulatedGpus", "build"]

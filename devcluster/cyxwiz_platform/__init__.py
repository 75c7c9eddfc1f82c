"""CyxWiz on a devcluster: operator, agents and runners as processes, with exactly the chart's permissions.

The one harness of the demo, the api tests and the benchmarks. It is admin; what it starts is not.
"""

from .children import PlatformProcess
from .platform import Machine, Platform, PlatformError, free_port, reachable_address
from .simulated_gpus import SimulatedGpus

__all__ = ["Machine", "Platform", "PlatformError", "PlatformProcess", "SimulatedGpus", "free_port", "reachable_address"]

"""The node's GPUs: what its driver says of them, how healthy they are, and which of it is worth telling.

`nvml` is the only module that knows the driver's library; everything else here is pure or a thread that polls it.
"""

from .energy_meter import EnergyMeter
from .guard import Guard, in_use
from .inventory import Device, Devices, read_devices
from .memory import MemoryMeter
from .monitor import DeviceMonitor

__all__ = ["Device", "DeviceMonitor", "Devices", "EnergyMeter", "Guard", "MemoryMeter", "in_use", "read_devices"]

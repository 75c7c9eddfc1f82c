"""Asks the driver as the agent does, once for each line it reads; answers with a line of JSON."""

from __future__ import annotations

import json
import sys
import time

from cyxwiz_agent.devices import Devices
from cyxwiz_agent.devices.nvml import Driver


def main() -> None:
    driver, devices = Driver(), Devices()
    for line in sys.stdin:
        if line.strip() == "look":
            devices = devices.after(driver.look(), time.time())
            print(json.dumps([gpu.wire() for gpu in devices.gpus]), flush=True)
        else:
            xid = driver.wait(10.0)
            print(json.dumps(None if xid is None else [xid.gpu, xid.number]), flush=True)


if __name__ == "__main__":
    main()

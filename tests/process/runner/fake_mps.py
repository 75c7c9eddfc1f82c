"""Stands for nvidia-cuda-mps-control: puts a daemon in the background, which starts a server; both do nothing."""

import os
import sys
import time
from pathlib import Path


def main() -> int:
    if "--broken" in sys.argv:
        return 1
    assert sys.argv[-2:] == ["--multiuser-server", "-d"], sys.argv
    pipes = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            server = os.fork()
            if server:
                (pipes / "server.pid.tmp").write_text(str(server))
                (pipes / "server.pid.tmp").rename(pipes / "server.pid")
                os.waitpid(server, 0)
            time.sleep(600)
        os._exit(0)
    os.wait()
    while not (pipes / "server.pid").exists():
        time.sleep(0.005)
    return 0


if __name__ == "__main__":
    sys.exit(main())

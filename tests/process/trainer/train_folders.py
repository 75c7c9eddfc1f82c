"""Trains the jobs of several folders one after the other, each in ranks forked from one import of torch."""

import sys
from pathlib import Path

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.order import JobOrder
from cyxwiz_trainer import job
from cyxwiz_trainer.distributed import Ranks
from cyxwiz_trainer.fence import Stop
from cyxwiz_trainer.supervisor import End, run_ranks

for path in map(Path, sys.argv[1:]):
    folder = JobFolder(path)
    ranks = JobOrder.model_validate_json(folder.order.read_bytes()).ranks
    end = run_ranks(ranks, lambda seat, folder=folder: job.run(folder, Stop(), Ranks(seat)))
    assert end == End(code=0), (path, end)

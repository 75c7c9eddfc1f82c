"""Signed paths as a report carries them: below the API server's proxy to the agents."""

from __future__ import annotations

from dataclasses import dataclass

from cyxwiz_crds import Execution

from .facts import Facts
from .signing import Signer


@dataclass(frozen=True)
class Links:
    """Makes the paths of one node's reports."""

    signer: Signer
    proxy: str
    """Path of the API server that leads to the agents."""

    def added(self, report: Execution, facts: Facts, now: float) -> Execution:
        """The report with the path of the log, and with that of the weights where there are any."""
        logs_path = self.proxy + self.signer.log_path(report.assignment_id, now)
        model = report.model
        if model is not None and facts.model is not None:
            path = self.signer.file_path(report.assignment_id, facts.model.path, facts.model.sha256, now)
            model = model.model_copy(update={"download_path": path and self.proxy + path})
        return report.model_copy(update={"logs_path": logs_path, "model": model})

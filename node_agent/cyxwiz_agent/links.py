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
        """The report with the path of the log, and with those of the model's files where there are any."""
        logs_path = self.proxy + self.signer.log_path(report.assignment_id, now)
        model = report.model
        if model is not None and facts.model is not None:
            told = facts.model
            exports = [
                export.model_copy(update={"download_path": self._path(report, record.path, record.sha256, now)})
                for export, record in zip(model.exports, facts.exports, strict=True)
            ]
            path = self._path(report, told.path, told.sha256, now)
            model = model.model_copy(update={"download_path": path, "exports": exports})
        return report.model_copy(update={"logs_path": logs_path, "model": model})

    def _path(self, report: Execution, file: str | None, sha256: str | None, now: float) -> str | None:
        if file is None or sha256 is None:
            return None
        path = self.signer.file_path(report.assignment_id, file, sha256, now)
        return path and self.proxy + path

"""Tensor files, for whoever comes after the trainer that wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cyxwiz_trainer.files import whole_folder, write_tensors


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o700, 0o600)])
def test_who_may_read_the_folder_may_read_the_tensors(tmp_path: Path, folder: int, file: int) -> None:
    """A later attempt of a job has another uid; a checkpoint that it cannot read is training lost."""
    with whole_folder(tmp_path / "step-1") as made:
        made.chmod(folder)
        write_tensors(made / "state.safetensors", {"weight": torch.zeros(2)})
    assert (tmp_path / "step-1" / "state.safetensors").stat().st_mode & 0o777 == file

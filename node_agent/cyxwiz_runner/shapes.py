"""What jobs have trained on this node, so that warm trainers rehearse it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from cyxwiz_protocol.job_folder import JobFolder, open_regular, write_json
from cyxwiz_protocol.shape import LONGEST_SHAPE_BYTES, Shape, parse_shape

KEPT = 8
"""Of each kind, GPU and CPU: what a rehearsal has time for."""
_log = logging.getLogger(__name__)


class Shapes:
    """The newest shapes, newest first, over restarts of the runner."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shapes = _read(path)

    def newest(self, *, on_gpu: bool) -> list[Shape]:
        return [shape for shape in self._shapes if shape.on_gpu == on_gpu]

    def remember(self, folder: JobFolder) -> None:
        """The shape that the ended job has told, if it has, is the newest."""
        shape = _told(folder)
        if shape is None or self._shapes[:1] == [shape]:
            return
        others = [other for other in self._shapes if other != shape]
        same_kind = [other for other in others if other.on_gpu == shape.on_gpu][: KEPT - 1]
        self._shapes = [shape, *same_kind, *(other for other in others if other.on_gpu != shape.on_gpu)]
        self._write()

    def forget(self) -> None:
        """None is remembered: a trainer may have failed for one of them."""
        if self._shapes:
            self._shapes = []
            self._write()

    def _write(self) -> None:
        try:
            write_json(self._path, [shape.wire() for shape in self._shapes])
        except OSError as error:  # the next job starts a little later, and that is all
            _log.warning("shapes not written error=%s", error)


def _told(folder: JobFolder) -> Shape | None:
    try:
        with os.fdopen(open_regular(folder.shape), "rb") as file:
            return parse_shape(file.read(LONGEST_SHAPE_BYTES + 1))
    except OSError:
        return None


def _read(path: Path) -> list[Shape]:
    """Those of an earlier runner; none when the file cannot be read."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []
    shapes = [parse_shape(json.dumps(each).encode()) for each in told] if isinstance(told, list) else []
    return [shape for shape in shapes if shape is not None]

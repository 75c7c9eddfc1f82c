"""rings://<number>: points of the plane in so many rings around each other, which no straight line tells apart."""

from __future__ import annotations

import numpy as np

from cyxwiz_trainer.data import Dataset, Request, whole
from cyxwiz_trainer.failures import UserError

SAMPLES = 2000


def load(request: Request) -> Dataset:
    """The rings that are asked for. Raises UserError for a number that is none."""
    if request.name not in ("2", "3", "4"):
        raise UserError(f"rings://{request.name[:20]} is not known: write rings://2, rings://3 or rings://4")
    random = np.random.default_rng(request.seed)
    rings = random.integers(int(request.name), size=SAMPLES)
    angles = random.random(SAMPLES) * 2 * np.pi
    radii = rings + 1 + 0.2 * random.standard_normal(SAMPLES)
    points = np.stack((radii * np.cos(angles), radii * np.sin(angles)), axis=1).astype(np.float32)
    return whole((points, rings), None, fraction=request.fraction, seed=request.seed, synthetic=True)

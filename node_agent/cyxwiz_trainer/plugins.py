"""What installed packages add: Python entry points of a group, by name, loaded only when they are asked for.

    [project.entry-points."cyxwiz.models"]
    polynomial = "my_package:PolynomialOptions"      # a subclass of cyxwiz_trainer.models.Options
    [project.entry-points."cyxwiz.datasets"]
    rings = "my_package:load_rings"                  # rings://<name>: (cyxwiz_trainer.data.Request) -> Dataset

A package that is installed on the node is trusted like the trainer itself; a job can only name one.
"""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points

from .failures import UserError

MODELS = "cyxwiz.models"
DATASETS = "cyxwiz.datasets"


@functools.cache
def known(group: str) -> dict[str, EntryPoint]:
    """The entry points of `group` by name. Reads the index of every installed package: once, and only if needed."""
    return {point.name: point for point in entry_points(group=group)}


def load(group: str, name: str) -> object:
    """What the entry point names. Raises UserError when its package cannot be imported."""
    point = known(group)[name]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"{name} is {point.value} of an installed package, which cannot be loaded: {error}") from error

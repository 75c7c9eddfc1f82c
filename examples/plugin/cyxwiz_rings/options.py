"""The options of `polynomial`: typed and bounded, so that a wrong one is answered with a sentence."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import nn

from cyxwiz_trainer.failures import UserError
from cyxwiz_trainer.models import Options, Shape

from .network import Polynomial


class PolynomialOptions(Options):
    degree: Annotated[int, Field(ge=1, le=8)] = 2
    """Highest power of a feature."""

    def network(self, input_shape: Shape, outputs: int) -> tuple[type[nn.Module], dict[str, Any]]:
        if len(input_shape) != 1:
            raise UserError(f"polynomial needs tables, and a sample of this data has shape {input_shape}")
        return Polynomial, {"features": input_shape[0], "degree": self.degree, "outputs": outputs}

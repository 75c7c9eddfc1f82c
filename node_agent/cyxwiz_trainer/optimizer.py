"""sgd, adam and adamw over torch's fused kernels, with their state as named tensors.

The same kernels as `torch.optim` with `fused=True`, and equal to it bit by bit (a test says so). Not `torch.optim`
itself, because its first step imports the compiler: 7 s of processor time, where the rest of torch takes 5. And because
state that exists from the beginning and is only ever written in place can be restored and captured in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cyxwiz_crds.training_job import Hyperparameters

from .failures import UserError

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8


@dataclass(frozen=True)
class _Group:
    """Parameters that are decayed alike, and what the optimizer remembers of each."""

    names: list[str]
    parameters: list[Tensor]
    weight_decay: float
    moments: dict[str, list[Tensor]] = field(default_factory=dict)
    """By quantity, in the order of `parameters` and in their memory layout: the kernels walk both side by side."""


class Optimizer:
    """Moves a model's parameters along their gradients. Norms and biases are not decayed.

    Raises UserError for hyperparameters that clash.
    """

    def __init__(self, model: nn.Module, hyper: Hyperparameters) -> None:
        if hyper.nesterov and (hyper.optimizer != "sgd" or hyper.momentum == 0):
            raise UserError("hyperparameters.nesterov needs optimizer: sgd with a momentum above 0")
        self._hyper = hyper
        named = list(model.named_parameters())
        matrices = [(name, parameter) for name, parameter in named if parameter.ndim > 1]
        vectors = [(name, parameter) for name, parameter in named if parameter.ndim <= 1]
        groups = [(matrices, hyper.weight_decay), (vectors, 0.0)] if hyper.weight_decay else [(named, 0.0)]
        self._groups = [_group(members, decay, self._quantities()) for members, decay in groups if members]
        device = named[0][1].device
        self._step = torch.zeros((), device=device)
        """Steps done, where the kernels read it."""
        # CUDA's kernels read a float32, the CPU's a number of any width: there nothing is lost.
        self._rate = torch.zeros((), device=device, dtype=torch.float32 if device.type == "cuda" else torch.float64)
        self._told_rate = 0.0

    def _quantities(self) -> tuple[str, ...]:
        if self._hyper.optimizer == "sgd":
            return ("momentum",) if self._hyper.momentum > 0 else ()
        return ("mean", "square")

    def zero_grad(self) -> None:
        """The next backward pass begins from nothing."""
        for group in self._groups:
            for parameter in group.parameters:
                parameter.grad = None

    def set_learning_rate(self, learning_rate: float) -> None:
        """That of the steps from now on, written where a captured step reads it. No sync: a kernel carries it over."""
        if learning_rate != self._told_rate:
            self._rate.fill_(learning_rate)
            self._told_rate = learning_rate

    @torch.no_grad()
    def step(self) -> None:
        """The parameters have moved. Every one must have a gradient."""
        self._step += 1
        for group in self._groups:
            gradients = [_gradient(parameter) for parameter in group.parameters]
            if self._hyper.optimizer == "sgd":
                self._sgd(group, gradients)
            else:
                self._adam(group, gradients)

    def state(self) -> dict[str, Tensor]:
        """What it remembers, as `<quantity>:<parameter>`. Writing into these tensors restores it."""
        state = {"step": self._step}
        for group in self._groups:
            for quantity, tensors in group.moments.items():
                state |= {f"{quantity}:{name}": tensor for name, tensor in zip(group.names, tensors, strict=True)}
        return state

    def _sgd(self, group: _Group, gradients: list[Tensor]) -> None:
        torch._fused_sgd_(  # pyright: ignore[reportPrivateImportUsage]  # as torch.optim calls it
            group.parameters,
            gradients,
            group.moments.get("momentum", []),
            weight_decay=group.weight_decay,
            momentum=self._hyper.momentum,
            lr=self._rate,
            dampening=0.0,
            nesterov=self._hyper.nesterov,
            maximize=False,
            is_first_step=False,  # a momentum of zeros is the same as none yet
        )

    def _adam(self, group: _Group, gradients: list[Tensor]) -> None:
        adam, adamw = torch._fused_adam_, torch._fused_adamw_  # pyright: ignore[reportPrivateImportUsage]  # as above
        kernel = adamw if self._hyper.optimizer == "adamw" else adam
        kernel(
            group.parameters,
            gradients,
            group.moments["mean"],
            group.moments["square"],
            [],
            [self._step] * len(gradients),
            lr=self._rate,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            weight_decay=group.weight_decay,
            eps=ADAM_EPSILON,
            amsgrad=False,
            maximize=False,
        )


def _group(members: list[tuple[str, nn.Parameter]], weight_decay: float, quantities: tuple[str, ...]) -> _Group:
    names: list[str] = [name for name, _ in members]
    parameters: list[Tensor] = [parameter for _, parameter in members]
    moments = {quantity: [torch.zeros_like(parameter.data) for parameter in parameters] for quantity in quantities}
    return _Group(names, parameters, weight_decay, moments)


def _gradient(parameter: Tensor) -> Tensor:
    """Its gradient in its own memory layout: autograd lets strides of dimensions of size 1 differ, kernels do not."""
    gradient = parameter.grad
    assert gradient is not None, "every parameter takes part in the forward pass"
    if gradient.stride() != parameter.stride():
        gradient = torch.empty_like(parameter).copy_(gradient)
    return gradient

"""What a job computes on: which GPU or how many threads, in which precision, how reproducibly."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.order import JobOrder

from .distributed import ALONE, Ranks
from .failures import UserError, WrongDevices

# Layout of images and convolutions: the fastest on GPUs by far, and on CPUs by a tenth or so.
IMAGE_LAYOUT = torch.channels_last


@dataclass(frozen=True)
class Device:
    """Where and how one job computes."""

    torch_device: torch.device
    autocast_dtype: torch.dtype | None
    """None trains in float32."""
    words: str
    """For people: "NVIDIA H200, bfloat16" or "CPU, 2 threads, float32"."""
    memory_allowed: int | None = None
    """Bytes of GPU memory the job may hold; None on the CPU."""

    @property
    def is_gpu(self) -> bool:
        return self.torch_device.type == "cuda"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Forward passes inside run in the job's precision."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, dtype=self.autocast_dtype)

    def can_hold(self, size_bytes: int) -> bool:
        """Whether data of this size may lie on the device beside a model: half of the memory is kept for that."""
        return self.memory_allowed is None or size_bytes <= self.memory_allowed // 2

    def memory_peak(self) -> int | None:
        """Most bytes of GPU memory held so far, the allocator's cache included; None on the CPU."""
        return torch.cuda.max_memory_reserved(self.torch_device) if self.is_gpu else None


def prepare(order: JobOrder, ranks: Ranks = ALONE) -> Device:
    """This process is set up for the job: device, threads, precision, determinism, seeds.

    Raises UserError for what no device of this kind can do, WrongDevices when CUDA shows other GPUs than `order` names.
    """
    spec = order.spec
    if order.gpus:
        check_visible(order.gpus, visible_gpus())
    torch.set_num_threads(max(1, spec.resources.cpus // ranks.size))
    # Not use_deterministic_algorithms: that does the same and imports the compiler, 6 s on one CPU core.
    torch.set_deterministic_debug_mode("error" if spec.deterministic else "default")
    take_time_for_kernels(False)
    set_float32_precision(exact=spec.precision == "float32")
    torch.manual_seed(spec.hyperparameters.seed)
    return _gpu(spec, ranks) if order.gpus else _cpu(spec, ranks)


def take_time_for_kernels(enough: bool) -> None:
    """Whether the kernels of a step are to be the fastest there are, or there at once.

    The search for convolutions runs every candidate: 4.4 s before the first step, for 3 %. cuDNN builds its attention
    for every new shape, 0.1 to 1 s; beside flash attention, which is loaded once, it saves a third of long sequences.
    """
    torch.backends.cudnn.benchmark = enough
    torch.backends.cuda.enable_cudnn_sdp(enough)


def image_layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """The layout of weights and images to train `model` in: IMAGE_LAYOUT, but for what torch cannot do in it."""
    # Seen with torch 2.15 on a CPU: the backward pass of a strided 1x1 convolution with fewer than 8 input channels,
    # such as the shortcuts of a very narrow ResNet, writes past its memory in channels_last.
    breaks = any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels < 8
        for module in model.modules()
    )
    return torch.contiguous_format if breaks and device.type == "cpu" else IMAGE_LAYOUT


def visible_gpus() -> list[str]:
    """UUIDs of the GPUs CUDA shows this process, in its order."""
    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


def check_visible(ordered: list[str], visible: list[str]) -> None:
    """Raises WrongDevices unless `visible` are exactly the GPUs `ordered`.

    One invalid entry in CUDA_VISIBLE_DEVICES silently hides all after it, so nothing else would tell.
    """
    if [_bare(uuid) for uuid in ordered] != [_bare(uuid) for uuid in visible]:
        shown = ", ".join(visible) or "none"
        raise WrongDevices(f"the job was given {', '.join(ordered)}, but CUDA shows {shown} to its process")


def _bare(uuid: str) -> str:
    """The UUID as CUDA has it, without the prefix NVML puts before it."""
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")


def _gpu(spec: TrainingJobSpec, ranks: Ranks) -> Device:
    device = torch.device("cuda", ranks.rank)
    torch.cuda.set_device(device)
    torch.cuda.set_stream(torch.cuda.Stream(device))  # nothing can be captured on the default stream
    properties = torch.cuda.get_device_properties(device)
    allowed = properties.total_memory
    limit = spec.resources.gpu_memory_bytes
    if limit is not None and limit < allowed:
        torch.cuda.set_per_process_memory_fraction(limit / allowed, device)
        allowed = limit
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if spec.precision == "bfloat16" and not has_bfloat16:
        raise UserError(f"{properties.name} has no bfloat16: set precision: auto or float32")
    dtype = torch.bfloat16 if has_bfloat16 and spec.precision != "float32" else None
    count = f"{ranks.size} x " if ranks.size > 1 else ""
    return Device(device, dtype, f"{count}{properties.name}, {_dtype_words(dtype)}", allowed)


def _cpu(spec: TrainingJobSpec, ranks: Ranks) -> Device:
    dtype = torch.bfloat16 if spec.precision == "bfloat16" else None
    threads = torch.get_num_threads()
    count = f"{ranks.size} ranks of " if ranks.size > 1 else ""
    words = f"CPU, {count}{threads} thread{'s'[: threads > 1]}, {_dtype_words(dtype)}"
    return Device(torch.device("cpu"), dtype, words)


def _dtype_words(dtype: torch.dtype | None) -> str:
    return str(dtype or torch.float32).removeprefix("torch.")


def set_float32_precision(*, exact: bool) -> None:
    """float32 is true float32 when `exact`, else TF32 where the GPU has it."""
    value = "ieee" if exact else "tf32"
    torch.backends.cuda.matmul.fp32_precision = value
    torch.backends.cudnn.conv.fp32_precision = value  # pyright: ignore[reportAttributeAccessIssue]  # not in its stubs

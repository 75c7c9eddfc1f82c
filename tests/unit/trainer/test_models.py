from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional

from cyxwiz_trainer import models
from cyxwiz_trainer.failures import UserError
from cyxwiz_trainer.networks.cnn import Halve
from cyxwiz_trainer.networks.resnet import HalveOverlapping


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("mlp", {}, (30,)),
        ("mlp", {"hidden": 8, "depth": 0}, (1, 8, 8)),
        ("cnn", {"width": 4}, (1, 8, 8)),
        ("cnn", {"width": 4}, (3, 5, 9)),
        ("resnet18", {"width": 4}, (3, 32, 32)),
        ("resnet18", {"width": 4, "stem": 7}, (3, 64, 64)),
        ("resnet34", {"width": 4}, (3, 16, 16)),
        ("resnet50", {"width": 4, "stem": "7"}, (3, 64, 64)),
        ("vit", {"dim": 12, "depth": 1}, (3, 8, 12)),
    ],
)
def test_a_model_answers_with_one_number_per_class(
    name: str, options: dict[str, int | str], shape: tuple[int, ...]
) -> None:
    model = models.build(models.parse_options(name, options), shape, 7)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


# As published for 1,000 classes and the 7x7 stem, and as usual for CIFAR-10.
@pytest.mark.parametrize(
    ("name", "options", "side", "outputs", "parameters"),
    [
        ("resnet18", {}, 32, 10, 11_173_962),
        ("resnet18", {"stem": 7}, 224, 1000, 11_689_512),
        ("resnet34", {"stem": 7}, 224, 1000, 21_797_672),
        ("resnet50", {"stem": 7}, 224, 1000, 25_557_032),
    ],
)
def test_a_resnet_of_the_usual_width_has_the_usual_number_of_parameters(
    name: str, options: dict[str, int | str], side: int, outputs: int, parameters: int
) -> None:
    with torch.device("meta"):
        model = models.build(models.parse_options(name, options), (3, side, side), outputs)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_gpt_scores_every_place_and_never_looks_ahead() -> None:
    model = models.build(models.parse_options("gpt", {"dim": 24, "depth": 2, "dropout": "0.1"}), (10,), 256).eval()
    tokens = torch.randint(256, (2, 10), dtype=torch.uint8)
    scores = model(tokens)
    assert scores.shape == (2, 10, 256)
    changed = tokens.clone()
    changed[:, 6:] = 7
    torch.testing.assert_close(model(changed)[:, :6], scores[:, :6])
    assert not torch.allclose(model(changed)[:, 6:], scores[:, 6:])


def test_an_option_may_come_as_text() -> None:
    assert models.parse_options("cnn", {"width": "12"}) == models.parse_options("cnn", {"width": 12})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnt18", {}, "did you mean resnet18? Known: cnn, gpt, mlp, resnet18, resnet34, resnet50, vit"),
        ("xyz", {}, "'xyz' is no model. Known: cnn, gpt, mlp, resnet18"),
        ("cnn", {"widht": 3}, "did you mean width?"),
        ("cnn", {"width": "wide"}, "model.options.width of cnn is 'wide'"),
        ("cnn", {"width": 0}, "greater than or equal to 1"),
        ("mlp", {"depth": "1.5"}, "model.options.depth"),
    ],
)
def test_a_wrong_model_or_option_is_named_with_what_is_known(
    name: str, options: dict[str, int | str], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        models.parse_options(name, options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "shape", "words"),
    [
        ("cnn", {}, (30,), "mlp"),
        ("resnet18", {}, (3, 4, 4), "at least 8x8"),
        ("resnet18", {"stem": 7}, (3, 24, 24), "at least 32x32"),
        ("vit", {}, (3, 30, 32), "does not divide"),
        ("vit", {"heads": 5}, (3, 32, 32), "no multiple of heads"),
    ],
)
def test_a_model_for_images_refuses_what_it_cannot_take(
    name: str, options: dict[str, int | str], shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        models.build(models.parse_options(name, options), shape, 2)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.set_deterministic_debug_mode("error")
    yield
    torch.set_deterministic_debug_mode("default")


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 7, 5), (1, 1, 2, 9)])
@pytest.mark.parametrize(("pool", "arguments"), [(Halve(), (2, 2, 0)), (HalveOverlapping(), (3, 2, 1))])
def test_pooling_that_can_be_repeated_is_the_one_of_torch(
    pool: nn.Module, arguments: tuple[int, int, int], shape: tuple[int, ...]
) -> None:
    images, same = (torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2))
    ours, theirs = pool(images), functional.max_pool2d(same, *arguments, 1, False)
    assert torch.equal(ours, theirs)
    for pooled in (ours, theirs):
        (pooled * torch.arange(pooled.numel()).reshape(pooled.shape)).sum().backward()
    torch.testing.assert_close(images.grad, same.grad)

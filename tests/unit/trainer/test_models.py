from __future__ import annotations

import pytest
import torch

from cyxwiz_trainer import models
from cyxwiz_trainer.failures import UserError


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("mlp", {}, (30,)),
        ("mlp", {"hidden": 8, "depth": 0}, (1, 8, 8)),
        ("cnn", {"width": 4}, (1, 8, 8)),
        ("cnn", {"width": 4}, (3, 5, 9)),
        ("resnet18", {"width": 4}, (3, 32, 32)),
    ],
)
def test_a_model_answers_with_one_number_per_class(
    name: str, options: dict[str, int | str], shape: tuple[int, ...]
) -> None:
    model = models.build(models.parse_options(name, options), shape, 7)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


def test_resnet18_of_the_usual_width_has_the_usual_number_of_parameters() -> None:
    model = models.build(models.parse_options("resnet18", {}), (3, 32, 32), 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962


def test_an_option_may_come_as_text() -> None:
    assert models.parse_options("cnn", {"width": "12"}) == models.parse_options("cnn", {"width": 12})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnt18", {}, "did you mean resnet18? Known: cnn, mlp, resnet18"),
        ("xyz", {}, "'xyz' is no model: Known: cnn, mlp, resnet18"),
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


@pytest.mark.parametrize(("name", "shape", "words"), [("cnn", (30,), "mlp"), ("resnet18", (3, 4, 4), "at least 8x8")])
def test_a_model_for_images_refuses_what_is_none(name: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        models.build(models.parse_options(name, {}), shape, 2)

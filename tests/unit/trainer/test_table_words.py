"""Words among a table's features: categories are learnt from what is trained on, and strangers are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_trainer import data
from cyxwiz_trainer.data import Columns, Dataset
from cyxwiz_trainer.failures import UserError

CITIES = ("Oslo", "Bern", "Rome")


def rows(count: int = 60, cities: tuple[str, ...] = CITIES) -> list[tuple[int, str, str]]:
    return [(i, cities[i % len(cities)], "dear" if i % len(cities) else "cheap") for i in range(count)]


def write(path: Path, table: list[tuple[Any, ...]], header: str = "size,city,price") -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in table)]) + "\n")


def load(
    root: Path, name: str, seed: int = 0, memory: str = "1Gi", columns: Columns | None = None, **dataset: Any
) -> Dataset:
    spec = {
        "model": {"name": "mlp"},
        "dataset": {"uri": f"file://{name}"} | dataset,
        "hyperparameters": {"seed": seed},
        "resources": {"memory": memory},
    }
    return data.load(TrainingJobSpec.model_validate(spec), root, columns=columns)


def refusal(root: Path, name: str = "a.csv", **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(root, name, **options)
    return str(caught.value)


def test_a_word_is_one_input_for_each_category_of_its_column(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows())
    read = load(tmp_path, "a.csv")
    assert read.columns == Columns(("size", "city"), {"city": ("Bern", "Oslo", "Rome")})
    assert read.input_shape == (4,)
    for sample in torch.cat([read.train.inputs, read.validation.inputs]).tolist():
        expected = CITIES[int(sample[0]) % 3]
        assert sample[1:] == [float(expected == city) for city in ("Bern", "Oslo", "Rome")]
    assert read.note is None


def test_a_table_of_nothing_but_words_is_learnt_from(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [(city, price) for _, city, price in rows()], "city,price")
    assert load(tmp_path, "a.csv").input_shape == (3,)


def test_parquet_is_read_as_the_table_of_the_same_words(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows())
    size, city, price = (list(column) for column in zip(*rows(), strict=True))
    csv = load(tmp_path, "a.csv")
    for words in (pa.array(city), pa.array(city).dictionary_encode(), pa.array(city, pa.large_string())):
        pq.write_table(pa.table({"size": size, "city": words, "price": price}), tmp_path / "a.parquet")
        parquet = load(tmp_path, "a.parquet")
        assert (parquet.sha256, parquet.columns) == (csv.sha256, csv.columns)
        torch.testing.assert_close(parquet.train.inputs, csv.train.inputs)


def test_what_is_held_out_teaches_the_model_no_category_and_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows())
    held_out = {int(sample[0]) for sample in load(tmp_path, "a.csv").validation.inputs}
    stranger = min(held_out)
    write(tmp_path / "a.csv", [(i, "Baku" if i == stranger else city, price) for i, city, price in rows()])
    read = load(tmp_path, "a.csv")
    assert read.columns == Columns(("size", "city"), {"city": ("Bern", "Oslo", "Rome")})
    (sample,) = [sample for sample in read.validation.inputs.tolist() if sample[0] == stranger]
    assert sample[1:] == [0, 0, 0]
    assert read.note is not None
    assert "1 of 60 rows hold a word that no sample has which the model learns from" in read.note
    assert f"the first 'Baku' in row {stranger + 2}, column 'city'" in read.note


def test_the_digest_is_that_of_the_file_whichever_words_are_held_out(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [*rows(), (60, "Baku", "dear")])
    assert len({load(tmp_path, "a.csv", seed=seed).sha256 for seed in range(12)}) == 1
    assert len({load(tmp_path, "a.csv", seed=seed).input_shape for seed in range(12)}) == 2
    before = load(tmp_path, "a.csv").sha256
    write(tmp_path / "a.csv", [*rows(), (60, "Bari", "dear")])
    assert load(tmp_path, "a.csv").sha256 != before


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_held_out_samples_and_weights_bring_no_categories_of_their_own(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "a.csv", rows())
    if suffix == "csv":
        write(tmp_path / "b.csv", [("dear", "Rome", 7), ("cheap", "Baku", 8)], "price,city,size")
    else:
        table = {"price": ["dear", "cheap"], "city": ["Rome", "Baku"], "size": [7, 8]}
        pq.write_table(pa.table(table), tmp_path / "b.parquet")
    joined = load(tmp_path, "a.csv", validation={"uri": f"file://b.{suffix}"}, labelColumn="price")
    assert joined.validation.inputs.tolist() == [[7, 0, 0, 1], [8, 0, 0, 0]]
    assert "1 of 2 rows" in (joined.note or "")
    taught = Columns(("city", "size"), {"city": ("Oslo", "Rome")})
    other = load(tmp_path, f"b.{suffix}", columns=taught, labelColumn="price")
    found = torch.cat([other.train.inputs, other.validation.inputs]).tolist()
    assert sorted(found) == [[0, 0, 8], [0, 1, 7]]
    assert other.columns == taught


def test_numbers_that_were_words_to_the_weights_stay_words(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [(i, f"0{i % 2}", "ab"[i % 2]) for i in range(20)])
    taught = Columns(("size", "city"), {"city": ("00", "01", "x")})
    assert load(tmp_path, "a.csv", columns=taught).input_shape == (4,)
    assert load(tmp_path, "a.csv").input_shape == (2,)


def test_an_empty_cell_among_words_is_a_category(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows(cities=("Oslo", "", "Rome")))
    csv = load(tmp_path, "a.csv").columns
    assert csv == Columns(("size", "city"), {"city": ("", "Oslo", "Rome")})
    size, _, price = (list(column) for column in zip(*rows(), strict=True))
    words = [["Oslo", None, "Rome"][i % 3] for i in range(60)]
    pq.write_table(pa.table({"size": size, "city": words, "price": price}), tmp_path / "a.parquet")
    assert load(tmp_path, "a.parquet").columns == csv


def test_a_column_with_too_many_words_is_refused_with_their_count(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows(400, tuple(f"city{i}" for i in range(400))))
    words = refusal(tmp_path)
    assert words.startswith("a.csv, column 'city': 360 different words, and a column of words may have 256: leave")
    write(tmp_path / "a.csv", rows(70_000, tuple(f"city{i}" for i in range(70_000))))
    assert "column 'city': more than 65,536 different words" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([(1, "Oslo", "a"), ("", "Bern", "b")], "row 3, column 'size': a number is needed, and there is ''"),
        ([(1, "Oslo", "a"), ("n/a", "Bern", "b")], "row 3, column 'size': a number is needed, and there is 'n/a'"),
        ([(1, "3", "a"), (2, "4", "b"), (3, "Oslo", "b")], "row 4, column 'city': a number is needed"),
        ([("", "", "a"), ("", "", "b")], "row 2, column 'size': a number is needed, and there is ''"),
    ],
)
def test_a_number_that_is_missing_is_no_word(tmp_path: Path, table: list[tuple[Any, ...]], words: str) -> None:
    write(tmp_path / "a.csv", table)
    assert words in refusal(tmp_path)


def test_categories_must_fit_into_the_jobs_memory(tmp_path: Path) -> None:
    table = [(i, *(f"{i % 200}x" for _ in range(20)), "ab"[i % 2]) for i in range(1000)]
    write(tmp_path / "a.csv", table, ",".join(["size", *(f"c{i}" for i in range(20)), "price"]))
    assert "takes 30.5Mi, more than resources.memory 20Mi" in refusal(tmp_path, memory="20Mi")


def test_a_table_without_a_column_of_the_weights_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows())
    assert "has no column 'rooms'" in refusal(tmp_path, columns=Columns(("size", "city", "rooms")))
    assert "has a column 'size'" in refusal(tmp_path, columns=Columns(("city",), {"city": ("Oslo",)}))
    assert "column 'city': a number is needed" in refusal(tmp_path, columns=Columns(("size", "city")))

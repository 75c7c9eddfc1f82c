"""Files made to harm: none runs code or gets the memory it declares, each is refused in a sentence that says why."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_trainer import data
from cyxwiz_trainer.failures import UserError

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 4
MARKER = "executed"


class Payload:
    """Unpickled, it writes the marker into the working directory."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARKER,)


PICKLE = pickle.dumps(Payload())
OBJECTS = np.array([Payload()] * 20, object)


def npy(
    array: Any = X, header: str | None = None, version: tuple[int, int] = (1, 0), body: bytes | None = None
) -> bytes:
    """A .npy file whose header says what it is told to."""
    if header is None:
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=True)
        return stream.getvalue()
    text = header.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + (X.tobytes() if body is None else body)


def said(shape: str, dtype: str = "'<f4'", fortran: str = "False") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def npz(method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in {"x": npy(X), "y": npy(Y), **members}.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new)


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that declares a size, with what follows compressed."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def parquet(compression: str = "snappy", **columns: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression=compression)
    return stream.getvalue()


GOOD_PARQUET = parquet(a=[1.0, 2.0, 3.0, 4.0], label=[0, 1, 0, 1])
NO_PAGES = b"PAR1" + bytes(len(GOOD_PARQUET)) + GOOD_PARQUET[4 + len(GOOD_PARQUET) // 2 :]
PARQUET_BOMB = parquet("zstd", a=np.zeros(30_000_000, np.int8), label=np.zeros(30_000_000, np.int8))
ENCRYPTED = patched(npz(), b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
HEAD = "a,b,label\n"
ROWS = "1,2,0\n3,4,1\n" * 4

# (name, content, words of the answer)
FILES: list[tuple[str, bytes, str]] = [
    # Pickles, wherever numpy or a reader could meet one.
    ("pickle.npz", PICKLE, "no readable .npz"),
    ("objects-x.npz", npz(x=npy(OBJECTS)), "dtype object"),
    ("objects-y.npz", npz(y=npy(OBJECTS)), "dtype object"),
    ("pickled-member.npz", npz(x=PICKLE), "no readable .npz"),
    ("pickled-body.npz", npz(x=npy(header=said("(20,)", "'|O'"), body=PICKLE)), "dtype object"),
    ("pickle.csv", PICKLE, "no UTF-8"),
    ("pickle.h5", PICKLE, "no readable HDF5"),
    ("pickle.parquet", PICKLE, "no readable Parquet"),
    ("pickle.pkl", PICKLE, "how to read it is not known"),
    ("weights.pt", PICKLE, "how to read it is not known"),
    ("script.py", b"import os; os.mkdir('executed')", "how to read it is not known"),
    ("archive.tar.gz", b"\x1f\x8b", "how to read it is not known"),
    # Headers of arrays that are code, lie, or cannot be.
    ("code.npz", npz(x=npy(header="__import__('os').mkdir('executed')")), "no readable .npz"),
    ("code-in-shape.npz", npz(x=npy(header=said("(__import__('os').mkdir('executed'),)"))), "no readable .npz"),
    ("code-in-type.npz", npz(x=npy(header=said("(20, 3)", "__import__('os')"))), "no readable .npz"),
    ("deep-header.npz", npz(x=npy(header="(" * 5000)), "no readable .npz"),
    ("long-header.npz", npz(x=npy(header=said("(20, 3)") + " " * 60_000)), "no readable .npz"),
    ("exabyte.npz", npz(x=npy(header=said(f"({2**40}, {2**20})"))), "declares shape"),
    ("overflow.npz", npz(x=npy(header=said(f"({2**63}, {2**63})"))), "declares shape"),
    ("negative.npz", npz(x=npy(header=said("(-1, 3)"))), "declares shape"),
    ("two-negative.npz", npz(x=npy(header=said("(-20, -3)"))), "declares shape"),
    ("float-shape.npz", npz(x=npy(header=said("(2.5, 3)"))), "no readable .npz"),
    ("no-shape.npz", npz(x=npy(header="{'descr': '<f4', 'fortran_order': False}")), "no readable .npz"),
    ("more-keys.npz", npz(x=npy(header=said("(20, 3)")[:-1] + "'run': 1}")), "no readable .npz"),
    ("cut.npz", npz(x=npy(X)[:-1]), "ends after 239 of 240 bytes"),
    ("version-9.npz", npz(x=npy(header=said("(20, 3)"), version=(9, 0))), "version 9.0"),
    ("version-3.npz", npz(x=npy(header=said("(20, 3)"), version=(3, 0))), "version 3.0"),
    ("scalar.npz", npz(x=npy(np.float32(1))), "has shape ()"),
    ("empty.npz", npz(x=npy(X[:0]), y=npy(Y[:0])), "is empty"),
    ("no-features.npz", npz(x=npy(X[:, :0])), "is empty"),
    ("five-axes.npz", npz(x=npy(np.zeros((20, 1, 1, 1, 1)))), "is needed"),
    ("text.npz", npz(x=npy(np.array(["a"] * 20))), "dtype <U1"),
    ("bytes.npz", npz(x=npy(np.array([b"a"] * 20))), "dtype |S1"),
    ("complex.npz", npz(x=npy(X.astype(complex))), "dtype complex128"),
    ("time.npz", npz(x=npy(np.zeros(20, "datetime64[s]"))), "dtype datetime64"),
    ("records.npz", npz(x=npy(np.zeros(20, [("a", "f4"), ("b", "O")]))), "dtype"),
    # Numbers that are none, or too large.
    ("nan.npz", npz(x=npy(np.where(X == 21, np.nan, X))), "x[7] holds a NaN"),
    ("infinite.npz", npz(x=npy(np.where(X == 21, np.inf, X))), "x[7] holds a NaN, an infinity"),
    ("huge.npz", npz(x=npy(np.full((20, 3), 1e300))), "too large for float32"),
    ("long-double.npz", npz(x=npy(np.full((20, 3), np.longdouble("1e4000")))), "too large for float32"),
    ("nan-label.npz", npz(y=npy(np.full(20, np.nan))), "y[0] holds a NaN"),
    ("negative-label.npz", npz(y=npy(Y - 1)), "labels count from 0"),
    ("huge-label.npz", npz(y=npy(Y + 2**40)), "at most 65535"),
    ("largest-label.npz", npz(y=npy(np.full(20, 2**64 - 1, np.uint64))), "at most 65535"),
    ("one-class.npz", npz(y=npy(Y * 0)), "nothing to tell apart"),
    ("fewer-labels.npz", npz(y=npy(Y[:7])), "20 samples and y 7 labels"),
    ("half-validation.npz", npz(x_val=npy(X)), "only one of x_val and y_val"),
    # Archives that are bombs, or name places outside.
    ("bomb.npz", npz(x=npy(np.zeros((2000, 3000), np.float32))), "it is no data"),
    ("bzip2-bomb.npz", npz(zipfile.ZIP_BZIP2, x=npy(np.zeros((2000, 3000), np.float32))), "it is no data"),
    ("lzma-bomb.npz", npz(zipfile.ZIP_LZMA, x=npy(np.zeros((2000, 3000), np.float32))), "it is no data"),
    ("slip.npz", patched(npz(), b"x.npy", b"../np"), "holds no array x"),
    ("absolute.npz", patched(npz(), b"x.npy", b"/etc/"), "holds no array x"),
    ("encrypted.npz", ENCRYPTED, "encrypted"),
    ("no-members.npz", b"PK\x05\x06" + bytes(18), "holds no array x"),
    # Tables.
    ("empty.csv", b"", "at least two columns"),
    ("header-only.csv", HEAD.encode(), "no rows"),
    ("one-column.csv", b"a\n1\n", "at least two columns"),
    ("twice.csv", b"a,a,label\n1,2,0\n", "each once"),
    ("nul.csv", (HEAD + ROWS + "1,\0,0\n").encode(), "is needed"),
    ("utf-16.csv", (HEAD + ROWS).encode("utf-16"), "no UTF-8"),
    ("latin.csv", b"a,b,label\n\xff,2,0\n", "no UTF-8"),
    ("words.csv", (HEAD + ROWS + "1,two,0\n").encode(), "row 10, column 'b': a number is needed"),
    ("formula.csv", (HEAD + ROWS + "1,=cmd|'/c calc'!A1,0\n").encode(), "row 10, column 'b'"),
    ("code.csv", (HEAD + ROWS + "1,__import__('os').mkdir('executed'),0\n").encode(), "row 10, column 'b'"),
    ("nan.csv", (HEAD + "1,nan,0\n3,4,1\n").encode(), "row 2, column 'b': a finite number"),
    ("infinity.csv", (HEAD + ROWS + "1,-Infinity,0\n").encode(), "row 10, column 'b': a finite number"),
    ("huge.csv", (HEAD + "1e39,2,0\n3,4,1\n").encode(), "row 2, column 'a': a finite number"),
    ("many-digits.csv", (HEAD + "9" * 5000 + ",2,0\n3,4,1\n").encode(), "row 2, column 'a': a finite number"),
    ("ragged.csv", (HEAD + "1,2\n").encode(), "2 cells, and the header names 3"),
    ("wide-row.csv", (HEAD + "1,2,3,4\n").encode(), "4 cells, and the header names 3"),
    ("no-label.csv", (HEAD + "1,2,\n3,4,a\n5,6,b\n").encode(), "the label is empty"),
    ("one-label.csv", (HEAD + "1,2,a\n3,4,a\n").encode(), "1 different values"),
    ("long-cell.csv", (HEAD + "1," + "x" * 2_000_000 + ",0\n").encode(), "no readable table"),
    ("open-quote.csv", (HEAD + '1,"2,0\n').encode(), "no readable table"),
    ("escape.csv", (HEAD + ROWS + "1,\x1b[2J\x1b]0;owned\x07,0\n").encode(), "row 10, column 'b'"),
    ("bidirectional.csv", (HEAD + ROWS + "1,\u202e1,0\n").encode(), "row 10, column 'b'"),
    # Parquet.
    ("empty.parquet", b"", "no readable Parquet"),
    ("no-footer.parquet", GOOD_PARQUET[:-20], "no readable Parquet"),
    ("huge-footer.parquet", GOOD_PARQUET[:-8] + b"\xff\xff\xff\x7fPAR1", "no readable Parquet"),
    ("no-pages.parquet", NO_PAGES, "no readable Parquet"),
    ("one-column.parquet", parquet(a=[1, 2]), "2 to 100000 columns"),
    ("no-rows.parquet", parquet(a=pa.array([], pa.float32()), label=pa.array([], pa.int64())), "no rows"),
    ("words.parquet", parquet(a=[f"w{i}" for i in range(300)], label=[0, 1] * 150), "column 'a': 270 different words"),
    ("binary.parquet", parquet(a=[PICKLE, PICKLE], label=[0, 1]), "column 'a': numbers or words are needed"),
    ("binary-label.parquet", parquet(a=[1, 2], label=[PICKLE, b"x"]), "labels are numbers or words"),
    ("lists.parquet", parquet(a=[[1], [2]], label=[0, 1]), "it holds list"),
    ("structs.parquet", parquet(a=[{"b": 1}, {"b": 2}], label=[0, 1]), "it holds struct"),
    ("missing.parquet", parquet(a=[1.0, None], label=[0, 1]), "row 2, column 'a': a number is needed"),
    ("nan.parquet", parquet(a=[1.0, float("nan")], label=[0, 1]), "row 2, column 'a': a finite number"),
    ("huge.parquet", parquet(a=[1.0, 1e300], label=[0, 1]), "row 2, column 'a': a finite number"),
    ("no-label.parquet", parquet(a=[1, 2], label=["x", None]), "row 2, column 'label'"),
    ("bomb.parquet", PARQUET_BOMB, "resources.memory"),
    # Text.
    ("short.txt", b"ab", "two samples"),
    ("empty.txt", b"", "two samples"),
]  # fmt: skip


def corruptions() -> list[tuple[str, bytes, str]]:
    """Good files of every kind, spoilt in the ways that files are."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["x"], file["y"] = X, Y
    good = {"npz": npz(), "h5": stream.getvalue(), "parquet": GOOD_PARQUET}
    ways: dict[str, Callable[[bytes], bytes]] = {
        "halved": lambda content: content[: len(content) // 2],
        "headless": lambda content: bytes(16) + content[16:],
        "zeros": lambda content: bytes(len(content)),
        "reversed": lambda content: content[::-1],
        "random": lambda content: np.random.default_rng(0).bytes(len(content)),
        "first-byte": lambda content: content[:1],
        "html": lambda _: b"<html><body>404</body></html>" * 100,
    }
    return [
        (f"{way}.{kind}", spoil(content), "is no readable")
        for (kind, content), (way, spoil) in itertools.product(good.items(), ways.items())
    ]


def load(root: Path, name: str, memory: str = "64Mi") -> data.Dataset:
    spec = {"model": {"name": "mlp"}, "dataset": {"uri": f"file://{name}"}, "resources": {"memory": memory}}
    return data.load(TrainingJobSpec.model_validate(spec), root)


def refusal(root: Path, name: str, memory: str = "64Mi") -> str:
    with pytest.raises(UserError) as caught:
        load(root, name, memory)
    return str(caught.value)


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The payloads write here."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / MARKER).exists()


def test_the_payload_would_leave_its_mark(tmp_path: Path) -> None:
    pickle.loads(PICKLE)
    assert (tmp_path / MARKER).is_dir()
    (tmp_path / MARKER).rmdir()


CASES = [*FILES, *corruptions()]


@pytest.mark.parametrize(("name", "content", "words"), CASES, ids=[name for name, _, _ in CASES])
def test_a_hostile_file_is_refused_in_a_printable_sentence(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path, name)
    assert words in message
    assert len(message) < 1000
    assert "\x1b" not in message


@pytest.mark.parametrize("name", ["one-line.csv", "zeros.txt", "zeros.npz", "zeros.h5", "zeros.parquet"])
def test_a_gigabyte_of_nothing_is_refused_without_being_read(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**30)
    assert "resources.memory" in (message := refusal(tmp_path, name)) or "is no readable" in message


def hdf5_cases() -> dict[str, tuple[Callable[[h5py.File, Path], None], str]]:
    def external(file: h5py.File, folder: Path) -> None:
        (folder / "secret").write_bytes(X.tobytes())
        file.create_dataset("x", X.shape, X.dtype, external=[(str(folder / "secret"), 0, X.nbytes)])
        file["y"] = Y

    def virtual(file: h5py.File, folder: Path) -> None:
        with h5py.File(folder / "other.h5", "w") as other:
            other["x"] = X
        layout = h5py.VirtualLayout(X.shape, X.dtype)
        layout[:] = h5py.VirtualSource(folder / "other.h5", "x", X.shape)
        file.create_virtual_dataset("x", layout)

    def link(file: h5py.File, folder: Path) -> None:
        with h5py.File(folder / "other.h5", "w") as other:
            other["x"] = X
        file["x"] = h5py.ExternalLink(folder / "other.h5", "/x")

    def soft(file: h5py.File, folder: Path) -> None:
        file["hidden"], file["x"] = X, h5py.SoftLink("/hidden")

    def loop(file: h5py.File, folder: Path) -> None:
        file["x"] = h5py.SoftLink("/x")

    def references(file: h5py.File, folder: Path) -> None:
        file["z"] = X
        file.create_dataset("x", (20,), h5py.ref_dtype)

    def strings(file: h5py.File, folder: Path) -> None:
        file["x"] = ["a"] * 20

    def group(file: h5py.File, folder: Path) -> None:
        file.create_group("x")

    def void(file: h5py.File, folder: Path) -> None:
        file["x"] = np.void(PICKLE)

    def null(file: h5py.File, folder: Path) -> None:
        file["x"] = h5py.Empty("f4")

    def compound(file: h5py.File, folder: Path) -> None:
        file["x"] = np.zeros(20, [("a", "f4"), ("b", "f4")])

    def petabyte(file: h5py.File, folder: Path) -> None:
        file.create_dataset("x", (2**40, 2**10), "u1", chunks=(2**10, 2**10))

    def nan(file: h5py.File, folder: Path) -> None:
        file["x"], file["y"] = np.where(X == 21, np.nan, X), Y

    def alone(file: h5py.File, folder: Path) -> None:
        file["x"] = X

    return {
        "external": (external, "lies in other files"),
        "virtual": (virtual, "lies in other files"),
        "link": (link, "is a link"),
        "soft": (soft, "is a link"),
        "loop": (loop, "is a link"),
        "references": (references, "whole numbers or floats"),
        "strings": (strings, "whole numbers or floats"),
        "group": (group, "is a group"),
        "void": (void, "whole numbers or floats"),
        "null": (null, "is empty"),
        "compound": (compound, "whole numbers or floats"),
        "petabyte": (petabyte, "resources.memory"),
        "nan": (nan, "x[7] holds a NaN"),
        "alone": (alone, "holds no array y"),
    }


@pytest.mark.parametrize("case", hdf5_cases())
def test_a_hostile_hdf5_file_is_refused_and_opens_nothing_else(tmp_path: Path, case: str) -> None:
    make, words = hdf5_cases()[case]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file, tmp_path)
        if "y" not in file and case != "alone":
            file["y"] = Y
    assert words in refusal(tmp_path, "a.h5")


IMAGES: list[tuple[str, bytes, str]] = [
    ("bomb.png", png(50_000, 50_000, bytes(100_000)), "decompression bomb"),
    ("large.png", png(10_000, 10_000, bytes(100_000)), "at most 16777216 are read"),
    ("bomb-in-bounds.png", png(4096, 4096, bytes(1000)), "is no readable PNG"),
    ("zero.png", png(0, 0), "is no readable PNG"),
    ("cut.png", png(4, 4, bytes(52))[:40], "is no readable PNG"),
    ("pickle.png", PICKLE, "is no readable PNG"),
    ("script.bmp", b"#!/bin/sh\nmkdir executed\n", "is no readable BMP"),
    ("postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no readable JPEG"),
    ("svg.webp", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "is no readable WEBP"),
    ("png-as.jpg", png(4, 4, bytes(52)), "is no readable JPEG"),
]


@pytest.mark.parametrize(("name", "content", "words"), IMAGES, ids=[name for name, _, _ in IMAGES])
def test_a_hostile_image_is_refused_by_its_name(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "data" / label / "zz.png")
    (tmp_path / "data" / "a" / name).write_bytes(content)
    message = refusal(tmp_path, "data")
    assert words in message
    assert f"a/{name}" in message


def test_a_linked_image_or_class_is_not_followed(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "outside").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "outside" / "a.png")
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "data" / "c").symlink_to(tmp_path / "outside")
    assert "nothing to learn" in refusal(tmp_path, "data")


def test_what_is_no_file_is_not_opened_as_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "neither a file nor a folder" in refusal(tmp_path, "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    assert "a link leads out of it" in refusal(tmp_path, "zero.csv")
    (tmp_path / "self.csv").symlink_to("/proc/self/environ")
    assert "a link leads out of it" in refusal(tmp_path, "self.csv")

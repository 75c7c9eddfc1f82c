"""Files over https, fetched by a real process from a real server."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.doubles.web import File, WebServer

from .conftest import Node

CONTENT = bytes(range(256)) * 4096
MIB = 2**20


def test_a_file_is_fetched_once_and_then_only_asked_about(node: Node, web: WebServer) -> None:
    web.files["/data.npz"] = File(CONTENT)
    (first,) = node.fetch(web.url("/data.npz")).fetched
    assert Path(first.path).read_bytes() == CONTENT
    assert first.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (first.name, first.bytes, first.cached) == ("data.npz", len(CONTENT), False)
    (again,) = node.fetch(web.url("/data.npz")).fetched
    assert again.cached
    assert web.hits == ["/data.npz bytes=0-0", "/data.npz", "/data.npz bytes=0-0"]


def test_a_file_that_changed_is_fetched_anew(node: Node, web: WebServer) -> None:
    web.files["/x"] = File(CONTENT)
    node.fetch(web.url("/x"))
    web.files["/x"] = File(b"other")
    (file,) = node.fetch(web.url("/x")).fetched
    assert Path(file.path).read_bytes() == b"other"
    assert not file.cached


def test_a_file_whose_bytes_rotted_in_the_cache_is_fetched_anew(node: Node, web: WebServer) -> None:
    web.files["/x"] = File(CONTENT)
    (file,) = node.fetch(web.url("/x")).fetched
    path = Path(file.path)
    path.chmod(0o600)
    path.write_bytes(b"?" + CONTENT[1:])
    (again,) = node.fetch(web.url("/x")).fetched
    assert not again.cached
    assert Path(again.path).read_bytes() == CONTENT


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(node: Node, web: WebServer) -> None:
    web.files["/x"] = File(CONTENT, breaks_after=300_000, breaks=2)
    (file,) = node.fetch(web.url("/x")).fetched
    assert Path(file.path).read_bytes() == CONTENT
    assert web.hits[1:] == ["/x", "/x bytes=300000-", "/x bytes=600000-"]


def test_a_part_left_by_a_killed_process_is_gone_on_with(node: Node, web: WebServer) -> None:
    web.files["/x"] = File(CONTENT, breaks_after=700_000, breaks=100)
    fetching = node.begin(web.url("/x"))
    while not (parts := list(node.cache.glob("*/part"))) or parts[0].stat().st_size < 700_000:
        assert fetching.process.poll() is None
    fetching.process.kill()
    fetching.process.communicate()
    web.files["/x"].breaks = 0
    web.hits.clear()
    (file,) = node.fetch(web.url("/x")).fetched
    assert Path(file.path).read_bytes() == CONTENT
    assert web.hits[1].startswith("/x bytes=7")


def test_a_server_without_ranges_or_versions_is_read_from_the_beginning(node: Node, web: WebServer) -> None:
    web.files["/x"] = File(CONTENT, ranges=False, versioned=False)
    for _ in range(2):
        (file,) = node.fetch(web.url("/x")).fetched
        assert Path(file.path).read_bytes() == CONTENT
        assert not file.cached


def test_a_redirect_is_followed_to_another_file_of_the_server(node: Node, web: WebServer) -> None:
    web.files |= {"/old": File(redirect="/new?signature=1"), "/new": File(CONTENT)}
    (file,) = node.fetch(web.url("/old")).fetched
    assert file.bytes == len(CONTENT)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (File(status=404), "there is no such file"),
        (File(status=403), "it may not be read"),
        (File(b"x" * 100, encoding="gzip"), "is sent compressed"),
        (File(redirect="https://127.0.0.1:1/x"), "127.0.0.1 is no public address"),
        (File(redirect="https://169.254.169.254/latest"), "link-local or metadata"),
        (File(redirect="https://[::ffff:169.254.169.254]/latest"), "link-local or metadata"),
        (File(redirect="https://2852039166/latest"), "four decimal numbers"),
        (File(redirect="http://127.0.0.1/x"), "only https:// is followed"),
        (File(redirect="file:///etc/passwd"), "only https:// is followed"),
        (File(redirect="https://user:pw@example.org/"), "credentials do not belong here"),
        (File(redirect="/x"), "redirects more than 5 times"),
    ],
)
def test_an_answer_that_cannot_be_used_ends_the_job_in_words(
    node: Node, web: WebServer, file: File, words: str
) -> None:
    web.files["/x"] = file
    assert words in node.refusal(web.url("/x"))
    assert list(node.cache.glob("*/data")) == []


def test_a_server_that_is_not_listed_is_not_connected_to(node: Node, web: WebServer) -> None:
    web.files["/x"] = File(CONTENT)
    assert "127.0.0.1 is no public address" in node.refusal(web.url("/x"), allow=[])
    assert "is no public address" in node.refusal(f"https://localhost:{web.port}/x", allow=[])
    assert web.hits == []


def test_a_certificate_of_nobody_is_not_trusted(node: Node, web: WebServer) -> None:
    assert "certificate is not trusted" in node.refusal(web.url("/x"), certificates=None)
    assert web.hits == []


def test_a_server_that_ends_early_again_and_again_is_given_up(node: Node, web: WebServer) -> None:
    web.files["/x"] = File(CONTENT, breaks_after=0, breaks=1000)
    answer = node.fetch(web.url("/x"))
    assert answer.failure == "Crashed"
    assert "could not be fetched" in (answer.message or "")


def test_a_file_larger_than_the_node_fetches_is_refused_before_it_is_read(node: Node, web: WebServer) -> None:
    web.files["/x"] = File(b"x" * (3 * MIB))
    assert "larger than 2Mi" in node.refusal(web.url("/x"), largestFile="2Mi")
    assert web.hits == ["/x bytes=0-0"]


def test_what_was_used_longest_ago_leaves_a_full_cache_and_what_a_job_uses_stays(node: Node, web: WebServer) -> None:
    for name in "abc":
        web.files[f"/{name}"] = File(name.encode() * MIB)
    used = []
    for name in "ab":
        (file,) = node.fetch(web.url(f"/{name}"), cacheSize="2.5Mi", largestFile="2Mi").fetched
        used.append(Path(file.path))
    os.utime(used[0].with_name("entry.json"), (1, 1))
    os.link(used[0], node.cache.parent / "job-input")
    (third,) = node.fetch(web.url("/c"), cacheSize="2.5Mi", largestFile="2Mi").fetched
    assert used[0].exists(), "a job has a link to it"
    assert not used[1].exists()
    assert Path(third.path).read_bytes() == b"c" * MIB
    sizes = [path.stat().st_size for path in node.cache.glob("*/data")]
    assert sum(sizes) <= 2.5 * MIB


def test_a_file_held_by_another_process_stays(node: Node, web: WebServer) -> None:
    web.files |= {"/a": File(b"a" * MIB), "/b": File(b"b" * MIB)}
    holder = node.begin(web.url("/a"))
    (held,) = holder.answer().fetched
    small = {"cacheSize": "1.5Mi", "largestFile": "1.5Mi"}
    full = node.begin(web.url("/b"), **small)
    assert "full of files that jobs are using" in (full.answer().message or "")
    full.release()
    assert Path(held.path).exists()
    holder.release()
    assert node.fetch(web.url("/b"), **small).fetched
    assert not Path(held.path).exists()


def test_two_jobs_that_want_the_same_file_fetch_it_once(node: Node, web: WebServer) -> None:
    web.files["/x"] = File(CONTENT)
    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(node.fetch, [web.url("/x")] * 2))
    assert sorted(answer.fetched[0].cached for answer in answers) == [False, True]
    assert web.hits.count("/x") == 1


def test_a_signature_in_the_address_is_neither_printed_nor_told(node: Node, web: WebServer) -> None:
    fetching = node.begin(web.url("/x?signature=hunter2"))
    answer = fetching.answer()
    assert "hunter2" not in fetching.release()
    assert "hunter2" not in (answer.message or "")
    assert answer.failure == "UserError"

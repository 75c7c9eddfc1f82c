from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_protocol.location import LONGEST, BadLocation, Location, parse_location

GOOD: list[tuple[str, Location]] = [
    ("builtin://digits", Location("builtin", "", "digits")),
    ("mock://cifar10?samples=20", Location("mock", "", "cifar10", "samples=20")),
    ("rings://anything goes/here", Location("rings", "", "anything goes/here")),
    ("file://data.npz", Location("file", "", "data.npz")),
    ("file:///a//b/c%20d%3F.csv", Location("file", "", "a/b/c d?.csv")),
    ("file://übung/größe.csv", Location("file", "", "übung/größe.csv")),
    ("volume://imagenet/train/", Location("volume", "imagenet", "train")),
    ("s3://my-bucket/a key/100%.npz", Location("s3", "my-bucket", "a key/100%.npz")),
    ("s3://my-bucket/folder/", Location("s3", "my-bucket", "folder/")),
    ("gs://my_bucket.example/x", Location("gs", "my_bucket.example", "x")),
    ("https://Example.ORG:443/a/b.csv?sig=x", Location("https", "example.org", "/a/b.csv", "sig=x")),
    ("https://example.org.:8443/a", Location("https", "example.org:8443", "/a")),
    ("https://192.0.2.1/a", Location("https", "192.0.2.1", "/a")),
    ("https://[2001:DB8::1]:8443/a", Location("https", "[2001:db8::1]:8443", "/a")),
]

BAD: list[tuple[str, str]] = [
    ("digits", "no scheme"),
    ("", "no scheme"),
    ("FILE://x", "small letters"),
    ("://x", "small letters"),
    ("file://", "nothing follows"),
    ("file:///", "names no file"),
    ("x" * (LONGEST + 1), "at most 1024"),
    ("file://../etc/passwd", ".. are not allowed"),
    ("file://a/%2e%2e/b", ".. are not allowed"),
    ("file://a/%2E./b", ".. are not allowed"),
    ("file://a/..%2fb", ".. are not allowed"),
    ("file://a%5c..%5cb", "backslash"),
    ("file://a\\b", "backslash"),
    ("file://a%00b", "U+0000"),
    ("file://a\nb", "U+000A"),
    ("file://a%0Ab", "U+000A"),
    ("file://a\u202egnp.exe", "U+202E"),
    ("file://a\u200bb", "U+200B"),
    ("file://a%E2%80%AEb", "U+202E"),
    ("file://a%ff", "no UTF-8"),
    ("file://a%zz", "hexadecimal"),
    ("file://a?b", "%3F"),
    ("file://a#b", "%23"),
    ("file://" + "y" * 256, "longer than 255"),
    ("volume:///x", "volume's name"),
    ("volume://a", "names no file"),
    ("volume://../x", "volume's name"),
    ("volume://a/../x", ".. are not allowed"),
    ("volume://A/x", "small letters"),
    ("s3://b/x", "bucket's name"),
    ("s3://key:secret@bucket/x", "credentials do not belong here"),
    ("s3://bucket", "names no file"),
    ("s3://bucket/a/../b", ".. are not allowed"),
    ("gs://-bucket/x", "bucket's name"),
    ("https://user:pw@example.org/x", "credentials do not belong here"),
    ("https://example.org", "names a host and no file"),
    ("https:///x", "host has letters"),
    ("https://example.org/x#y", "never sent"),
    ("https://example.org\\@127.0.0.1/x", "backslash"),
    ("https://2130706433/x", "four decimal numbers"),
    ("https://0x7f000001/x", "four decimal numbers"),
    ("https://0x7f.1/x", "four decimal numbers"),
    ("https://0177.0.0.1/x", "four decimal numbers"),
    ("https://127.1/x", "four decimal numbers"),
    ("https://127.0.0.1.:80x/x", "port must be a number"),
    ("https://example.org:0/x", "port must be a number"),
    ("https://example.org:99999/x", "port must be a number"),
    ("https://[::1/x", "IPv6 address in brackets"),
    ("https://[fe80::1%25eth0]/x", "IPv6 address in brackets"),
    ("https://exa mple.org/x", "host has letters"),
    ("https://ⓔxample.org/x", "host has letters"),
    ("https://１２７.0.0.1/x", "four decimal numbers"),
    ("https://example.org/%2e%2e/x", ".. are not allowed"),
    ("https://example.org/%zz", "hexadecimal"),
]


@pytest.mark.parametrize(("uri", "location"), GOOD)
def test_a_location_is_what_it_says(uri: str, location: Location) -> None:
    assert parse_location(uri) == location


@pytest.mark.parametrize(("uri", "words"), BAD)
def test_a_bad_location_is_refused_in_words(uri: str, words: str) -> None:
    with pytest.raises(BadLocation) as refused:
        parse_location(uri, "output.uri")
    assert words in str(refused.value)
    assert str(refused.value).startswith("output.uri ")
    assert str(refused.value).isprintable()


def test_neither_a_message_nor_a_log_shows_a_password_or_a_signature() -> None:
    with pytest.raises(BadLocation) as refused:
        parse_location("https://me:hunter2@example.org/x?token=s3cret")
    assert "hunter2" not in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert str(parse_location("https://example.org/x?token=s3cret")) == "https://example.org/x?…"


@pytest.mark.parametrize("uri", [uri for uri, _ in GOOD if "?sig" not in uri and "%" not in uri])
def test_a_location_as_text_is_the_same_location(uri: str) -> None:
    location = parse_location(uri)
    assert parse_location(str(location)) == location


def parsed_or_refused(uri: str) -> Location | str:
    try:
        return parse_location(uri)
    except BadLocation as error:
        return str(error)


@given(st.text(max_size=60), st.sampled_from(["", "file://", "volume://v/", "https://", "s3://bucket/", "gs://"]))
def test_whatever_is_written_is_a_location_or_refused_in_printable_words(text: str, scheme: str) -> None:
    location = parsed_or_refused(scheme + text)
    if isinstance(location, str):
        assert location.isprintable()
    elif location.scheme in ("file", "volume", "s3", "gs"):
        assert not location.path.startswith("/")
        assert not {"", ".", ".."} & set(location.path.removesuffix("/").split("/"))
        assert "\0" not in location.path

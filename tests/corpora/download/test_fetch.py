"""Fetching: what arrives is whole and right, or is not there, whoever breaks off and when."""

import errno
import hashlib
import logging
import os
import shutil
from collections import namedtuple

import pytest
from toy_archives import TOY, only_files
from toy_downloads import CONTENT, DEAD, PATH, md5_of, toy_archive, toy_file

from speechattn.corpora.download import fetch as download
from speechattn.corpora.download import transfer
from speechattn.corpora.download.fetch import (
    DownloadError,
    RemoteFile,
    download_archive,
    fetch,
    openslr_urls,
    unpack_archive,
)

# The right file


def test_fetch_from_official_address(server, tmp_path):
    server.pages["/toy.tar.gz"] = CONTENT
    target = fetch(toy_file(f"{server.address}/toy.tar.gz"), tmp_path / "new" / "toy.tar.gz")
    assert target.read_bytes() == CONTENT
    assert only_files(target.parent) == ["toy.tar.gz"]
    assert server.ranges == [None]
    assert fetch(toy_file(f"{server.address}/toy.tar.gz"), target) == target
    assert server.ranges == [None]  # it is there


def test_fetch_from_http_mirror_asks_for_its_checksum(server, tmp_path):
    server.pages |= {
        f"/base/{PATH}": CONTENT,
        f"/base/{PATH}.md5": f"{md5_of(CONTENT)}  toy.tar.gz\n".encode(),
    }
    archive = toy_archive(md5_of(b"what is official"))
    assert fetch(archive, tmp_path / "toy.tar.gz", f"{server.address}/base/").read_bytes() == CONTENT


def test_mirror_checksum_replaces_what_the_catalogue_knows(mirror, tmp_path):
    (mirror / f"{PATH}.md5").write_text(f"{md5_of(TOY).upper()}\n")
    official = RemoteFile(urls=(DEAD,), mirror_path=PATH, size=7, md5="0" * 32)
    fetch(official, tmp_path / "a", str(mirror))
    (mirror / f"{PATH}.md5").write_text(f"{'1' * 32} *toy.tar.gz\n")
    with pytest.raises(DownloadError, match=f"expected {'1' * 32}"):
        fetch(toy_archive(md5_of(TOY)), tmp_path / "b", str(mirror))
    (mirror / f"{PATH}.md5").write_text("<html>no such thing</html>")
    with pytest.raises(DownloadError, match=r"toy.tar.gz.md5: not an md5 file"):
        fetch(toy_archive(md5_of(TOY)), tmp_path / "b", str(mirror))


def test_official_address_never_gets_another_checksum(server, tmp_path):
    server.pages |= {"/toy.tar.gz": CONTENT, "/toy.tar.gz.md5": md5_of(CONTENT).encode()}
    with pytest.raises(DownloadError, match="checksum does not match"):
        fetch(toy_archive("0" * 32, f"{server.address}/toy.tar.gz"), tmp_path / "toy.tar.gz")
    assert only_files(tmp_path) == []


def test_wrong_checksum_leaves_nothing(mirror, tmp_path):
    target, wrong = tmp_path / "corpus" / "toy.tar.gz", "0" * 32
    with pytest.raises(DownloadError, match=f"md5 {md5_of(TOY)}, expected {wrong}"):
        fetch(RemoteFile(urls=(DEAD,), mirror_path=PATH, md5=wrong), target, str(mirror))
    assert only_files(target.parent) == []


def test_without_a_checksum_the_one_that_came_is_printed(server, tmp_path, capsys):
    server.pages["/toy.tar.gz"] = CONTENT
    fetch(toy_file(f"{server.address}/toy.tar.gz", content=None), tmp_path / "toy.tar.gz")
    assert f"no checksum is published; sha256 of the downloaded file: {hashlib.sha256(CONTENT).hexdigest()}" in (
        capsys.readouterr().out
    )


def test_another_size_is_refused_before_it_is_fetched(server, mirror, tmp_path):
    server.pages["/toy.tar.gz"] = CONTENT
    with pytest.raises(DownloadError, match=r"has 1280000 bytes, not 1280001: it is another file"):
        fetch(toy_file(f"{server.address}/toy.tar.gz", size=len(CONTENT) + 1), tmp_path / "toy.tar.gz")
    server.announces = False
    with pytest.raises(DownloadError, match=r"expected 1279999 bytes, received 1280000"):
        fetch(toy_file(f"{server.address}/toy.tar.gz", size=len(CONTENT) - 1), tmp_path / "toy.tar.gz")
    assert only_files(tmp_path) == ["mirror"]


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>Sign in", b"\n <HTML><body>"])
def test_web_page_is_refused(server, tmp_path, page):
    server.pages["/toy.tar.gz"] = page
    for size in (None, len(CONTENT)):
        with pytest.raises(DownloadError, match="returned a web page instead of the file"):
            fetch(toy_file(f"{server.address}/toy.tar.gz", content=None, size=size), tmp_path / "toy.tar.gz")
    assert only_files(tmp_path) == []


# Servers that fail


def test_missing_file_and_dead_server_are_one_line(server, waits, tmp_path):
    with pytest.raises(DownloadError, match="the server answered 404"):
        fetch(toy_file(f"{server.address}/nothing"), tmp_path / "toy.tar.gz")
    assert waits == []
    with pytest.raises(DownloadError, match="cannot be reached") as caught:
        fetch(toy_archive(), tmp_path / "toy.tar.gz")
    assert "\n" not in str(caught.value)
    assert waits == [1, 4, 15]
    with pytest.raises(DownloadError, match="no such file at the mirror"):
        fetch(toy_archive(), tmp_path / "toy.tar.gz", str(tmp_path))
    with pytest.raises(DownloadError, match="cannot be reached .InvalidURL"):
        fetch(toy_file("http://"), tmp_path / "toy.tar.gz")
    assert waits == [1, 4, 15]  # no further attempt
    assert only_files(tmp_path) == []


def test_next_server_is_tried(server, waits, tmp_path):
    server.pages |= {"/page": b"<html>", "/toy.tar.gz": CONTENT}
    urls = (f"{server.address}/nothing", DEAD, f"{server.address}/page", f"{server.address}/toy.tar.gz")
    assert fetch(toy_file(*urls), tmp_path / "toy.tar.gz").read_bytes() == CONTENT
    with pytest.raises(DownloadError, match=r"nothing: the server answered 404 Not Found; .*page: returned a web page"):
        fetch(toy_file(urls[0], urls[2]), tmp_path / "other")


def test_openslr_has_several_servers():
    first, *others = openslr_urls("12/dev-clean.tar.gz")
    assert first == "https://www.openslr.org/resources/12/dev-clean.tar.gz"
    assert len(others) >= 2 and all(url.endswith("/resources/12/dev-clean.tar.gz") for url in others)


def test_busy_server_is_asked_again(server, waits, tmp_path, caplog):
    server.pages["/toy.tar.gz"] = CONTENT
    server.failures = [(503, {}), (429, {"Retry-After": "7"}), (500, {"Retry-After": "9999"})]
    with caplog.at_level(logging.WARNING):
        fetch(toy_file(f"{server.address}/toy.tar.gz"), tmp_path / "toy.tar.gz")
    assert waits == [1, 7, 60]
    assert "the server answered 503 Service Unavailable; trying again in 1 s" in caplog.text
    server.failures = [(503, {})] * 4
    with pytest.raises(DownloadError, match="answered 503 Service Unavailable; run it again"):
        fetch(toy_file(f"{server.address}/toy.tar.gz"), tmp_path / "other")
    assert waits[3:] == [1, 4, 15]


def test_busy_mirror_is_asked_again_for_its_checksum(server, waits, tmp_path):
    server.pages |= {f"/{PATH}": CONTENT, f"/{PATH}.md5": md5_of(CONTENT).encode()}
    server.failures = [(502, {})]
    fetch(toy_archive("0" * 32), tmp_path / "toy.tar.gz", server.address)
    assert waits == [1]


def test_broken_connections_cost_nothing_while_bytes_come(server, waits, tmp_path):
    server.pages["/toy.tar.gz"] = CONTENT
    server.breaks = list(range(100_000, len(CONTENT), 100_000))
    fetch(toy_file(f"{server.address}/toy.tar.gz"), tmp_path / "toy.tar.gz")
    assert (tmp_path / "toy.tar.gz").read_bytes() == CONTENT
    assert waits == [1] * 12
    starts = [0] + [int(wanted.removeprefix("bytes=").rstrip("-")) for wanted in server.ranges[1:]]
    assert starts == sorted(set(starts)) and len(starts) == 13
    with pytest.raises(DownloadError, match="the connection broke.*; run it again"):
        server.breaks = [100_000] * 5  # nothing new comes
        fetch(toy_file(f"{server.address}/toy.tar.gz"), tmp_path / "other")


def test_silent_server_is_given_up(server, waits, tmp_path, monkeypatch):
    server.pages["/toy.tar.gz"], server.holds_at = CONTENT, 700_000
    monkeypatch.setattr(transfer, "TIMEOUT_S", (5, 0.2))

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        server.holds_at = None

    monkeypatch.setattr(download, "sleep", sleep)
    fetch(toy_file(f"{server.address}/toy.tar.gz"), tmp_path / "toy.tar.gz")
    assert (tmp_path / "toy.tar.gz").read_bytes() == CONTENT
    assert waits == [1] and server.ranges[1] is not None


# Going on where it stopped


def interrupt(server, file, target) -> int:
    """Interrupt a download; return the number of bytes received."""
    server.breaks = [1_000_000] + [0] * 3
    with pytest.MonkeyPatch.context() as patched, pytest.raises(DownloadError, match="the connection broke.*; run it"):
        patched.setattr(download, "sleep", lambda seconds: None)
        fetch(file, target)
    server.breaks = []
    server.ranges.clear()
    server.sent.clear()
    present = target.with_name(target.name + ".part").stat().st_size
    assert 900_000 < present <= 1_000_000
    return present


def test_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.pages["/toy.tar.gz"] = CONTENT
    file = toy_file(f"{server.address}/toy.tar.gz")
    present = interrupt(server, file, tmp_path / "toy.tar.gz")
    assert only_files(tmp_path) == ["toy.tar.gz.part"]
    assert fetch(file, tmp_path / "toy.tar.gz").read_bytes() == CONTENT
    assert server.ranges == [f"bytes={present}-"] and server.sent == [len(CONTENT) - present]
    assert only_files(tmp_path) == ["toy.tar.gz"]


@pytest.mark.parametrize("headers", [{"ETag": '"v1"'}, {"Last-Modified": "Sun, 01 Jan 2017 00:00:00 GMT"}])
@pytest.mark.parametrize("changed", [False, True])
def test_without_a_checksum_the_server_tells_whether_the_pieces_fit(server, tmp_path, headers, changed):
    server.pages["/toy.tar.gz"], server.headers = CONTENT, headers
    file = toy_file(f"{server.address}/toy.tar.gz", content=None)
    present = interrupt(server, file, tmp_path / "toy.tar.gz")
    if changed:
        server.headers = {name: value.replace("1", "2") for name, value in headers.items()}
        server.pages["/toy.tar.gz"] = CONTENT[::-1]
    assert fetch(file, tmp_path / "toy.tar.gz").read_bytes() == server.pages["/toy.tar.gz"]
    assert server.ranges == [f"bytes={present}-"]
    assert server.sent == [len(CONTENT) if changed else len(CONTENT) - present]
    assert only_files(tmp_path) == ["toy.tar.gz"]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"v1"'}])
def test_without_checksum_and_version_nothing_is_pieced_together(server, tmp_path, headers):
    server.pages["/toy.tar.gz"], server.headers = CONTENT, headers
    file = toy_file(f"{server.address}/toy.tar.gz", content=None)
    interrupt(server, file, tmp_path / "toy.tar.gz")
    assert fetch(file, tmp_path / "toy.tar.gz").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_without_a_checksum_servers_do_not_mix(server, tmp_path):
    server.pages |= {"/a/toy.tar.gz": CONTENT[::-1], "/b/toy.tar.gz": CONTENT}
    server.headers = {"ETag": '"v1"'}
    interrupt(server, toy_file(f"{server.address}/a/toy.tar.gz", content=None), tmp_path / "toy.tar.gz")
    file = toy_file(f"{server.address}/b/toy.tar.gz", content=None)
    assert fetch(file, tmp_path / "toy.tar.gz").read_bytes() == CONTENT


def test_pieces_of_two_versions_are_replaced_by_the_whole(server, waits, tmp_path):
    server.pages["/toy.tar.gz"] = CONTENT
    (tmp_path / "toy.tar.gz.part").write_bytes(CONTENT[1000:0:-1])
    file = toy_file(f"{server.address}/toy.tar.gz")
    assert fetch(file, tmp_path / "toy.tar.gz").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize("size", [None, len(CONTENT)])
@pytest.mark.parametrize("present", [0, 10, len(CONTENT), len(CONTENT) + 10])
def test_any_part_file_and_server_give_the_whole(server, waits, tmp_path, resumes, size, present):
    server.pages["/toy.tar.gz"], server.resumes = CONTENT, resumes
    (tmp_path / "toy.tar.gz.part").write_bytes((CONTENT + CONTENT)[:present])
    file = toy_file(f"{server.address}/toy.tar.gz", size=size)
    assert fetch(file, tmp_path / "toy.tar.gz").read_bytes() == CONTENT
    if present == len(CONTENT) and size is not None:
        assert server.ranges == []  # it is all there
    elif present == len(CONTENT) and resumes:
        assert server.sent == []  # the server says that it is


def test_another_piece_than_was_asked_for_is_not_taken(server, waits, tmp_path):
    server.pages["/toy.tar.gz"] = CONTENT
    server.failures = [(206, {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"})]
    (tmp_path / "toy.tar.gz.part").write_bytes(CONTENT[:10])
    file = toy_file(f"{server.address}/toy.tar.gz")
    assert fetch(file, tmp_path / "toy.tar.gz").read_bytes() == CONTENT and waits == []
    assert server.ranges == ["bytes=10-", None]


# A full disk


def test_room_is_looked_for_before_starting(server, mirror, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    server.pages["/toy.tar.gz"] = CONTENT
    file = toy_file(f"{server.address}/toy.tar.gz")
    (tmp_path / "toy.tar.gz.part").write_bytes(CONTENT[:280_000])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(999_999))
    with pytest.raises(OSError, match=r": 1 MB free, toy.tar.gz needs 1 MB: free some space"):
        fetch(file, tmp_path / "toy.tar.gz")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1_000_000))
    assert fetch(file, tmp_path / "toy.tar.gz").read_bytes() == CONTENT

    archive = toy_archive(md5_of(TOY))  # needs 1.1 times its size again when unpacked
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2.09 * len(TOY)))
    with pytest.raises(OSError, match="toy.tar.gz needs"):
        download_archive(archive, tmp_path / "corpus", str(mirror))
    assert only_files(tmp_path / "corpus") == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2.11 * len(TOY)))
    download_archive(archive, tmp_path / "corpus", str(mirror))
    shutil.rmtree(tmp_path / "corpus" / "toy")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1.09 * len(TOY)))
    with pytest.raises(OSError, match="unpacking toy.tar.gz needs"):
        unpack_archive(archive, tmp_path / "corpus")
    assert only_files(tmp_path / "corpus") == ["toy.tar.gz"]


def test_disk_that_is_full_when_it_is_asked_at_last(server, waits, tmp_path, monkeypatch):
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.pages["/toy.tar.gz"] = CONTENT
    file = toy_file(DEAD.replace(":9/", ":9/x/"), f"{server.address}/toy.tar.gz")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left on device while fetching"):
        patched.setattr(os, "fsync", fsync)
        fetch(file, tmp_path / "toy.tar.gz")
    assert only_files(tmp_path) == ["toy.tar.gz.part"]
    assert fetch(file, tmp_path / "toy.tar.gz").read_bytes() == CONTENT


# Archives


# The command

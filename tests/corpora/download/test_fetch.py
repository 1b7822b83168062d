"""Fetching: what arrives is whole and right, or is not there, whoever breaks off and when."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from refused import refused
from toy_archives import TOY, file_entry, link_entry, only_files, tar_of, tree

from speechattn.commands.main import main
from speechattn.corpora.download import fetch as download
from speechattn.corpora.download import transfer, unpack
from speechattn.corpora.download.fetch import (
    Archive,
    DownloadError,
    RemoteFile,
    download_archive,
    fetch,
    openslr_urls,
    unpack_archive,
)
from speechattn.corpora.download.unpack import ArchiveError

CONTENT = np.random.default_rng(0).bytes(1_280_000)  # some twenty blocks
PATH = "server/7/toy.tar.gz"
DEAD = "http://127.0.0.1:9/7/toy.tar.gz"  # nobody listens


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def toy_archive(md5: str | None = None, url: str = DEAD) -> Archive:
    return Archive(urls=(url,), mirror_path=PATH, root="toy", landmark="wav.scp", md5=md5)


def toy_file(*urls: str, content: bytes | None = CONTENT, size: int | None = None) -> RemoteFile:
    return RemoteFile(urls=urls, mirror_path="toy.tar.gz", size=size, md5=None if content is None else md5_of(content))


@pytest.fixture
def mirror(tmp_path):
    """A folder that stands for the servers, with the toy archive in it."""
    folder = tmp_path / "mirror"
    (folder / PATH).parent.mkdir(parents=True)
    (folder / PATH).write_bytes(TOY)
    return folder


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The waits before another attempt, recorded instead of slept."""
    seconds: list[float] = []
    monkeypatch.setattr(download, "sleep", seconds.append)
    return seconds


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


def test_download_archive_fetches_only_what_is_missing(mirror, tmp_path):
    corpus_dir, archive = tmp_path / "corpus", toy_archive(md5_of(TOY))
    root = download_archive(archive, corpus_dir, str(mirror))
    assert root == corpus_dir / "toy"
    assert only_files(root) == [".complete-toy.tar.gz", "WAVE", "wav.scp"]
    assert only_files(corpus_dir) == ["toy", "toy.tar.gz"]
    (mirror / PATH).unlink()
    before = tree(corpus_dir)
    assert download_archive(archive, corpus_dir, str(mirror)) == root
    assert download_archive(archive, root, str(mirror)) == root  # the root itself may be given
    assert tree(corpus_dir) == before
    shutil.rmtree(root)
    assert download_archive(archive, corpus_dir, str(mirror)) == root  # from the archive that lies there


def test_archive_of_unknown_content_has_a_root_of_its_own(mirror, tmp_path):
    with zipfile.ZipFile(mirror / "labels.zip", "w") as file:
        file.writestr("dev/a.TextGrid", "a")
    archive = Archive(urls=(DEAD,), mirror_path="labels.zip", root="alignments")
    with pytest.raises(ValueError, match=r"holds neither labels.zip nor its folder alignments/; add --download"):
        unpack_archive(archive, tmp_path)
    root = download_archive(archive, tmp_path / "corpus", str(mirror))
    assert tree(root) == {"dev/a.TextGrid": b"a", ".complete-labels.zip": b""}
    (tmp_path / "corpus" / "labels.zip").unlink()
    assert download_archive(archive, tmp_path / "corpus", str(mirror)) == root


def test_unpack_archive_refuses_a_folder_that_is_no_corpus_and_completes_half_a_copy(tmp_path):
    (tmp_path / "holiday.txt").touch()
    with pytest.raises(ValueError, match=r"holds neither toy.tar.gz nor its folder toy/ with wav.scp; add --download"):
        unpack_archive(toy_archive(), tmp_path)
    (tmp_path / "toy" / "WAVE").mkdir(parents=True)
    (tmp_path / "toy.tar.gz").write_bytes(TOY)
    assert (unpack_archive(toy_archive(), tmp_path) / "WAVE" / "a.wav").read_bytes() == b"sound"


def test_bad_archive_is_not_kept_unless_the_user_brought_it(mirror, tmp_path):
    (mirror / PATH).write_bytes(TOY[:-10])
    with pytest.raises(ArchiveError, match="damaged"):
        download_archive(toy_archive(), tmp_path / "corpus", str(mirror))
    assert only_files(tmp_path / "corpus") == []
    (tmp_path / "corpus" / "toy.tar.gz").write_bytes(TOY[:-10])
    with pytest.raises(ArchiveError, match="damaged"):
        download_archive(toy_archive(), tmp_path / "corpus", str(mirror))
    assert only_files(tmp_path / "corpus") == ["toy.tar.gz"]


def test_threads_at_once_end_in_one_download(server, tmp_path):
    server.pages["/toy.tar.gz"] = TOY
    archive = toy_archive(md5_of(TOY), f"{server.address}/toy.tar.gz")
    with ThreadPoolExecutor(8) as pool:
        roots = list(pool.map(lambda _: download_archive(archive, tmp_path), range(8)))
    assert set(roots) == {tmp_path / "toy"}
    assert server.ranges == [None]
    assert only_files(tmp_path) == ["toy", "toy.tar.gz"]


def test_threads_at_once_unpack_once(tmp_path, monkeypatch):
    (tmp_path / "toy.tar.gz").write_bytes(TOY)
    calls, another = [], threading.Barrier(2)

    def extract_late(path: Path, root: Path, landmark: str | None) -> Path:
        calls.append(path)
        with contextlib.suppress(threading.BrokenBarrierError):
            another.wait(0.2)  # leaves time for another to come here, too
        return unpack.extract(path, root, landmark)

    monkeypatch.setattr(download, "extract", extract_late)
    with ThreadPoolExecutor(4) as pool:
        roots = list(pool.map(lambda _: unpack_archive(toy_archive(), tmp_path), range(4)))
    assert set(roots) == {tmp_path / "toy"} and len(calls) == 1
    assert tree(tmp_path / "toy")["WAVE/a.wav"] == b"sound"


# The command

TIMIT_PATH = "/nltk_data/packages/corpora/timit.zip"


def timit_zip() -> bytes:
    """A zip file of 1.3 MB with the TIMIT sample's landmark."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(zipfile.ZipInfo("timit/dr1-fvmh0/sa1.wav"), CONTENT)  # dated 1980: always the same bytes
    return buffer.getvalue()


def serve(server, path: str, content: bytes, *, as_published: bytes | None = None) -> None:
    server.pages |= {path: content, f"{path}.md5": md5_of(as_published or content).encode()}


def test_flipped_byte_is_one_line_and_no_file(server, tmp_path, capsys):
    content = timit_zip()
    damaged = bytearray(content)
    damaged[700_000] ^= 1
    serve(server, TIMIT_PATH, bytes(damaged), as_published=content)
    line = refused(capsys, "download", "timit_sample", "--corpus-dir", tmp_path, "--mirror", server.address)
    assert "checksum does not match" in line
    assert only_files(tmp_path) == []


def test_flipped_byte_without_a_checksum_is_one_line_and_no_file(server, tmp_path, capsys):
    noise = np.random.default_rng(1).bytes(50_000)
    damaged = bytearray(tar_of(file_entry("speechocean762/train/wav.scp"), file_entry("speechocean762/a", noise)))
    damaged[len(damaged) // 2] ^= 1
    server.pages["/openslr/101/speechocean762.tar.gz"] = bytes(damaged)
    line = refused(capsys, "download", "speechocean762", "--corpus-dir", tmp_path, "--mirror", server.address)
    assert "speechocean762.tar.gz: damaged or cut short" in line
    assert only_files(tmp_path) == []


def test_web_page_is_one_line_and_no_file(server, tmp_path, capsys):
    server.pages[TIMIT_PATH] = b"<!DOCTYPE html>\n<p>Sign in"
    line = refused(capsys, "download", "timit_sample", "--corpus-dir", tmp_path, "--mirror", server.address)
    assert "returned a web page" in line
    assert only_files(tmp_path) == []


@pytest.mark.parametrize(
    "hostile",
    [
        file_entry("../evil"),
        file_entry("/tmp/evil"),
        link_entry("speechocean762/link", "/etc"),
        link_entry("speechocean762/device", "", b"3"),
    ],
    ids=["up", "absolute", "link", "device"],
)
def test_hostile_archive_is_one_line_and_no_file(server, tmp_path, capsys, hostile):
    content = tar_of(file_entry("speechocean762/train/wav.scp"), hostile)
    serve(server, "/openslr/101/speechocean762.tar.gz", content)
    line = refused(capsys, "download", "speechocean762", "--corpus-dir", tmp_path / "a", "--mirror", server.address)
    assert "speechocean762.tar.gz: refused: " in line
    assert only_files(tmp_path / "a") == [] and only_files(tmp_path) == ["a"]


@pytest.mark.parametrize("announces", [True, False])
def test_full_disk_is_one_line_and_what_came_is_kept(server, tmp_path, capsys, announces):
    serve(server, TIMIT_PATH, timit_zip())
    server.announces = announces
    command = ("download", "timit_sample", "--corpus-dir", tmp_path, "--mirror", server.address)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))  # a file that cannot grow, as on a full disk
    try:
        line = refused(capsys, *command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large while fetching" in line and "timit.zip.part" in line
    assert only_files(tmp_path) == ["timit.zip.part"]
    assert (tmp_path / "timit.zip.part").stat().st_size == 600_000
    main([str(argument) for argument in command])
    assert server.ranges[-1] == "bytes=600000-"
    assert (tmp_path / "timit.zip").read_bytes() == timit_zip()


def wait_until(condition, process) -> None:
    """Look again and again whether something has come about, as long as the process lives."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_killed_half_way_and_restarted_it_fetches_what_was_missing(server, tmp_path):
    content = timit_zip()
    serve(server, TIMIT_PATH, content)
    part, half = tmp_path / "timit.zip.part", len(content) // 2
    server.holds_at = half
    command = [sys.executable, "-m", "speechattn", "download", "timit_sample", "--mirror", server.address]
    command += ["--corpus-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: part.exists() and part.stat().st_size >= half - 2 * transfer.BLOCK_BYTES, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert only_files(tmp_path) == ["timit.zip.part"]
    present = part.stat().st_size
    assert content.startswith(part.read_bytes())

    server.holds_at = None
    server.released.set()
    server.ranges.clear()
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert (tmp_path / "timit.zip").read_bytes() == content
    assert tree(tmp_path / "timit") == {"dr1-fvmh0/sa1.wav": CONTENT, ".complete-timit.zip": b""}
    assert only_files(tmp_path) == ["timit", "timit.zip"]
    assert server.ranges == [None, f"bytes={present}-"]  # the checksum, and the rest
    assert server.sent[-1] == len(content) - present


def test_two_processes_at_once_end_in_one_right_file(server, tmp_path):
    server.pages["/toy.tar.gz"] = content = tar_of(file_entry("toy/wav.scp"), file_entry("toy/a", CONTENT))
    server.holds_at = len(content) // 2
    script = (
        "import logging, sys, pathlib; from speechattn.corpora.download.fetch import Archive, download_archive;"
        "logging.basicConfig(level='INFO');"
        f"file = Archive(urls=('{server.address}/toy.tar.gz',), mirror_path='toy.tar.gz', md5='{md5_of(content)}',"
        "root='toy', landmark='wav.scp'); download_archive(file, pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command) as first:
        wait_until(server.held.is_set, first)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
            assert "waiting for the process that works on it" in second.stderr.readline()
            server.released.set()
            assert first.wait() == 0 and second.wait() == 0
    assert server.ranges == [None]
    assert (tmp_path / "toy.tar.gz").read_bytes() == content
    assert tree(tmp_path / "toy") == {"wav.scp": b"a a.wav\n", "a": CONTENT, ".complete-toy.tar.gz": b""}
    assert only_files(tmp_path) == ["toy", "toy.tar.gz"]

import io
import resource
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from refused import refused
from toy_archives import file_entry, link_entry, only_files, tar_of, tree
from toy_downloads import CONTENT, md5_of

from speechattn.commands.main import main
from speechattn.corpora.download import transfer

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

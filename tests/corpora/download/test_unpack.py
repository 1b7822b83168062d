"""Unpacking: an archive's content is there whole or not at all, and nowhere else."""

import gzip
import os
import resource
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from toy_archives import TOY, file_entry, link_entry, only_files, tar_of, tree, write_zip

from speechattn.corpora.download import unpack
from speechattn.corpora.download.unpack import ArchiveError, extract


def test_content_appears_with_its_marker(tmp_path):
    (tmp_path / "toy.tar.gz").write_bytes(TOY)
    assert extract(tmp_path / "toy.tar.gz", tmp_path / "toy", "wav.scp") == tmp_path / "toy"
    assert tree(tmp_path / "toy") == {"wav.scp": b"a a.wav\n", "WAVE/a.wav": b"sound", ".complete-toy.tar.gz": b""}
    assert only_files(tmp_path) == ["toy", "toy.tar.gz"]


def test_zip_without_a_folder_of_its_own_gets_one(tmp_path):
    write_zip(tmp_path / "labels.zip", ("dev/a.txt", "a"), ("b.txt", "b"))
    for landmark in (None, "dev/a.txt"):
        root = extract(tmp_path / "labels.zip", tmp_path / f"labels {landmark}".split("/")[0], landmark)
        assert tree(root) == {"dev/a.txt": b"a", "b.txt": b"b", ".complete-labels.zip": b""}


@pytest.mark.parametrize("kept", [0, 5, 100, len(TOY) - 4])
def test_truncated_tar_leaves_nothing(tmp_path, kept):
    (tmp_path / "toy.tar.gz").write_bytes(TOY[:kept])
    with pytest.raises(ArchiveError, match=r"toy.tar.gz: damaged or cut short") as caught:
        extract(tmp_path / "toy.tar.gz", tmp_path / "toy")
    assert "\n" not in str(caught.value)
    assert only_files(tmp_path) == ["toy.tar.gz"]


def test_damage_in_the_middle_of_a_tar_is_noticed(tmp_path):
    noise = np.random.default_rng(0).bytes(5000)
    content = bytearray(tar_of(file_entry("toy/wav.scp"), file_entry("toy/a", noise)))
    content[len(content) // 2] ^= 1
    (tmp_path / "toy.tar.gz").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"toy.tar.gz: damaged or cut short"):
        extract(tmp_path / "toy.tar.gz", tmp_path / "toy")
    assert only_files(tmp_path) == ["toy.tar.gz"]


@pytest.mark.parametrize(
    "content", [b"no archive at all" * 99, gzip.compress(b"no tar inside" * 99)], ids=["text", "gzip"]
)
def test_something_else_is_no_archive(tmp_path, content):
    (tmp_path / "toy.tar.gz").write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged or cut short"):
        extract(tmp_path / "toy.tar.gz", tmp_path / "toy")
    assert only_files(tmp_path) == ["toy.tar.gz"]


@pytest.mark.parametrize(
    "hostile",
    [
        file_entry("../evil"),
        file_entry("toy/../../evil"),
        file_entry("/evil"),
        link_entry("toy/link", "/etc"),
        link_entry("toy/link", "../../.."),
        link_entry("toy/link", "../../evil", tarfile.LNKTYPE),
        link_entry("toy/device", "", tarfile.CHRTYPE),
        link_entry("toy/disk", "", tarfile.BLKTYPE),
        link_entry("toy/pipe", "", tarfile.FIFOTYPE),
    ],
    ids=["up", "inside-up", "absolute", "absolute-link", "link-up", "hard-link", "device", "block-device", "pipe"],
)
def test_hostile_tar_is_refused(tmp_path, hostile):
    folder = tmp_path / "a" / "corpus"
    folder.mkdir(parents=True)
    (folder / "toy.tar.gz").write_bytes(tar_of(file_entry("toy/wav.scp"), hostile))
    with pytest.raises(ArchiveError, match=r"toy.tar.gz: refused: "):
        extract(folder / "toy.tar.gz", folder / "toy")
    assert only_files(folder) == ["toy.tar.gz"]
    assert only_files(tmp_path) == ["a"] and only_files(tmp_path / "a") == ["corpus"]


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "toy/../../evil", "..\\evil", "C:\\evil", "\\\\host\\share\\evil"]
)
def test_hostile_zip_is_refused(tmp_path, name):
    write_zip(tmp_path / "toy.zip", ("toy/wav.scp", "a a.wav\n"), (name, "evil"))
    with pytest.raises(ArchiveError, match=r"toy.zip: refused: .* lies outside the folder"):
        extract(tmp_path / "toy.zip", tmp_path / "toy")
    assert only_files(tmp_path) == ["toy.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, kind):
    entry = zipfile.ZipInfo("toy/special")
    entry.external_attr = (kind | 0o777) << 16
    write_zip(tmp_path / "toy.zip", ("toy/wav.scp", "a a.wav\n"), (entry, "/etc"))
    with pytest.raises(ArchiveError, match=r"'toy/special' is neither a file nor a folder"):
        extract(tmp_path / "toy.zip", tmp_path / "toy")
    assert only_files(tmp_path) == ["toy.zip"]


def test_truncated_or_locked_zip_is_refused(tmp_path):
    write_zip(tmp_path / "toy.zip", ("toy/wav.scp", "a a.wav\n"))
    content = bytearray((tmp_path / "toy.zip").read_bytes())
    (tmp_path / "half.zip").write_bytes(content[:60])
    with pytest.raises(ArchiveError, match=r"half.zip: damaged or cut short"):
        extract(tmp_path / "half.zip", tmp_path / "half")
    content[6] |= 1  # the flag of an entry that needs a password, where it begins and in the table
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"locked.zip: cannot be unpacked .*password"):
        extract(tmp_path / "locked.zip", tmp_path / "toy")
    assert only_files(tmp_path) == ["half.zip", "locked.zip", "toy.zip"]


def test_archive_of_something_else_is_refused(tmp_path):
    (tmp_path / "toy.tar.gz").write_bytes(tar_of(file_entry("other/wav.scp")))
    with pytest.raises(ArchiveError, match=r"holds no toy/wav.scp: it is another archive"):
        extract(tmp_path / "toy.tar.gz", tmp_path / "toy", "wav.scp")
    assert only_files(tmp_path) == ["toy.tar.gz"]


def test_archives_share_a_root(tmp_path):
    for subset, readme in (("dev", b"old"), ("train", b"new")):
        members = (file_entry("toy/README", readme), file_entry(f"toy/{subset}/1/a.flac", subset.encode()))
        (tmp_path / f"{subset}.tar.gz").write_bytes(tar_of(*members))
        extract(tmp_path / f"{subset}.tar.gz", tmp_path / "toy", subset)
    assert tree(tmp_path / "toy") == {
        "README": b"new",
        "dev/1/a.flac": b"dev",
        "train/1/a.flac": b"train",
        ".complete-dev.tar.gz": b"",
        ".complete-train.tar.gz": b"",
    }


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "WAVE").write_text("no folder")
    (tmp_path / "toy.tar.gz").write_bytes(TOY)
    with pytest.raises(OSError, match=r"toy/WAVE: is in the way"):
        extract(tmp_path / "toy.tar.gz", tmp_path / "toy", "wav.scp")
    assert tree(tmp_path / "toy") == {"WAVE": b"no folder"}


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("before", [[], ["README"], ["README", "train/1/a.flac", "zoo/y"]], ids=len)
@pytest.mark.parametrize("landmark", ["train/wav.scp", "train/2", "zoo/z"])
def test_killed_while_moving_it_ends_in_the_same_files(tmp_path, monkeypatch, before, landmark):
    names = ["README", "train/1/a.flac", "train/2/b.flac", "train/wav.scp", "zoo/z"]
    content = tar_of(*(file_entry(f"toy/{name}", name.encode()) for name in names))
    wanted = dict.fromkeys(before, b"old") | {name: name.encode() for name in names} | {".complete-toy.tar.gz": b""}
    really_replace, really_clear = os.replace, unpack._clear

    for num_moves in range(10):
        folder = tmp_path / str(num_moves)
        for name in before:
            (folder / "toy" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "toy" / name).write_bytes(b"old")
        folder.mkdir(exist_ok=True)
        (folder / "toy.tar.gz").write_bytes(content)
        moves = []

        def replace(source, target, moves=moves, limit=num_moves):
            if len(moves) == limit:
                raise KilledError
            moves.append(target)
            really_replace(source, target)

        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(unpack, "_clear", lambda folder: None)  # a killed process clears nothing
        try:
            extract(folder / "toy.tar.gz", folder / "toy", landmark)
            killed = False
        except KilledError:
            killed = True
        monkeypatch.setattr(os, "replace", really_replace)
        monkeypatch.setattr(unpack, "_clear", really_clear)
        there = tree(folder / "toy")
        assert (folder / "toy" / landmark).exists() <= (wanted == {**there, ".complete-toy.tar.gz": b""})
        assert (".complete-toy.tar.gz" in there) <= (there == wanted)
        if not killed:
            assert num_moves >= (4 if before else 1)
            break
        extract(folder / "toy.tar.gz", folder / "toy", landmark)
        assert tree(folder / "toy") == wanted
        assert only_files(folder) == ["toy", "toy.tar.gz"]
    assert not killed


def test_full_disk_while_unpacking_leaves_nothing(tmp_path):
    (tmp_path / "toy.tar.gz").write_bytes(tar_of(file_entry("toy/wav.scp"), file_entry("toy/a", bytes(3_000_000))))
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large while unpacking .*toy.tar.gz") as caught:
            extract(tmp_path / "toy.tar.gz", tmp_path / "toy", "wav.scp")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert only_files(tmp_path) == ["toy.tar.gz"]

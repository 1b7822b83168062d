import contextlib
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from toy_archives import TOY, only_files, tree
from toy_downloads import DEAD, PATH, md5_of, toy_archive

from speechattn.corpora.download import fetch as download
from speechattn.corpora.download import unpack
from speechattn.corpora.download.fetch import (
    Archive,
    download_archive,
    unpack_archive,
)
from speechattn.corpora.download.unpack import ArchiveError


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

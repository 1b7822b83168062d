"""Fetching and unpacking: what arrives is whole and right, or is not there."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from speechattn.corpora.download import Archive, DownloadError, download_archive, extract, fetch, unpacked

CONTENT = bytes(range(256)) * 5000  # more than one block
PATH = "server/7/toy.tar.gz"


def toy_archive(md5: str | None = None, url: str = "http://127.0.0.1:9/7/toy.tar.gz") -> Archive:
    return Archive(url=url, mirror_path=PATH, root="toy", landmark="wav.scp", md5=md5)


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def file_entry(name: str, content: bytes = b"a a.wav\n") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def link_entry(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


TOY = tar_of(file_entry("toy/wav.scp"), file_entry("toy/WAVE/a.wav", b"sound"))


@pytest.fixture
def mirror(tmp_path):
    """A folder that stands for the servers, with the toy archive in it."""
    folder = tmp_path / "mirror"
    (folder / PATH).parent.mkdir(parents=True)
    (folder / PATH).write_bytes(TOY)
    return folder


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.pages`: path -> bytes; notes the Range header of every request."""

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        content = self.server.pages.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if self.server.resumes and (header := self.headers.get("Range")):
            start = int(header.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if self.path.endswith(".gz"):
            self.send_header("Content-Encoding", "gzip")  # some servers do, though the file is meant as it is
        self.end_headers()
        self.wfile.write(content[start : self.server.breaks_at])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A loopback server; `address`, `pages`, `ranges`, `resumes`, `breaks_at` are its to set and read."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.pages, server.ranges, server.resumes, server.breaks_at = {}, [], True, None
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def only_files(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetch_from_official_address(server, tmp_path):
    server.pages["/7/toy.tar.gz"] = CONTENT
    archive = toy_archive(md5_of(CONTENT), f"{server.address}/7/toy.tar.gz")
    target = fetch(archive, tmp_path / "new" / "toy.tar.gz")
    assert target.read_bytes() == CONTENT
    assert only_files(target.parent) == ["toy.tar.gz"]
    assert server.ranges == [None]


def test_fetch_from_http_mirror_asks_for_its_checksum(server, tmp_path):
    server.pages |= {
        f"/base/{PATH}": CONTENT,
        f"/base/{PATH}.md5": f"{md5_of(CONTENT)}  toy.tar.gz\n".encode(),
    }
    archive = toy_archive(md5_of(b"what is official"))
    assert fetch(archive, tmp_path / "toy.tar.gz", f"{server.address}/base/").read_bytes() == CONTENT


def test_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.pages["/toy.tar.gz"] = CONTENT
    archive = toy_archive(md5_of(CONTENT), f"{server.address}/toy.tar.gz")
    server.breaks_at = 1_100_000
    with pytest.raises(DownloadError, match="the connection broke; run it again"):
        fetch(archive, tmp_path / "toy.tar.gz")
    (part,) = tmp_path.iterdir()
    assert part.name == "toy.tar.gz.part"
    present = part.stat().st_size
    assert present > 0
    server.breaks_at = None
    assert fetch(archive, tmp_path / "toy.tar.gz").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={present}-"]
    assert only_files(tmp_path) == ["toy.tar.gz"]


@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize("present", [10, len(CONTENT)])
def test_any_part_file_and_server_give_the_whole(server, tmp_path, resumes, present):
    server.pages["/toy.tar.gz"], server.resumes = CONTENT, resumes
    (tmp_path / "toy.tar.gz.part").write_bytes(CONTENT[:present])
    archive = toy_archive(md5_of(CONTENT), f"{server.address}/toy.tar.gz")
    assert fetch(archive, tmp_path / "toy.tar.gz").read_bytes() == CONTENT


def test_without_a_checksum_nothing_is_pieced_together(server, tmp_path, capsys):
    server.pages["/toy.tar.gz"] = CONTENT
    (tmp_path / "toy.tar.gz.part").write_bytes(b"of another version")
    fetch(toy_archive(None, f"{server.address}/toy.tar.gz"), tmp_path / "toy.tar.gz")
    assert (tmp_path / "toy.tar.gz").read_bytes() == CONTENT
    assert f"no checksum is published; sha256 of what came: {hashlib.sha256(CONTENT).hexdigest()}" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>Sign in", b"\n <HTML><body>"])
def test_web_page_is_refused(server, tmp_path, page):
    server.pages["/toy.tar.gz"] = page
    with pytest.raises(DownloadError, match="gave a web page instead of the file"):
        fetch(toy_archive(None, f"{server.address}/toy.tar.gz"), tmp_path / "toy.tar.gz")
    assert only_files(tmp_path) == []


def test_missing_file_and_dead_server_are_one_line(server, tmp_path):
    with pytest.raises(DownloadError, match="the server answered 404"):
        fetch(toy_archive(None, f"{server.address}/nothing"), tmp_path / "toy.tar.gz")
    with pytest.raises(DownloadError, match="cannot be reached") as caught:
        fetch(toy_archive(), tmp_path / "toy.tar.gz")  # port 9: nobody listens
    assert "\n" not in str(caught.value)
    with pytest.raises(DownloadError, match="no such file at the mirror"):
        fetch(toy_archive(), tmp_path / "toy.tar.gz", str(tmp_path))
    assert only_files(tmp_path) == []


def test_wrong_checksum_leaves_nothing(mirror, tmp_path):
    target = tmp_path / "corpus" / "toy.tar.gz"
    with pytest.raises(DownloadError, match=f"md5 {md5_of(TOY)}, expected {'0' * 32}"):
        fetch(toy_archive("0" * 32), target, str(mirror))
    assert only_files(target.parent) == []


def test_mirror_checksum_replaces_the_catalogue_s(mirror, tmp_path):
    (mirror / f"{PATH}.md5").write_text(f"{md5_of(TOY).upper()}\n")
    fetch(toy_archive("0" * 32), tmp_path / "a", str(mirror))
    (mirror / f"{PATH}.md5").write_text(f"{'1' * 32} *toy.tar.gz\n")
    with pytest.raises(DownloadError, match=f"expected {'1' * 32}"):
        fetch(toy_archive(md5_of(TOY)), tmp_path / "b", str(mirror))
    (mirror / f"{PATH}.md5").write_text("<html>no such thing</html>")
    with pytest.raises(DownloadError, match=r"toy.tar.gz.md5: is no md5 file"):
        fetch(toy_archive(md5_of(TOY)), tmp_path / "b", str(mirror))


def test_official_address_never_gets_another_checksum(server, tmp_path):
    server.pages |= {"/toy.tar.gz": CONTENT, "/toy.tar.gz.md5": md5_of(CONTENT).encode()}
    with pytest.raises(DownloadError, match="checksum does not match"):
        fetch(toy_archive("0" * 32, f"{server.address}/toy.tar.gz"), tmp_path / "toy.tar.gz")


def test_download_archive_fetches_only_what_is_missing(mirror, tmp_path):
    corpus_dir, archive = tmp_path / "corpus", toy_archive(md5_of(TOY))
    root = download_archive(archive, corpus_dir, str(mirror))
    assert root == corpus_dir / "toy"
    assert only_files(root) == [".complete", "WAVE", "wav.scp"]
    assert only_files(corpus_dir) == ["toy", "toy.tar.gz"]
    (mirror / PATH).unlink()
    assert download_archive(archive, corpus_dir, str(mirror)) == root
    assert download_archive(archive, root, str(mirror)) == root  # the root itself may be given
    (root / "wav.scp").unlink()
    (root / "WAVE" / "a.wav").unlink()
    (root / "WAVE").rmdir()
    (root / ".complete").unlink()
    root.rmdir()
    assert download_archive(archive, corpus_dir, str(mirror)) == root  # from the archive that lies there


def test_unpacked_refuses_a_folder_that_is_no_corpus(tmp_path):
    (tmp_path / "holiday.txt").touch()
    with pytest.raises(ValueError, match=r"holds neither toy.tar.gz nor its folder toy/ .* add --download"):
        unpacked(toy_archive(), tmp_path)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy.tar.gz").write_bytes(TOY)
    with pytest.raises(ValueError, match=r"toy: is in the way"):
        unpacked(toy_archive(), tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, len(TOY) - 4])
def test_truncated_tar_leaves_nothing(tmp_path, kept):
    (tmp_path / "toy.tar.gz").write_bytes(TOY[:kept])
    with pytest.raises(DownloadError, match=r"toy.tar.gz: damaged or cut short") as caught:
        extract(tmp_path / "toy.tar.gz", tmp_path / "toy")
    assert "\n" not in str(caught.value)
    assert only_files(tmp_path) == ["toy.tar.gz"]


def test_damage_in_the_middle_of_a_tar_is_noticed(tmp_path):
    noise = np.random.default_rng(0).bytes(5000)
    content = bytearray(tar_of(file_entry("toy/wav.scp"), file_entry("toy/a", noise)))
    content[len(content) // 2] ^= 1
    (tmp_path / "toy.tar.gz").write_bytes(content)
    with pytest.raises(DownloadError, match=r"toy.tar.gz: damaged or cut short"):
        extract(tmp_path / "toy.tar.gz", tmp_path / "toy")
    assert only_files(tmp_path) == ["toy.tar.gz"]


@pytest.mark.parametrize("content", [b"no archive at all" * 99, gzip.compress(b"no tar inside" * 99)])
def test_something_else_is_no_archive(tmp_path, content):
    (tmp_path / "toy.tar.gz").write_bytes(content)
    with pytest.raises(DownloadError, match="damaged or cut short"):
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
        link_entry("toy/pipe", "", tarfile.FIFOTYPE),
    ],
    ids=["up", "inside-up", "absolute", "absolute-link", "link-up", "hard-link", "device", "pipe"],
)
def test_hostile_tar_is_refused(tmp_path, hostile):
    folder = tmp_path / "a" / "corpus"
    folder.mkdir(parents=True)
    (folder / "toy.tar.gz").write_bytes(tar_of(file_entry("toy/wav.scp"), hostile))
    with pytest.raises(DownloadError, match=r"toy.tar.gz: refused: "):
        extract(folder / "toy.tar.gz", folder / "toy")
    assert only_files(folder) == ["toy.tar.gz"]
    assert only_files(tmp_path) == ["a"] and only_files(tmp_path / "a") == ["corpus"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "toy/../../evil", "..\\evil"])
def test_hostile_zip_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "toy.zip", "w") as file:
        file.writestr("toy/wav.scp", "a a.wav\n")
        file.writestr(name, "evil")
    with pytest.raises(DownloadError, match=r"toy.zip: refused: .* lies outside the folder"):
        extract(tmp_path / "toy.zip", tmp_path / "toy")
    assert only_files(tmp_path) == ["toy.zip"]


def test_zip_is_unpacked_once_and_a_truncated_one_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "toy.zip", "w") as file:
        file.writestr("toy/wav.scp", "a a.wav\n")
    assert (extract(tmp_path / "toy.zip", tmp_path / "toy") / "wav.scp").read_text() == "a a.wav\n"
    (tmp_path / "toy" / "wav.scp").write_text("kept")
    assert (extract(tmp_path / "toy.zip", tmp_path / "toy") / "wav.scp").read_text() == "kept"
    (tmp_path / "half.zip").write_bytes((tmp_path / "toy.zip").read_bytes()[:60])
    with pytest.raises(DownloadError, match=r"half.zip: damaged or cut short"):
        extract(tmp_path / "half.zip", tmp_path / "half")


def test_archive_of_something_else_is_refused(tmp_path):
    (tmp_path / "toy.tar.gz").write_bytes(tar_of(file_entry("other/wav.scp")))
    with pytest.raises(DownloadError, match=r"holds no folder toy/: it is another archive"):
        extract(tmp_path / "toy.tar.gz", tmp_path / "toy")
    assert only_files(tmp_path) == ["toy.tar.gz"]

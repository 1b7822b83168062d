"""Small archives, good and hostile, and listings of folders."""

import io
import tarfile
import zipfile
from pathlib import Path


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, str]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members:
            file.writestr(name, content)


def file_entry(name: str, content: bytes = b"a a.wav\n") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def link_entry(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


TOY = tar_of(file_entry("toy/wav.scp"), file_entry("toy/WAVE/a.wav", b"sound"))


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file below a folder, including hidden ones."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def only_files(folder: Path) -> list[str]:
    """The names in a folder, except for lock files, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")

"""Addresses, sizes and checksums of LibriSpeech, mini LibriSpeech and their published phone labels."""

from typing import NamedTuple

from speechattn.corpora.download.fetch import Archive, RemoteFile, openslr_urls

__all__ = ["CPC_LABELS", "CPC_TEST_LIST", "CPC_TRAIN_LIST", "MFA", "SUBSETS", "Subset"]


class Subset(NamedTuple):
    """A subset's archive, and the number of utterances in the published one."""

    archive: Archive
    num_utterances: int


def _subset(name: str, resource: str, num_utterances: int, size: int, md5: str) -> Subset:
    path = f"{resource}/{name}.tar.gz"
    urls, mirror_path = openslr_urls(path), f"openslr/{path}"
    archive = Archive(urls=urls, mirror_path=mirror_path, size=size, md5=md5, root="LibriSpeech", landmark=name)
    return Subset(archive, num_utterances)


SUBSETS = {
    "train-clean-100": _subset("train-clean-100", "12", 28539, 6387309499, "2a93770f6d5c6c964bc36631d331a522"),
    "train-clean-360": _subset("train-clean-360", "12", 104014, 23049477885, "c0e676e450a7ff2f54aeade5171606fa"),
    "train-other-500": _subset("train-other-500", "12", 148688, 30593501606, "d1a0fd59409feb2c614ce4d30c387708"),
    "dev-clean": _subset("dev-clean", "12", 2703, 337926286, "42e2234ba48799c1f50f24a7926300a1"),
    "dev-other": _subset("dev-other", "12", 2864, 314305928, "c8d0bcc9cca99d4f8b62fcc847357931"),
    "test-clean": _subset("test-clean", "12", 2620, 346663984, "32fa31d27d2e1cad72775fee3f4849a9"),
    "test-other": _subset("test-other", "12", 2939, 328757843, "fb5a50374b501bb3bac4815ee91d3135"),
    "train-clean-5": _subset("train-clean-5", "31", 1519, 332954390, "5df7d4e78065366204ca6845bb08f490"),
    "dev-clean-2": _subset("dev-clean-2", "31", 1089, 126046265, "6d7ab67ac6a1d2c993d050e16d61080d"),
}
MFA = Archive(
    urls=("https://zenodo.org/records/2619474/files/librispeech_alignments.zip?download=1",),
    mirror_path="zenodo/2619474/librispeech_alignments.zip",
    size=623023332,
    md5="2bab567d0ace651a4ba254e813629f46",
    root="librispeech_alignments",
    landmark=None,  # whether the archive has a top folder is unknown; `find_textgrids` searches all folders
    unpacked_factor=6,
)


def _s3prl(name: str, md5: str | None) -> RemoteFile:
    url = f"https://raw.githubusercontent.com/s3prl/s3prl/main/s3prl/downstream/phone_linear/data/{name}"
    return RemoteFile(urls=(url,), mirror_path=f"s3prl/phone_linear/{name}", md5=md5)


CPC_LABELS = _s3prl("converted_aligned_phones.txt", None)  # no checksum is known
CPC_TRAIN_LIST = _s3prl("train_split.txt", "6cdbf00c1efdcc1190d18643bd971f62")  # 22,830 utterances
CPC_TEST_LIST = _s3prl("test_split.txt", "5e26b06a32c883fc35b5f2bcb7c14cd9")  # 5,708 utterances

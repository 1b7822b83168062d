import hashlib

import numpy as np

from speechattn.corpora.download.fetch import (
    Archive,
    RemoteFile,
)

CONTENT = np.random.default_rng(0).bytes(1_280_000)  # some twenty blocks


PATH = "server/7/toy.tar.gz"


DEAD = "http://127.0.0.1:9/7/toy.tar.gz"  # nobody listens


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def toy_archive(md5: str | None = None, url: str = DEAD) -> Archive:
    return Archive(urls=(url,), mirror_path=PATH, root="toy", landmark="wav.scp", md5=md5)


def toy_file(*urls: str, content: bytes | None = CONTENT, size: int | None = None) -> RemoteFile:
    return RemoteFile(urls=urls, mirror_path="toy.tar.gz", size=size, md5=None if content is None else md5_of(content))

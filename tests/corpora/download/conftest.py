import pytest
from toy_archives import TOY
from toy_downloads import PATH

from speechattn.corpora.download import fetch as download


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

"""Kaldi's data folders: whole recordings and segments, and one line on whatever is wrong."""

from pathlib import Path

import pytest

from speechattn.corpora.kaldi_manifests import read_kaldi, read_table
from speechattn.corpora.matching import UnlabelledUtterance


def data_folder(folder: Path, **tables: str) -> Path:
    """A data folder of two speakers; tables that are given replace its own."""
    made = {"wav_scp": "r1 a.wav\nr2 b.wav\n", "utt2spk": "r1 anna\nr2 ben\n", "text": "r1 HELLO YOU\nr2\n"} | tables
    for name, content in made.items():
        (folder / name.replace("_", ".")).write_text(content)
    (folder / "a.wav").touch()
    return folder


def test_whole_recordings(tmp_path, monkeypatch):
    folder = data_folder(tmp_path)
    assert read_kaldi(folder) == [
        UnlabelledUtterance("r1", folder / "a.wav", "anna", "r1", "HELLO YOU"),
        UnlabelledUtterance("r2", folder / "b.wav", "ben", "r2", ""),
    ]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/b.wav").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_kaldi(folder)[1].audio == Path("b.wav")  # where the command runs goes first
    (folder / "text").unlink()
    assert [utterance.text for utterance in read_kaldi(folder)] == ["", ""]


def test_segments(tmp_path):
    folder = data_folder(tmp_path, segments="u1 r1 0.5 1.25\nu2 r1 1.5 -1\n", utt2spk="u1 anna\nu2 ben\n")
    assert read_kaldi(folder) == [
        UnlabelledUtterance("u1", folder / "a.wav", "anna", "u1", "", 0.5, 1.25),
        UnlabelledUtterance("u2", folder / "a.wav", "ben", "u2", "", 1.5, None),
    ]


@pytest.mark.parametrize(
    "tables, message",
    [
        ({"wav_scp": "r1 a.wav\nr2 sph2pipe -f wav b.wav |\n"}, "wav.scp:2: r2 is the output of a command"),
        ({"wav_scp": "r1\n"}, "wav.scp:1: expected a key and a value, found 'r1'"),
        ({"wav_scp": "r1 a.wav\nr1 b.wav\n"}, "wav.scp:2: r1 has a line already"),
        ({"utt2spk": "r1 anna\n"}, "utt2spk: has no line for utterance r2"),
        ({"segments": "r1 r9 0 1\n"}, "segments:1: recording r9 is not in wav.scp"),
        ({"segments": "r1 r1 1 1\n"}, "segments:1: expected a recording, a start and an end, found 'r1 1 1'"),
        ({"segments": "r1 r1 x 1\n"}, "segments:1: expected"),
        ({"segments": "r1 r1 0 1 A\n"}, "segments:1: expected"),
        ({"segments": "r1 r1 nan 1\n"}, "segments:1: expected"),
    ],
)
def test_damage_is_named(tmp_path, tables, message):
    with pytest.raises(ValueError, match=message):
        read_kaldi(data_folder(tmp_path, **tables))


def test_a_missing_table_is_named(tmp_path):
    data_folder(tmp_path)
    (tmp_path / "utt2spk").unlink()
    with pytest.raises(ValueError, match="utt2spk: no such file"):
        read_kaldi(tmp_path)
    with pytest.raises(ValueError, match="nothing: no such file"):
        read_table(tmp_path / "nothing")

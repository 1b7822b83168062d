"""Which files are meant, and the names of their results."""

import pytest

from speechattn.prediction.recordings import find_recordings


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "b.FLAC", "notes.txt", ".c.wav", "dr1/x.wav", "dr2/x.wav", "dr2/deep/y.mp3"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_is_all_audio_below_it_by_path(folder):
    expected = {"a": "a.wav", "b": "b.FLAC", "dr1/x": "dr1/x.wav", "dr2/deep/y": "dr2/deep/y.mp3", "dr2/x": "dr2/x.wav"}
    assert find_recordings([folder]) == {name: folder / path for name, path in expected.items()}
    assert list(find_recordings([folder])) == sorted(expected, key=lambda name: expected[name])


def test_patterns_are_resolved_and_files_are_taken_as_they_are(folder):
    assert find_recordings([f"{folder}/*.wav"]) == {"a": folder / "a.wav"}
    assert set(find_recordings([f"{folder}/dr2/**/*.mp3", folder / "gone.wav"])) == {"y", "gone"}
    odd = folder / "take[1].wav"
    odd.touch()
    assert find_recordings([odd]) == {"take[1]": odd}  # a file of that name goes before the pattern


def test_a_file_that_is_named_in_several_ways_is_taken_once(folder, monkeypatch):
    assert find_recordings([folder / "a.wav", folder / "a.wav"]) == {"a": folder / "a.wav"}
    monkeypatch.chdir(folder)
    (folder / "dr1/again").symlink_to(folder / "dr1")  # what `**` follows round and round
    assert set(find_recordings(["a.wav", folder / "a.wav", "dr1/**/*.wav"])) == {"a", "x"}


def test_duplicate_names_and_empty_folders_are_refused(folder):
    with pytest.raises(ValueError, match=r"x.wav and .*x.wav would both write x\.\*"):
        find_recordings([folder / "dr1/x.wav", folder / "dr2/x.wav"])
    with pytest.raises(ValueError, match="would both write"):
        find_recordings([f"{folder}/dr?/*.wav"])
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: the folder has no audio files"):
        find_recordings([folder / "empty"])
    with pytest.raises(ValueError, match="no file matches"):
        find_recordings([f"{folder}/*.ogg"])
    with pytest.raises(ValueError, match="no file matches"):
        find_recordings([f"{folder}/dr*"])  # folders
    with pytest.raises(ValueError, match="name of an audio file is empty"):
        find_recordings([""])  # not the folder that one is in

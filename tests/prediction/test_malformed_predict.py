"""Bad files among good ones: each gets its line, the good ones are done, nothing half-written, bounded memory."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from malformed_audio import fuzzed_files, malformed_files

from speechattn.audio import AUDIO_SUFFIXES
from speechattn.commands.main import main
from speechattn.model.classifier import FrameClassifier
from speechattn.prediction.files import FORMATS, POSTERIORS, OutputOptions, predict_files
from speechattn.prediction.recordings import find_recordings

MOST_MB = 1500
ALL_FORMATS = [*FORMATS, POSTERIORS]
ALL_SUFFIXES = [*(suffix for suffix, _ in FORMATS.values()), ".npy"]
# Prints its own peak of memory: that of getrusage may be of the process that started it.
RUN = """
import re, sys
from speechattn.commands.main import main
try:
    main(sys.argv[1:])
finally:
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)
"""


@pytest.fixture(scope="module")
def model(model_folder: Path) -> FrameClassifier:
    return FrameClassifier.from_pretrained(model_folder)


def noise(path: Path, seconds: float = 0.5, rate: int = 16000) -> Path:
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate)), rate)
    return path


def errors(stderr: str) -> list[str]:
    """The lines of ours; those of the decoder of MP3 are not."""
    return [line for line in stderr.splitlines() if line.startswith("speechattn: error: ")]


def written(folder: Path) -> list[str]:
    """All that lies there, temporary files and empty folders included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def test_a_folder_of_malformed_files_among_good_ones(model_folder: Path, model: FrameClassifier, tmp_path: Path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    bad = []
    for path in malformed_files(folder):  # a folder's recordings differ in more than their suffix, which shows audio
        suffix = path.suffix if path.suffix in AUDIO_SUFFIXES else ".wav"
        bad.append(path.rename(folder / f"{path.name}{suffix}"))
    assert len(bad) >= 200
    good = [
        noise(folder / name, rate=rate) for name, rate in (("0.wav", 16000), ("claims.flac", 44100), ("z.mp3", 8000))
    ]
    command = [sys.executable, "-c", RUN, "predict", str(folder), "--model", str(model_folder)]
    options = ["--format", ",".join(ALL_FORMATS), "--output", str(tmp_path / "out")]
    run = subprocess.run([*command, *options], capture_output=True, text=True)
    assert run.returncode == 2
    assert float(run.stdout) < MOST_MB
    lines = errors(run.stderr)
    assert [line.split(": ")[2] for line in lines] == sorted(map(str, bad))
    for line in lines:
        what = line.split(": ", 3)[3].removesuffix(f" ({len(bad)} of {len(bad) + 3} files failed)")
        assert 10 < len(what) < 150 and not re.search(r"Traceback|\w(Error|Exception)\b|errno|None", what), line
    assert lines[-1].endswith(f" ({len(bad)} of {len(bad) + 3} files failed)")
    assert "Traceback" not in run.stderr and "Warning" not in run.stderr.replace("Warning: Xing", "")
    assert written(tmp_path / "out") == sorted(path.stem + suffix for path in good for suffix in ALL_SUFFIXES)
    for path in good:
        segments = json.loads((tmp_path / "out" / f"{path.stem}.json").read_text())
        assert [segment["phone"] for segment in segments] == [segment.phone for segment in model.classify(path)]


def test_fuzzed_files_are_done_or_refused(model: FrameClassifier, tmp_path: Path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    recordings = {path.stem: path for path in fuzzed_files(folder, 100)}
    failures = predict_files(model, recordings, OutputOptions(ALL_FORMATS), output=tmp_path / "out", num_jobs=2)
    refused = {Path(failure.split(": ")[0]).stem for failure in failures}
    done = set(recordings) - refused
    assert len(refused) == len(failures) and len(done) >= 10 and len(refused) >= 10
    assert written(tmp_path / "out") == sorted(name + suffix for name in done for suffix in ALL_SUFFIXES)
    for name in done:
        assert np.isfinite(np.load(tmp_path / "out" / f"{name}.npy")).all()


@pytest.mark.parametrize("formats", [list(FORMATS), [POSTERIORS]])
@pytest.mark.parametrize("kind", ["NaN", "damaged"])
def test_what_is_wrong_after_a_minute_leaves_nothing(model: FrameClassifier, tmp_path: Path, formats, kind):
    path = noise(tmp_path / "a.wav", seconds=70, rate=8000)  # found in the second block
    samples, _ = soundfile.read(path, dtype="float32")
    if kind == "NaN":
        samples[61 * 8000] = np.nan
        soundfile.write(path, samples, 8000, subtype="FLOAT")
    else:
        soundfile.write(path, samples, 8000, format="FLAC")
        content = bytearray(path.read_bytes())
        content[len(content) * 9 // 10] ^= 0xFF
        path.write_bytes(content)
    (failure,) = predict_files(model, {"a": path}, OutputOptions(formats), output=tmp_path / "out")
    assert failure.startswith(f"{path}: ") and ("NaN" in failure if kind == "NaN" else "damaged audio" in failure)
    assert written(tmp_path / "out") == []


def test_what_is_no_file_is_refused_and_left_out_of_folders(model_folder: Path, tmp_path: Path, capsys):
    folder = tmp_path / "recordings"
    (folder / "a.wav").mkdir(parents=True)
    noise(folder / "a.wav" / "b.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    assert list(find_recordings([folder])) == ["a.wav/b"]
    named = [str(folder / name) for name in ("pipe.wav", "gone.wav", "loop.wav", "a.wav")]
    with pytest.raises(SystemExit) as stop:
        main(["predict", *named, "/dev/zero", "--model", str(model_folder)])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    reasons = ["is a folder or a device", "no such file", "no such file", "is a folder or a device"]
    for line, reason in zip(errors(captured.err), reasons, strict=True):
        assert reason in line
    assert captured.out.startswith("# b\n0.0000 ")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(model: FrameClassifier, tmp_path: Path):
    closed, good = noise(tmp_path / "a.wav"), noise(tmp_path / "b.wav")
    closed.chmod(0)
    failures = predict_files(model, {"a": closed, "b": good}, output=tmp_path / "out")
    assert failures == [f"{closed}: cannot be read: Permission denied"]
    assert written(tmp_path / "out") == ["b.TextGrid"]


def test_files_of_any_name(model_folder: Path, tmp_path: Path, capsys):
    folder = tmp_path / "recordings"
    folder.mkdir()
    sound = noise(tmp_path / "sound.wav")
    good = ["two\nlines", "  ", "日本語 ñ", "-a", "'\"$(x)`&;", "a.b"]
    try:
        (folder / os.fsdecode(b"no \xff utf-8.wav")).touch()
        good.append(os.fsdecode(b"no \xff utf-8"))
    except OSError:  # a file system of UTF-8
        pass
    for name in good:
        shutil.copy(sound, folder / f"{name}.wav")
    (folder / "bad\nlines.wav").touch()
    shutil.copy(sound, folder / f"{'x' * 248}.wav")  # .TextGrid is longer
    common = ["predict", str(folder), "--model", str(model_folder)]
    for output in (["--output", str(tmp_path / "out"), "--format", ",".join(FORMATS)], []):
        with pytest.raises(SystemExit):
            main([*common, *output])
        captured = capsys.readouterr()
        lines = errors(captured.err)
        assert lines[0].endswith(
            "bad lines.wav: the file is empty (0 bytes)" + ("" if output else " (1 of 9 files failed)")
        )
        assert len(lines) == 1 + bool(output)
        if output:
            assert "file name too long to add a suffix (2 of 9 files failed)" in lines[1]
    assert written(tmp_path / "out") == sorted(name + suffix for name in good for suffix in ALL_SUFFIXES[:-1])
    for name in good:
        first = (tmp_path / "out" / f"{name}.ctm").read_text().splitlines()[0].split()
        assert len(first) == 6 and first[1] == "1"
    headings = [
        line for line in captured.out.splitlines() if not re.match(r"\d+\.\d{4} \d+\.\d{4} \w+ \d\.\d{3}$", line)
    ]
    assert len(headings) == len(good) + 1 and all(line.startswith("# ") for line in headings)

"""Folders and cuts of other tools, with what goes wrong in them: right times, or one line that says what is wrong."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from folder_corpus import RATE, SPEAKERS, corpus, prepare, rejected, sound
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from refused import refused

from speechattn.audio import read_audio
from speechattn.commands.main import main
from speechattn.corpora.folder import FolderOptions, prepare_folder
from speechattn.cuts.files import phone_intervals, read_cuts, save_cuts
from speechattn.cuts.model_inputs import check_labels, cut_waveform, load_cuts
from speechattn.cuts.shards import read_shards, write_shards
from speechattn.evaluation.scoring import score_files
from speechattn.geometry import Geometry
from speechattn.labels.files import read_ctm
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(num_samples)


@pytest.fixture
def lhotse_cuts(tmp_path: Path) -> Path:
    """Utterances within recordings, with alignments from a CTM in times of the recordings, all made by Lhotse."""
    recordings, supervisions, lines = [], [], []
    for speaker in SPEAKERS:
        soundfile.write(tmp_path / f"{speaker}.wav", noise(160000), RATE)
        recordings.append(Recording.from_file(tmp_path / f"{speaker}.wav", recording_id=speaker))
        supervisions.append(SupervisionSegment(f"{speaker}-1", speaker, 1.0, 8.5, text="x", speaker=speaker))
        lines += [
            f"{speaker} 0 {start} {length} {phone} 1"
            for start, length, phone in ((1, 1, "a"), (2, 2, "b"), (4, 3, "c"))
        ]
    (tmp_path / "phones.ctm").write_text("\n".join(lines) + "\n")
    aligned = SupervisionSet.from_segments(supervisions).with_alignment_from_ctm(tmp_path / "phones.ctm", type="phone")
    cuts = CutSet.from_manifests(recordings=RecordingSet.from_recordings(recordings), supervisions=aligned)
    cuts.trim_to_supervisions().to_file(tmp_path / "cuts.jsonl.gz")
    return tmp_path / "cuts.jsonl.gz"


def test_alignments_of_lhotse_count_from_the_recording(lhotse_cuts: Path, tmp_path: Path) -> None:
    expected = [Interval(0, 16000, "a"), Interval(16000, 48000, "b"), Interval(48000, 96000, "c")]
    for cut in read_cuts(lhotse_cuts):
        assert phone_intervals(cut) == expected
    prepare_folder(tmp_path, tmp_path / "out", options=FolderOptions(cuts=str(lhotse_cuts)))
    for split in ("train", "dev", "test"):
        for cut in read_cuts(tmp_path / "out" / f"{split}.jsonl.gz"):
            assert phone_intervals(cut) == expected
            pieces = CutSet.from_cuts([cut]).trim_to_alignments("phone", max_segment_duration=0)
            assert [(round(p.start, 6), p.duration) for p in pieces] == [(1.0, 1.0), (2.0, 2.0), (4.0, 3.0)]
    write_shards(lhotse_cuts, tmp_path / "shards", size=2)
    sharded = list(read_shards(tmp_path / "shards").share(part=0, num_parts=1, seed=None))
    assert len(sharded) == 3 and all(phone_intervals(cut) == expected for cut in sharded)


def test_each_channel_of_a_ctm_is_an_utterance_of_its_own(tmp_path: Path, capsys) -> None:
    for speaker in SPEAKERS:
        sound(tmp_path / "in" / speaker / "call.wav", seconds=3.0, channels=2)
        text = "call A 0 1 a\ncall B 1 1 b\ncall A 2 1 c\n"
        (tmp_path / "in" / speaker / "call.ctm").write_text(text)
    line = refused(capsys, "prepare", "folder", "--audio", tmp_path / "in", "--output", tmp_path / "x")
    assert "utterance call has phones on several channels, such as A; choose one with --ctm-channel" in line
    for channel, expected in (("A", [(0, 16000, "a"), (32000, 48000, "c")]), ("B", [(16000, 32000, "b")])):
        for cut in prepare(
            tmp_path / "in", tmp_path / channel, ctm_channel=channel, channel="AB".index(channel)
        ).values():
            assert phone_intervals(cut) == expected and cut.channel == "AB".index(channel)
    assert list(read_ctm(tmp_path / "in" / "anna" / "call.ctm")) == ["call A", "call B"]
    figures = score_files(tmp_path / "in/anna/call.ctm", tmp_path / "in/anna/call.ctm")
    assert figures["num_utterances"] == 2


def test_predictions_as_ctm_of_folders_can_be_scored(tmp_path: Path, model_folder: Path, capsys) -> None:
    for speaker in ("anna", "ben"):
        (tmp_path / "in" / speaker).mkdir(parents=True)
        soundfile.write(tmp_path / "in" / speaker / "one.wav", noise(16000), RATE)
    for kind in ("ctm", "textgrid"):
        main(
            [
                "predict",
                str(tmp_path / "in"),
                "--model",
                str(model_folder),
                "--format",
                kind,
                "--output",
                str(tmp_path / kind),
            ]
        )
    figures = score_files(tmp_path / "textgrid", tmp_path / "ctm")
    assert figures["num_utterances"] == 2 and figures["frame_agreement"] == 1.0
    joined = "".join(path.read_text() for path in sorted((tmp_path / "ctm").rglob("*.ctm")))
    (tmp_path / "joined.ctm").write_text(joined)
    assert score_files(tmp_path / "textgrid", tmp_path / "joined.ctm")["frame_agreement"] == 1.0


UNITS = {  # what whole numbers may count, per second -> what the message advises
    "samples": 16000, "ms": 1000, "us": 1_000_000,
}  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_lab_files_in_other_units_are_refused_or_told(unit: str, tmp_path: Path, capsys) -> None:
    rate = UNITS[unit]
    for speaker in SPEAKERS:
        sound(tmp_path / "in" / speaker / "u.wav", seconds=3.0)
        rows = [(0, 1, "a"), (1, 2.5, "b"), (2.5, 3, "c")]
        text = "".join(f"{round(start * rate)} {round(end * rate)} {phone}\n" for start, end, phone in rows)
        (tmp_path / "in" / speaker / "u.lab").write_text(text)
    line = refused(capsys, "prepare", "folder", "--audio", tmp_path / "in", "--output", tmp_path / "x")
    assert "of 3 s of audio" in line and f"use --label-rate {rate}" in line or "--label-rate" in line and unit == "ms"
    for cut in prepare(tmp_path / "in", tmp_path / "out", label_rate=rate).values():
        assert phone_intervals(cut) == [(0, 16000, "a"), (16000, 40000, "b"), (40000, 48000, "c")]


def test_phn_files_of_another_rate_are_refused_or_told(tmp_path: Path, capsys) -> None:
    root = corpus(tmp_path / "in", ".phn", rate=8000)
    for path in root.rglob("*.wav"):
        sound(path, 16000)  # the labels are those of a version at 8 kHz
    line = refused(capsys, "prepare", "folder", "--audio", root, "--output", tmp_path / "x")
    assert (
        "labels end at 0.5 s of 1 s of audio; with 8,000 units per second they would fit: use --label-rate 8000" in line
    )
    for cut in prepare(root, tmp_path / "out", label_rate=8000).values():
        assert phone_intervals(cut)[-1].end == 16000
    # Half a recording may be labelled: who names the rate is believed.
    for cut in prepare(root, tmp_path / "half", label_rate=16000).values():
        assert phone_intervals(cut)[-1].end == 8000


def test_scores_of_labels_at_another_rate_are_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.phn").write_text("0 4000 a\n4000 8000 b\n")
    (tmp_path / "a.lab").write_text("0.0 0.5 a\n0.5 1.0 b\n")
    line = refused(capsys, "score", tmp_path / "a.lab", tmp_path / "a.phn")
    assert "ends at 0.5 s and 1 s: labels at another sample rate? use --label-rate" in line
    assert score_files(tmp_path / "a.lab", tmp_path / "a.phn", label_rate=8000)["frame_agreement"] == 1.0
    assert score_files(tmp_path / "a.lab", tmp_path / "a.phn", label_rate=16000)["frame_agreement"] < 0.6


def test_cuts_none_of_whose_frames_has_a_label_are_refused(lhotse_cuts: Path, tmp_path: Path) -> None:
    cuts = list(read_cuts(lhotse_cuts))
    item = cuts[1].supervisions[0].alignment["phone"][0]
    cuts[1].supervisions[0].alignment["phone"] = [item._replace(start=1.0, duration=0.001)]
    save_cuts(tmp_path / "bad.jsonl.gz", cuts)
    with pytest.raises(ValueError, match="cut ben-1: no frame has a label; the labels end at 0.001 s of 8.5 s"):
        check_labels(load_cuts(tmp_path / "bad.jsonl.gz", Geometry()), PhoneSet.of(["a", "b", "c"]), Geometry())


@pytest.mark.parametrize("suffix, kind", [("mp3", "MP3"), ("ogg", "OGG"), ("opus", "OGG")])
def test_parts_of_files_that_do_not_seek_exactly_equal_the_whole(
    suffix: str, kind: str, tmp_path: Path, capsys
) -> None:
    options = {"subtype": "OPUS"} if suffix == "opus" else {}
    data = tmp_path / "data"
    data.mkdir()
    segments, speakers, lines = [], [], []
    for speaker in SPEAKERS:
        soundfile.write(tmp_path / f"{speaker}.{suffix}", noise(10 * RATE, len(speaker)), RATE, format=kind, **options)
        lines.append(f"{speaker} {tmp_path / speaker}.{suffix}")
        for number in range(5):
            start = 0.37 + 1.83 * number
            segments.append(f"{speaker}-{number} {speaker} {start:.2f} {start + 1.5:.2f}")
            speakers.append(f"{speaker}-{number} {speaker}")
            (data / f"{speaker}-{number}.csv").write_text("start,end,phone,confidence\n0,0.7,a,1\n0.7,1.5,b,1\n")
    for name, rows in (("wav.scp", lines), ("segments", segments), ("utt2spk", speakers)):
        (data / name).write_text("".join(f"{row}\n" for row in rows))
    for cut in prepare(data, tmp_path / "out").values():
        speaker, number = cut.id.rsplit("-", 1)
        whole, _ = read_audio(tmp_path / f"{speaker}.{suffix}")
        first = round((0.37 + 1.83 * int(number)) * RATE)
        np.testing.assert_allclose(cut_waveform(cut), whole[first : first + 24000], atol=2**-22)
    recording = Recording.from_file(tmp_path / f"anna.{suffix}", recording_id="anna")
    part = recording.to_cut().truncate(offset=2.0, duration=1.0)
    save_cuts(tmp_path / "part.jsonl.gz", [part])
    with pytest.raises(ValueError, match="cannot be read in parts exactly; `speechattn prepare folder --cuts`"):
        load_cuts(tmp_path / "part.jsonl.gz", Geometry())


def test_links_are_followed_and_other_files_are_counted(tmp_path: Path, model_folder: Path, caplog, capsys) -> None:
    corpus(tmp_path / "elsewhere")
    (tmp_path / "in").mkdir()
    for speaker in SPEAKERS:
        (tmp_path / "in" / speaker).symlink_to(tmp_path / "elsewhere" / speaker)
    (tmp_path / "elsewhere" / SPEAKERS[0] / "loop").symlink_to(tmp_path / "in")
    for name in ("a.m4a", "b.webm", "c.m4a"):
        (tmp_path / "elsewhere" / SPEAKERS[1] / name).write_bytes(b"x")
    assert len(prepare(tmp_path / "in", tmp_path / "out")) == 6 and not rejected(tmp_path / "out")
    assert "3 files are not audio that can be read: 2 .m4a, 1 .webm" in caplog.text
    main(["predict", str(tmp_path / "in"), "--model", str(model_folder), "--output", str(tmp_path / "predicted")])
    assert len(list((tmp_path / "predicted").rglob("*.TextGrid"))) == 6
    assert "9 files are not audio that can be read: 2 .m4a, 6 .textgrid, 1 .webm" in capsys.readouterr().err

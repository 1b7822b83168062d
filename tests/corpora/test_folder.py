"""People's own data, in all the shapes it comes in: every frame gets the label that its files say, or none."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet, Features
from lhotse.utils import fastcopy
from prepared import read_splits
from refused import refused

from speechattn.commands.main import main
from speechattn.corpora import folder as module
from speechattn.corpora.folder import FolderOptions, phone_track, prepare_folder
from speechattn.cuts.files import phone_intervals, read_cuts
from speechattn.cuts.model_inputs import cut_labels, cut_waveform
from speechattn.geometry import Geometry
from speechattn.labels.files import write_csv, write_ctm, write_json, write_textgrid
from speechattn.labels.intervals import Interval, Segment
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig
from speechattn.phones import PhoneSet

SPEAKERS = ("anna", "ben", "çem")
RATE = 16000
# In samples at 16 kHz, of 1 s; there is a gap before the last one.
TRACK = [Interval(0, 3000, "SIL"), Interval(3000, 7001, "ɪ̃"), Interval(7001, 12000, "t"), Interval(12800, 16000, "SIL")]


def sound(path: Path, rate: int = RATE, seconds: float = 1.0, channels: int = 1) -> Path:
    """A ramp: the value of sample t says t, for either channel another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 0.5, round(rate * seconds))
    soundfile.write(path, np.stack([ramp / (1 + number) for number in range(channels)], axis=1), rate)
    return path


def segments(track=TRACK):
    return [Segment(symbol, start / RATE, end / RATE) for start, end, symbol in track]


def write_alignment(path: Path, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".TextGrid", ".ctm", ".json", ".csv"):
        {".TextGrid": write_textgrid, ".ctm": write_ctm, ".json": write_json, ".csv": write_csv}[path.suffix](
            path, segments()
        )
        return
    unit = {".phn": rate, ".lab": 10_000_000, ".txt": 1}[path.suffix]
    rows = [(start * unit / RATE, end * unit / RATE, symbol) for start, end, symbol in TRACK]
    if path.suffix == ".txt":
        text = "".join(f"{start:.7f}\t{end:.7f}\t{symbol}\n" for start, end, symbol in rows)
    else:
        text = "".join(f"{round(start)} {round(end)} {symbol}\n" for start, end, symbol in rows)
    path.write_text(text)


def corpus(root: Path, suffix: str = ".TextGrid", audio: str = ".wav", rate: int = RATE) -> Path:
    """Three speakers with two utterances each, phones beside the audio."""
    for speaker in SPEAKERS:
        for number in (1, 2):
            sound(root / speaker / f"u{number}{audio}", rate)
            write_alignment(root / speaker / f"u{number}{suffix}", rate)
    return root


def prepare(root: Path, output: Path, **options) -> dict:
    """Prepare, and every cut by its id."""
    prepare_folder(root, output, options=FolderOptions(**options))
    return {cut.id: cut for cuts in read_splits(output).values() for cut in cuts}


def rejected(output: Path) -> dict[str, str]:
    lines = (output / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


@pytest.mark.parametrize("suffix", [".TextGrid", ".ctm", ".phn", ".lab", ".txt", ".json", ".csv"])
def test_every_format_gives_the_same_frames(tmp_path, suffix):
    cuts = prepare(corpus(tmp_path / "in", suffix), tmp_path / "out")
    assert sorted(cuts) == sorted(f"{speaker}-u{number}" for speaker in SPEAKERS for number in (1, 2))
    symbols = (tmp_path / "out/phones.txt").read_text(encoding="utf-8").splitlines()
    assert symbols == ["SIL", "t", "ɪ̃"]
    expected = np.full(98, -100)
    for frame in range(98):
        for start, end, symbol in TRACK:
            if start <= 160 * frame + 200 < end:
                expected[frame] = symbols.index(symbol)
    assert (expected == -100).sum() == 5  # the gap's 50 ms
    for name, cut in cuts.items():
        assert phone_intervals(cut) == TRACK and cut.supervisions[0].speaker == name.split("-")[0]
        np.testing.assert_array_equal(cut_labels(cut, PhoneSet.of(symbols), Geometry()), expected)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_audio_of_another_rate_is_resampled_and_keeps_its_times(tmp_path, rate):
    cuts = prepare(corpus(tmp_path / "in", ".phn", ".flac", rate), tmp_path / "out")
    for cut in cuts.values():
        waveform = cut_waveform(cut)
        assert cut.sampling_rate == RATE and waveform.shape == (16000,)
        assert waveform[8000] == pytest.approx(0.25, abs=1e-3)
        for interval, wanted in zip(phone_intervals(cut), TRACK, strict=True):
            assert interval.symbol == wanted.symbol
            assert abs(interval.start - wanted.start) <= RATE / rate / 2 + 1  # the file's own samples
            assert abs(interval.end - wanted.end) <= RATE / rate / 2 + 1


@given(length=st.integers(3000, 9000), rate=st.sampled_from([8000, 11025, 22050, 44100]))
def test_any_number_of_samples_can_be_read_back(tmp_path_factory, length, rate):
    root = tmp_path_factory.mktemp("rate")
    for speaker in SPEAKERS:
        sound(root / f"{speaker}.wav", rate, length / rate)
        write_json(root / f"{speaker}.json", [Segment("a", 0.0, length / rate)])
    for cut in prepare(root, root / "out", speaker=".+").values():
        assert len(cut_waveform(cut)) == cut.num_samples == phone_intervals(cut)[-1].end


@pytest.mark.parametrize("audio", [".ogg", ".mp3", ".aiff", ".au"])
def test_other_kinds_of_audio(tmp_path, audio):
    assert len(prepare(corpus(tmp_path / "in", ".lab", audio), tmp_path / "out")) == 6


def test_channels(tmp_path, capsys):
    root = corpus(tmp_path / "in")
    for path in root.rglob("*.wav"):
        sound(path, channels=2)
    for channel in (0, 1):
        for cut in prepare(root, tmp_path / f"out{channel}", channel=channel).values():
            assert cut_waveform(cut)[8000] == pytest.approx(0.25 / (1 + channel), abs=1e-3)
        assert f"6 recordings have several channels: channel {channel} is used" in capsys.readouterr().out
    line = refused(capsys, "prepare", "folder", "--audio", root, "--output", tmp_path / "x", "--channel", 2)
    assert line.endswith("u1.wav: there is no channel 2; it has 2")


@pytest.mark.parametrize("gap", [None, "SIL"])
def test_gaps_and_empty_intervals_are_unlabelled_or_have_the_symbol_given(tmp_path, gap):
    corpus(tmp_path / "in")  # the writer fills the gap with an empty interval
    expected = TRACK if gap is None else [*TRACK[:3], Interval(12000, 12800, "SIL"), TRACK[3]]
    for cut in prepare(tmp_path / "in", tmp_path / "out", gap=gap).values():
        assert phone_intervals(cut) == expected


@given(st.lists(st.tuples(st.integers(0, 3000), st.sampled_from(["a", "b", "", " a "])), max_size=9), st.booleans())
def test_phone_track_against_every_sample(steps, filled):
    bounds = np.cumsum([0, *(length for length, _ in steps)]).tolist()
    rows = [Segment(phone, s / RATE, e / RATE) for (_, phone), s, e in zip(steps, bounds[:-1], bounds[1:], strict=True)]
    num_samples = max(bounds[-1] - 500, 1)  # the audio may end within the last phone
    samples = ["gap" if filled else ""] * num_samples
    for phone, start, end, _ in rows:
        for sample in range(round(start * RATE), min(round(end * RATE), num_samples)):
            samples[sample] = phone.strip() or samples[sample]
    if set(samples) <= {"", "gap"}:
        with pytest.raises(ValueError, match="holds no phone"):
            phone_track(rows, num_samples / RATE, gap="gap" if filled else None)
        return
    made = [""] * num_samples
    for start, end, symbol in phone_track(rows, num_samples / RATE, gap="gap" if filled else None):
        assert end <= num_samples and made[start:end] == [""] * (end - start)
        made[start:end] = [symbol] * (end - start)
    assert made == samples


def test_phones_may_not_overlap():
    with pytest.raises(ValueError, match="phone 'b' at 0.4 s overlaps the one before it"):
        phone_track([Segment("a", 0.0, 0.5), Segment("b", 0.4, 1.0)], 1.0)


def test_a_symbol_is_one_however_it_was_typed():
    typed = [Segment(unicodedata.normalize(form, "ã"), n, n + 1) for n, form in enumerate(("NFC", "NFD"))]
    assert {interval.symbol for interval in phone_track(typed, 2.0)} == {"\u00e3"}


def test_what_does_not_fit_is_listed_with_its_reason(tmp_path, capsys):
    root = corpus(tmp_path / "in")
    sound(root / "anna/u3.wav")
    write_alignment(root / "ben/u4.TextGrid", RATE)
    sound(root / "anna/short.wav", seconds=0.8)
    write_alignment(root / "anna/short.TextGrid", RATE)
    sound(root / "ben/empty.wav")
    write_textgrid(root / "ben/empty.TextGrid", [Segment("", 0.0, 1.0)])
    sound(root / "ben/words.wav")
    write_textgrid(root / "ben/words.TextGrid", [Segment("two words", 0.0, 1.0)])
    assert len(prepare(root, tmp_path / "out")) == 6
    reasons = rejected(tmp_path / "out")
    assert "left out: 5 utterances, listed in" in capsys.readouterr().out
    assert reasons.keys() == {"anna-u3", "ben/u4", "anna-short", "ben-empty", "ben-words"}
    assert reasons["anna-u3"] == f"no alignment for {root / 'anna/u3.wav'}"
    assert reasons["ben/u4"] == f"no recording for the alignment {root / 'ben/u4.TextGrid'}"
    assert reasons["anna-short"] == f"{root / 'anna/short.TextGrid'}: ends at 1.0 s, but the audio at 0.8 s"
    assert reasons["ben-empty"].endswith("holds no phone")
    assert reasons["ben-words"].endswith("label 'two words' at 0.0 s contains white space, which a phone must not")


def test_separate_folders_one_ctm_and_several_processes(tmp_path, monkeypatch):
    root = corpus(tmp_path / "in")
    lines = []
    for path in root.rglob("*.TextGrid"):
        moved = tmp_path / "grids" / path.relative_to(root)
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)
        name = f"{path.parent.name}-{path.stem}"
        lines += [f"{name} 1 {s / RATE} {(e - s) / RATE:.7f} {symbol}\n" for s, e, symbol in TRACK]
    (tmp_path / "all.ctm").write_text("".join(lines))
    grids = prepare(root, tmp_path / "a", alignments=str(tmp_path / "grids"))
    assert prepare(tmp_path, tmp_path / "b", audio=str(root), alignments=str(tmp_path / "all.ctm")) == grids
    monkeypatch.setattr(module, "FILES_PER_PROCESS", 3)
    options = FolderOptions(alignments=str(tmp_path / "grids"))
    prepare_folder(root, tmp_path / "c", num_jobs=2, options=options)
    for name in ("train.jsonl.gz", "dev.jsonl.gz", "test.jsonl.gz", "phones.txt", "rejected.tsv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_speakers_by_pattern_and_by_table(tmp_path, capsys):
    for speaker in SPEAKERS:
        sound(tmp_path / f"in/{speaker}_1.wav")
        write_alignment(tmp_path / f"in/{speaker}_1.lab", RATE)
    (tmp_path / "utt2spk").write_text("".join(f"{speaker}_1 {speaker}\n" for speaker in SPEAKERS))
    for choice in ("^[^_]+", "(.*)_", str(tmp_path / "utt2spk")):
        cuts = prepare(tmp_path / "in", tmp_path / "out", speaker=choice)
        assert {cut.supervisions[0].speaker for cut in cuts.values()} == set(SPEAKERS)
    line = refused(capsys, "prepare", "folder", "--audio", tmp_path / "in", "--output", tmp_path / "x")
    assert line.endswith("anna_1.wav: is not in a speaker's folder; use --speaker to find the speaker in the path")
    (tmp_path / "utt2spk").write_text("anna_1 anna\n")
    line = refused(
        capsys,
        "prepare",
        "folder",
        "--audio",
        tmp_path / "in",
        "--output",
        tmp_path / "x",
        "--speaker",
        tmp_path / "utt2spk",
    )
    assert "utt2spk: has no line for utterance ben_1" in line
    line = refused(
        capsys, "prepare", "folder", "--audio", tmp_path / "in", "--output", tmp_path / "x", "--speaker", "(.*)x"
    )
    assert line.endswith("anna_1.wav: --speaker '(.*)x' finds no speaker in 'anna_1'")


def test_lists_and_speakers_that_would_cross(tmp_path, capsys):
    root = corpus(tmp_path / "in")
    (tmp_path / "dev").write_text("çem\n", encoding="utf-8")
    (tmp_path / "test").write_text("ben-u1\n")
    arguments = ["--audio", root, "--dev", tmp_path / "dev", "--test", tmp_path / "test", "--output"]
    assert "speaker ben is in two splits: train and test" in refused(
        capsys, "prepare", "folder", *arguments, tmp_path / "out"
    )
    assert not (tmp_path / "out/train.jsonl.gz").exists()
    (tmp_path / "test").write_text("ben-u1\nben-u2\n")
    main(["prepare", "folder", *map(str, arguments), str(tmp_path / "out")])
    assert [cut.id for cut in read_cuts(tmp_path / "out/train.jsonl.gz")] == ["anna-u1", "anna-u2"]
    assert [cut.id for cut in read_cuts(tmp_path / "out/dev.jsonl.gz")] == ["çem-u1", "çem-u2"]


def test_prepared_again_when_a_source_changes_and_only_then(tmp_path, capsys):
    root = corpus(tmp_path / "in")
    (tmp_path / "phones").write_text("t\nSIL\nɪ̃\nz\n", encoding="utf-8")
    arguments = ["prepare", "folder", "--audio", str(root), "--phones", str(tmp_path / "phones")]
    arguments += ["--output", str(tmp_path / "out")]

    def printed():
        main(arguments)
        return capsys.readouterr().out

    assert "phones: 4, not in train: z" in printed()
    assert (tmp_path / "out/phones.txt").read_text(encoding="utf-8").split() == ["t", "SIL", "ɪ̃", "z"]
    assert "prepared already" in printed()
    write_textgrid(root / "anna/u1.TextGrid", [Segment("z", 0.0, 1.0)])
    assert "prepared already" not in printed()
    (tmp_path / "phones").write_text("t\nSIL\nɪ̃\nz\ny\n", encoding="utf-8")
    assert "phones: 5, not in train: " in printed()
    (tmp_path / "out/phones.txt").unlink()
    assert "phones: 5, not in train: " in printed() and "prepared already" in printed()


def test_a_training_takes_the_inventory_and_keeps_it(tmp_path, capsys):
    data = tmp_path / "out"
    prepare(corpus(tmp_path / "in", rate=8000), data, gap="SIL")
    arguments = ["train", "--data.train", data / "train.jsonl.gz", "--data.dev", data / "dev.jsonl.gz"]
    arguments += ["--model.phones", data / "phones.txt", "--model.kind", "linear", "--optim.epochs", "1"]
    main([str(word) for word in (*arguments, "--data.num_workers", "0", "--output", tmp_path / "model")])
    (data / "phones.txt").unlink()
    main(["evaluate", str(tmp_path / "model"), "--cuts", str(data / "test.jsonl.gz")])
    assert "196" in capsys.readouterr().out  # frames: all those of two utterances
    model = FrameClassifier.from_pretrained(tmp_path / "model")
    assert model.phones.symbols == ("SIL", "t", "ɪ̃") and model.phones.silences == {"SIL"}
    assert str(tmp_path) not in (tmp_path / "model/config.json").read_text()
    fresh = FrameClassifier(ClassifierConfig(symbols=model.phones.symbols, phones="custom"))
    assert fresh.phones.symbols == model.phones.symbols


def kaldi(root: Path) -> Path:
    """A Kaldi data folder: one recording of 3 s a speaker, each with two segments of 1 s, and a CTM by utterance."""
    tables: dict[str, str] = dict.fromkeys(("wav.scp", "segments", "utt2spk", "text", "phones.ctm"), "")
    for speaker in SPEAKERS:
        tables["wav.scp"] += f"{speaker} {sound(root / 'wav' / f'{speaker}.wav', 48000, 3.0)}\n"
        for number in (0, 1):
            name = f"{speaker}-{number}"
            tables["segments"] += f"{name} {speaker} {0.5 + number} {1.5 + number}\n"
            tables["utt2spk"] += f"{name} {speaker}\n"
            tables["text"] += f"{name} SAY {number}\n"
            for start, end, symbol in TRACK:
                tables["phones.ctm"] += f"{name} 1 {start / RATE:.7f} {(end - start) / RATE:.7f} {symbol}\n"
    for name, text in tables.items():
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_kaldi(tmp_path, capsys):
    root = kaldi(tmp_path / "data")
    cuts = prepare(root, tmp_path / "out")
    assert len(cuts) == 6
    for name, cut in cuts.items():
        speaker, number = name.split("-")
        assert cut.supervisions[0].speaker == speaker and cut.supervisions[0].text == f"SAY {number}"
        assert phone_intervals(cut) == TRACK
        waveform = cut_waveform(cut)
        assert waveform.shape == (16000,)
        assert waveform[8000] == pytest.approx(0.5 * (1 + int(number)) / 3, abs=1e-3)  # the ramp at 1 s or 2 s
    (root / "wav/anna.wav").unlink()
    for split, speaker in (("dev", "ben"), ("test", "çem")):
        (root / split).write_text(f"{speaker}\n", encoding="utf-8")
    arguments = ["--audio", root, "--dev", root / "dev", "--test", root / "test", "--output", tmp_path / "x"]
    assert "the train split has no utterances" in refused(capsys, "prepare", "folder", *arguments)
    line = refused(capsys, "prepare", "folder", *arguments, "--speaker", ".")
    assert "a Kaldi data folder names the speakers in utt2spk, and takes no --speaker" in line


def test_a_recording_that_is_missing_is_listed(tmp_path):
    root = kaldi(tmp_path / "data")
    sound(root / "wav/dan.wav").unlink()
    for name, line in (("wav.scp", "dan {root}/wav/dan.wav"), ("segments", "d dan 0 1"), ("utt2spk", "d dan")):
        with open(root / name, "a") as file:
            file.write(line.format(root=root) + "\n")
    with open(root / "phones.ctm", "a") as file:
        file.write("d 1 0 1 t\n")
    assert len(prepare(root, tmp_path / "out")) == 6
    assert rejected(tmp_path / "out") == {"d": f"no such file: {root / 'wav/dan.wav'}"}


def test_segments_past_their_recording(tmp_path):
    root = kaldi(tmp_path / "data")
    with open(root / "segments", "a", encoding="utf-8") as file:
        file.write("a anna 2.2 3.4\nb ben 2 3.6\nc çem 3 4\n")
    with open(root / "utt2spk", "a") as file:
        file.write("a anna\nb ben\nc ben\n")
    with open(root / "phones.ctm", "a") as file:
        file.write("a 1 0.0 0.8 t\nb 1 0.0 0.8 t\nc 1 0.0 0.8 t\n")
    cuts = prepare(root, tmp_path / "out")
    assert len(cuts) == 7 and len(cut_waveform(cuts["a"])) == 12800
    assert rejected(tmp_path / "out") == {
        "b": f"goes from 2.0 to 3.6 s, but {root / 'wav/ben.wav'} ends at 3.0 s",
        "c": f"goes from 3.0 to 4.0 s, but {root / 'wav/çem.wav'} ends at 3.0 s",
    }


def test_lhotse_cuts(tmp_path, capsys):
    cuts = prepare(corpus(tmp_path / "in", rate=44100), tmp_path / "first")
    all_cuts = tmp_path / "all.jsonl"
    for_one_bad = []
    for name, cut in cuts.items():
        if name == "anna-u1":
            cut.supervisions[0].alignment = None
        for_one_bad.append(cut)
    CutSet.from_cuts(for_one_bad).to_file(all_cuts)
    again = prepare(tmp_path, tmp_path / "second", cuts=str(all_cuts), gap="SIL")
    assert again.keys() == cuts.keys() - {"anna-u1"}
    assert rejected(tmp_path / "second") == {
        "anna-u1": "cut anna-u1: expected one supervision with phones in alignment['phone']"
    }
    for cut in again.values():
        assert phone_intervals(cut) == [*TRACK[:3], Interval(12000, 12800, "SIL"), TRACK[3]]
        assert len(cut_waveform(cut)) == 16000
    line = refused(capsys, "prepare", "folder", "--cuts", all_cuts, "--audio", tmp_path, "--output", tmp_path / "x")
    assert "--cuts and --audio exclude each other" in line
    features = Features("mfcc", 98, 39, 0.01, RATE, 0.0, 1.0, "numpy_files", str(tmp_path), "a.npy")
    CutSet.from_cuts([fastcopy(for_one_bad[1], recording=None, features=features)]).to_file(all_cuts)
    line = refused(capsys, "prepare", "folder", "--cuts", all_cuts, "--output", tmp_path / "x")
    assert f"{all_cuts}: cut {for_one_bad[1].id} has features, but no recording" in line
    for_one_bad[1].supervisions[0].speaker = None
    CutSet.from_cuts(for_one_bad).to_file(all_cuts)
    line = refused(capsys, "prepare", "folder", "--cuts", all_cuts, "--output", tmp_path / "x")
    assert f"{all_cuts}: cut {for_one_bad[1].id} does not say who speaks" in line


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "anna/u1.TextGrid",
            b"nonsense",
            'anna/u1.TextGrid: not a TextGrid: the file ends where "ooTextFile" is expected',
        ),
        ("anna/u1.TextGrid", "é".encode("latin-1"), "anna/u1.TextGrid: not a text file in UTF-8 or UTF-16"),
        ("anna/u1.phn", b"0 10 a\n", "anna/u1.TextGrid and {root}/anna/u1.phn both fit {root}/anna/u1.wav"),
        ("anna/u1.flac", b"", "anna/u1.flac and {root}/anna/u1.wav would both be utterance anna-u1"),
        ("anna/u1.wav", b"RIFF", "anna/u1.wav: not an audio file"),
        ("x.ctm", b"u 1 0 x a\n", "x.ctm:1: expected `utterance channel start duration phone"),
    ],
)
def test_damaged_or_ambiguous_files_stop_with_one_line(tmp_path, capsys, name, content, message):
    root = corpus(tmp_path / "in")
    (root / name).write_bytes(content)
    line = refused(capsys, "prepare", "folder", "--audio", root, "--output", tmp_path / "out")
    assert message.format(root=root) in line
    assert not (tmp_path / "out/train.jsonl.gz").exists()


def test_other_refusals(tmp_path, capsys):
    root, output = corpus(tmp_path / "in"), ["--output", tmp_path / "out"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "phones").write_text("SIL\nt\n")
    write_textgrid(tmp_path / "grids/x/y.TextGrid", segments())
    for arguments, message in [
        (["--tier", "words"], "u1.TextGrid: no interval tier 'words'; its interval tiers: phones"),
        (["--audio", tmp_path / "none"], "none: no such folder; --audio names the one of your recordings"),
        (["--audio", tmp_path / "empty"], "empty: holds no audio; files that end in .wav .flac"),
        (["--alignments", tmp_path / "none"], "none: no such folder or file of alignments"),
        (["--alignments", tmp_path / "empty"], "empty: holds no alignments; files that end in .textgrid .ctm"),
        (["--alignments", tmp_path / "grids"], "no utterance has both audio and phones; anna-u1: no alignment for "),
        (["--phones", tmp_path / "phones"], "utterance anna-u1: phone 'ɪ̃' is not in "),
        (["--format", "mlf"], "format must be one of textgrid ctm phn lab txt json csv, got 'mlf'"),
        (["--gap", "a b"], "gap must be a symbol without white space, got 'a b'"),
        (["--dev", "1.5"], "dev must be a share between 0 and 1, or a file, got 1.5"),
        (["--dev", "0.5", "--test", "0.5"], "dev and test take everything"),
        (["--dev", tmp_path / "none"], "none: no such file"),
        (["--speaker", "("], "speaker is neither a file nor a regular expression"),
        (["--channel", "-1"], "channel must not be negative"),
    ]:
        audio = [] if "--audio" in arguments else ["--audio", root]
        assert message in refused(capsys, "prepare", "folder", *audio, *arguments, *output), arguments
    assert not (tmp_path / "out/train.jsonl.gz").exists()


def test_inventories_that_are_none(tmp_path):
    for content, message in [
        ("SIL 1\nt 2\n", "phones:1: expected one symbol, got 'SIL 1'"),
        ("a\n\na\n", "phones:3: 'a' occurs twice"),
        ("\n", "phones: holds no phones"),
    ]:
        (tmp_path / "phones").write_text(content)
        with pytest.raises(ValueError, match=message):
            PhoneSet.load(str(tmp_path / "phones"))
    with pytest.raises(ValueError, match="unknown phone set 'nothing'; .* or the path of a file"):
        ClassifierConfig(phones="nothing")

"""People's own data, in all the shapes it comes in: every frame gets the label that its files say, or none."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from folder_corpus import RATE, SPEAKERS, TRACK, corpus, prepare, rejected, sound, write_alignment
from hypothesis import given
from hypothesis import strategies as st
from refused import refused

from speechattn.commands.main import main
from speechattn.corpora import folder as module
from speechattn.corpora.folder import FolderOptions, phone_track, prepare_folder
from speechattn.cuts.files import phone_intervals, read_cuts
from speechattn.cuts.model_inputs import cut_labels, cut_waveform
from speechattn.geometry import Geometry
from speechattn.labels.files import write_json, write_textgrid
from speechattn.labels.intervals import Interval, Segment
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig
from speechattn.phones import PhoneSet


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
    for cut in prepare(root, tmp_path / "mean").values():
        assert cut_waveform(cut)[8000] == pytest.approx(0.25 * 0.75, abs=1e-3)
        assert Path(cut.recording.sources[0].source).parent == (tmp_path / "mean/audio").resolve()
    assert "6 recordings are copied to" in capsys.readouterr().out
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
    if any(phone.strip() and round(start * RATE) >= num_samples for phone, start, _, _ in rows):
        with pytest.raises(ValueError, match="after the end of the audio"):
            phone_track(rows, num_samples / RATE, gap="gap" if filled else None)
        return
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
    assert "anna_1.wav: is not in a speaker's folder: --speaker PATTERN finds the speaker in 'anna_1', such as" in line
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

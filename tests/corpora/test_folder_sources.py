from pathlib import Path

import pytest
from folder_corpus import RATE, SPEAKERS, TRACK, corpus, prepare, rejected, segments, sound
from lhotse import CutSet, Features
from lhotse.utils import fastcopy
from refused import refused

from speechattn.cuts.files import phone_intervals
from speechattn.cuts.model_inputs import cut_waveform
from speechattn.labels.files import write_textgrid
from speechattn.labels.intervals import Interval
from speechattn.model.config import ClassifierConfig
from speechattn.phones import PhoneSet


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
        ("anna/u1.TextGrid", "é".encode("latin-1"), "anna/u1.TextGrid:1: not text in UTF-8 or UTF-16"),
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
        (["--audio", tmp_path / "empty"], "empty: the folder has no audio files (.aif"),
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

"""The TIMIT sample: splits, sizes, hand labels."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from prepared import read_splits

from speechattn.corpora import download_corpus, prepare_corpus
from speechattn.corpora.timit_sample import prepare_timit_sample
from speechattn.cuts.files import phone_intervals, read_cuts
from speechattn.cuts.model_inputs import cut_labels
from speechattn.geometry import Geometry, num_frames
from speechattn.phones import PhoneSet

SPEAKERS = [f"dr{dialect}-{sex}abc{dialect}" for dialect in range(1, 9) for sex in "fm"]
SENTENCES = ["sa1", "sa2", *(f"si{number}" for number in (11, 12, 13)), *(f"sx{number}" for number in range(5))]
LABELS = "0 1000 h#\n1000 2500 aa\n2500 2700 h#\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of the sample's shape: 16 speakers of 10 sentences; every file ends 300 samples after its labels."""
    folder = tmp_path_factory.mktemp("corpus")
    for speaker in ["dr1-fvmh0", *SPEAKERS[1:]]:
        for sentence in SENTENCES:
            path = folder / "timit" / speaker / sentence
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(f"{path}.wav", np.zeros(3000), 16000)
            Path(f"{path}.txt").write_text("0 3000 She had, they say.\n")
            Path(f"{path}.phn").write_text(LABELS)
    return folder


@pytest.fixture
def copy(corpus, tmp_path):
    """A copy of the corpus that a test may damage."""
    return Path(shutil.copytree(corpus, tmp_path / "copy"))


def test_splits_by_dialect_without_sa_in_dev_and_test(corpus, tmp_path, capsys):
    prepare_timit_sample(corpus, tmp_path)
    splits = read_splits(tmp_path)
    assert {name: len(cuts) for name, cuts in splits.items()} == {"train": 100, "dev": 16, "test": 32}
    dialects = {name: {cut.supervisions[0].speaker[-1] for cut in cuts} for name, cuts in splits.items()}
    assert dialects == {"train": {*"012345"}, "dev": {"6"}, "test": {"7", "8"}}
    with_sa = {name: sum("-sa" in cut.id for cut in cuts) for name, cuts in splits.items()}
    assert with_sa == {"train": 20, "dev": 0, "test": 0}
    everything = {cut.id: cut for cut in read_cuts(tmp_path / "all.jsonl.gz")}
    assert len(everything) == 160 and all(everything[cut.id] == cut for cuts in splits.values() for cut in cuts)
    cut = splits["dev"][0]
    assert cut.supervisions[0].text == "She had, they say."
    assert phone_intervals(cut) == [(0, 1000, "h#"), (1000, 2500, "aa"), (2500, 3000, "h#")]
    assert capsys.readouterr().out.count("CC BY-NC-SA") == 1


def test_last_label_past_the_end_is_cut(copy, tmp_path):
    (copy / "timit/dr1-fvmh0/sa1.phn").write_text("0 2000 h#\n2000 3001 h#\n")
    prepare_timit_sample(copy / "timit", tmp_path / "out")  # the root itself will do
    (cut,) = (cut for cut in read_splits(tmp_path / "out")["train"] if cut.id == "fvmh0-sa1")
    assert phone_intervals(cut)[-1] == (2000, 3000, "h#")


def test_audio_that_was_converted_as_text_is_noticed(copy, tmp_path, caplog):
    audio = copy / "timit/dr1-fvmh0/sa1.wav"
    for values, noticed in (([10, 2560, 13], False), ([10, 2560, 10], True)):
        soundfile.write(audio, np.array(values * 1000, dtype=np.int16), 16000)
        caplog.clear()
        prepare_timit_sample(copy, tmp_path / "out")
        assert ("went through a conversion of line ends" in caplog.text) == noticed


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dr2-mabc2/sx3.phn", "0 10 h#\n10 aa\n", r"sx3.phn:2: expected samples `start end phone`, got '10 aa'"),
        ("dr2-mabc2/sx3.phn", "", r"sx3.phn: has no labels"),
        ("dr2-mabc2/sx3.phn", None, r"sx3.phn: no such file"),
        ("dr2-mabc2/sx3.wav", None, r"has 159 utterances, not 160: incomplete\?"),
        ("dr2-mabc2/sx3.wav", "no audio", r"sx3.wav: not an audio file"),
    ],
    ids=["bad-line", "empty", "no-labels", "no-audio", "text-as-wav"],
)
def test_damaged_corpus_is_refused_by_name(copy, tmp_path, file, content, message):
    path = copy / "timit" / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        prepare_timit_sample(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_not_a_corpus(tmp_path):
    with pytest.raises(ValueError, match=r"holds neither timit.zip nor its folder timit/"):
        prepare_corpus("timit_sample", tmp_path / "out", corpus_dir=tmp_path)
    with pytest.raises(ValueError, match=r"unknown corpus 'timid'; there are espeak, timit_sample, speechocean762"):
        prepare_corpus("timid", tmp_path / "out", corpus_dir=tmp_path)


@pytest.fixture(scope="module")
def sample(timit_archive, mirror, tmp_path_factory):
    """The real sample: corpus/ and cuts/."""
    folder = tmp_path_factory.mktemp("sample")
    download_corpus("timit_sample", folder / "corpus", str(mirror))
    prepare_corpus("timit_sample", folder / "cuts", corpus_dir=folder / "corpus")
    return folder


def test_every_frame_of_the_real_sample_has_the_label_of_its_centre_sample(sample):
    """Against a label for every sample, painted interval by interval from the corpus's own files."""
    phones = PhoneSet.load("timit61")
    count = 0
    for cut in (cut for cuts in read_splits(sample / "cuts").values() for cut in cuts):
        (path,) = (sample / "corpus").rglob(f"*{cut.id.replace('-', '/')}.phn")
        painted = [""] * cut.num_samples
        rows = [line.split() for line in path.read_text().splitlines()]
        rows[-1][1] = str(cut.num_samples)
        for start, end, symbol in rows:
            for number in range(int(start), min(int(end), cut.num_samples)):
                painted[number] = symbol
        labels = cut_labels(cut, phones, Geometry())
        expected = []
        while 160 * len(expected) + 400 <= cut.num_samples:
            expected.append(painted[160 * len(expected) + 200])
        assert [phones.symbols[label] for label in labels] == expected
        count += len(expected)
    assert count == 29613 + 5612 + 9582


def test_the_real_sample_is_counted_before_sa_is_left_out(sample, tmp_path, capsys):
    prepare_timit_sample(sample / "corpus", tmp_path)
    assert "160 utterances, 8.17 min, 48,695 frames, 6,185 phones of 61 kinds" in capsys.readouterr().out


def test_real_sample_has_the_expected_frames(sample):
    splits = read_splits(sample / "cuts")
    frames = {name: sum(num_frames(cut.num_samples) for cut in cuts) for name, cuts in splits.items()}
    assert frames == {"train": 29613, "dev": 5612, "test": 9582}
    symbols = Counter()
    for cut in (cut for cuts in splits.values() for cut in cuts):
        intervals = phone_intervals(cut)
        symbols.update(interval.symbol for interval in intervals)
        assert intervals[0].start == 0 and intervals[-1].end == cut.num_samples
        assert all(a.end == b.start for a, b in zip(intervals[:-1], intervals[1:], strict=True))
    assert symbols.keys() == set(PhoneSet.load("timit61").symbols)

"""speechocean762: the tables of the corpus, its splits, and what is left out."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from speechattn.corpora import prepare_corpus, speechocean762
from speechattn.corpora.download.fetch import extract
from speechattn.corpora.speechocean762 import prepare_speechocean762
from speechattn.cuts.files import phone_intervals
from speechattn.phones import PhoneSet

DEV_SPEAKER = "0075"  # one of the fixed list
SPEAKERS = {"train": ("0001", DEV_SPEAKER), "test": ("0003",)}


@pytest.fixture
def corpus(tmp_path):
    """The real corpus's layout with three speakers of two utterances of noise."""
    root = tmp_path / "corpus" / "speechocean762"
    noise = np.random.default_rng(0).normal(scale=0.01, size=16000)
    (root / "resource").mkdir(parents=True)
    (root / "resource" / "lexicon.txt").write_text("YES\tY EH1 S\nNO\tN OW0\n")
    for part, speakers in SPEAKERS.items():
        (root / part).mkdir()
        rows = [(f"{speaker}000{number}", speaker) for speaker in speakers for number in range(2)]
        (root / part / "wav.scp").write_text("".join(f"{name}\tWAVE/{name}.WAV\n" for name, _ in rows))
        (root / part / "text").write_text("".join(f"{name}\tYES NO\n" for name, _ in rows))
        (root / part / "utt2spk").write_text("".join(f"{name} {speaker}\n" for name, speaker in rows))
        for name, _ in rows:
            (root / "WAVE").mkdir(exist_ok=True)
            soundfile.write(root / "WAVE" / f"{name}.WAV", noise, 16000)
    soundfile.write(root / "WAVE" / "960000000.WAV", noise, 16000)  # belongs to no part: wav.scp tells
    return root


def read(output: Path) -> dict[str, list]:
    return {name: list(CutSet.from_file(output / f"{name}.jsonl.gz")) for name in ("train", "dev", "test")}


def test_official_split_with_dev_taken_from_train(corpus, tmp_path, capsys):
    (corpus / "train" / "text").write_text("00010000\tYES NO\n00010001\tYES MAYBE\n00750000\tNO\n00750001\tYES\n")
    prepare_speechocean762(corpus.parent, tmp_path / "out")
    splits = read(tmp_path / "out")
    ids = {name: [cut.id for cut in cuts] for name, cuts in splits.items()}
    assert ids == {"train": ["00010000"], "dev": ["00750000", "00750001"], "test": ["00030000", "00030001"]}
    assert (tmp_path / "out" / "rejected.tsv").read_text() == "00010001\ttrain\tnot in the lexicon: maybe\n"
    cut = splits["dev"][0]
    assert (cut.supervisions[0].speaker, cut.supervisions[0].text) == (DEV_SPEAKER, "NO")
    assert [interval.symbol for interval in phone_intervals(cut) if interval.symbol != "SIL"] == ["N", "OW"]
    assert capsys.readouterr().out.count("https://www.openslr.org/101") == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("WAVE/00030001.WAV", None, r"00030001.WAV: is missing: speechocean762 is incomplete"),
        ("test/text", None, r"test/text: no such file"),
        ("test/text", "00030000\tYES\n", r"test/text: has no line for utterance 00030001"),
        ("train/utt2spk", "00010000\n", r"train/utt2spk:1: expected a key and a value, found '00010000'"),
        ("resource/lexicon.txt", "YES\tJA\n", r"lexicon.txt:1: unknown phone 'JA' in the entry of 'YES'"),
        ("resource/lexicon.txt", None, r"lexicon.txt"),
        ("train/wav.scp", None, r"holds neither speechocean762.tar.gz nor its folder speechocean762/"),
    ],
    ids=["audio", "table", "row", "bad-row", "bad-lexicon", "lexicon", "not-a-corpus"],
)
def test_damaged_corpus_is_refused_by_name(corpus, tmp_path, file, content, message):
    (corpus / file).unlink()
    if content is not None:
        (corpus / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        prepare_speechocean762(corpus.parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_split_must_not_end_up_empty(corpus, tmp_path):
    (corpus / "test" / "text").write_text("00030000\tHM\n00030001\tHM\n")
    with pytest.raises(ValueError, match="the test split has no utterances"):
        prepare_speechocean762(corpus, tmp_path / "out")


def test_dev_speakers_are_twelve_balanced_by_gender():
    asset = Path(speechocean762.__file__).parents[1] / "assets" / "speechocean762_dev_speakers.txt"
    rows = [line.split() for line in asset.read_text().splitlines() if not line.startswith("#")]
    assert len(speechocean762._dev_speakers()) == 12
    assert {row[0] for row in rows} == speechocean762._dev_speakers()
    assert sorted(row[1] for row in rows) == ["f"] * 6 + ["m"] * 6
    assert sum(int(row[2]) <= 15 for row in rows) == 6


@pytest.fixture
def excerpt(tmp_path):
    """Three speakers of four utterances each from the real archive: of train, of dev and of test."""
    mirror = os.environ.get("SPEECHATTN_MIRROR")
    archive = Path(mirror or "", "openslr/101/speechocean762.tar.gz")
    if not mirror or not archive.is_file():
        pytest.skip("SPEECHATTN_MIRROR holds no speechocean762")
    (tmp_path / "real").mkdir()
    root = extract(archive, tmp_path / "real" / "speechocean762")
    for part, speakers in SPEAKERS.items():
        path = root / part / "wav.scp"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join("".join([line for line in lines if line.startswith("0" + s)][:4]) for s in speakers))
    return root


def test_real_labels_are_the_same_in_any_order_and_number_of_processes(excerpt, tmp_path):
    prepare_corpus("speechocean762", tmp_path / "one", corpus_dir=excerpt, num_jobs=1)
    for part in SPEAKERS:
        path = excerpt / part / "wav.scp"
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    prepare_corpus("speechocean762", tmp_path / "two", corpus_dir=excerpt, num_jobs=2)
    symbols = set(PhoneSet.load("arpabet41").symbols)
    backwards = read(tmp_path / "two")
    for name, cuts in read(tmp_path / "one").items():
        assert len(cuts) == 4
        assert cuts == backwards[name][::-1]
        for cut in cuts:
            intervals = phone_intervals(cut)
            assert intervals[0].start == 0 and intervals[-1].end == cut.num_samples
            assert len(intervals) > 5 and {interval.symbol for interval in intervals} <= symbols
    assert (tmp_path / "one" / "rejected.tsv").read_text() == ""

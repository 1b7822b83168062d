"""TIMIT: a tree in its own layout, made of the sample's speech, through the recipe; its lists, labels and files."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from in_process_recipe import run_recipe
from prepared import read_splits
from refused import refused
from tiny_configuration import write_tiny

from speechattn.commands.main import main
from speechattn.corpora import prepare_corpus
from speechattn.corpora.timit import TimitOptions, _speakers, prepare_timit
from speechattn.cuts.files import phone_intervals
from speechattn.phones import PhoneSet

# Speakers of the sample -> part, region and name in the tree: names of the official lists, and mkls1 of neither.
RENAMED = {
    "dr1-fvmh0": "TRAIN/DR1/FVMH0",
    "dr2-marc0": "TRAIN/DR2/MARC0",
    "dr4-falr0": "TRAIN/DR4/FALR0",
    "dr6-fapb0": "TEST/DR6/FDRW0",
    "dr6-mbma1": "TEST/DR6/MRCS0",
    "dr7-fblv0": "TEST/DR7/FDHC0",
    "dr8-mbcg0": "TEST/DR8/MJLN0",
    "dr8-fbcg1": "TEST/DR8/MKLS1",
}
PARTS = {"FVMH0": "train", "MARC0": "train", "FALR0": "train", "FDRW0": "dev", "MRCS0": "dev"} | {
    "FDHC0": "test",
    "MJLN0": "test",
}


def sphere(samples: np.ndarray, *, count: int | None = None, coding: str = "pcm") -> bytes:
    """A NIST SPHERE file of int16 samples; `count` is what its header says there are."""
    fields = [
        "database_id -s5 TIMIT",
        "channel_count -i 1",
        f"sample_count -i {len(samples) if count is None else count}",
        "sample_rate -i 16000",
        "sample_n_bytes -i 2",
        "sample_byte_format -s2 01",
        "sample_sig_bits -i 16",
        f"sample_coding -s{len(coding)} {coding}",
        "end_head",
    ]
    header = "NIST_1A\n   1024\n" + "".join(f"{field}\n" for field in fields)
    return header.encode().ljust(1024) + samples.astype("<i2").tobytes()


def sentence(folder: Path, name: str, samples: np.ndarray, phn: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.WAV").write_bytes(sphere(samples))
    (folder / f"{name}.PHN").write_text(phn)
    (folder / f"{name}.TXT").write_text(text)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """One sentence, and an SA sentence, of a speaker of each split, in upper case."""
    for place in ("TRAIN/DR1/FCJF0", "TEST/DR1/FAKS0", "TEST/DR1/MDAB0"):
        for name in ("SA1", "SX37"):
            phn = "0 1000 h#\n1000 2000 q\n2000 2900 ix\n"
            sentence(tmp_path / "TIMIT" / place, name, np.zeros(3000), phn, "0 3000 She had, they say.\n")
    return tmp_path


@pytest.fixture(scope="module")
def tree(timit_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight speakers of the sample as TIMIT has them, TIMIT/TRAIN/DR1/FVMH0/SI1466.WAV in SPHERE; SA1 and 3 others."""
    folder = tmp_path_factory.mktemp("ldc93s1")
    with zipfile.ZipFile(timit_archive) as file:
        for source, place in RENAMED.items():
            names = [Path(name) for name in sorted(file.namelist()) if name.startswith(f"timit/{source}/")]
            audio = [name for name in names if name.suffix == ".wav"]
            for path in [name for name in audio if name.stem == "sa1"] + [n for n in audio if n.stem[:2] != "sa"][:3]:
                with file.open(str(path)) as stream:
                    samples, _ = soundfile.read(stream, dtype="int16")
                texts = [file.read(str(path.with_suffix(suffix))).decode() for suffix in (".phn", ".txt")]
                sentence(folder / "TIMIT" / place, path.stem.upper(), samples, *texts)
    return folder


def lowered(source: Path, target: Path) -> Path:
    """The same tree as other copies have it: lower-case names below data/, RIFF, one file twice."""
    for path in source.rglob("*"):
        if path.is_file():
            copy = target / "data" / str(path.relative_to(source / "TIMIT")).lower()
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".WAV":
                soundfile.write(copy, *soundfile.read(path, dtype="int16"), format="WAV")
                soundfile.write(f"{copy}.wav", *soundfile.read(path, dtype="int16"))
            else:
                copy.write_bytes(path.read_bytes())
    return target


def test_the_lists_are_the_official_ones():
    dev, test = _speakers("dev"), _speakers("test")
    assert (len(set(dev)), len(set(test))) == (50, 24) and not set(dev) & set(test)
    assert sum(name[0] == "f" for name in test) == 8  # a woman and two men of each region
    assert {"faks0", "mrws1"} <= set(dev) and {"mdab0", "fmld0"} <= set(test)


def test_without_the_corpus_the_way_to_it_is_named(tmp_path, capsys):
    (tmp_path / "stray").mkdir()
    for folder in (tmp_path / "stray", tmp_path / "absent"):
        for command in ("download", "prepare"):
            output = ["--output", tmp_path / "out"] if command == "prepare" else []
            message = refused(capsys, command, "timit", "--corpus-dir", folder, *output)
            assert "LDC93S1" in message and "catalog.ldc.upenn.edu" in message and str(folder) in message
    assert not (tmp_path / "out").exists() and not (tmp_path / "absent").exists()


def test_cuts_are_the_sentences_without_sa_and_labels_are_kept(toy, tmp_path, capsys, caplog):
    prepare_timit(toy, tmp_path / "out")
    splits = read_splits(tmp_path / "out")
    assert {name: [cut.id for cut in cuts] for name, cuts in splits.items()} == {
        "train": ["fcjf0-sx37"],
        "dev": ["faks0-sx37"],
        "test": ["mdab0-sx37"],
    }
    (cut,) = splits["train"]
    assert cut.supervisions[0].speaker == "fcjf0" and cut.supervisions[0].text == "She had, they say."
    assert phone_intervals(cut) == [(0, 1000, "h#"), (1000, 2000, "q"), (2000, 3000, "ix")]  # the last one extended
    assert capsys.readouterr().out.count("Linguistic Data Consortium") == 1
    assert "train has 1 utterances, all of TIMIT 3696" in caplog.text


def test_the_glottal_stop_is_ignored_or_silence(toy, tmp_path, capsys):
    ids = {name: PhoneSet.load(name).ids(["q", "pau"]) for name in ("timit48", "timit39")}
    assert all(row["q"] == -100 and row["pau"] >= 0 for row in ids.values())
    main(["prepare", "timit", "--q", "sil", "--corpus-dir", str(toy), "--output", str(tmp_path / "out")])
    (cut,) = read_splits(tmp_path / "out")["dev"]
    assert phone_intervals(cut) == [(0, 1000, "h#"), (1000, 2000, "pau"), (2000, 3000, "ix")]
    prepare_corpus("timit", tmp_path / "out", corpus_dir=toy, options=TimitOptions())  # another option: made again
    assert phone_intervals(read_splits(tmp_path / "out")["dev"][0])[1].symbol == "q"
    assert "q must be ignore or sil" in refused(
        capsys, "prepare", "timit", "--q", "silence", "--corpus-dir", toy, "--output", tmp_path / "out"
    )


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("PHN", "0 1000 h#\n1000 x ix\n", r"SX37.PHN:2: expected samples `start end phone`, got '1000 x ix'"),
        ("PHN", "", r"SX37.PHN: has no labels"),
        ("PHN", "0 1000 h#\n1000 3000 AA\n", r"SX37.PHN: 'AA' is not one of TIMIT's 61 symbols"),
        ("PHN", "0 1000 h#\n1000 9000 aa\n", r"SX37.PHN: ends at sample 9000, but the audio at 3000"),
        ("PHN", None, r"FAKS0: sx37.phn is missing"),
        ("TXT", "0 3000\n", r"SX37.TXT: expected `start end sentence`"),
        ("TXT", None, r"FAKS0: sx37.txt is missing"),
        ("WAV", None, r"FAKS0: sx37.wav is missing"),
        ("WAV", "no audio", r"SX37.WAV: not an audio file"),
        ("WAV", sphere(np.zeros(2000), count=3000), r"SX37.WAV: cut short: 2000 of 3000 samples are there"),
        ("WAV", sphere(np.zeros(99), coding="pcm,embedded-shorten-v2.00"), r"SX37.WAV: .*shorten.*sph2pipe -f wav"),
    ],
)
def test_what_is_damaged_is_refused_by_name(toy, tmp_path, file, content, message):
    path = toy / "TIMIT/TEST/DR1/FAKS0" / f"SX37.{file}"
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        prepare_timit(toy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_rate_is_refused(toy, tmp_path):
    path = toy / "TIMIT/TRAIN/DR1/FCJF0/SX37.WAV"
    path.write_bytes(path.read_bytes().replace(b"sample_rate -i 16000", b"sample_rate -i 8000 "))
    with pytest.raises(ValueError, match=r"SX37.WAV: is at 8000 Hz"):
        prepare_timit(toy, tmp_path / "out")


def test_any_case_level_and_format_gives_the_same_cuts(tree, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    prepare_timit(tree, tmp_path / "upper")
    prepare_timit(tree / "TIMIT", tmp_path / "root")
    prepare_timit(lowered(tree, tmp_path / "copy"), tmp_path / "lower")
    upper, root, lower = (read_splits(tmp_path / name) for name in ("upper", "root", "lower"))
    for split, cuts in upper.items():
        assert len(cuts) == 3 * sum(part == split for part in PARTS.values())
        for cut, same, other in zip(cuts, root[split], lower[split], strict=True):
            assert cut.supervisions[0].speaker == cut.id.split("-")[0]
            assert PARTS[cut.supervisions[0].speaker.upper()] == split
            assert cut.to_dict() == same.to_dict()
            assert (cut.id, cut.num_samples, cut.supervisions) == (other.id, other.num_samples, other.supervisions)
            assert (cut.load_audio() == other.load_audio()).all()
    assert before == {path: path.stat().st_mtime_ns for path in tree.rglob("*")}  # the corpus is left alone


def test_the_recipe_scores_48_classes_on_39(tree, tmp_path):
    conf, exp = write_tiny(tmp_path / "tiny.yaml", epochs=4, phones="timit48"), tmp_path / "exp"
    result = run_recipe("timit", "--corpus-dir", tree, "--exp-dir", exp, "--conf", conf, folder=tmp_path)
    assert result.returncode == 0 and result.stdout.count("LDC93S1") == 1
    assert len(json.loads((exp / "model/config.json").read_text())["symbols"]) == 48
    figures = json.loads((exp / "report/test.json").read_text())
    phones = PhoneSet.load("timit39")
    expected: dict[str, int] = dict.fromkeys(phones.symbols, 0)
    for cut in read_splits(exp / "data")["test"]:
        intervals = phone_intervals(cut)
        for centre in range(200, cut.num_samples - 199, 160):
            (symbol,) = (i.symbol for i in intervals if i.start <= centre < i.end)
            if symbol != "q":
                expected[phones.fold(symbol)] += 1
    assert {name: row["num_frames"] for name, row in figures["phones"].items()} == {
        k: n for k, n in expected.items() if n
    }
    assert figures["num_utterances"] == 6 and figures["frame_accuracy"] > 0.1
    assert len(list((exp / "textgrid").glob("*.TextGrid"))) == 6

"""LibriPhone: a folder in the course's layout, through the recipe to the submission, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process_recipe import run_recipe
from prepared import read_splits
from refused import refused
from tiny_configuration import write_tiny

from speechattn.commands.main import main
from speechattn.corpora.libriphone import LibriPhoneOptions, prepare_libriphone
from speechattn.cuts.files import phone_intervals
from speechattn.cuts.model_inputs import cut_features
from speechattn.labels.frames import frame_labels
from speechattn.model.classifier import FrameClassifier

CLASSES = [str(number) for number in range(41)]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Four speakers of six utterances, of which one is test; feature 0 to 40 of a frame tells its class."""
    generator = np.random.default_rng(0)
    root = tmp_path / "course/libriphone"
    for part in ("train", "test"):
        (root / "feat" / part).mkdir(parents=True)
    lists: dict[str, list[str]] = {"train": [], "test": []}
    lines = []
    for speaker in (19, 103, 26, 8):
        for number in range(6):
            utterance, part = f"{speaker}-198-{number:04d}", "test" if number == 5 else "train"
            runs = generator.integers(0, 41, size=8)
            labels = np.repeat(runs, generator.integers(1, 12, size=8))
            features = 0.1 * generator.standard_normal((len(labels), 39))
            features[np.arange(len(labels)), labels % 39] += 3
            features[labels >= 39] *= -1
            torch.save(torch.tensor(features, dtype=torch.float32), root / "feat" / part / f"{utterance}.pt")
            lists[part].append(utterance)
            if part == "train":
                lines.append(f"{utterance} {' '.join(map(str, labels))}\n")
    for part, names in lists.items():
        (root / f"{part}_split.txt").write_text("".join(f"{name}\n" for name in names))
    (root / "train_labels.txt").write_text("".join(reversed(lines)))  # in no order
    return root.parent


def test_features_and_labels_are_the_courses_frame_by_frame(course, tmp_path, capsys):
    prepare_libriphone(course, tmp_path / "out")
    splits = read_splits(tmp_path / "out")
    assert {name: len(cuts) for name, cuts in splits.items()} == {"train": 15, "dev": 5, "test": 4}
    root = course / "libriphone"
    expected = {line.split()[0]: line.split()[1:] for line in (root / "train_labels.txt").read_text().splitlines()}
    for split, cuts in splits.items():
        part = "test" if split == "test" else "train"
        for cut in cuts:
            features = cut_features(cut)
            assert (features == torch.load(root / f"feat/{part}/{cut.id}.pt", weights_only=True).numpy()).all()
            if split == "test":
                assert cut.supervisions[0].alignment is None
                continue
            num_samples = round(cut.duration * 16000)
            labels = frame_labels(phone_intervals(cut), num_samples, {name: int(name) for name in CLASSES})
            assert list(map(str, labels)) == expected[cut.id] and len(labels) == len(features)
    assert [cut.id for cut in splits["test"]] == (root / "test_split.txt").read_text().split()
    printed = capsys.readouterr().out
    assert printed.count("CC BY 4.0") == 1
    assert "test: 3 of its 4 speakers are also in train" in printed and "dev: 1 of" not in printed


def test_what_is_prepared_is_prepared_again_when_features_are_gone(course, tmp_path, capsys):
    output = tmp_path / "out"
    prepare = ["prepare", "libriphone", "--corpus-dir", str(course), "--output", str(output)]
    main(prepare)
    main(prepare)
    assert "prepared already" in capsys.readouterr().out
    stored = output / "features/test/8-198-0005.npy"
    stored.unlink()
    main(prepare)
    assert stored.is_file() and "prepared already" not in capsys.readouterr().out


@pytest.mark.parametrize("rule", ["speaker", "utterance"])
def test_dev_is_cut_by_the_seed(course, tmp_path, rule):
    def prepared(seed: int) -> dict[str, list]:
        output = tmp_path / f"{rule}-{seed}"
        prepare_libriphone(course, output, options=LibriPhoneOptions(dev=rule, seed=seed))
        return read_splits(output)

    def ids(splits: dict[str, list]) -> list[str]:
        return [cut.id for cut in splits["dev"]]

    first = prepared(0)
    assert ids(first) == ids(prepared(0)) and len(first["dev"]) == {"speaker": 5, "utterance": 2}[rule]
    assert any(ids(first) != ids(prepared(seed)) for seed in (1, 2, 3))
    speakers = {name: {cut.supervisions[0].speaker for cut in cuts} for name, cuts in first.items()}
    assert bool(speakers["dev"] & speakers["train"]) == (rule == "utterance")


def test_the_recipe_leads_to_a_submission(course, tmp_path):
    tiny = {"phones": "libriphone", "symbols": CLASSES, "frontend": None}
    conf = write_tiny(tmp_path / "tiny.yaml", epochs=12, learning_rate=1e-2, batch_seconds=1.5, **tiny)
    exp = tmp_path / "exp"
    places = ("--corpus-dir", course, "--exp-dir", exp, "--conf", conf)
    result = run_recipe("libriphone", *places, folder=tmp_path)
    assert result.returncode == 0 and "spec_augment has no effect" in result.stderr
    figures = json.loads((exp / "report/dev.json").read_text())
    assert figures["num_utterances"] == 5
    assert figures["frame_accuracy"] > 2 * figures["majority"]["frame_accuracy"]
    with open(exp / "submission.csv", newline="") as file:
        header, *rows = csv.reader(file)
    model = FrameClassifier.from_pretrained(exp / "model")
    assert model.config.frontend is None and model.phones.symbols == tuple(CLASSES)
    expected = []
    for name in (course / "libriphone/test_split.txt").read_text().split():
        features = torch.load(course / f"libriphone/feat/test/{name}.pt", weights_only=True)
        with torch.no_grad():
            expected += model(features[None])[0][0].argmax(dim=1).tolist()
    assert header == ["Id", "Class"]
    assert rows == [[str(number), str(label)] for number, label in enumerate(expected)]
    made = (exp / "submission.csv").stat().st_mtime_ns
    assert "predicted already" in run_recipe("libriphone", *places, folder=tmp_path).stdout
    assert (exp / "submission.csv").stat().st_mtime_ns == made


def test_without_the_corpus_the_way_to_it_is_named(tmp_path, capsys):
    message = refused(capsys, "prepare", "libriphone", "--corpus-dir", tmp_path, "--output", tmp_path / "out")
    assert "holds no LibriPhone" in message and "kaggle.com" in message
    assert "holds no LibriPhone" in refused(capsys, "download", "libriphone", "--corpus-dir", tmp_path / "absent")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dev": "chapter"}, "dev must be one of speaker, utterance"),
    ],
)
def test_options_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        LibriPhoneOptions(**fields)


class Evil:
    def __reduce__(self):
        return print, ("never run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "19-198-0001.pt: is missing"),
        (b"half", "not a tensor that torch.load can read safely"),
        (b"", "not a tensor that torch.load can read safely"),
        (Evil(), "not a tensor that torch.load can read safely"),
        ([1, 2], "does not hold a tensor"),
        (torch.zeros(5, 40), r"expected \(T, 39\) torch.float32, found \(5, 40\) torch.float32"),
        (torch.zeros(5, 39, dtype=torch.float64), r"expected \(T, 39\) torch.float32"),
        (torch.zeros(0, 39), r"expected \(T, 39\)"),
        (torch.full((5, 39), torch.nan), "some features are NaN or infinite"),
        (torch.zeros(5, 39), r"has 5 frames, train_labels.txt \d+ classes"),
    ],
)
def test_damaged_features_are_refused_by_name(course, tmp_path, capsys, content, message):
    path = course / "libriphone/feat/train/19-198-0001.pt"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        prepare_libriphone(course, tmp_path / "out")
    assert "never run" not in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*.jsonl.gz"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("19-198-0001 ", "19-198-1001 "), "has no line for utterance 19-198-0001"),
        (lambda text: text.replace("19-198-0001 ", "19-198-0001 41 "), r"train_labels.txt:\d+: expected"),
        (lambda text: text.replace("19-198-0001 ", "19-198-0001 x "), r"train_labels.txt:\d+: expected"),
    ],
)
def test_damaged_labels_are_refused_by_name(course, tmp_path, edit, message):
    path = course / "libriphone/train_labels.txt"
    path.write_text(edit(path.read_text()))
    with pytest.raises(ValueError, match=message):
        prepare_libriphone(course / "libriphone", tmp_path / "out")

"""One label per utterance: pooling by loops, padding that never shows, and a task learned through the command."""

import csv
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from speechattn.batches.loader import Batches
from speechattn.batches.wave_augment import WaveAugmentConfig
from speechattn.commands.main import main
from speechattn.cuts.files import read_cuts, save_cuts, utterance_cut
from speechattn.cuts.model_inputs import cut_label, load_cuts
from speechattn.evaluation.evaluate import evaluate
from speechattn.frontend import FrontendConfig
from speechattn.geometry import Geometry
from speechattn.labels.files import read_json
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.model.pooling import AttentionPooling, MeanPooling
from speechattn.phones import PhoneSet
from speechattn.prediction.files import OutputOptions, predict_files

POOLINGS = ("mean", "attention")
LABELS = ("low", "high")
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def pooled(pooling: str, *, kind: str = "encoder", symbols: tuple[str, ...] = LABELS) -> FrameClassifier:
    encoder = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=3, feed_forward=16, conv_kernel=3)
    frontend = FrontendConfig(normalisation="none")
    config = ClassifierConfig(symbols=symbols, kind=kind, frontend=frontend, encoder=encoder, pooling=pooling)
    return FrameClassifier(config).eval()


def pool(pooling: str, dim: int) -> MeanPooling | AttentionPooling:
    module = MeanPooling() if pooling == "mean" else AttentionPooling(dim)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double()


def by_loops(module: MeanPooling | AttentionPooling, frames: Tensor) -> list[float]:
    """The pooled vector of one utterance, (T, D), a number at a time."""
    (count, dim), x = frames.shape, frames.tolist()
    scores = [0.0] * count
    if isinstance(module, AttentionPooling):
        weight, bias, vector = (p.tolist() for p in (module.hidden.weight, module.hidden.bias, module.score.weight[0]))
        for t in range(count):
            for i in range(dim):
                scores[t] += vector[i] * math.tanh(bias[i] + sum(weight[i][j] * x[t][j] for j in range(dim)))
    total = sum(math.exp(score) for score in scores)
    return [sum(math.exp(scores[t]) / total * x[t][i] for t in range(count)) for i in range(dim)]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_equals_loops_whatever_the_padding(pooling: str) -> None:
    module = pool(pooling, 3)

    @given(
        st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 3), st.sampled_from([0.0, 1e9, torch.nan])
    )
    def check(lengths: list[int], extra: int, garbage: float) -> None:
        x = torch.full((len(lengths), max(lengths) + extra, 3), garbage, dtype=torch.float64)
        for row, length in enumerate(lengths):
            x[row, :length] = torch.randn(length, 3, dtype=torch.float64)
        y = module(x, torch.tensor(lengths))
        assert y.shape == (len(lengths), 3) and y.dtype == torch.float64
        for row, length in enumerate(lengths):
            expected = by_loops(module, x[row, :length]) if length else [0.0] * 3
            torch.testing.assert_close(y[row], torch.tensor(expected, dtype=torch.float64), **EXACT)

    check()


def test_attention_prefers_some_frames() -> None:
    x = torch.randn(1, 20, 3, dtype=torch.float64)
    lengths = torch.tensor([20])
    assert (pool("attention", 3)(x, lengths) - pool("mean", 3)(x, lengths)).abs().max() > 0.05


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_utterance_without_a_frame_stays_finite_forward_and_backward(pooling: str) -> None:
    module = pool(pooling, 3)
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    module(x, torch.tensor([0, 4])).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert not x.grad[0].any() and not x.grad[1, 4:].any() and x.grad[1, :4].all()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in module.parameters())
    assert not module(x[:, :0], torch.tensor([0, 0])).any()


# ------------------------------------------------------------------------------------------------- the whole model


@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_are_the_output_layers_of_the_pooled_frames(pooling: str) -> None:
    model = pooled(pooling, kind="linear").double()  # whose body is the features themselves
    waveforms = 0.1 * torch.randn(1, 4000, dtype=torch.float64)
    assert isinstance(model.pooling, {"mean": MeanPooling, "attention": AttentionPooling}[pooling])
    frames = by_loops(model.pooling, model.frontend(waveforms)[0][0])
    torch.testing.assert_close(model(waveforms)[0][0], model.output(torch.tensor(frames, dtype=torch.float64)), **EXACT)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_recording_is_one_segment(pooling: str, tmp_path: Path) -> None:
    model = pooled(pooling)
    samples = 0.1 * np.random.default_rng(0).standard_normal(9001).astype(np.float32)
    posteriors = model.posteriors(samples)
    assert posteriors.shape == (2,) and posteriors.sum() == pytest.approx(1)
    (segment,) = model.classify(samples)
    assert segment == (LABELS[posteriors.argmax()], 0.0, 9001 / 16000, pytest.approx(posteriors.max()))
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    assert predict_files(model, {"a": tmp_path / "a.wav"}, OutputOptions(["json"]), output=tmp_path) == []
    (written,) = read_json(tmp_path / "a.json")
    assert written.phone == segment.phone and (written.start, written.end) == pytest.approx((0, 9001 / 16000))
    with pytest.raises(ValueError, match="model has pooling"):
        predict_files(model, {"a": tmp_path / "a.wav"}, OutputOptions(plot=True), output=tmp_path)
    with pytest.raises(ValueError, match="less than one frame"):
        model.classify(samples[:399])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_whole_recording_is_needed(pooling: str) -> None:
    model = pooled(pooling)
    assert model.lookahead is None and model.lookahead_ms is None
    with pytest.raises(ValueError, match=f"pooling '{pooling}' cannot stream"):
        model.stream()


def test_models_saved_before_there_was_pooling_load(tmp_path: Path) -> None:
    pooled("none", symbols=()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("pooling") == "none"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert FrameClassifier.from_pretrained(tmp_path).pooling is None


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"model\.pooling must be one of none, mean, attention, got 'max'"):
        pooled("max")
    with pytest.raises(ValueError, match=r"model\.pooling 'mean' needs the labels of utterances in model\.symbols"):
        pooled("mean", symbols=())
    with pytest.raises(ValueError, match="more than once: low"):
        pooled("mean", symbols=("low", "low"))


# ------------------------------------------------------------------------------------------------ cuts with labels


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Utterances of noise with a low or a high tone somewhere, and no phones. {train,dev}.jsonl.gz."""
    folder = tmp_path_factory.mktemp("labelled")
    generator = np.random.default_rng(0)
    for split, count in (("train", 32), ("dev", 9)):
        cuts = []
        for number in range(count):
            label = LABELS[int(number % 3 == 0)]
            length = int(generator.integers(4000, 12000))
            samples = 0.01 * generator.standard_normal(length)
            start = int(generator.integers(0, length - 3000))
            frequency = {"low": 400, "high": 2500}[label]
            samples[start : start + 3000] += 0.3 * np.sin(2 * np.pi * frequency * np.arange(3000) / 16000)
            path = folder / f"{split}-{number}.flac"
            soundfile.write(path, samples, 16000)
            cut = utterance_cut(path.stem, path, speaker=split, text="")
            cut.supervisions[0].label = label  # Lhotse keeps it in `custom`
            cuts.append(cut)
        save_cuts(folder / f"{split}.jsonl.gz", cuts)
    return folder


def changed_first(folder: Path, tmp_path: Path, label: object) -> Path:
    """The dev cuts, the first one with another label."""
    cuts = list(read_cuts(folder / "dev.jsonl.gz"))
    cuts[0].supervisions[0].custom = None if label is None else {"label": label}
    save_cuts(tmp_path / "changed.jsonl.gz", cuts)
    return tmp_path / "changed.jsonl.gz"


def test_every_utterance_has_its_label_at_every_speed(labelled: Path) -> None:
    cuts = {cut.id: cut for cut in read_cuts(labelled / "train.jsonl.gz")}
    phones, geometry = PhoneSet.of(LABELS), Geometry()
    batches = Batches(
        load_cuts(labelled / "train.jsonl.gz", geometry), phones, geometry,
        batch_seconds=3.0, shuffle=True, wave_augment=WaveAugmentConfig(speeds=(0.9, 1.1)), per_utterance=True,
    )  # fmt: skip
    seen = []
    for batch in batches.epoch():
        assert batch.labels.shape == (len(batch.ids),) and batch.labels.dtype == torch.int64
        for cut_id, label, length in zip(batch.ids, batch.labels.tolist(), batch.lengths.tolist(), strict=True):
            assert LABELS[label] == cuts[cut_id].supervisions[0].custom["label"]
            assert length != cuts[cut_id].num_samples
            seen.append(cut_id)
    assert sorted(seen) == sorted(cuts)


def test_labels_that_do_not_fit_name_the_cut(labelled: Path, tmp_path: Path) -> None:
    cut = next(iter(read_cuts(labelled / "dev.jsonl.gz")))
    assert cut_label(cut, LABELS) == 1 and cut_label(cut, LABELS[::-1]) == 0
    with pytest.raises(ValueError, match="cut dev-0: label 'high' is not among the model's 1 symbols: low"):
        cut_label(cut, ("low",))
    many = tuple(map(str, range(10)))
    with pytest.raises(ValueError, match=r"the model's 10 symbols: 0 1 2 3 4 5 \.\.\."):
        cut_label(cut, many)
    cut.supervisions.append(cut.supervisions[0])
    for supervisions in (cut.supervisions, []):
        cut.supervisions = supervisions
        with pytest.raises(ValueError, match="cut dev-0: expected one supervision with a label"):
            cut_label(cut, LABELS)
    for label, message in ((None, "expected one supervision with a label"), (1, "label 1 is not"), ("", "label '' is")):
        with pytest.raises(ValueError, match=f"cut dev-0: {message}"):
            evaluate(pooled("mean"), changed_first(labelled, tmp_path, label))


def test_an_evaluation_counts_every_utterance_once(labelled: Path) -> None:
    model = pooled("attention")
    with torch.no_grad():
        model.output.bias += torch.tensor([0.0, 100.0])  # a majority that is not the first class
    figures, confusion = evaluate(model, labelled / "dev.jsonl.gz")
    counts: Counter[tuple[str, str]] = Counter()
    for cut in read_cuts(labelled / "dev.jsonl.gz"):
        (segment,) = model.classify(cut.load_audio()[0])
        counts[cut.supervisions[0].custom["label"], segment.phone] += 1
    assert confusion.tolist() == [[counts[row, column] for column in LABELS] for row in LABELS]
    assert figures["num_utterances"] == 9 and figures["accuracy"] == pytest.approx(3 / 9)
    assert figures["majority"] == {"label": "low", "accuracy": pytest.approx(6 / 9)}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_task_is_learned_through_the_command(
    pooling: str, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, report = tmp_path / "model", tmp_path / "report"
    options = {
        "output": model, "model.pooling": pooling, "model.symbols": "[low, high]", "model.kind": "mlp",
        "model.mlp.width": 16, "model.mlp.layers": 1, "data.train": labelled / "train.jsonl.gz",
        "data.dev": labelled / "dev.jsonl.gz", "data.batch_seconds": 4, "data.num_workers": 0,
        "wave_augment.speeds": "[0.9, 1.0, 1.1]", "optim.epochs": 8, "optim.learning_rate": 0.01, "optim.average": 0.8,
        "model.frontend.normalisation": "global",
    }  # fmt: skip
    run(capsys, "train", *(word for name, value in options.items() for word in (f"--{name}", value)))
    with open(model / "log.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "train_loss", "dev_accuracy", "seconds", "frames_per_s", "data_wait"]
    assert float(rows[-1]["train_loss"]) < 0.3 < math.log(2) / 2 < float(rows[0]["train_loss"])

    printed = run(capsys, "evaluate", model, "--cuts", labelled / "dev.jsonl.gz", "--report", report)
    title, *table = printed.splitlines()
    assert title.endswith("on dev: accuracy over 9 utterances")
    assert [line.split() for line in table] == [["model", "100.00", "%"], ["majority", "class", "66.67", "%"]]
    names = ["dev.done.json", "dev.html", "dev.json", "dev_confusion.png"]
    assert sorted(path.name for path in report.iterdir()) == names
    page = (report / "dev.html").read_text()
    assert all(f">{heading}</h2>" in page for heading in ("Figures", "Classes", "Confusions", "Speakers", "Training"))
    assert ">Calibration</h2>" not in page and "<audio" not in page and ">66.67 %</td>" in page
    assert json.loads((report / "dev.json").read_text()) == {
        "accuracy": 1.0,
        "num_utterances": 9,
        "majority": {"label": "low", "accuracy": pytest.approx(2 / 3)},
        "labels": {"low": {"accuracy": 1.0, "num_utterances": 6}, "high": {"accuracy": 1.0, "num_utterances": 3}},
    }

    audio = labelled / "dev-0.flac"
    start, end, label, confidence = run(capsys, "predict", audio, "--model", model).split()
    assert (float(start), float(end)) == (0, pytest.approx(soundfile.info(audio).duration, abs=1e-4))
    assert label == "high" and 0.5 < float(confidence) <= 1

    with pytest.raises(SystemExit) as caught:
        main(["evaluate", str(model), "--cuts", str(changed_first(labelled, tmp_path, "middle"))])
    assert caught.value.code == 2
    assert "error: cut dev-0: label 'middle' is not among the model's 2 symbols: low high" in capsys.readouterr().err

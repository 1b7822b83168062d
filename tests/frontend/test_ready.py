"""Models without a front end: ready features in, the same results alone, in a batch and in pieces."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import Features

from speechattn.batches.loader import Batches
from speechattn.batches.wave_augment import WaveAugmentConfig
from speechattn.commands.main import main
from speechattn.cuts.files import read_cuts, save_cuts
from speechattn.cuts.model_inputs import cut_features, cut_labels, load_cuts
from speechattn.evaluation.evaluate import evaluate
from speechattn.frontend import Mfcc, ReadyFeatures
from speechattn.geometry import Geometry
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.phones import PhoneSet
from speechattn.prediction.cuts import predict_cuts, predict_frames
from speechattn.prediction.files import predict_files
from speechattn.training.run import DataConfig, OptimConfig, TrainConfig, train

EXACT = {"rtol": 1e-9, "atol": 1e-9}
DIM = 5


def ready_model(**fields) -> FrameClassifier:
    encoder = EncoderConfig(dim=16, layers=2, heads=2, left=4, right=3, feed_forward=16, conv_kernel=3)
    config = ClassifierConfig(**{"frontend": None, "feature_dim": DIM, "encoder": encoder, **fields})
    return FrameClassifier(config).double().eval()


@settings(max_examples=12)
@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4), extra=st.integers(0, 3))
def test_alone_as_in_any_batch_whatever_the_padding(lengths: list[int], extra: int) -> None:
    model = ready_model()
    x = torch.full((len(lengths), max(lengths) + extra, DIM), torch.nan, dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, :length] = torch.randn(length, DIM, dtype=torch.float64)
    with torch.no_grad():
        logits, frame_lengths = model(x, torch.tensor(lengths))
        assert not model.frontend(x, torch.tensor(lengths))[0][x.isnan()].any()  # padding is 0
        assert frame_lengths.tolist() == lengths and logits.shape == (*x.shape[:2], 41) and logits.isfinite().all()
        for row, length in enumerate(lengths):
            torch.testing.assert_close(logits[row, :length], model(x[row, :length][None])[0][0], **EXACT)


@given(num_frames=st.integers(0, 40), sizes=st.lists(st.integers(0, 15), max_size=6))
def test_in_any_pieces_as_the_whole(num_frames: int, sizes: list[int]) -> None:
    model = ready_model()
    x = np.random.default_rng(num_frames).standard_normal((num_frames, DIM))
    ends = np.cumsum([0, *sizes]).clip(max=num_frames).tolist()
    stream = model.stream()
    parts = [stream.push(x[first:end]) for first, end in zip([*ends], [*ends[1:], num_frames], strict=True)]
    assert sum(map(len, parts)) == max(num_frames - model.lookahead, 0)
    parts.append(stream.flush())
    assert all(isinstance(part, np.ndarray) for part in parts)
    np.testing.assert_allclose(np.exp(np.concatenate(parts)), model.posteriors(x), **EXACT)


def test_a_stream_ends_once_and_takes_features_only() -> None:
    stream = ready_model().stream()
    with pytest.raises(ValueError, match=r"takes features, \(n, 5\) float, got \(100,\)"):
        stream.push(np.zeros(100))
    stream.flush()
    for call in (lambda: stream.push(np.zeros((1, DIM))), stream.flush):
        with pytest.raises(ValueError, match="after flush"):
            call()


def test_lookahead_is_that_of_the_body() -> None:
    model = ready_model()
    assert model.lookahead == model.body.right_context and model.lookahead_ms == 10 * model.lookahead + 12.5
    assert model.feature_dim == DIM and FrameClassifier(ClassifierConfig()).feature_dim is None


@pytest.mark.parametrize(
    ("features", "lengths", "message"),
    [
        (torch.zeros(2, 100), None, r"\(B, T, 5\) float, got \(1, 2, 100\)"),
        (torch.zeros(2, 3, 4), None, r"got \(2, 3, 4\)"),
        (torch.zeros(2, 3, DIM, dtype=torch.int16), None, r"got \(2, 3, 5\) torch.int16"),
        (torch.zeros(2, 3, DIM), torch.tensor([1, 4]), r"lengths must be \(2,\), of 0..3 frames, got \[1, 4\]"),
        (torch.zeros(2, 3, DIM), torch.tensor([1]), r"lengths must be \(2,\)"),
    ],
)
def test_what_is_no_batch_of_features_is_refused(features, lengths, message) -> None:
    with pytest.raises(ValueError, match=message):
        ready_model()(features, lengths)


def test_masks_before_the_dct_are_refused() -> None:
    with pytest.raises(ValueError, match="log_mel_transform needs a front end"):
        ReadyFeatures(DIM)(torch.zeros(1, 3, DIM), log_mel_transform=lambda x, _: x)


def test_a_model_is_saved_with_no_front_end(tmp_path: Path) -> None:
    model = ready_model(kind="mlp").float()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["frontend"] is None
    again = FrameClassifier.from_pretrained(tmp_path)
    assert again.config == model.config and again.state_dict().keys() == model.state_dict().keys()
    assert ClassifierConfig.from_dict(asdict(ClassifierConfig())) == ClassifierConfig()
    with pytest.raises(ValueError, match="feature_dim must be at least 1"):
        ClassifierConfig(frontend=None, feature_dim=0)


def test_features_are_classified_and_audio_is_refused(tmp_path: Path) -> None:
    model = ready_model()
    segments = model.classify(np.random.default_rng(0).standard_normal((98, DIM)))
    assert segments[0].start == 0 and segments[-1].end == (400 + 97 * 160) / 16000
    with pytest.raises(ValueError, match=r"a.wav: the model has no front end: it takes features, not audio"):
        model.classify(tmp_path / "a.wav")
    with pytest.raises(ValueError, match="no frame"):
        model.classify(np.zeros((0, DIM)))
    assert model.attention_weights(np.zeros((7, DIM))).shape == (2, 7, 7)
    with pytest.raises(ValueError, match="takes features, not audio"):
        predict_files(model, {"a": tmp_path / "a.wav"}, output=tmp_path)


@pytest.fixture(scope="session")
def feature_corpus(tone_corpus: Path, tmp_path_factory) -> Path:
    """The corpus of tones as MFCCs of ours, without its recordings."""
    folder = tmp_path_factory.mktemp("features")
    mfcc = Mfcc(normalisation="utterance")
    for split in ("train", "dev", "test"):
        cuts = []
        for cut in read_cuts(tone_corpus / f"{split}.jsonl.gz"):
            features = mfcc(cut.load_audio()[0].astype(np.float32))
            np.save(folder / f"{cut.id}.npy", features)
            manifest = Features(
                type="mfcc", num_frames=len(features), num_features=39, frame_shift=0.01, sampling_rate=16000,
                start=0, duration=cut.duration, storage_type="numpy_files", storage_path=str(folder),
                storage_key=f"{cut.id}.npy",
            )  # fmt: skip
            cuts.append(replace(cut, recording=None, features=manifest))
        save_cuts(folder / f"{split}.jsonl.gz", cuts)
    return folder


def test_batches_of_features_are_whole(feature_corpus: Path) -> None:
    phones, geometry = PhoneSet.load("arpabet41"), Geometry()
    cuts = load_cuts(feature_corpus / "train.jsonl.gz", geometry, feature_dim=39)
    by_id = {cut.id: cut for cut in cuts}
    batches = Batches(cuts, phones, geometry, batch_seconds=4.0, shuffle=True, ready_features=True)
    seen = []
    for batch in batches.epoch(0):
        assert batch.waveforms.shape[:2] == batch.labels.shape
        for row, cut_id in enumerate(batch.ids):
            length = int(batch.lengths[row])
            assert (batch.waveforms[row, :length].numpy() == cut_features(by_id[cut_id])).all()
            assert not batch.waveforms[row, length:].any() and (batch.labels[row, length:] == -100).all()
            assert (batch.labels[row, :length].numpy() == cut_labels(by_id[cut_id], phones, geometry)).all()
            seen.append(cut_id)
    assert sorted(seen) == sorted(by_id)


def test_a_model_learns_from_features(feature_corpus: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        output=str(tmp_path / "model"),
        data=DataConfig(
            train=str(feature_corpus / "train.jsonl.gz"), dev=str(feature_corpus / "dev.jsonl.gz"),
            batch_seconds=4.0, num_workers=0,
        ),
        model=ClassifierConfig(frontend=None, kind="linear"),
        optim=OptimConfig(epochs=6, learning_rate=2e-2, average=0.5),
    )  # fmt: skip
    model = FrameClassifier.from_pretrained(train(config))
    test = feature_corpus / "test.jsonl.gz"
    figures, _ = evaluate(model, test)
    assert figures["frame_accuracy"] > 0.85

    predict_frames(str(tmp_path / "model"), test, tmp_path / "frames.csv")
    rows = [line.split(",") for line in (tmp_path / "frames.csv").read_text().splitlines()]
    expected = []
    for cut in read_cuts(test):
        expected += [model.phones.symbols[c] for c in model.posteriors(cut_features(cut)).argmax(axis=1)]
    assert rows == [["Id", "Class"], *([str(number), symbol] for number, symbol in enumerate(expected))]

    with pytest.raises(ValueError, match="takes features, not audio"):
        predict_cuts(str(tmp_path / "model"), test, tmp_path / "grids")
    with pytest.raises(ValueError, match="wave_augment needs a front end"):
        output = str(tmp_path / "augmented")
        train(replace(config, output=output, wave_augment=WaveAugmentConfig(gain_db=1.0)))


def test_cuts_that_do_not_fit_the_model_are_refused_by_name(feature_corpus, tone_corpus, tmp_path) -> None:
    geometry, dev = Geometry(), feature_corpus / "dev.jsonl.gz"
    with pytest.raises(ValueError, match=r"cut dev-0 has no features, which a model without a front end takes"):
        load_cuts(tone_corpus / "dev.jsonl.gz", geometry, feature_dim=39)
    with pytest.raises(ValueError, match=r"cut dev-0 has features but no recording"):
        load_cuts(dev, geometry)
    with pytest.raises(ValueError, match=r"cut dev-0 has \d+ frames of 39 features, not \d+ .* of 40"):
        load_cuts(dev, geometry, feature_dim=40)
    cuts = [replace(cut, duration=cut.duration + 0.01) for cut in read_cuts(dev)]
    save_cuts(tmp_path / "longer.jsonl.gz", cuts)
    with pytest.raises(ValueError, match=r"cut dev-0 has \d+ frames of 39 features"):
        load_cuts(tmp_path / "longer.jsonl.gz", geometry, feature_dim=39)
    cut = read_cuts(dev)[0]
    cut = replace(cut, features=replace(cut.features, storage_key="gone.npy"))
    with pytest.raises(ValueError, match=r"cut dev-0: its features .*gone.npy cannot be read"):
        cut_features(cut)
    np.save(tmp_path / "short.npy", np.zeros((3, 39), dtype=np.float32))
    cut = replace(cut, features=replace(cut.features, storage_path=str(tmp_path), storage_key="short.npy"))
    with pytest.raises(ValueError, match=r"cut dev-0 has features of shape \(3, 39\)"):
        cut_features(cut)


def test_the_command_takes_a_model_without_a_front_end(feature_corpus: Path, tmp_path: Path, capsys) -> None:
    config = tmp_path / "conf.yaml"
    config.write_text("model:\n  kind: linear\n  frontend: null\noptim:\n  epochs: 1\ndata:\n  num_workers: 0\n")
    data = [f"--data.{split}={feature_corpus / split}.jsonl.gz" for split in ("train", "dev")]
    main(["train", f"--config={config}", f"--output={tmp_path / 'model'}", *data])
    assert FrameClassifier.from_pretrained(tmp_path / "model").config.frontend is None
    cuts = str(feature_corpus / "test.jsonl.gz")
    main(["evaluate", str(tmp_path / "model"), "--cuts", cuts, "--report", str(tmp_path / "report")])
    assert sorted(path.suffix for path in (tmp_path / "report").iterdir()) == [
        ".html",
        ".json",
        ".json",
        ".png",
        ".png",
    ]
    main(["predict", "--cuts", cuts, "--model", str(tmp_path / "model"), "--frames", str(tmp_path / "a.csv")])
    for extra in (["--output", "x"], ["--plot"], ["--channel", "0"]):
        with pytest.raises(SystemExit):
            main(["predict", "--cuts", cuts, "--model", str(tmp_path / "model"), "--frames", "b.csv", *extra])
        assert "predict --frames needs --cuts" in capsys.readouterr().err

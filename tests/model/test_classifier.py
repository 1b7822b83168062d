"""The whole model: waveform in, one phone a frame out, saved and loaded to the bit."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_under_test import KINDS, POOLINGS, SMALL, VARIANTS, classifier, noise

from speechattn.frontend import FrontendConfig
from speechattn.geometry import num_frames
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig, MlpConfig

# --------------------------------------------------------------------------------------------- from wave to logits


@pytest.mark.parametrize(("normalisation", "pooling"), VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_batch_equals_alone_in_any_company(kind: str, normalisation: str, pooling: str) -> None:
    model = classifier(kind, normalisation=normalisation, pooling=pooling)
    per_frame = pooling == "none"

    @given(
        st.lists(st.integers(0, 6000), min_size=1, max_size=3), st.integers(0, 900), st.sampled_from([0.0, torch.nan])
    )
    def check(lengths: list[int], extra: int, garbage: float) -> None:
        waveforms = torch.full((len(lengths), max(lengths) + extra), garbage)
        for row, length in enumerate(lengths):
            waveforms[row, :length] = noise(length, row)
        logits, frame_lengths = model(waveforms, torch.tensor(lengths))
        assert frame_lengths.tolist() == [num_frames(length) for length in lengths]
        assert logits.shape == (len(lengths), *([num_frames(waveforms.shape[1])] if per_frame else []), 39)
        assert logits.dtype == torch.float32
        for row, length in enumerate(lengths):
            alone, frames = model(noise(length, row))
            real = logits[row, :frames] if per_frame else logits[row]
            torch.testing.assert_close(real, alone[0], rtol=0, atol=1e-4)

    with torch.inference_mode():
        check()
        assert model(noise(6000))[0].std() > 0.01  # not all the same anyway


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_samples", [0, 1, 399])
def test_less_than_a_frame_gives_no_frames(kind: str, num_samples: int) -> None:
    logits, frame_lengths = classifier(kind)(torch.zeros(3, num_samples))
    assert logits.shape == (3, 0, 39) and frame_lengths.tolist() == [0, 0, 0]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_reaches_every_parameter(kind: str, pooling: str) -> None:
    model = classifier(kind, pooling=pooling).train()
    logits, _ = model(torch.stack([noise(4000), noise(4000, 1)]), torch.tensor([4000, 300]))
    logits[0].log_softmax(-1)[..., 0].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_int16_equals_float(kind: str) -> None:
    samples = (32768 * noise(3000)).to(torch.int16)
    model = classifier(kind)
    assert torch.equal(model(samples[None])[0], model(samples[None] / 32768.0)[0])


# -------------------------------------------------------------------------------------------------- lookahead


@pytest.mark.parametrize(
    "kind, changes, lookahead",
    [
        ("linear", {}, 4),  # two orders of deltas, two frames each
        ("mlp", {}, 4),
        ("mlp", {"mlp": MlpConfig(width=16, layers=2, left=1, right=6)}, 6 + 4),
        ("tdnn", {}, 2 + 2 + 4),
        ("encoder", {}, 2 * (3 + 2) + 4),
        ("encoder", {"encoder": dataclasses.replace(SMALL.encoder, conv_kernel=0, right=0)}, 4),
        ("encoder", {"encoder": dataclasses.replace(SMALL.encoder, conv_kernel=0, left=None)}, 2 * 3 + 4),
        ("linear", {"frontend": FrontendConfig(delta_order=0)}, 0),
        ("linear", {"frontend": FrontendConfig(delta_order=1, delta_window=3)}, 3),
    ],
    ids=["linear", "mlp", "window", "tdnn", "encoder", "deltas only", "all to the left", "static", "wide deltas"],
)
def test_lookahead_is_the_last_sample_that_a_gradient_reaches(kind: str, changes: dict, lookahead: int) -> None:
    model = FrameClassifier(dataclasses.replace(SMALL, kind=kind, **changes)).eval().double()
    assert model.lookahead == lookahead and model.lookahead_ms == 10 * lookahead + 12.5
    waveform = noise(6000).double().requires_grad_()
    logits, _ = model(waveform)
    for t in (0, 3, 10):
        (gradient,) = torch.autograd.grad(logits[0, t].square().sum(), waveform, retain_graph=True)
        last = int(gradient.nonzero().max())
        assert last + 1 == 160 * t + 200 + 16 * model.lookahead_ms


def test_lookahead_is_none_where_everything_is_seen() -> None:
    assert classifier("linear", normalisation="utterance").lookahead is None
    model = classifier(normalisation="none", encoder=dataclasses.replace(SMALL.encoder, right=None))
    assert model.lookahead is None and model.lookahead_ms is None
    assert classifier("blstm", normalisation="none").lookahead is None
    assert classifier(normalisation="global").lookahead == 14


# --------------------------------------------------------------------------------------------------- segments


def test_segments_equal_runs_of_frames_by_loops() -> None:
    encoder = dataclasses.replace(SMALL.encoder, position="sinusoidal")  # decides for more than one phone
    model, samples = classifier(normalisation="global", encoder=encoder), noise(16000).numpy()
    posteriors = model.posteriors(samples)
    assert posteriors.shape == (98, 39) and posteriors.dtype == np.float32
    np.testing.assert_allclose(posteriors.sum(axis=1), 1, rtol=1e-5)
    logits = model(torch.from_numpy(samples))[0][0].detach().numpy()
    np.testing.assert_allclose(posteriors, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-4)

    expected: list[list] = []  # phone, start, end, posteriors of its frames
    for t, row in enumerate(posteriors):
        phone = model.phones.symbols[int(row.argmax())]
        start, end = (160 * t + 120) / 16000, (160 * t + 280) / 16000
        if expected and expected[-1][0] == phone:
            expected[-1][2] = end
            expected[-1][3].append(row.max())
        else:
            expected.append([phone, start, end, [row.max()]])
    expected[0][1], expected[-1][2] = 0.0, 1.0
    assert len(expected) > 3
    segments = model.classify(samples)
    assert [(s.phone, s.start, s.end) for s in segments] == [
        (p, pytest.approx(a), pytest.approx(b)) for p, a, b, _ in expected
    ]
    assert [s.confidence for s in segments] == pytest.approx([np.mean(scores) for *_, scores in expected], rel=1e-5)
    assert model.classify(samples) == segments  # nothing is random


def test_temperature_divides_the_logits_of_posteriors_alone(tmp_path: Path) -> None:
    model, samples = classifier(normalisation="global"), noise(8000).numpy()
    logits = model(torch.from_numpy(samples))[0][0].detach()
    segments = model.classify(samples)
    model.config = dataclasses.replace(model.config, temperature=2.5)
    model.save_pretrained(tmp_path)
    hot = FrameClassifier.from_pretrained(tmp_path)
    assert hot.config.temperature == 2.5
    assert torch.equal(hot(torch.from_numpy(samples))[0][0], logits)
    np.testing.assert_allclose(hot.posteriors(samples), (logits / 2.5).softmax(dim=-1).numpy(), rtol=1e-5)
    flatter = hot.classify(samples)
    assert [s[:3] for s in flatter] == [s[:3] for s in segments]
    assert all(a.confidence < b.confidence for a, b in zip(flatter, segments, strict=True))
    for temperature in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"model.temperature must be positive and finite, got {temperature}"):
            ClassifierConfig(temperature=temperature)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["temperature"]  # as models were saved that know of none
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert FrameClassifier.from_pretrained(tmp_path).config.temperature == 1


@pytest.mark.parametrize("rate, num_samples", [(44100, 40001), (48000, 30000), (8000, 7777), (16000, 12345)])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_of_any_rate_is_covered_from_0_to_its_end(
    tmp_path: Path, rate: int, num_samples: int, suffix: str
) -> None:
    path, model = tmp_path / f"a.{suffix}", classifier(normalisation="global")
    stereo = torch.stack([noise(num_samples), 0.3 * noise(num_samples, 1)], dim=1).clamp(-0.99, 0.99).numpy()
    soundfile.write(path, stereo, rate)
    segments = model.classify(path)
    assert segments[0].start == 0 and segments[-1].end == num_samples / rate
    for this, following in zip(segments, segments[1:], strict=False):
        assert this.start < this.end == following.start and this.phone != following.phone
    assert all(0 < segment.confidence <= 1 for segment in segments)
    assert model.classify(str(path)) == segments

    soundfile.write(tmp_path / "left.wav", soundfile.read(path)[0][:, 0], rate)
    assert model.classify(path, channel=0) == model.classify(tmp_path / "left.wav") != segments


def test_too_short_a_signal_is_named(tmp_path: Path) -> None:
    model = classifier()
    soundfile.write(tmp_path / "short.wav", np.zeros(399), 16000)
    with pytest.raises(ValueError, match=r"short\.wav: 399 samples at 16000 Hz are less than one frame of 400"):
        model.classify(tmp_path / "short.wav")
    with pytest.raises(ValueError, match="the signal: 399 samples"):
        model.classify(np.zeros(399, dtype=np.float32))
    segments = model.classify(np.zeros(400, dtype=np.float32))
    assert [(segment.start, segment.end) for segment in segments] == [(0.0, 0.025)]


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="model.kind must be one of encoder, blstm, tdnn, mlp, linear, got 'gru'"):
        ClassifierConfig(kind="gru")


def test_dictionary_and_back() -> None:
    for config in (SMALL, ClassifierConfig(symbols=("a", "b"), phones="mine", kind="mlp")):
        values = json.loads(json.dumps(dataclasses.asdict(config)))
        assert ClassifierConfig.from_dict(values) == config


def test_real_speech_through_a_fresh_model(speech: list[np.ndarray]) -> None:
    model = classifier()
    lengths = torch.tensor([len(samples) for samples in speech])
    waveforms = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(s) for s in speech], batch_first=True)
    with torch.inference_mode():
        logits, frame_lengths = model(waveforms, lengths)
        for row, samples in enumerate(speech):
            alone, _ = model(torch.from_numpy(samples))
            torch.testing.assert_close(logits[row, : frame_lengths[row]], alone[0], rtol=0, atol=1e-4)
            assert len(model.classify(samples)) > 10


def test_attention_to_look_at(tmp_path: Path) -> None:
    from speechattn.plots import plot_attention, save_figure

    encoder = EncoderConfig(dim=8, layers=2, heads=2, feed_forward=8, left=4, right=1)
    model = FrameClassifier(ClassifierConfig(phones="timit39", encoder=encoder)).eval()
    samples = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    weights = model.attention_weights(samples, layer=0)
    assert weights.shape == (2, 23, 23) and weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-5)
    assert not np.array_equal(weights, model.attention_weights(samples))  # the last layer
    figure = plot_attention(weights, model.frontend.geometry)
    assert [axes.get_title() for axes in figure.axes] == ["head 0", "head 1"]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), weights[1])
    save_figure(figure, tmp_path / "attention.png")
    with pytest.raises(ValueError, match=r"layer must lie in -2\.\.1, got layer=2"):
        model.attention_weights(samples, layer=2)
    with pytest.raises(ValueError, match="kind 'linear' has no attention"):
        FrameClassifier(ClassifierConfig(phones="timit39", kind="linear")).attention_weights(samples)


def test_one_model_with_less_right_context(tmp_path):
    samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
    encoder = EncoderConfig(dim=16, layers=2, heads=2, left=4, right=6, rights=(1, 6), feed_forward=16, conv_kernel=3)
    model = FrameClassifier(ClassifierConfig(encoder=encoder, frontend=FrontendConfig(normalisation="none"))).eval()
    wide = model.posteriors(samples)
    assert model.lookahead == 2 * (6 + 1) + 4
    model.limit_right(1)
    assert model.lookahead == 2 * (1 + 1) + 4
    narrow = model.posteriors(samples)
    assert np.abs(narrow - wide).max() > 1e-4
    model.save_pretrained(tmp_path)
    again = FrameClassifier.from_pretrained(tmp_path)
    assert again.lookahead == model.lookahead and np.array_equal(again.posteriors(samples), narrow)
    stream = again.stream()
    pieces = np.concatenate([stream.push(samples), stream.flush()])
    np.testing.assert_allclose(np.exp(pieces), narrow, atol=1e-4)
    with pytest.raises(ValueError, match="kind 'linear' has no attention"):
        FrameClassifier(ClassifierConfig(kind="linear")).limit_right(1)

"""Streams of attention, encoder and model give the offline result, for any pieces, as early as they can."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechattn.attention import NORMALISERS, SCORES, TruncatedSelfAttention
from speechattn.attention.positions import POSITIONS
from speechattn.frontend import FrontendConfig
from speechattn.model.baselines import Linear, Mlp, Tdnn
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import BlstmConfig, ClassifierConfig, EncoderConfig, MlpConfig, TdnnConfig
from speechattn.model.encoder import Encoder
from speechattn.model.stream import AttentionStream, BaselineStream, EncoderStream

EXACT = {"rtol": 1e-9, "atol": 1e-9}
SMALL = {"dim": 8, "layers": 2, "heads": 2, "feed_forward": 8}
pieces = st.lists(st.integers(0, 30), max_size=8)


def in_pieces(stream: AttentionStream | BaselineStream | EncoderStream, x: Tensor, sizes: list[int]) -> list[Tensor]:
    """What a stream gives for each piece of (T, D), the rest of the frames coming last."""
    ends = np.cumsum([0, *sizes]).clip(max=len(x)).tolist()
    results = [stream.push(x[first:end]) for first, end in zip(ends, ends[1:])]  # noqa: B905 (one shorter)
    return [*results, stream.push(x[ends[-1] :], last=True)]


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Float64, eval mode, and parameters that all matter, also those that begin at 0."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


@settings(max_examples=80)
@given(
    num_frames=st.integers(0, 90),
    sizes=pieces,
    left=st.none() | st.integers(0, 20),
    right=st.integers(0, 20),
    score=st.sampled_from(SCORES),
    normaliser=st.sampled_from(NORMALISERS),
    position=st.sampled_from(POSITIONS),
)
def test_attention_in_any_pieces_equals_offline(
    num_frames: int, sizes: list[int], left: int | None, right: int, score: str, normaliser: str, position: str
) -> None:
    position = "none" if left is None and position == "relative" else position
    attention = randomised(
        TruncatedSelfAttention(8, 2, left=left, right=right, score=score, normaliser=normaliser, position=position)
    )
    x = torch.randn(num_frames, 8, dtype=torch.float64)
    with torch.no_grad():
        results = in_pieces(AttentionStream(attention), x, sizes)
        torch.testing.assert_close(torch.cat(results), attention(x[None])[0], **EXACT)
    seen = np.cumsum([0, *sizes]).clip(max=num_frames)
    given_out = np.cumsum([len(result) for result in results])[:-1]
    assert given_out.tolist() == [max(n - right, 0) for n in seen[1:]]  # at once when they are final


@settings(max_examples=60)
@given(
    num_frames=st.integers(0, 120),
    sizes=pieces,
    left=st.integers(0, 9),
    right=st.integers(0, 5),
    conv_kernel=st.sampled_from([0, 1, 7]),
    position=st.sampled_from(["none", "sinusoidal", "learned", "relative", "rotary"]),
    activation=st.sampled_from(["silu", "gelu", "swiglu"]),
    stack=st.integers(1, 3),
    input_context=st.integers(0, 4),
)
def test_encoder_in_any_pieces_equals_offline(
    num_frames: int,
    sizes: list[int],
    left: int,
    right: int,
    conv_kernel: int,
    position: str,
    activation: str,
    stack: int,
    input_context: int,
) -> None:
    config = EncoderConfig(
        **SMALL,
        context=((left, right), (left + 1, 0)),
        conv_kernel=conv_kernel,
        position=position,
        max_positions=50,
        activation=activation,
        stack=stack,
        input_context=input_context,
    )
    encoder = randomised(Encoder(3, config))
    features = torch.randn(num_frames, 3, dtype=torch.float64)
    with torch.no_grad():
        results = in_pieces(EncoderStream(encoder), features, sizes)
        expected = encoder(features[None], torch.tensor([num_frames]))[0]
    torch.testing.assert_close(torch.cat(results), expected, rtol=1e-9, atol=1e-9)
    seen = np.cumsum([0, *sizes]).clip(max=num_frames)
    given_out = np.cumsum([len(result) for result in results])[:-1]
    steps_to_come = (encoder.right_context - input_context + 1) // stack - 1
    whole = [max(n - input_context, 0) // stack for n in seen[1:]]
    assert given_out.tolist() == [stack * max(steps - steps_to_come, 0) for steps in whole]


BASELINES = {
    "linear": Linear(3),
    "mlp": Mlp(3, MlpConfig(width=8, layers=2)),
    "window": Mlp(3, MlpConfig(width=8, layers=2, left=5, right=3)),
    "window to the right": Mlp(3, MlpConfig(width=8, layers=1, right=20)),
    "tdnn": Tdnn(3, TdnnConfig(width=8, layers=((5, 1), (3, 3), (1, 1)))),
    "tdnn, wide": Tdnn(3, TdnnConfig(width=8, layers=((3, 9), (3, 1), (5, 4)))),
}


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_in_any_pieces_equals_offline(name: str) -> None:
    body = randomised(BASELINES[name])

    @given(num_frames=st.integers(0, 90), sizes=pieces)
    def check(num_frames: int, sizes: list[int]) -> None:
        features = torch.randn(num_frames, 3, dtype=torch.float64)
        with torch.no_grad():
            results = in_pieces(BaselineStream(body), features, sizes)
            expected = body(features[None], torch.tensor([num_frames]))[0]
        torch.testing.assert_close(torch.cat(results), expected, **EXACT)
        seen = np.cumsum([0, *sizes]).clip(max=num_frames)
        given_out = np.cumsum([len(result) for result in results])[:-1]
        assert given_out.tolist() == [max(n - body.right_context, 0) for n in seen[1:]]

    check()


def small_model(kind: str = "encoder", **fields) -> FrameClassifier:
    config = ClassifierConfig(
        phones="timit39",
        kind=kind,
        encoder=EncoderConfig(**SMALL, left=6, right=2, conv_kernel=5),
        blstm=BlstmConfig(width=4, layers=1),
        tdnn=TdnnConfig(width=8, layers=((5, 1), (3, 3))),
        mlp=MlpConfig(width=8, layers=1, left=3, right=2),
        frontend=FrontendConfig(**fields),
    )
    return randomised(FrameClassifier(config))


MODELS = {
    "global": {"normalisation": "global"},
    "none": {},
    "sliding": {"normalisation": "sliding", "cmn_window": 20, "min_cmn_window": 5},
    "python_speech_features": {"preset": "python_speech_features"},
    "static, edges mirrored": {"delta_order": 0, "snip_edges": False},
    "tdnn": {"kind": "tdnn"},
    "mlp": {"kind": "mlp"},
    "linear": {"kind": "linear"},
}


@pytest.mark.parametrize("fields", MODELS.values(), ids=MODELS)
def test_model_in_any_pieces_equals_offline(fields: dict, speech: list[np.ndarray]) -> None:
    model = small_model(**fields)
    if fields.get("normalisation") == "global":
        dim = model.frontend.dim
        model.frontend.set_statistics(torch.randn(dim).double(), torch.rand(dim).double() + 0.5)
    model.config = replace(model.config, temperature=1.7)
    samples = speech[0][:20000]
    expected = np.log(model.posteriors(samples))
    for size in (1601, 7000, len(samples)):
        stream = model.stream()
        results = [stream.push(samples[first : first + size]) for first in range(0, len(samples), size)]
        results.append(stream.flush())
        assert all(isinstance(result, np.ndarray) for result in results)
        np.testing.assert_allclose(np.concatenate(results), expected, atol=1e-6)


def test_a_frame_comes_when_its_look_ahead_is_there_and_no_sooner() -> None:
    model = small_model()
    assert model.lookahead == 2 * (2 + 2) + 4
    for frame in (0, 1, 17):
        needed = 160 * (frame + model.lookahead) + 400  # up to the end of the last frame that it depends on
        assert model.lookahead_ms == pytest.approx(1000 * (needed - 160 * frame - 200) / 16000)
        stream = model.stream()
        assert len(stream.push(torch.zeros(needed - 1))) == frame
        assert len(stream.push(torch.zeros(1))) == 1


def test_what_needs_the_whole_recording_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="normalisation='utterance' needs the whole utterance"):
        small_model(normalisation="utterance").stream()
    with pytest.raises(ValueError, match="call model.eval"):
        small_model().train().stream()
    with pytest.raises(ValueError, match="kind 'blstm' cannot stream: it reads the recording from its end, too"):
        small_model("blstm").stream()
    encoder = EncoderConfig(**SMALL, right=None)
    with pytest.raises(ValueError, match="right=None"):
        FrameClassifier(ClassifierConfig(phones="timit39", encoder=encoder)).eval().stream()


def test_memory_of_a_stream_stays_bounded() -> None:
    model = small_model()
    stream = model.stream()
    for _ in range(50):
        stream.push(torch.randn(1600))
    assert max(map(len, stream._body._blocks._memory._kept)) <= 6 + 2
    stream = small_model("tdnn").stream()
    for _ in range(50):
        stream.push(torch.randn(1600))
    assert list(map(len, stream._body._memory._kept)) == [2 + 2, 3 + 3]


def test_samples_of_any_kind_and_nothing_after_flush(speech: list[np.ndarray]) -> None:
    model, samples = small_model(), np.round(32767 * speech[1][:5000]).astype(np.int16)
    stream, other = model.stream(), model.stream()
    one = torch.cat([stream.push(torch.from_numpy(samples)), stream.flush()])
    two = np.concatenate([other.push(samples[:77]), other.push(samples[77:]), other.flush()])
    np.testing.assert_allclose(one.numpy(), two, atol=1e-6)
    assert one.exp().sum(dim=1).numpy() == pytest.approx(1)
    with pytest.raises(ValueError, match="push after flush"):
        stream.push(torch.zeros(10))

"""Precisions, arrays, transforms and samples that users bring: right results, or one line that says what to do."""

import copy

import numpy as np
import pytest
import torch
import torchaudio
from model_under_test import classifier, noise

from speechattn import FrameClassifier, Mfcc
from speechattn.attention import TruncatedSelfAttention
from speechattn.frontend import Fbank
from speechattn.frontend.execution import wide_dtype
from speechattn.prediction.live import LiveSegments

SAMPLES = noise(16000).numpy()


@pytest.fixture(scope="module")
def model() -> FrameClassifier:
    torch.manual_seed(0)
    return classifier(normalisation="global")


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 0.01), (torch.bfloat16, 0.06), (torch.float64, 1e-5)])
def test_a_model_in_another_precision(model: FrameClassifier, dtype: torch.dtype, tolerance: float) -> None:
    other = copy.deepcopy(model).to(dtype)
    expected = model.posteriors(SAMPLES)
    np.testing.assert_allclose(other.posteriors(SAMPLES), expected, atol=tolerance)
    stream = other.stream()
    streamed = np.exp(np.concatenate([stream.push(SAMPLES[:7000]), stream.push(SAMPLES[7000:]), stream.flush()]))
    np.testing.assert_allclose(streamed, expected, atol=tolerance)


def test_arrays_that_run_backwards_tensors_and_lists(model: FrameClassifier) -> None:
    backwards = SAMPLES[::-1]
    expected = model.classify(backwards.copy())
    tensor = torch.from_numpy(backwards.copy())
    for source in (backwards, tensor, tensor.clone().requires_grad_(), backwards.tolist()):
        assert model.classify(source) == expected
    assert model.classify(tensor.bfloat16()) == model.classify(tensor.bfloat16().float())
    for shape in ((1, 16000), (2, 8000)):  # as torchaudio loads them
        with pytest.raises(ValueError, match=r"must be \(N,\) or \(N, channels\), got shape=.*: transpose them\?"):
            model.classify(SAMPLES.reshape(shape))
    assert np.array_equal(Mfcc()(backwards), Mfcc()(backwards.copy()))
    assert np.array_equal(model.stream().push(backwards), model.stream().push(backwards.copy()))


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_of_none_has_gradients(training: bool) -> None:
    waveforms = torch.zeros(0, 16000, requires_grad=True)
    model = classifier().train(training)
    logits, frame_lengths = model(waveforms, torch.zeros(0, dtype=torch.int64))
    assert logits.shape == (0, 98, 39) and frame_lengths.shape == (0,)
    logits.sum().backward()


def test_few_mel_bands() -> None:
    assert Fbank(num_mels=8)(torch.randn(16000) / 10).isfinite().all()
    assert Fbank(preset="librosa", num_mels=1)(torch.randn(16000) / 10).isfinite().all()
    with pytest.raises(ValueError, match="num_mels must be at least 4, as in Kaldi, got num_mels=3"):
        Fbank(num_mels=3)


def test_float64_as_the_default(tmp_path) -> None:
    classifier(normalisation="global").save_pretrained(tmp_path)
    expected = FrameClassifier.from_pretrained(tmp_path).posteriors(SAMPLES)
    torch.set_default_dtype(torch.float64)
    try:
        model = FrameClassifier.from_pretrained(tmp_path)
        np.testing.assert_allclose(model.posteriors(SAMPLES), expected, atol=1e-5)
        stream = model.stream()
        streamed = np.exp(np.concatenate([stream.push(SAMPLES), stream.flush()]))
        np.testing.assert_allclose(streamed, expected, atol=1e-5)
        assert Mfcc()(torch.from_numpy(SAMPLES)).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_copied_stream_goes_its_own_way(model: FrameClassifier) -> None:
    stream = model.stream()
    stream.push(SAMPLES[:5000])
    twin = copy.deepcopy(stream)
    twin.push(noise(3000, 1).numpy())
    rest = np.concatenate([stream.push(SAMPLES[5000:]), stream.flush()])
    np.testing.assert_allclose(np.exp(rest), model.posteriors(SAMPLES)[-len(rest) :], atol=1e-5)


def test_a_stream_under_autocast_is_exact(model: FrameClassifier) -> None:
    stream = model.stream()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        streamed = np.exp(np.concatenate([stream.push(SAMPLES), stream.flush()]))
    np.testing.assert_allclose(streamed, model.posteriors(SAMPLES), atol=1e-5)


def test_apples_gpu_has_no_float64() -> None:
    assert wide_dtype(torch.device("mps")) == torch.float32 and wide_dtype(torch.device("cpu")) == torch.float64


def test_transforms_of_torch_func(model: FrameClassifier) -> None:
    waveforms = torch.stack([noise(8000), noise(8000, 1)])
    parameters = dict(model.named_parameters())

    def loss(parameters, waveform):
        return torch.func.functional_call(model, parameters, (waveform[None],))[0].square().mean()

    per_example = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, waveforms)
    for index, waveform in enumerate(waveforms):
        expected = torch.autograd.grad(loss(parameters, waveform), list(parameters.values()))
        for name, gradient in zip(parameters, expected, strict=True):
            torch.testing.assert_close(per_example[name][index], gradient, atol=1e-5, rtol=1e-3)
    _, tangent = torch.func.jvp(lambda w: model(w)[0], (waveforms,), (waveforms.flip(1),))
    assert tangent.isfinite().all() and tangent.any()


@pytest.mark.parametrize("value, found", [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (1e6, "1e\\+06")])
def test_samples_that_are_no_sound_are_refused_and_the_stream_goes_on(
    model: FrameClassifier, value: float, found: str
) -> None:
    bad = SAMPLES.copy()
    bad[4000] = value
    for function in (model.posteriors, Mfcc(), model.classify):
        with pytest.raises(ValueError, match="samples" if function == model.classify else found):
            function(bad)
    live, clean = LiveSegments(model), LiveSegments(model)
    segments = live.push(SAMPLES[:5000])
    with pytest.raises(ValueError, match=f"{found}; these samples were dropped, and the stream continues"):
        live.push(bad)
    segments += live.push(SAMPLES[5000:]) + live.flush()
    assert segments == clean.push(SAMPLES[:5000]) + clean.push(SAMPLES[5000:]) + clean.flush()
    padded = torch.from_numpy(np.stack([SAMPLES, bad]))
    assert model(padded, torch.tensor([16000, 4000]))[0].shape == (2, 98, 39)  # padding may hold anything


def test_kaldis_hann_window_is_symmetric() -> None:
    waveform = torch.from_numpy(SAMPLES)[None] * 32768
    expected = torchaudio.compliance.kaldi.fbank(waveform, num_mel_bins=23, window_type="hanning", dither=0.0)
    torch.testing.assert_close(Fbank(window_type="hann")(waveform[0] / 32768), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("position", ["none", "rotary"])
def test_unlimited_attention_equals_the_reference(position: str) -> None:
    torch.manual_seed(0)
    fused = TruncatedSelfAttention(16, 2, left=None, right=None, position=position)
    dense = TruncatedSelfAttention(16, 2, left=None, right=None, position=position, path="dense")
    dense.load_state_dict(fused.state_dict())
    for lengths in (None, torch.tensor([30, 7, 0])):
        x = torch.randn(3, 30, 16, requires_grad=True)
        results = [layer(x, lengths) for layer in (fused, dense)]
        torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)
        gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in results]
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-3)

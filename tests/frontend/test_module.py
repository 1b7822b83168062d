"""A front end is a module like any other: it exports, compiles, copies and changes precision; the numbers stay."""

import copy
import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram

from speechattn.frontend import Fbank, Mfcc, Spectrogram

GRAPH = {"rtol": 1e-4, "atol": 1e-3}  # the Fourier transform as a matrix product, in float32
NUM_SAMPLES = (0, 1, 399, 400, 401, 559, 560, 12345)
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "kaldi": {"normalisation": "utterance"},
    "kaldi, mirrored": {"snip_edges": False, "use_energy": True, "normalisation": "global"},
    "htk": {"preset": "htk", "normalisation": "sliding", "cmn_window": 20, "min_cmn_window": 10},
    "librosa": {"preset": "librosa"},
    "torchaudio": {"preset": "torchaudio", "delta_rule": "torchaudio", "delta_order": 1},
    "python_speech_features": {"preset": "python_speech_features", "normalisation": "sliding", "center_cmn": True},
    "libriphone": {"preset": "libriphone"},
    "kaldi, online": {"normalisation": "online", "cmn_window": 20, "global_frames": 10},
}
DYNAMIC = {"waveforms": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, "lengths": {0: Dim.DYNAMIC}}


def batch(num_samples: int, rows: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise of which the first row is full, the second half full, and the third empty."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([num_samples, num_samples // 2, 0])[:rows]
    return 0.1 * torch.randn(rows, num_samples, generator=generator), lengths


def assert_equal_batches(result: Any, expected: tuple[Tensor, Tensor]) -> None:
    """The same frames, also if a graph gives rows of zeros where `Mfcc` gives none."""
    features, frame_lengths = (torch.as_tensor(part) for part in result)
    assert frame_lengths.dtype == torch.int64 and torch.equal(frame_lengths, expected[1])
    num_frames = expected[0].shape[1]
    assert features.shape[0::2] == expected[0].shape[0::2] and features.shape[1] >= num_frames
    torch.testing.assert_close(features[:, :num_frames], expected[0], **GRAPH)
    assert num_frames == 0 or features.shape[1] == num_frames
    assert not features[:, num_frames:].any()


# ------------------------------------------------------------------------------------------- torch.export


def exported(module: torch.nn.Module) -> ExportedProgram:
    return torch.export.export(module.eval(), batch(16000, rows=2), dynamic_shapes=DYNAMIC)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_exported_program_takes_any_batch_and_length_and_has_no_complex_numbers(name: str) -> None:
    mfcc = Mfcc(**CONFIGURATIONS[name])
    program = exported(mfcc)
    values = tensors_of(program)
    assert any(value.shape[-1:] == (mfcc.energies.fft_length // 2 + 1,) for value in values)  # the spectrum is there
    assert not any(value.is_complex() for value in values)
    # torch.export makes a special case of one frame by itself; from two frames on there is one graph.
    for num_samples in (560, 561, 720, 12345, 16000):
        for rows in (1, 2, 3):
            inputs = batch(num_samples, rows)
            assert_equal_batches(program.module()(*inputs), mfcc(*inputs))


def tensors_of(program: ExportedProgram) -> list[Tensor]:
    """What the graph's nodes give, also those inside the part without autocast, which is a graph of its own."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    values = [node.meta.get("val") for graph in graphs for node in graph.nodes]
    return [
        value
        for group in values
        for value in (group if isinstance(group, (list, tuple)) else [group])
        if isinstance(value, Tensor)
    ]


def test_complex_numbers_would_be_seen() -> None:
    class Complex(torch.nn.Module):
        def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return torch.fft.rfft(waveforms).abs() * lengths[:, None]

    assert any(value.is_complex() for value in tensors_of(exported(Complex())))


@pytest.mark.parametrize("module", [Fbank("librosa"), Spectrogram(power=1)], ids=["Fbank", "Spectrogram"])
def test_spectra_export_too(module: Fbank | Spectrogram) -> None:
    program = exported(module)
    for num_samples in (560, 12345):
        (features, frame_lengths), expected = program.module()(*batch(num_samples)), module(*batch(num_samples))
        assert torch.equal(frame_lengths, expected[1])
        torch.testing.assert_close(features, expected[0], rtol=1e-4, atol=1e-5 * float(expected[0].abs().max()))


# --------------------------------------------------------------------------------------------------- ONNX

SLOW_ONNX = [pytest.param(name, marks=pytest.mark.slow) for name in CONFIGURATIONS if name not in ("kaldi", "librosa")]


@pytest.mark.parametrize("name", ["kaldi", "librosa", *SLOW_ONNX])
def test_onnx_gives_what_torch_gives(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    mfcc = Mfcc(**CONFIGURATIONS[name])
    program = torch.onnx.export(mfcc.eval(), batch(16000, rows=2), dynamo=True, dynamic_shapes=DYNAMIC, verbose=False)
    program.save(tmp_path / "mfcc.onnx")
    session = runtime.InferenceSession(tmp_path / "mfcc.onnx")
    assert [value.name for value in session.get_inputs()] == ["waveforms", "lengths"]
    for num_samples in NUM_SAMPLES:
        for rows in (1, 3):
            waveforms, lengths = batch(num_samples, rows)
            result = session.run(None, {"waveforms": waveforms.numpy(), "lengths": lengths.numpy()})
            expected = mfcc(waveforms, lengths)
            if mfcc.config.snip_edges:
                assert result[0].shape == expected[0].shape
            assert_equal_batches(result, expected)


# ------------------------------------------------------------------------------------------ torch.compile


@pytest.mark.parametrize("name", ["kaldi", "librosa"])
def test_traced_graph_equals_eager(name: str) -> None:
    check_compiled(Mfcc(**CONFIGURATIONS[name]), backend="eager")


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler for torch.compile")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_compiled_equals_eager(name: str) -> None:
    check_compiled(Mfcc(**CONFIGURATIONS[name]), backend="inductor")


def check_compiled(mfcc: Mfcc, *, backend: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(mfcc, dynamic=True, fullgraph=True, backend=backend)
    for num_samples in (16000, 12345, 560, 400, 399, 1, 0):
        assert_equal_batches(compiled(*batch(num_samples)), mfcc(*batch(num_samples)))


# --------------------------------------------------------------------------------- precision and autocast


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_autocast_changes_nothing(name: str) -> None:
    mfcc, inputs = Mfcc(**CONFIGURATIONS[name]), batch(6000)
    for waveforms in (inputs[0], inputs[0].clone().requires_grad_()):
        expected, _ = mfcc(waveforms, inputs[1])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features, _ = mfcc(waveforms, inputs[1])
        assert features.dtype == torch.float32
        assert torch.equal(features, expected)


def test_float64_is_float32_made_exact() -> None:
    waveforms, lengths = batch(6000)
    single, double = Mfcc(), Mfcc().double()
    features, frame_lengths = double(waveforms, lengths)
    assert features.dtype == torch.float64 and frame_lengths.dtype == torch.int64
    torch.testing.assert_close(single(waveforms, lengths)[0].double(), features, rtol=1e-5, atol=1e-4)
    assert not torch.equal(single(waveforms, lengths)[0].double(), features)
    torch.testing.assert_close(double.float()(waveforms, lengths), single(waveforms, lengths), rtol=0, atol=0)


# --------------------------------------------------------------------------------------------------- CUDA


def test_tensors_of_one_pass_are_all_on_one_device() -> None:
    """Without a GPU: tensors that have a device and a shape, but no numbers."""
    for fields in CONFIGURATIONS.values():
        mfcc = Mfcc(**fields)
        with FakeTensorMode(allow_non_fake_inputs=True):
            features, frame_lengths = mfcc.to("cuda")(torch.empty(2, 3000, device="cuda"))
        assert features.device.type == frame_lengths.device.type == "cuda"
        assert features.shape == (2, mfcc.geometry.num_frames(3000), mfcc.dim)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_cuda_gives_what_the_cpu_gives(name: str) -> None:
    mfcc = Mfcc(**CONFIGURATIONS[name])
    for num_samples in NUM_SAMPLES:
        waveforms, lengths = batch(num_samples)
        expected = mfcc(waveforms, lengths)
        features, frame_lengths = copy.deepcopy(mfcc).cuda()(waveforms.cuda(), lengths)
        assert features.is_cuda and features.dtype == torch.float32
        torch.testing.assert_close((features.cpu(), frame_lengths.cpu()), expected, **GRAPH)
    waveforms = waveforms.cuda().requires_grad_()
    copy.deepcopy(mfcc).cuda()(waveforms, lengths)[0].square().sum().backward()
    assert waveforms.grad is not None and waveforms.grad.isfinite().all()


# ------------------------------------------------------------------------------------- NumPy and copying


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_numpy_in_numpy_out(name: str) -> None:
    mfcc, (waveforms, lengths) = Mfcc(**CONFIGURATIONS[name]), batch(4000)
    expected = mfcc(waveforms, lengths)
    result = mfcc(waveforms.numpy(), lengths.numpy())
    assert all(isinstance(part, np.ndarray) for part in result)
    for part, other in zip(result, expected, strict=True):
        np.testing.assert_array_equal(part, other.numpy())
    alone = mfcc(waveforms[0].numpy())
    assert isinstance(alone, np.ndarray)
    np.testing.assert_array_equal(alone, mfcc(waveforms[0]).numpy())


def learned(dim: int = 39) -> Mfcc:
    mfcc = Mfcc(normalisation="global")
    mfcc.set_statistics(torch.linspace(-20, 20, dim), torch.linspace(1, 90, dim))
    return mfcc


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), lambda module: saved_and_loaded(module)],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_a_copy_gives_the_same_and_is_its_own(copied: Any) -> None:
    mfcc, inputs = learned(), batch(4000)
    expected = mfcc(*inputs)[0]  # used before it is copied
    other = copied(mfcc)
    assert torch.equal(other(*inputs)[0], expected)
    other.set_statistics(torch.zeros(39), torch.ones(39))
    assert not torch.equal(other(*inputs)[0], expected) and torch.equal(mfcc(*inputs)[0], expected)


def saved_and_loaded(module: Mfcc) -> Mfcc:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_state_dict_holds_what_was_learned_and_nothing_else() -> None:
    assert list(Mfcc().state_dict()) == []
    mfcc, other = learned(), Mfcc(normalisation="global")
    assert sorted(mfcc.state_dict()) == ["mean", "scale"]
    assert not torch.equal(other(*batch(4000))[0], mfcc(*batch(4000))[0])
    other.load_state_dict(mfcc.state_dict())
    assert torch.equal(other(*batch(4000))[0], mfcc(*batch(4000))[0])


def test_torch_compile_gives_the_same_features_by_a_fourier_transform() -> None:
    targets = set()

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        targets.update(node.target for node in graph.graph.nodes)
        return graph.forward

    mfcc, waveforms, lengths = Mfcc(), torch.randn(2, 4000) / 10, torch.tensor([4000, 2500])
    compiled = torch.compile(mfcc, backend=backend)
    torch.testing.assert_close(compiled(waveforms, lengths), mfcc(waveforms, lengths), rtol=1e-5, atol=1e-4)
    assert torch.fft.rfft in targets  # the matrix product that stands for it in an exported graph is slower

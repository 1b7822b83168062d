"""Exported files give what PyTorch gives, say what they are, and run without PyTorch and this package."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from documentation import PAGES, blocks
from refused import refused

from speechattn.commands.main import main
from speechattn.export import file as export
from speechattn.export.check import Agreement, compare_stream, compare_whole, open_file, speech_like, streamed
from speechattn.export.streaming import StreamingStep
from speechattn.frontend import FrontendConfig
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import BlstmConfig, ClassifierConfig, EncoderConfig, MlpConfig, TdnnConfig

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

SMALL = {"dim": 8, "heads": 2, "feed_forward": 8}
MLP = MlpConfig(width=8, layers=1, left=3, right=2)
POOLED = {"phones": "arpabet41", "symbols": ("low", "high")}
KINDS: dict[str, dict[str, Any]] = {
    "not normalised, additive scores": {
        "frontend": FrontendConfig(delta_order=0),
        "encoder": EncoderConfig(**SMALL, layers=1, left=4, right=1, score="additive", position="none"),
    },
    "globally normalised, stack of 2": {
        "frontend": FrontendConfig(normalisation="global"),
        "encoder": EncoderConfig(**SMALL, layers=2, left=4, right=1, stack=2, position="sinusoidal"),
    },
    "online normalised": {
        "frontend": FrontendConfig(normalisation="online", cmn_window=30, cmn_min_range=1.0),
        "encoder": EncoderConfig(**SMALL, layers=1, left=4, right=1, position="rotary"),
    },
    "unlimited contexts": {
        "frontend": FrontendConfig(normalisation="utterance"),
        "encoder": EncoderConfig(**SMALL, layers=2, context=((None, 2), (3, None)), stack=3, conv_kernel=5),
    },
    "learned positions, edges padded": {
        "frontend": FrontendConfig(snip_edges=False, normalisation="sliding"),
        "encoder": EncoderConfig(**SMALL, layers=1, left=3, right=0, position="learned", max_positions=50),
    },
    "ready features, relative positions": {
        "frontend": None,
        "feature_dim": 5,
        "encoder": EncoderConfig(**SMALL, layers=1, left=6, right=2, position="relative", conv_kernel=0),
    },
    "blstm": {
        "kind": "blstm",
        "blstm": BlstmConfig(width=8, layers=2),
        "frontend": FrontendConfig(normalisation="utterance"),
    },
    "mlp": {"kind": "mlp", "mlp": MLP},
    "tdnn": {"kind": "tdnn", "tdnn": TdnnConfig(width=8, layers=((5, 1), (3, 3)))},
    "linear, librosa": {
        "kind": "linear",
        "frontend": FrontendConfig(preset="librosa", num_mels=20, normalisation="utterance"),
    },
    "linear, log-mel": {
        "kind": "linear",
        "frontend": FrontendConfig(kind="fbank", num_mels=20, normalisation="utterance"),
    },
    "mean pooling": {"kind": "tdnn", "tdnn": TdnnConfig(width=8, layers=((3, 1),)), "pooling": "mean", **POOLED},
    "attention pooling": {"kind": "mlp", "mlp": MLP, "pooling": "attention", **POOLED},
}


def model_of(**fields: Any) -> FrameClassifier:
    """With logits that are not all alike."""
    torch.manual_seed(1)
    model = FrameClassifier(ClassifierConfig(**{"phones": "timit39", **fields}))
    torch.nn.init.normal_(model.output.weight, std=0.2)
    if model.feature_dim is None and model.frontend.config.learns_statistics:
        dim = model.frontend.dim
        model.frontend.set_statistics(torch.linspace(-5, 5, dim), torch.linspace(30, 90, dim))
    return model.eval()


def written(model: FrameClassifier, path: Path) -> Path:
    graph = export.graph_of(model, path.suffix, streaming=False)
    export.write_graph(graph, path, export.metadata(model, graph))
    return path


@pytest.fixture(scope="module")
def encoder() -> FrameClassifier:
    encoder = EncoderConfig(**SMALL, layers=1, left=6, right=2, stack=2, input_context=3, position="rotary")
    return model_of(encoder=encoder, frontend=FrontendConfig(normalisation="online"), temperature=1.25)


@pytest.fixture(scope="module")
def folder(encoder: FrameClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the encoder as `model`, and what is faster to export as `linear`."""
    folder = tmp_path_factory.mktemp("exported")
    encoder.save_pretrained(folder / "model")
    model_of(kind="linear", frontend=FrontendConfig(normalisation="utterance")).save_pretrained(folder / "linear")
    return folder


@pytest.fixture(scope="module")
def whole(encoder: FrameClassifier, folder: Path) -> Path:
    """The encoder as ONNX."""
    return written(encoder, folder / "model.onnx")


@pytest.fixture(scope="module")
def stream(folder: Path) -> Path:
    """The encoder's stream as ONNX."""
    main(["export", str(folder / "model"), "--output", str(folder / "stream.onnx"), "--streaming"])
    return folder / "stream.onnx"


def assert_equal_outputs(model: FrameClassifier, path: Path) -> None:
    """At three durations, alone and in a batch, and for very short input, down to none."""
    run = open_file(path)
    agreement = compare_whole(model, run)
    assert agreement.logarithms < 1e-4 and agreement.alike == 1
    features = model.feature_dim is not None
    for size in (0, 1, 2, 3, 4, 77) if features else (0, 1, 160, 399, 400, 559, 560, 720, 880, 12345):
        for rows in (1, 3):
            inputs = 0.1 * torch.randn(rows, size, *([model.feature_dim] if features else []))
            lengths = torch.tensor([size, size // 2, 0])[:rows]
            with torch.no_grad():
                expected, frame_lengths = (part.numpy() for part in model(inputs, lengths))
            logits, counts = run(inputs.numpy(), lengths.numpy())
            assert logits.dtype == np.float32 and counts.dtype == np.int64
            assert logits.shape == expected.shape and counts.tolist() == frame_lengths.tolist()
            for result, reference, count in zip(logits, expected, counts, strict=True):
                rows_that_count = slice(count if result.ndim == 2 else None)
                np.testing.assert_allclose(result[rows_that_count], reference[rows_that_count], atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------ the whole model


def test_onnx_gives_what_pytorch_gives(encoder: FrameClassifier, whole: Path) -> None:
    assert_equal_outputs(encoder, whole)
    session = onnxruntime.InferenceSession(whole)
    values = [(value.name, value.shape, value.type) for value in session.get_inputs()]
    assert values == [
        ("waveforms", ["batch", "samples"], "tensor(float)"), ("lengths", ["batch"], "tensor(int64)")
    ]  # fmt: skip
    outputs = {value.name: value.shape for value in session.get_outputs()}
    assert outputs == {"logits": ["batch", "frames", 39], "frame_lengths": ["batch"]}


@pytest.mark.slow
def test_the_mean_of_minutes_is_not_lost_in_rounding(tmp_path: Path) -> None:
    model = model_of(kind="linear", frontend=FrontendConfig(normalisation="utterance"))
    with torch.no_grad():
        model.output.weight.copy_(torch.eye(39))  # features go out as they are
        model.output.bias.zero_()
    samples = speech_like(16000 * 120, 16000, seed=0)
    features, _ = open_file(written(model, tmp_path / "model.onnx"))(samples[None], np.array([len(samples)]))
    assert np.abs(features[0].mean(axis=0, dtype=np.float64)).max() < 2e-6


def test_another_models_file_would_be_seen(encoder: FrameClassifier, whole: Path) -> None:
    other = model_of(encoder=encoder.config.encoder, frontend=encoder.config.frontend)
    torch.nn.init.normal_(other.output.weight, std=0.2)
    agreement = compare_whole(other, open_file(whole))
    assert agreement.posteriors > 0.1 and agreement.logarithms > 0.1 and agreement.alike < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_any_kind_gives_what_pytorch_gives(name: str, suffix: str, tmp_path: Path) -> None:
    if (name, suffix) != ("blstm", ".pt2"):  # which is refused
        model = model_of(**KINDS[name])
        assert_equal_outputs(model, written(model, tmp_path / f"model{suffix}"))


def test_a_blstm_has_the_lstms_of_onnx_also_in_8_bits(tmp_path: Path) -> None:
    model = model_of(kind="blstm", frontend=None, feature_dim=5, blstm=BlstmConfig(width=8, layers=2))
    path = written(model, tmp_path / "model.onnx")
    assert_equal_outputs(model, path)
    export.quantise(path)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("DynamicQuantizeLSTM") == 4 and "LSTM" not in operators
    agreement = compare_whole(model, open_file(path))
    assert agreement.alike > 0.9 and agreement.posteriors > 1e-4


def test_metadata_say_what_a_client_needs(encoder: FrameClassifier, whole: Path, stream: Path) -> None:
    expected = {
        "format_version": 1, "phones": list(encoder.phones.symbols), "sample_rate": 16000, "window": 400, "hop": 160,
        "first_centre": 200, "temperature": 1.25, "lookahead_ms": encoder.lookahead_ms,
    }  # fmt: skip
    for path, more in ((whole, {}), (stream, {"chunk_samples": 1600, "flush_chunks": 3})):
        texts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        assert {name: json.loads(text) for name, text in texts.items()} == expected | more
    model = model_of(**KINDS["unlimited contexts"])
    assert export.metadata(model, export.graph_of(model, ".onnx", streaming=False))["lookahead_ms"] == "null"


def test_a_file_does_not_tell_where_it_was_made(whole: Path, stream: Path, tmp_path: Path) -> None:
    program = written(model_of(kind="linear", frontend=None, feature_dim=5), tmp_path / "model.pt2")
    for path in (whole, stream, program):
        assert bytes(Path(export.__file__).parent) not in path.read_bytes()


def test_8_bits_decide_alike_and_leave_the_front_end_as_it_is(
    encoder: FrameClassifier, whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    shutil.copy(whole, path)
    export.quantise(path)
    agreement = compare_whole(encoder, open_file(path))
    assert agreement.alike > 0.95 and agreement.posteriors > 1e-4
    operators = [node.op_type for node in onnx.load(path).graph.node]
    linear_maps = sum(isinstance(module, torch.nn.Linear) for module in encoder.modules())
    assert operators.count("MatMulInteger") == linear_maps
    weights = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    table = onnx.numpy_helper.to_array(weights["model.frontend.energies.fourier"])
    np.testing.assert_array_equal(table, encoder.frontend.energies.fourier.numpy())
    assert json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["hop"]) == 160


# ------------------------------------------------------------------------------------------------------ streaming


def test_a_stream_in_onnx_gives_what_pytorch_gives(encoder: FrameClassifier, stream: Path) -> None:
    step, run = StreamingStep(encoder), open_file(stream)
    agreement = compare_stream(encoder, step, run)
    assert agreement.logarithms < 1e-4 and agreement.alike == 1
    for num_samples in (0, 1, 399, 400, 560, 1600, 4321):
        samples = speech_like(num_samples, 16000, seed=num_samples)
        expected = np.log(encoder.posteriors(samples))
        result = streamed(step, run, samples)
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, atol=1e-4, rtol=0)
    session = onnxruntime.InferenceSession(stream)
    values = [(value.name, value.shape) for value in session.get_inputs()]
    assert values == [("samples", [1600]), ("length", []), ("state", [step.state_size]), ("clock", [2])]
    shapes = {value.name: value.shape for value in session.get_outputs()}
    assert shapes == {
        "log_posteriors": [10, 39], "first_frame": [], "num_frames": [], "next_state": [step.state_size],
        "next_clock": [2],
    }  # fmt: skip


def test_log_mel_energies_export_whole_and_as_a_stream(tmp_path: Path) -> None:
    frontend = FrontendConfig(kind="fbank", num_mels=20, normalisation="online")
    model = model_of(kind="mlp", mlp=MLP, frontend=frontend)
    model.save_pretrained(tmp_path / "model")
    assert_equal_outputs(model, written(model, tmp_path / "model.onnx"))
    main(["export", str(tmp_path / "model"), "--output", str(tmp_path / "stream.onnx"), "--streaming"])
    agreement = compare_stream(model, StreamingStep(model), open_file(tmp_path / "stream.onnx"))
    assert agreement.logarithms < 1e-4 and agreement.alike == 1


# -------------------------------------------------------------------------------------------- without this package

(README_EXAMPLE,) = (code for code in blocks(PAGES["README.md"], "python") if "onnxruntime" in code)
WHOLE_EXAMPLE, STREAM_EXAMPLE = blocks(PAGES["docs/export.md"], "python")
BLOCKED = "import sys\nsys.modules['torch'] = sys.modules['speechattn'] = None\n"


def printed_by(example: str, tmp_path: Path, *arguments: Path) -> list[str]:
    script = tmp_path / "example.py"
    script.write_text(BLOCKED + example)
    command = [sys.executable, str(script), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.mark.parametrize("seconds", [0.01, 1.0, 2.345])
def test_the_examples_print_what_predict_finds(
    encoder: FrameClassifier, whole: Path, stream: Path, tmp_path: Path, seconds: float
) -> None:
    soundfile.write(tmp_path / "a.wav", speech_like(round(16000 * seconds), 16000, seed=0), 16000)
    expected = []
    if seconds > 0.025:
        segments = encoder.classify(tmp_path / "a.wav")
        expected = [f"{segment.start:.4f} {segment.end:.4f} {segment.phone}" for segment in segments]
        assert len(expected) > 5
    assert printed_by(WHOLE_EXAMPLE, tmp_path, whole, tmp_path / "a.wav") == expected
    assert printed_by(STREAM_EXAMPLE, tmp_path, stream, tmp_path / "a.wav") == expected


def test_the_example_of_the_readme_prints_a_phone_for_every_frame(
    encoder: FrameClassifier, whole: Path, tmp_path: Path
) -> None:
    samples = speech_like(16000, 16000, seed=0)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    expected = [encoder.phones.symbols[phone] for phone in encoder.posteriors(samples).argmax(axis=1)]
    assert len(set(expected)) > 5
    assert printed_by(README_EXAMPLE, tmp_path, whole, tmp_path / "a.wav") == [" ".join(expected)]


@pytest.mark.parametrize("module", ["torch", "speechattn"])
def test_the_block_of_the_examples_holds(module: str) -> None:
    run = subprocess.run([sys.executable, "-c", f"{BLOCKED}import {module}"], capture_output=True, text=True)
    assert "ModuleNotFoundError" in run.stderr


# ---------------------------------------------------------------------------------------------------- the command


def test_the_command_prints_one_line_and_checks(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["export", str(folder / "linear"), "--output", str(tmp_path / "a.pt2"), "--check"])
    out, err = capfd.readouterr()
    assert re.fullmatch(
        r"\S*a\.pt2: \d+\.\d\d MB; takes waveforms \(batch, samples\), lengths \(batch\); "
        r"posteriors within \d\.\de-0[5-9] of PyTorch's, log-posteriors within \d\.\de-0[5-9]\n",
        out,
    )
    assert err == "" and [path.name for path in tmp_path.iterdir()] == ["a.pt2"]
    files = {export.METADATA_FILE: ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=files).module()
    assert len(json.loads(json.loads(files[export.METADATA_FILE])["phones"])) == 39
    outputs = program(waveforms=torch.zeros(2, 4000), lengths=torch.tensor([4000, 800]))
    assert outputs["logits"].shape == (2, 23, 39) and outputs["frame_lengths"].tolist() == [23, 3]
    assert not outputs["logits"].requires_grad


def test_the_tolerance_is_a_ten_thousandth_and_what_exceeds_it_leaves_what_was_there(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "write_graph", lambda graph, path, properties: path.write_text("a program"))
    monkeypatch.setattr(export, "open_file", lambda path: None)
    options = ("export", folder / "linear", "--output", tmp_path / "a.pt2", "--check")
    (tmp_path / "a.pt2").write_text("of before")
    for found, said in ((1.01e-4, "1.0e-04"), (0.25, "2.5e-01"), (float("nan"), "nan")):
        monkeypatch.setattr(export, "compare_whole", lambda model, run, found=found: Agreement(found, 1e-5, 1))
        message = refused(capsys, *options)
        assert f"a.pt2 is not written: its posteriors would differ from PyTorch's by up to {said}, which is" in message
        assert (tmp_path / "a.pt2").read_text() == "of before" and len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(export, "compare_whole", lambda model, run: Agreement(0.99e-4, 1, 1))
    main([str(word) for word in options])
    assert (tmp_path / "a.pt2").read_text() == "a program"


def test_a_single_value_that_is_no_number_is_found() -> None:
    model = model_of(kind="linear")

    def spoilt(inputs: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            logits, frame_lengths = (part.numpy() for part in model(torch.tensor(inputs), torch.tensor(lengths)))
        logits[0, 5, 3] = np.nan
        return [logits, frame_lengths]

    assert np.isnan(compare_whole(model, spoilt).posteriors)


def test_what_cannot_be_exported_is_refused_before_any_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "write_graph", None)
    good, out = folder / "model", tmp_path / "out"
    assert ".onnx or .pt2" in refused(capsys, "export", good, "--output", out / "model.bin")
    assert "--int8" in refused(capsys, "export", good, "--output", out / "a.pt2", "--int8")
    assert "--streaming" in refused(capsys, "export", good, "--output", out / "a.pt2", "--streaming")
    assert "no model at" in refused(capsys, "export", tmp_path / "gone", "--output", out / "a.onnx")
    model_of(kind="blstm").save_pretrained(tmp_path / "blstm")
    assert "goes to .onnx only" in refused(capsys, "export", tmp_path / "blstm", "--output", out / "a.pt2")
    assert "cannot stream" in refused(capsys, "export", tmp_path / "blstm", "--output", out / "a.onnx", "--streaming")
    message = refused(capsys, "export", folder / "linear", "--output", out / "a.onnx", "--streaming")
    assert "normalisation='utterance'" in message
    for package in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            message = refused(capsys, "export", good, "--output", out / "a.onnx", "--check")
            assert f'needs the package {package}: pip install "speechattn[export]"' in message
    assert not out.exists()


def test_signals_of_the_check_are_the_same_every_time_and_like_speech() -> None:
    for rate in (8000, 16000, 44100):
        samples = speech_like(rate, rate, seed=1)
        assert samples.dtype == np.float32 and 0.05 < np.abs(samples).max() < 1
        np.testing.assert_array_equal(samples, speech_like(rate, rate, seed=1))
        assert np.abs(samples - speech_like(rate, rate, seed=2)).max() > 0.05

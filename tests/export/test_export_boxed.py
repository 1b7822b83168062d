"""The model that comes with the package, exported, gives log-posteriors within 1e-4 of PyTorch's."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from speechattn.commands.inference import BOXED
from speechattn.commands.main import main
from speechattn.export import file as export
from speechattn.export.check import Run, compare_stream, compare_whole, open_file, streamed
from speechattn.export.file import Graph
from speechattn.export.streaming import StreamingStep
from speechattn.model.classifier import FrameClassifier

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "stream"])
def boxed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FrameClassifier, Graph, Run]:
    """The model that comes with the package, what is exported of it, and what the file computes."""
    model = FrameClassifier.from_pretrained(BOXED)
    graph = export.graph_of(model, ".onnx", streaming=request.param)
    path = tmp_path_factory.mktemp("boxed") / "model.onnx"
    export.write_graph(graph, path, export.metadata(model, graph))
    return model, graph, open_file(path)


def test_the_boxed_model_gives_log_posteriors_within_a_ten_thousandth(
    boxed: tuple[FrameClassifier, Graph, Run],
) -> None:
    model, graph, run = boxed
    stream = isinstance(graph, StreamingStep)
    agreement = compare_stream(model, graph, run) if stream else compare_whole(model, run)
    assert agreement.logarithms < 1e-4 and agreement.posteriors < 2e-5 and agreement.alike > 0.9995


def test_the_boxed_model_does_so_on_speech(boxed: tuple[FrameClassifier, Graph, Run], speech: list[np.ndarray]) -> None:
    model, graph, run = boxed
    for samples in speech:
        expected = np.log(model.posteriors(samples))
        if isinstance(graph, StreamingStep):
            result = streamed(graph, run, samples)
        else:
            logits, _ = run(samples[None], np.array([len(samples)]))
            result = (torch.from_numpy(logits[0]) / model.config.temperature).log_softmax(dim=1).numpy()
        np.testing.assert_allclose(result, expected, atol=1e-4, rtol=0)


def test_the_command_takes_the_boxed_model_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", BOXED, "--output", str(tmp_path / "a.onnx"), "--int8", "--streaming", "--check"])
    line = capsys.readouterr().out
    posteriors, logarithms, in_8_bits = (float(number) for number in re.findall(r"within (\S+e-\d\d)", line))
    assert posteriors < 2e-5 and logarithms < 1e-4 < in_8_bits < 0.2
    assert float(re.search(r"([\d.]+)% decided alike", line)[1]) > 97
    assert (tmp_path / "a.onnx").stat().st_size < 5e6

"""A trained model as one file that runs without this package: ONNX or a torch.export program.

docs/export.md describes inputs, outputs and metadata.
"""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from speechattn.export.check import Agreement, compare_stream, compare_whole, open_file
from speechattn.export.graph import FeatureModel, WaveformModel, with_onnx_lstms
from speechattn.export.streaming import StreamingStep
from speechattn.jobs.atomic import atomic_path
from speechattn.model.baselines import Blstm
from speechattn.model.classifier import FrameClassifier

__all__ = ["FORMAT_VERSION", "TOLERANCE", "export_file", "graph_of", "metadata", "quantise", "write_graph"]

FORMAT_VERSION = 1  # of names, shapes and metadata
TOLERANCE = 1e-4  # of float32 posteriors; log-posteriors of a steep model are less exact, in PyTorch, too
METADATA_FILE = "metadata.json"  # in .pt2 files; ONNX files have metadata properties

Graph = WaveformModel | FeatureModel | StreamingStep


def export_file(
    model_name: str, output: str | Path, *, int8: bool = False, streaming: bool = False, check: bool = False
) -> None:
    """Export a model and print a summary.

    Args:
        model_name: See `FrameClassifier.from_pretrained`.
        output: The file, .onnx, or .pt2 for torch.export. Written atomically.
        int8: Quantise the weights of linear maps and LSTMs to 8 bits; .onnx only.
        streaming: Export one step of a stream, with its state as input and output; .onnx only.
        check: Compare the file with PyTorch and print the differences.

    Raises:
        ValueError: When suffix and options do not fit, the model does not exist or cannot be exported like this, or
            `check` finds float32 posteriors that differ from PyTorch's by more than 1e-4; no file is left then.
        ImportError: When a required package is missing.
    """
    output = Path(output)
    if output.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"export writes .onnx or .pt2 files, got --output {output}")
    if output.suffix == ".pt2" and (int8 or streaming):
        raise ValueError(f"export --int8 and --streaming write .onnx files, got --output {output}")
    if output.suffix == ".onnx":
        _require("onnx", "onnxscript", *(["onnxruntime"] if int8 or check else []))
    model = FrameClassifier.from_pretrained(model_name)
    graph = graph_of(model, output.suffix, streaming=streaming)
    with atomic_path(output) as temporary:
        write_graph(graph, temporary, metadata(model, graph))
        found = [f"takes {_described_inputs(graph)}"]
        if check:
            agreement = _compare(model, graph, temporary)
            if not agreement.posteriors <= TOLERANCE:  # NaN fails, too
                raise ValueError(
                    f"{output} is not written: its posteriors would differ from PyTorch's by up to "
                    f"{agreement.posteriors:.1e}, which is more than {TOLERANCE:.0e}"
                )
            found.append(
                f"posteriors within {agreement.posteriors:.1e} of PyTorch's, "
                f"log-posteriors within {agreement.logarithms:.1e}"
            )
        if int8:
            quantise(temporary)
            if check:
                agreement = _compare(model, graph, temporary)
                found.append(
                    f"in 8 bits posteriors within {agreement.posteriors:.1e}, {agreement.alike:.2%} decided alike"
                )
        megabytes = temporary.stat().st_size / 1e6
    print("; ".join([f"{output}: {megabytes:.2f} MB", *found]))


def graph_of(model: FrameClassifier, suffix: str, *, streaming: bool) -> Graph:
    """The graph to export; a ValueError when the model cannot be exported like this."""
    if streaming:
        return StreamingStep(model)
    if isinstance(model.body, Blstm):
        if suffix == ".pt2":
            raise ValueError("a model of kind 'blstm' goes to .onnx only: torch.export would fix its number of frames")
        model = with_onnx_lstms(model)
    return WaveformModel(model) if model.feature_dim is None else FeatureModel(model)


def metadata(model: FrameClassifier, graph: Graph) -> dict[str, str]:
    """What clients need beside inputs and outputs, values as JSON; see docs/export.md."""
    geometry = model.frontend.geometry
    values: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "phones": model.phones.symbols,
        "sample_rate": geometry.sample_rate,
        "window": geometry.window,
        "hop": geometry.hop,
        "first_centre": geometry.first_centre,
        "temperature": model.config.temperature,
        "lookahead_ms": model.lookahead_ms,
    }
    if isinstance(graph, StreamingStep):
        values |= {"chunk_samples": graph.chunk_samples, "flush_chunks": graph.flush_chunks}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def write_graph(graph: Graph, path: Path, properties: dict[str, str]) -> None:
    """Export to a .onnx or .pt2 file.

    Args:
        graph: The graph; its parameters lose their gradients.
        path: The file.
        properties: Stored in the file, see `metadata`.
    """
    dynamic = {name: dict.fromkeys(axes, Dim.DYNAMIC) for name, axes in graph.inputs.items()}
    with _quiet():
        inputs = dict(zip(graph.inputs, graph.example(), strict=True))  # the .pt2 file keeps the names
        program = torch.export.export(graph.requires_grad_(False), (), inputs, dynamic_shapes=dynamic)
        for node in program.graph.nodes:  # a megabyte, with paths of the machine
            node.meta.pop("stack_trace", None)
        if path.suffix == ".pt2":
            torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(properties)})
            return
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=graph.inputs,  # only names the axes here
            verbose=False,
        )
        assert onnx_program is not None
        for value, axes in zip(onnx_program.model.graph.outputs, graph.outputs.values(), strict=True):
            assert value.shape is not None
            for axis, name in axes.items():
                value.shape[axis] = name
        for operation in onnx_program.model.graph:
            operation.metadata_props.clear()  # stack traces again
        onnx_program.model.metadata_props.update(properties)
        onnx_program.save(path)


def quantise(path: Path) -> None:
    """Quantise the linear maps and LSTMs of an ONNX file to 8 bits, with one scale per output.

    The front end stays in float32, since a spectrum has a far wider range than 8 bits. Weights are unsigned: products
    of signed ones saturate on processors without VNNI.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    tables = [node.name for node in model.graph.node if any("frontend." in name for name in node.input)]
    with _quiet():
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gemm", "LSTM"],
            per_channel=True,
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=tables,
        )


def _compare(model: FrameClassifier, graph: Graph, path: Path) -> Agreement:
    run = open_file(path)
    if isinstance(graph, StreamingStep):
        return compare_stream(model, graph, run)
    return compare_whole(model, run)


def _described_inputs(graph: Graph) -> str:
    """Names and shapes, such as `waveforms (batch, samples), lengths (batch)`."""
    described = []
    for (name, axes), example in zip(graph.inputs.items(), graph.example(), strict=True):
        shape = ", ".join(str(axes.get(axis, size)) for axis, size in enumerate(example.shape))
        described.append(f"{name} ({shape})")
    return ", ".join(described)


def _require(*packages: str) -> None:
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise ImportError(
                f'exporting to ONNX needs the package {package}: pip install "speechattn[export]"'
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' progress reports and warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

"""What exported files give up and cost beside PyTorch: size, agreement, frame accuracy, CPU time.

    python benchmarks/export.py --cuts CUTS --output FOLDER [--model MODEL] [--num-cuts 60] [--repeats 5]

One thread. CUTS are cuts with phones, as `speechattn prepare` leaves them; the first so many are taken.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from harness import circumstances, in_process
from lhotse import CutSet

from speechattn.cuts.model_inputs import cut_labels, cut_waveform
from speechattn.export.check import streamed
from speechattn.export.file import export_file, graph_of
from speechattn.model.classifier import FrameClassifier

TIMED_S = 60  # of the cuts' speech strung together
PIECE = 1600  # samples that PyTorch's stream takes at a time, as an exported one does
FILES = {  # name -> options of the export
    "onnx": {},
    "onnx, 8 bits": {"int8": True},
    "onnx, streaming": {"streaming": True},
    "onnx, streaming, 8 bits": {"streaming": True, "int8": True},
}

Listener = Callable[[np.ndarray], np.ndarray]  # (N,) samples -> (T, P) log-posteriors


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=Path, required=True, help="cuts with phones")
    parser.add_argument("--output", type=Path, required=True, help="folder for export_figures.json")
    parser.add_argument("--model", type=str, default="english-small", help="default: english-small")
    parser.add_argument("--num-cuts", type=int, default=60, help="default: 60")
    parser.add_argument("--repeats", type=int, default=5, help="of each timing; the least counts (default: 5)")
    args = parser.parse_args()
    figures = in_process(1, measure, args.model, args.cuts, args.num_cuts, args.repeats)
    report = {**circumstances(["torch", "onnxruntime"]), "model": args.model, "num_cuts": args.num_cuts, **figures}
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "export_figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(table(figures))


def measure(name: str, cuts_file: Path, num_cuts: int, repeats: int) -> dict[str, dict[str, float]]:
    """The figures of PyTorch, its stream and every file, by name."""
    model = FrameClassifier.from_pretrained(name)
    cuts = list(CutSet.from_file(cuts_file).subset(first=num_cuts))
    waveforms = [cut_waveform(cut) for cut in cuts]
    labels = np.concatenate([cut_labels(cut, model.phones, model.frontend.geometry) for cut in cuts])
    expected = [whole(model)(waveform) for waveform in waveforms]
    speech = np.resize(np.concatenate(waveforms), TIMED_S * model.frontend.geometry.sample_rate)
    with tempfile.TemporaryDirectory() as folder:
        listeners, sizes = {"PyTorch": whole(model), "PyTorch, stream": live(model)}, {}
        for number, (file, options) in enumerate(FILES.items()):
            path = Path(folder) / f"{number}.onnx"
            export_file(name, path, **options)
            listeners[file] = of_file(model, path, streaming="streaming" in options)
            sizes[file] = path.stat().st_size / 1e6
        return {
            file: compared(model, [listener(waveform) for waveform in waveforms], expected, labels)
            | {"cpu_ms_per_s": 1e3 * min(cpu_seconds(listener, speech) for _ in range(repeats)) / TIMED_S}
            | ({"mb": sizes[file]} if file in sizes else {})
            for file, listener in listeners.items()
        }


def whole(model: FrameClassifier) -> Listener:
    """PyTorch, the recording at once."""

    @torch.inference_mode()
    def listen(samples: np.ndarray) -> np.ndarray:
        logits, _ = model(torch.from_numpy(samples)[None])
        return log_posteriors(model, logits[0].numpy())

    return listen


def live(model: FrameClassifier) -> Listener:
    """PyTorch, piece by piece."""

    def listen(samples: np.ndarray) -> np.ndarray:
        stream = model.stream()
        pieces = [stream.push(samples[first : first + PIECE]) for first in range(0, len(samples), PIECE)]
        return np.concatenate([*pieces, stream.flush()])

    return listen


def of_file(model: FrameClassifier, path: Path, *, streaming: bool) -> Listener:
    """ONNX Runtime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        return session.run(None, dict(zip(names, inputs, strict=True)))

    if streaming:
        step = graph_of(model, ".onnx", streaming=True)
        return lambda samples: streamed(step, run, samples)
    return lambda samples: log_posteriors(model, run(samples[None], np.array([len(samples)]))[0][0])


def log_posteriors(model: FrameClassifier, logits: np.ndarray) -> np.ndarray:
    """(T, P) logits -> (T, P)."""
    return (torch.from_numpy(logits) / model.config.temperature).log_softmax(dim=-1).numpy()


def compared(
    model: FrameClassifier, found: list[np.ndarray], expected: list[np.ndarray], labels: np.ndarray
) -> dict[str, float]:
    """How far from PyTorch, and how many frames right."""
    rows, reference = np.concatenate(found), np.concatenate(expected)
    decided = rows.argmax(axis=1)
    silences = [model.phones.symbols.index(symbol) for symbol in model.phones.silences]
    scored, spoken = labels >= 0, (labels >= 0) & ~np.isin(labels, silences)
    return {
        "log_posteriors": float(np.abs(rows - reference).max()),
        "posteriors": float(np.abs(np.exp(rows) - np.exp(reference)).max()),
        "alike": float((decided == reference.argmax(axis=1)).mean()),
        "frame_accuracy": float((decided == labels)[scored].mean()),
        "frame_accuracy_no_silence": float((decided == labels)[spoken].mean()),
    }


def cpu_seconds(listener: Listener, speech: np.ndarray) -> float:
    """CPU time that it takes, of all threads together."""
    began = time.process_time()
    listener(speech)
    return time.process_time() - began


def table(figures: dict[str, dict[str, float]]) -> str:
    """A line for each."""
    lines = [f"{'':26}{'MB':>6}{'posteriors':>12}{'log':>9}{'alike':>10}{'right':>9}{'no sil':>9}{'CPU ms/s':>10}"]
    for name, row in figures.items():
        size = f"{row['mb']:6.1f}" if "mb" in row else " " * 6
        lines.append(
            f"{name:26}{size}{row['posteriors']:12.1e}{row['log_posteriors']:9.1e}{row['alike']:10.2%}"
            f"{row['frame_accuracy']:9.2%}{row['frame_accuracy_no_silence']:9.2%}{row['cpu_ms_per_s']:10.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

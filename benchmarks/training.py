"""Frames a second of a whole training step, for each kind of model, over the size of the batch.

    python benchmarks/training.py --output FOLDER [--threads 2] [--repeats 5]
    python benchmarks/training.py --against COMMIT --cuts TRAIN DEV [--config FILE] [--threads 2] [--repeats 3] [--busy]

A step is what training does with a batch of waveforms: front end, body, output layer, loss, backward, clipping of the
gradient and AdamW. Models are those of recipes/speechocean762, brought to one size. Utterances are noise.

With `--against`, `speechattn train` of an older commit and of this one take turns on the same cuts. The second of two
epochs is measured. Each reads its own version of the configuration. `--busy` lets another process use one core.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from harness import Job, circumstances, compare_trees, cpu_name, in_process, python_in, take_turns

from speechattn.frontend import FrontendConfig
from speechattn.geometry import Geometry
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import BlstmConfig, ClassifierConfig, EncoderConfig, MlpConfig, TdnnConfig
from speechattn.training.config import OptimConfig
from speechattn.training.optimisers import frame_loss, make_optimizer

FRAMES = 800  # of an utterance: 8 seconds
BATCHES = (1, 2, 4, 8, 16)  # utterances
ENCODER = {"dim": 144, "layers": 5, "heads": 4, "feed_forward": 432, "conv_kernel": 15}
STEPS = {**ENCODER, "stack": 2, "input_context": 4, "conv_kernel": 5, "position": "rotary"}
TRUNCATED, STACKED = "truncated attention", "truncated, 20 ms steps"
FULL, BLSTM = "full attention", "BLSTM"
TDNN, WINDOW, MLP = "TDNN", "window MLP", "MLP"
MODELS = {
    TRUNCATED: {"kind": "encoder", "encoder": EncoderConfig(**ENCODER, left=20, right=20)},
    STACKED: {"kind": "encoder", "encoder": EncoderConfig(**STEPS, left=16, right=2)},
    FULL: {"kind": "encoder", "encoder": EncoderConfig(**ENCODER, left=None, right=None)},
    BLSTM: {"kind": "blstm", "blstm": BlstmConfig(width=200)},
    TDNN: {"kind": "tdnn", "tdnn": TdnnConfig(width=320)},
    WINDOW: {"kind": "mlp", "mlp": MlpConfig(width=640, left=10, right=10)},
    MLP: {"kind": "mlp", "mlp": MlpConfig(width=816)},
}
PARAMETERS = 1_430_000  # all within 5 % of it
PRECISIONS = ("float32", "bfloat16")
COLOURS = {"float32": "#30638e", "bfloat16": "#d1495b"}


def main() -> None:
    """Measure, print the tables, write the JSON and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="folder for training_speed.json and .png")
    parser.add_argument("--against", type=str, help="an older commit, to compare whole trainings with")
    parser.add_argument("--cuts", type=Path, nargs=2, help="training and dev cuts for --against")
    parser.add_argument("--config", type=str, default="recipes/speechocean762/conf/base.yaml", help="for --against")
    parser.add_argument("--busy", action="store_true", help="use one core for something else meanwhile")
    parser.add_argument("--threads", type=int, default=2, help="number of threads (default: 2)")
    parser.add_argument("--repeats", type=int, default=5, help="of each (default: 5)")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=BATCHES, help=f"utterances of {FRAMES} frames in a batch"
    )
    args = parser.parse_args()
    if (args.against is None) == (args.output is None) or (args.cuts is None) != (args.against is None):
        parser.error("either --output, or --against with --cuts, is needed")
    if args.against is not None:
        train, dev = (str(path.resolve()) for path in args.cuts)
        with spinning(args.busy):
            print(
                compare_trees(
                    args.against, lambda tree: trained(tree, args.config, train, dev, args.threads), args.repeats
                )
            )
        return

    results = [
        result
        for batch in args.batches
        for precision in PRECISIONS
        for result in in_process(args.threads, measure, batch, precision, args.repeats)
    ]
    report = {
        **circumstances(["torch"]),
        "threads": args.threads,
        "repeats": args.repeats,
        "results": [asdict(result) | {"frames_per_second": round(result.frames_per_second)} for result in results],
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "training_speed.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for precision in PRECISIONS:
        print(f"{table([result for result in results if result.precision == precision], args.threads)}\n")
    draw(results, args.threads, args.output / "training_speed.png")


def trained(tree: Path, config: str, train: str, dev: str, threads: int) -> dict[str, float]:
    """Train with the code of a tree: seconds for a million frames in the second epoch."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--data.train", train, "--data.dev", dev, "--output", f"{folder}/model", "--optim.epochs", "2"]
        said = python_in(tree, ["-m", "speechattn", "train", "--config", config, *options], threads)
    return {"a million frames of training": 1e6 / float(re.findall(r"frames_per_s=(\d+)", said)[-1])}


@contextmanager
def spinning(busy: bool) -> Iterator[None]:
    """With `busy`, another process uses one core meanwhile."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


@dataclass(frozen=True)
class Result:
    """One model at one size of batch: median time of a step."""

    model: str
    parameters: int
    precision: str
    frames: int
    milliseconds: float

    @property
    def frames_per_second(self) -> float:
        """Frames of training data that go through in a second."""
        return 1e3 * self.frames / self.milliseconds


def measure(batch: int, precision: str, repeats: int) -> list[Result]:
    """All models at one size of batch, in this process."""
    torch.manual_seed(0)
    frontend = FrontendConfig(normalisation="utterance")
    models = {name: FrameClassifier(ClassifierConfig(frontend=frontend, **model)) for name, model in MODELS.items()}
    sizes = {name: sum(parameter.numel() for parameter in model.parameters()) for name, model in models.items()}
    if any(abs(size / PARAMETERS - 1) > 0.05 for size in sizes.values()):
        raise ValueError(f"models must have some {PARAMETERS:,} parameters to be compared, got {sizes}")
    times = take_turns({name: step(model, batch, precision) for name, model in models.items()}, repeats)
    return [Result(name, sizes[name], precision, batch * FRAMES, ms) for name, ms in times.items()]


def step(model: FrameClassifier, batch: int, precision: str) -> Job:
    """A training step on one batch, the same at every call."""
    waveforms = 0.1 * torch.randn(batch, Geometry().num_samples(FRAMES))
    labels = torch.randint(len(model.phones), (batch, FRAMES))
    optim = OptimConfig()
    optimizer = make_optimizer(model, model.body, optim)
    model.train()

    def train_once() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            logits, _ = model(waveforms)
        loss = frame_loss(logits.float(), labels) / labels.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip)
        optimizer.step()
        optimizer.zero_grad()

    return train_once


# ------------------------------------------------------------------------------------------------ presentation


def table(results: Sequence[Result], threads: int) -> str:
    """Frames a second of each model, a line for each; the last are how many times as fast as the BLSTM we are."""
    sizes = sorted({result.frames for result in results})
    speeds = {(result.model, result.frames): result.frames_per_second for result in results}
    lines = [
        f"{results[0].precision}, {threads} threads: frames a second of training",
        f"{'frames in a batch':24}{'parameters':>12}" + "".join(f"{frames:10,}" for frames in sizes),
    ]
    for name, parameters in {result.model: result.parameters for result in results}.items():
        lines.append(f"{name:24}{parameters:12,}" + "".join(f"{speeds[name, frames]:10,.0f}" for frames in sizes))
    for name in (TRUNCATED, STACKED):
        ratios = (f"{ratio:10.2f}" for _, ratio in over_blstm(results, name))
        lines.append(f"{f'{name} / BLSTM':36}" + "".join(ratios))
    return "\n".join(lines)


def over_blstm(results: Sequence[Result], model: str) -> list[tuple[int, float]]:
    """(frames in a batch, speed of a model over the BLSTM's), of one precision."""
    speeds = {(result.model, result.frames): result.frames_per_second for result in results}
    sizes = sorted({result.frames for result in results})
    return [(frames, speeds[model, frames] / speeds[BLSTM, frames]) for frames in sizes]


def draw(results: Sequence[Result], threads: int, path: Path) -> None:
    """How many times as fast as the BLSTM truncated attention trains, over the size of the batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (precision, colour), (name, line) in product(COLOURS.items(), ((TRUNCATED, "o-"), (STACKED, "s--"))):
        points = over_blstm([result for result in results if result.precision == precision], name)
        sizes, ratios = zip(*points, strict=True)
        axes.semilogx(sizes, ratios, line, ms=4, color=colour, label=f"{name}, {precision}")
    axes.axhline(1, color="#999999", lw=1)
    axes.set_xticks(sizes, [f"{frames:,}" for frames in sizes])
    axes.set_xticks([], minor=True)
    axes.set(title="speed of training: truncated attention / BLSTM", ylim=(0, None))
    axes.set_xlabel(f"frames in a batch, 100 a second; {threads} threads, {cpu_name()}", fontsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

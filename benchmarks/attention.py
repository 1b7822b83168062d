"""Time and memory of truncated self-attention against the number of frames, beside other implementations.

    python benchmarks/attention.py --output FOLDER [--threads 2] [--repeats 5]

Every frame attends to the 32 frames on either side; only full attention, which is there for scale, sees them all.
One utterance, 4 heads of 64, float32, unit-normal input. Each number of threads has fresh processes with
OMP_NUM_THREADS and the like set, and each peak of memory a process of its own.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
from harness import Job, circumstances, cpu_name, in_process, peak_of, take_turns
from local_attention import LocalAttention
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from speechattn.attention import Weighting, band_mask, truncated_attention

HEADS, HEAD_DIM, CONTEXT = 4, 64, 32
FLEX_LENGTH = 4096
LENGTHS = (1000, 2000, 4000, FLEX_LENGTH, 8000, 16_000, 32_000, 64_000, 128_000, 256_000)  # 10 s to 43 minutes
LONGEST_SQUARE = 16_000  # where the quadratic ones stop
FIT_FROM = 16_000  # slopes are fitted from here on
LEAST = 1.0  # MB or ms that have a logarithm: a peak that is lost in the noise of the process counts as this
SHORT, TOLERANCE = 500, 1e-4  # for the check that all agree, at a length that no block divides
MATMUL_SIZE = 2048
PACKAGES = ("torch", "local-attention")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # query, key, value -> output, (B, H, T, E) each

# ------------------------------------------------------ the contenders: frames -> attention, with its mask in place


def speechattn(frames: int) -> Attend:
    """This package's path that is linear in the number of frames."""
    return partial(truncated_attention, weighting=Weighting(CONTEXT, CONTEXT), path="blocked")


def dense(frames: int) -> Attend:
    """PyTorch's own attention under a mask of the band."""
    return partial(F.scaled_dot_product_attention, attn_mask=band_mask(frames, CONTEXT, CONTEXT))


def full(frames: int) -> Attend:
    """PyTorch's own attention to all frames."""
    return F.scaled_dot_product_attention


def local_attention(frames: int) -> Attend:
    """local-attention with the same band. Frames it pads with itself are attended to unless a mask forbids it."""
    attend = LocalAttention(CONTEXT, exact_windowsize=True, autopad=True, use_rotary_pos_emb=False)
    return partial(attend, mask=torch.ones(1, frames, dtype=torch.bool) if frames % CONTEXT else None)


def flex(frames: int) -> Attend:
    """FlexAttention, compiled; on a CPU it has no backward."""

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key <= CONTEXT) & (key - query <= CONTEXT)

    block_mask = create_block_mask(near, None, None, frames, frames, device="cpu")
    return partial(torch.compile(flex_attention, dynamic=False), block_mask=block_mask)


OURS, DENSE, FULL = "speechattn", "SDPA, band mask", "SDPA, all frames"
LOCAL, FLEX, MATMUL = "local-attention", "FlexAttention", "matmul"
BUILDERS = {OURS: speechattn, LOCAL: local_attention, DENSE: dense, FULL: full, FLEX: flex}
FORWARD, BACKWARD = "forward", "forward + backward"
COLOURS = {OURS: "#d1495b", LOCAL: "#30638e", DENSE: "#edae49", FULL: "#999999", FLEX: "#00798c"}


# ------------------------------------------------------------------------------------------------- measurement


def main() -> None:
    """Measure, print the tables, write the JSON and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for attention_speed.json and .png")
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="numbers of threads (default: 2)")
    parser.add_argument("--repeats", type=int, default=5, help="of each (default: 5)")
    args = parser.parse_args()

    results = [result for threads in args.threads for result in measure(threads, args.repeats)]
    report = {
        **circumstances(PACKAGES),
        "repeats": args.repeats,
        "shape": {"heads": HEADS, "head_dim": HEAD_DIM, "left": CONTEXT, "right": CONTEXT},
        "results": [asdict(result) for result in results],
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "attention_speed.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for threads in args.threads:
        same = [result for result in results if result.threads == threads]
        print(f"{table(same, FORWARD)}\n\n{table(same, BACKWARD)}\n\n{targets(same)}\n")
    draw([result for result in results if result.threads == args.threads[0]], args.output / "attention_speed.png")


@dataclass(frozen=True)
class Result:
    """One implementation at one length: median time, and peak memory above inputs and outputs (None: not measured)."""

    name: str
    mode: str
    threads: int
    frames: int
    milliseconds: float
    peak_mb: float | None

    def __str__(self) -> str:
        """Such as "79.3 (120)"."""
        return f"{self.milliseconds:,.1f}" + ("" if self.peak_mb is None else f" ({self.peak_mb:,.0f})")


def measure(threads: int, repeats: int) -> list[Result]:
    """Everything at one number of threads, after a check that all compute the same."""
    has_flex = in_process(threads, check_agreement)
    results = []
    for frames, mode in product(LENGTHS, (FORWARD, BACKWARD)):
        names = [OURS, LOCAL, DENSE, FULL] if frames <= LONGEST_SQUARE else [OURS, LOCAL]
        peaks = {name: in_process(threads, peak, name, frames, mode) for name in names}
        others = [FLEX] if has_flex and (frames, mode) == (FLEX_LENGTH, FORWARD) else []
        times = in_process(threads, medians, names + others, frames, mode, repeats)
        results += [Result(name, mode, threads, frames, ms, peaks.get(name)) for name, ms in times.items()]
    return results


def check_agreement() -> bool:
    """Raise unless all that attend to the band give one result; False where FlexAttention cannot be compiled."""
    query, key, value, _ = inputs(SHORT)
    with torch.inference_mode():
        expected = speechattn(SHORT)(query, key, value)
        peers = [build(SHORT)(query, key, value) for build in (local_attention, dense)]
        try:
            peers.append(flex(SHORT)(query, key, value))
        except RuntimeError as error:  # no compiler, or no headers
            print(f"{FLEX}: skipped, it does not compile here: {str(error).splitlines()[0]}")
    for peer in peers:
        torch.testing.assert_close(peer, expected, rtol=0, atol=TOLERANCE)
    return len(peers) == 3


def medians(names: Sequence[str], frames: int, mode: str, repeats: int) -> dict[str, float]:
    """Median milliseconds of each, and of the matmul."""
    tensors = inputs(frames)
    jobs: dict[str, Job] = {name: make_job(BUILDERS[name](frames), *tensors, mode) for name in names}
    square = torch.randn(MATMUL_SIZE, MATMUL_SIZE)
    jobs[MATMUL] = lambda: (square @ square,)
    return take_turns(jobs, repeats)


def peak(name: str, frames: int, mode: str) -> float:
    """Peak of memory in MB above inputs and outputs (with backward, the gradients too); masks count."""
    make_job(BUILDERS[name](SHORT), *inputs(SHORT), mode)()  # what libraries load at the first call
    tensors = inputs(frames)
    risen, outputs = peak_of(lambda: make_job(BUILDERS[name](frames), *tensors, mode)())
    return max(0, risen - sum(output.nbytes for output in outputs)) / 1e6


def inputs(frames: int) -> list[Tensor]:
    """Query, key, value and the gradient of the output, (1, H, T, E) each."""
    return [torch.randn(1, HEADS, frames, HEAD_DIM) for _ in range(4)]


def make_job(attend: Attend, query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, mode: str) -> Job:
    """One call; it returns the output and, with backward, the gradients of query, key and value."""

    @torch.inference_mode()
    def forward() -> tuple[Tensor, ...]:
        return (attend(query, key, value),)

    def forward_backward() -> tuple[Tensor, ...]:
        leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
        output = attend(*leaves)
        return (output, *torch.autograd.grad(output, leaves, gradient))

    return forward if mode == FORWARD else forward_backward


# ------------------------------------------------------------------------------------------------ presentation


def table(results: Sequence[Result], mode: str) -> str:
    """Milliseconds and peak MB of each implementation, a line for each length."""
    cells = {(result.name, result.frames): result for result in results if result.mode == mode}
    title = f"{mode}: ms (peak MB above inputs and outputs), {results[0].threads} threads"
    lines = [title, f"{'frames':>8}" + "".join(f"{name:>20}" for name in BUILDERS)]
    for frames in sorted({frames for _, frames in cells}):
        row = (str(cells.get((name, frames), "")) for name in BUILDERS)
        lines.append(f"{frames:8,}" + "".join(f"{cell:>20}" for cell in row))
    return "\n".join(lines)


def targets(results: Sequence[Result]) -> str:
    """One line for each figure that has a target."""
    ms = {(result.name, result.mode, result.frames): result.milliseconds for result in results}
    useful = 4 * 32_000 * (2 * CONTEXT + 1) * HEAD_DIM * HEADS  # scores and weighted sums: 4 T (L + R + 1) E a head
    speed_of_useful = useful / ms[OURS, FORWARD, 32_000]
    speed_of_matmul = 2 * MATMUL_SIZE**3 / ms[MATMUL, FORWARD, 32_000]
    rows = [
        ("useful arithmetic at 32,000 frames, % of the matmul rate", 100 * speed_of_useful / speed_of_matmul, ">= 13"),
        (f"speed over {LOCAL}, 32,000 frames", ms[LOCAL, FORWARD, 32_000] / ms[OURS, FORWARD, 32_000], ">= 4"),
        (f"speed over {DENSE}, 16,000 frames", ms[DENSE, FORWARD, 16_000] / ms[OURS, FORWARD, 16_000], ">= 60"),
    ]
    for mode in (FORWARD, BACKWARD):
        long = [r for r in results if (r.name, r.mode) == (OURS, mode) and r.frames >= FIT_FROM]
        lengths, times, peaks = zip(*((r.frames, r.milliseconds, max(r.peak_mb, LEAST)) for r in long), strict=True)
        rows += [
            (f"{mode}: log-log slope of time, 16,000 to 256,000 frames", slope(lengths, times), "<= 1.07"),
            (f"{mode}: log-log slope of memory, 16,000 to 256,000 frames", slope(lengths, peaks), "<= 1.07"),
            (f"{mode}: peak GB above inputs and outputs, 256,000 frames", peaks[-1] / 1e3, "< 1.5"),
        ]
    lines = [f"{text:74}{figure:10.2f}{target:>10}" for text, figure, target in rows]
    return "\n".join([f"{'figure':74}{'measured':>10}{'target':>10}", *lines])


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the least-squares line through the logarithms: 1 is linear growth, 2 quadratic."""
    return statistics.linear_regression([math.log(value) for value in x], [math.log(value) for value in y]).slope


def draw(results: Sequence[Result], path: Path) -> None:
    """Time and memory against the number of frames, both logarithmic; dashed with backward."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    for axes, field, unit in zip(figure.subplots(1, 2), ("milliseconds", "peak_mb"), ("ms", "peak MB"), strict=True):
        for name, (mode, line) in product(COLOURS, ((FORWARD, "-"), (BACKWARD, "--"))):
            own = [r for r in results if (r.name, r.mode) == (name, mode) and getattr(r, field) is not None]
            x, y = [r.frames for r in own], [max(getattr(r, field), LEAST) for r in own]
            axes.loglog(x, y, f"o{line}", ms=4, color=COLOURS[name], label=name if y and mode == FORWARD else None)
        ticks = [frames for frames in LENGTHS if frames != FLEX_LENGTH]
        axes.set_xticks(ticks, [f"{frames // 1000}k" for frames in ticks])
        axes.set_xticks([], minor=True)
        axes.set(title=unit, ylim=(1, None))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    threads = f"{results[0].threads} threads, {cpu_name()}"
    figure.supxlabel(f"frames, 100 a second; solid: forward, dashed: forward and backward; {threads}", fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

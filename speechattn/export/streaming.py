"""One call of a stream as a graph: a chunk of samples and a state in, posteriors and the next state out.

All shapes are fixed. Each part returns as many rows as a chunk has, delayed by its right context, so that it needs a
fixed number of earlier rows: these form the state. See `model.step` for the parts of the body.
"""

from __future__ import annotations

from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from speechattn.frontend import Frontend
from speechattn.frontend.deltas import inner_deltas
from speechattn.frontend.normalisation import LEVEL_FRAMES, online_cmvn
from speechattn.model.block import EncoderBlock
from speechattn.model.classifier import FrameClassifier
from speechattn.model.encoder import Encoder
from speechattn.model.step import Rows, block_step, window_step

__all__ = ["StreamingStep"]

CHUNKS_PER_S = 10  # approximately: a chunk has whole encoder steps
GOES_ON = 1 << 40  # samples of a recording that has not ended: more than ever arrive


class StreamingStep(nn.Module):
    """One call of a stream with explicit state: `FrameClassifier.stream` for chunks of one size.

    Args:
        model: The model, in eval mode.

    Attributes:
        chunk_frames: Frames K per chunk.
        chunk_samples: Samples C per chunk.
        state_size: Numbers S in the state.
        delay: The first row of call i (from 0) is frame i * K - delay.

    Raises:
        ValueError: When the model cannot stream, or not with a state of fixed size.
    """

    inputs: dict[str, dict[int, str]] = {"samples": {}, "length": {}, "state": {}, "clock": {}}  # no dynamic axes
    outputs: dict[str, dict[int, str]] = {
        "log_posteriors": {}, "first_frame": {}, "num_frames": {}, "next_state": {}, "next_clock": {}
    }  # fmt: skip

    def __init__(self, model: FrameClassifier) -> None:
        super().__init__()
        _check_streams(model)
        self.frontend, self.body, self.output = cast(Frontend, model.frontend), model.body, model.output
        self.temperature = model.config.temperature
        stack = self.body.config.stack if isinstance(self.body, Encoder) else 1
        geometry = self.frontend.geometry
        self.chunk_frames = stack * -(-geometry.sample_rate // (CHUNKS_PER_S * geometry.hop * stack))
        self.chunk_samples = self.chunk_frames * geometry.hop
        with torch.no_grad():
            memory, zero = StateMemory(None), torch.zeros((), dtype=torch.int64)
            rows = self._rows(self.output.weight.new_zeros(self.chunk_samples), zero, zero, memory)
        self.state_size, self.delay = len(memory.next_state()), -int(rows.first)

    @property
    def flush_chunks(self) -> int:
        """Number of empty chunks that return the last frames after the end of the recording."""
        geometry = self.frontend.geometry
        surplus = geometry.windows(geometry.window * geometry.hop) - geometry.window  # frames beyond one per hop
        return max(1, -(-(self.delay + surplus) // self.chunk_frames))

    def example(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Example input for the export: an empty chunk, and the initial state and clock."""
        zero, weight = torch.zeros((), dtype=torch.int64), self.output.weight
        return weight.new_zeros(self.chunk_samples), zero, weight.new_zeros(self.state_size), zero.new_zeros(2)

    def forward(
        self, samples: Tensor, length: Tensor, state: Tensor, clock: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Process one chunk.

        Args:
            samples: (C,) float in [-1, 1]; samples past `length` are ignored.
            length: () int64, number of samples. The first value below C ends the recording; later chunks count as
                empty.
            state: (S,) float; zeros in the first call, then `next_state` of the call before.
            clock: (2,) int64, chunks and samples so far; likewise.

        Returns:
            (log_posteriors, first_frame, num_frames, next_state, next_clock): (K, P) float, of which the rows
            [first_frame, first_frame + num_frames) are the frames that became final; both () int64; (S,) float and
            (2,) int64 for the next call.
        """
        size, (chunks, before) = self.chunk_samples, clock.unbind()
        ended = before < chunks * size
        length = length.clamp(0, size).masked_fill(ended, 0)
        samples = samples.masked_fill(torch.arange(size, device=samples.device) >= length, 0.0)
        goes_on = before + length == (chunks + 1) * size
        memory = StateMemory(state)
        rows = self._rows(samples, chunks, torch.where(goes_on, GOES_ON, before + length), memory)
        log_posteriors = (self.output(rows.values) / self.temperature).log_softmax(dim=1)
        first_frame = (-rows.first).clamp(0, self.chunk_frames)
        num_frames = ((rows.end - rows.first).clamp(max=self.chunk_frames) - first_frame).clamp(min=0)
        next_clock = torch.stack([chunks + 1, before + length])
        return log_posteriors, first_frame, num_frames, memory.next_state(), next_clock

    def _rows(self, samples: Tensor, chunks: Tensor, total: Tensor, memory: StateMemory) -> Rows:
        """Input of the output layer.

        Args:
            samples: (C,) float, 0 past the recording's end.
            chunks: () int64, chunks so far.
            total: () int64, samples of the recording; GOES_ON until it ends.
            memory: Rows of the call before.
        """
        rows = self._features(self._static(samples, chunks, total, memory), memory)
        if isinstance(self.body, Encoder):
            return self._encoded(self.body, rows, memory)
        for window in self.body.windows():
            rows = window_step(window, rows, memory)
        return rows

    @property
    def _frame_delay(self) -> int:
        """Frames whose windows reach beyond the samples so far."""
        geometry = self.frontend.geometry
        return max(0, -(-(geometry.window - geometry.hop) // geometry.hop))

    def _static(self, samples: Tensor, chunks: Tensor, total: Tensor, memory: StateMemory) -> Rows:
        """Static features of the frames whose windows end in this chunk."""
        frontend, geometry = self.frontend, self.frontend.geometry
        size, delay = self.chunk_samples, self._frame_delay
        # The first frame's samples, one more for pre-emphasis, and those that an edge near its end mirrors.
        kept = delay * geometry.hop + geometry.left + max(1, 2 * geometry.right - geometry.window + 2)
        signal = memory.extended(frontend.energies.as_float(samples), kept)
        first = chunks * self.chunk_frames - delay
        span = torch.arange(size - geometry.hop + geometry.window, device=samples.device)
        positions = first * geometry.hop - geometry.left + span
        signal = frontend.energies.continued(signal, chunks * size - kept, positions, total)
        frames = signal.unfold(0, geometry.window, geometry.hop)[None]
        values = frontend.static(frontend.energies.of_frames(frames), torch.full((1,), self.chunk_frames), None)[0]
        return Rows(values, first, geometry.num_frames(total))

    def _features(self, rows: Rows, memory: StateMemory) -> Rows:
        """Add deltas and normalise; 0 where there is no frame."""
        frontend, config = self.frontend, self.frontend.config
        orders = [config.delta_order] if config.delta_rule == "kaldi" else [1] * config.delta_order
        for order in orders:
            if order:
                rows = _with_deltas(rows, frontend.static_dim, order, config.delta_window, memory)
        if config.learns_statistics:
            rows = rows._replace(values=(rows.values - frontend.mean) * frontend.scale)
        rows = rows.masked()
        if config.normalisation == "online":
            before = config.cmn_window - 1 + (LEVEL_FRAMES - 1 if config.cmn_min_range else 0)
            values = memory.extended(rows.values, before)
            first = rows.first - before
            values = online_cmvn(
                values[None],
                (rows.end - first)[None],
                window=config.cmn_window,
                global_frames=config.global_frames,
                variance=config.normalise_variance,
                min_range=config.cmn_min_range,
                level=config.level_columns,
                before=first,
            )[0, -self.chunk_frames :]
            rows = rows._replace(values=values).masked()
        return rows

    def _encoded(self, encoder: Encoder, rows: Rows, memory: StateMemory) -> Rows:
        """The encoder's frames."""
        stack, context = encoder.config.stack, encoder.config.input_context
        frame_delay = self._frame_delay + self.frontend.config.delta_reach
        step_delay = -(-(frame_delay + context) // stack)  # steps whose frames have not all arrived
        values = memory.extended(rows.values, stack * step_delay + context - frame_delay)
        first = (rows.first + frame_delay) // stack - step_delay
        times = first + torch.arange(self.chunk_frames // stack, device=values.device)
        x = encoder.embed(values[None, : self.chunk_frames + 2 * context], times)[0]
        steps = Rows(x, first, (rows.end + stack - 1) // stack)
        for block in encoder.blocks:
            steps = block_step(cast(EncoderBlock, block), steps, memory)
        return Rows(encoder.frames(steps.values[None])[0], stack * steps.first, rows.end)


class StateMemory:
    """The memory of a step, see `model.step.Memory`, in one flat state.

    Args:
        state: (S,) float; None for zeros of the size that is read.
    """

    def __init__(self, state: Tensor | None) -> None:
        self._state = state
        self._position = 0
        self._kept: list[Tensor] = []

    def extended(self, rows: Tensor, count: int | None, *, dim: int = 0) -> Tensor:
        """See `model.step.Memory.extended`."""
        if count == 0:
            return rows
        assert count is not None
        shape = (*rows.shape[:dim], count, *rows.shape[dim + 1 :])
        size = prod(shape)
        earlier = rows.new_zeros(size) if self._state is None else self._state[self._position : self._position + size]
        self._position += size
        rows = torch.cat([earlier.view(shape), rows], dim=dim)
        self._kept.append(rows.narrow(dim, rows.shape[dim] - count, count).flatten())
        return rows

    def next_state(self) -> Tensor:
        """(S,) float, the state for the next call."""
        return torch.cat(self._kept)


def _with_deltas(rows: Rows, dim: int, order: int, window: int, memory: StateMemory) -> Rows:
    """Append deltas of the last `dim` features; the recording's first and last frames are repeated at its ends."""
    reach, num_frames = order * window, rows.values.shape[0]
    values = memory.extended(rows.values, 2 * reach)
    first = rows.first - 2 * reach
    times = first + torch.arange(len(values), device=values.device)
    within = torch.minimum(times, rows.end - 1).clamp(min=0)
    values = values[(within - first).clamp(0, len(values) - 1)]
    deltas = inner_deltas(values[None, :, -dim:], order=order, window=window)[0]
    values = torch.cat([values[reach : reach + num_frames, :-dim], deltas], dim=1)
    return Rows(values, rows.first - reach, rows.end)


def _check_streams(model: FrameClassifier) -> None:
    """Refuse a model that has no streaming graph."""
    if model.feature_dim is not None:
        raise ValueError("a streaming graph takes samples, and a model without a front end features")
    model.stream()  # or refuse
    assert model.config.frontend is not None
    if model.config.frontend.normalisation == "sliding":
        raise ValueError("normalisation='sliding' is not for streaming graphs; 'online', 'global' and 'none' are")
    if isinstance(model.body, Encoder) and any(left is None for left, _ in model.body.config.layer_contexts):
        raise ValueError("a streaming graph has a state of fixed size: encoder.left must be limited")

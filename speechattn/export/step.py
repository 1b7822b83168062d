"""A stream as a graph: a chunk of samples and a state in, posteriors and the next state out, all of fixed shape.

In every call each stage takes as many rows as a chunk brings and gives as many, which lag behind by what the stage
looks ahead; so a stage needs a fixed number of rows of earlier calls, and these are the state. Rows before the
recording's first and behind its last are computed like all others and masked like padding. What a stage computes is
the offline function, of rows out of the middle of a recording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from speechattn.attention import attend
from speechattn.frontend import Mfcc
from speechattn.frontend.deltas import inner_deltas
from speechattn.frontend.normalisation import online_cmvn
from speechattn.model.block import EncoderBlock
from speechattn.model.encoder import Encoder

if TYPE_CHECKING:
    from speechattn.model.classifier import FrameClassifier

__all__ = ["StreamingStep"]

CHUNKS_PER_S = 10  # about: a chunk is whole steps
OUT_OF_SIGHT = 1 << 40  # samples or rows of a recording that goes on: more than ever come


class StreamingStep(nn.Module):
    """A call of a stream, with the state outside: what `FrameClassifier.stream` gives for chunks of one size.

    Args:
        model: The model, in eval mode.

    Attributes:
        chunk_frames: K, frames in a chunk.
        chunk_samples: C, samples in a chunk.
        state_size: S, numbers in the state.
        delay: Frames that the rows of a call lag behind: those of call i, from 0, begin with frame i * K - delay.

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
        self.frontend, self.body, self.output = cast(Mfcc, model.frontend), model.body, model.output
        self.temperature = model.config.temperature
        stack = self.body.config.stack if isinstance(self.body, Encoder) else 1
        geometry = self.frontend.geometry
        self.chunk_frames = stack * -(-geometry.sample_rate // (CHUNKS_PER_S * geometry.hop * stack))
        self.chunk_samples = self.chunk_frames * geometry.hop
        with torch.no_grad():  # what the first call finds, and how much
            memory, nothing = _Memory(None), torch.zeros((), dtype=torch.int64)
            rows = self._rows(self.output.weight.new_zeros(self.chunk_samples), nothing, nothing, memory)
        self.state_size, self.delay = len(memory.next_state()), -int(rows.first)

    @property
    def flush_chunks(self) -> int:
        """How many chunks of no samples bring the last frames, after the last chunk that had any."""
        geometry = self.frontend.geometry
        surplus = geometry.windows(geometry.window * geometry.hop) - geometry.window  # frames beyond one a hop
        return max(1, -(-(self.delay + surplus) // self.chunk_frames))

    def example(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Input to export with: an empty chunk, and state and clock of the first call."""
        zero, weight = torch.zeros((), dtype=torch.int64), self.output.weight
        return weight.new_zeros(self.chunk_samples), zero, weight.new_zeros(self.state_size), zero.new_zeros(2)

    def forward(
        self, samples: Tensor, length: Tensor, state: Tensor, clock: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Go on by a chunk.

        Args:
            samples: (C,) float in [-1, 1]; what stands past `length` does not matter.
            length: () int64, how many are real. The first time that it is less than C the recording ends there; later
                chunks count as empty.
            state: (S,) float: zeros in the first call, then what the one before gave.
            clock: (2,) int64, likewise: chunks and samples so far.

        Returns:
            (log_posteriors, first_frame, num_frames, next_state, next_clock): (K, P) float, of which the rows
            [first_frame, first_frame + num_frames) are the frames that became final; these two, () int64; (S,) float
            and (2,) int64 for the next call.
        """
        size, (chunks, before) = self.chunk_samples, clock.unbind()
        ended = before < chunks * size
        length = length.clamp(0, size).masked_fill(ended, 0)
        samples = samples.masked_fill(torch.arange(size, device=samples.device) >= length, 0.0)
        goes_on = before + length == (chunks + 1) * size
        memory = _Memory(state)
        rows = self._rows(samples, chunks, torch.where(goes_on, OUT_OF_SIGHT, before + length), memory)
        log_posteriors = (self.output(rows.values) / self.temperature).log_softmax(dim=1)
        first_frame = (-rows.first).clamp(0, self.chunk_frames)
        num_frames = ((rows.end - rows.first).clamp(max=self.chunk_frames) - first_frame).clamp(min=0)
        next_clock = torch.stack([chunks + 1, before + length])
        return log_posteriors, first_frame, num_frames, memory.next_state(), next_clock

    def _rows(self, samples: Tensor, chunks: Tensor, total: Tensor, memory: _Memory) -> _Rows:
        """What goes into the output layer.

        Args:
            samples: (C,) float, 0 past the recording's end.
            chunks: () int64, how many came before.
            total: () int64, samples of the whole recording; OUT_OF_SIGHT while it goes on.
            memory: Of the call before.
        """
        rows = self._features(self._static(samples, chunks, total, memory), memory)
        if isinstance(self.body, Encoder):
            return self._encoded(self.body, rows, memory)
        for part in self.body.stream_parts():
            rows = rows.masked()
            values = memory.extended(rows.values, part.left + part.right)[None]
            whole = torch.full((1,), values.shape[1])
            values = part.function(values, whole)[0, part.left : part.left + self.chunk_frames]
            rows = _Rows(values, rows.first - part.right, rows.end)
        return rows

    # ------------------------------------------------------------------------------------------------ front end

    @property
    def _frame_delay(self) -> int:
        """Frames that lag behind the samples: those whose windows are not whole yet."""
        geometry = self.frontend.geometry
        return max(0, -(-(geometry.window - geometry.hop) // geometry.hop))

    def _static(self, samples: Tensor, chunks: Tensor, total: Tensor, memory: _Memory) -> _Rows:
        """Static features of the frames whose windows end in this chunk."""
        frontend, geometry = self.frontend, self.frontend.geometry
        size, delay = self.chunk_samples, self._frame_delay
        # The first frame's samples, the one before for pre-emphasis, and what an edge near its end is mirrored from.
        kept = delay * geometry.hop + geometry.left + max(1, 2 * geometry.right - geometry.window + 2)
        signal = memory.extended(frontend.energies.as_float(samples), kept)
        first = chunks * self.chunk_frames - delay
        span = torch.arange(size - geometry.hop + geometry.window, device=samples.device)
        positions = first * geometry.hop - geometry.left + span
        signal = frontend.energies.continued(signal, chunks * size - kept, positions, total)
        frames = signal.unfold(0, geometry.window, geometry.hop)[None]
        values = frontend.static(frontend.energies.of_frames(frames), torch.full((1,), self.chunk_frames), None)[0]
        return _Rows(values, first, geometry.num_frames(total))

    def _features(self, rows: _Rows, memory: _Memory) -> _Rows:
        """With deltas, normalised; 0 where there is no frame."""
        frontend, config = self.frontend, self.frontend.config
        orders = [config.delta_order] if config.delta_rule == "kaldi" else [1] * config.delta_order
        for order in orders:
            if order:
                rows = _with_deltas(rows, frontend.static_dim, order, config.delta_window, memory)
        if config.learns_statistics:
            rows = rows._replace(values=(rows.values - frontend.mean) * frontend.scale)
        rows = rows.masked()
        if config.normalisation == "online":
            values = memory.extended(rows.values, config.cmn_window - 1)
            first = rows.first - (config.cmn_window - 1)
            values = online_cmvn(
                values[None],
                (rows.end - first)[None],
                window=config.cmn_window,
                global_frames=config.global_frames,
                variance=config.normalise_variance,
                before=first,
            )[0, -self.chunk_frames :]
            rows = rows._replace(values=values).masked()
        return rows

    # ------------------------------------------------------------------------------------------------- encoder

    def _encoded(self, encoder: Encoder, rows: _Rows, memory: _Memory) -> _Rows:
        """The encoder's frames."""
        stack, around = encoder.config.stack, encoder.config.input_context
        delay = self._frame_delay + self.frontend.config.delta_reach
        steps = -(-(delay + around) // stack)  # that lag behind: those whose frames are not all there
        values = memory.extended(rows.values, stack * steps + around - delay)
        first = (rows.first + delay) // stack - steps
        times = first + torch.arange(self.chunk_frames // stack, device=values.device)
        x = encoder.embed(values[None, : self.chunk_frames + 2 * around], times)[0]
        embedded = _Rows(x, first, (rows.end + stack - 1) // stack)
        for block in encoder.blocks:
            embedded = _through_block(cast(EncoderBlock, block), embedded, memory)
        return _Rows(encoder.frames(embedded.values[None])[0], stack * embedded.first, rows.end)


class _Rows(NamedTuple):
    """Rows in turn out of a recording, frames or steps.

    While the recording goes on, every row from 0 on that is given is one of its rows: it comes when its samples have.
    """

    values: Tensor  # (n, D)
    first: Tensor  # () int64, which one the first is; those before 0 are none
    end: Tensor  # () int64, how many the recording has; more than can come while it goes on

    @property
    def times(self) -> Tensor:
        """(n,) int64, which ones they are."""
        return self.first + torch.arange(self.values.shape[0], device=self.values.device)

    def masked(self) -> _Rows:
        """0 where the recording has none."""
        return self._replace(values=self.values.masked_fill(~_real(self.times, self.end)[:, None], 0.0))


def _real(times: Tensor, end: Tensor) -> Tensor:
    """Whether the recording has these rows, bool."""
    return (times >= 0) & (times < end)


class _Memory:
    """Rows of the calls before, which the stages read in turn, and those that they leave to the next call.

    Args:
        state: (S,) float, all these rows one behind the other; None: zeros, as many as are asked for.
    """

    def __init__(self, state: Tensor | None) -> None:
        self._state = state
        self._read = 0
        self._kept: list[Tensor] = []

    def extended(self, rows: Tensor, count: int) -> Tensor:
        """(n, ...) -> (count + n, ...), the rows before them in front; the last `count` stay for the next call."""
        if count == 0:
            return rows
        size = count * rows[0].numel()
        earlier = rows.new_zeros(size) if self._state is None else self._state[self._read : self._read + size]
        self._read += size
        rows = torch.cat([earlier.view(count, *rows.shape[1:]), rows])
        self._kept.append(rows[-count:].flatten())
        return rows

    def next_state(self) -> Tensor:
        """(S,) float, for the next call."""
        return torch.cat(self._kept)


def _with_deltas(rows: _Rows, dim: int, order: int, window: int, memory: _Memory) -> _Rows:
    """Append deltas of the last `dim` features; the recording's own first and last frame are repeated."""
    reach, num_frames = order * window, rows.values.shape[0]
    values = memory.extended(rows.values, 2 * reach)
    first = rows.first - 2 * reach
    times = first + torch.arange(len(values), device=values.device)
    within = torch.minimum(times, rows.end - 1).clamp(min=0)
    values = values[(within - first).clamp(0, len(values) - 1)]
    deltas = inner_deltas(values[None, :, -dim:], order=order, window=window)[0]
    values = torch.cat([values[reach : reach + num_frames, :-dim], deltas], dim=1)
    return _Rows(values, rows.first - reach, rows.end)


def _through_block(block: EncoderBlock, rows: _Rows, memory: _Memory) -> _Rows:
    """Attention, convolution and feed-forward module of some steps."""
    attention, size = block.attention, rows.values.shape[0]
    left, right = cast(int, attention.left), cast(int, attention.right)
    projected = attention.project(block.attention_norm(rows.values[None]), rows.times)
    query, key, value = (x[0].transpose(0, 1) for x in projected)  # (n, H, E)
    query = memory.extended(query, right)[:size]
    key, value = (memory.extended(x, left + right) for x in (key, value))
    ages = torch.arange(left + right + size, device=key.device)
    offset = ages - left - ages[:size, None]
    real = _real(rows.first - left - right + ages, rows.end)
    query, key, value = (x.transpose(0, 1)[None] for x in (query, key, value))
    y = attend(query, key, value, offset, attention.weighting, real[None])[0]
    x = memory.extended(rows.values, right)[:size] + attention.output(y.transpose(0, 1).flatten(1))
    rows = _Rows(x, rows.first - right, rows.end)
    if (convolution := block.convolution) is not None:
        reach = convolution.depthwise.kernel_size[0] // 2
        gated = rows._replace(values=convolution.gated(rows.values[None])[0]).masked()
        taps = memory.extended(gated.values, 2 * reach)
        y = convolution.depthwise(taps.T[None])[0, :, reach : reach + size].T
        x = memory.extended(rows.values, reach)[:size] + convolution.mixed(y[None])[0]
        rows = _Rows(x, rows.first - reach, rows.end)
    return rows._replace(values=rows.values + block.feed_forward(rows.values[None])[0])


def _check_streams(model: FrameClassifier) -> None:
    """Refuse a model that a streaming graph is not for."""
    if model.feature_dim is not None:
        raise ValueError("a streaming graph takes samples, and a model without a front end features")
    model.stream()  # or refuse
    assert model.config.frontend is not None
    if model.config.frontend.normalisation == "sliding":
        raise ValueError("normalisation='sliding' is not for streaming graphs; 'online', 'global' and 'none' are")
    if isinstance(model.body, Encoder) and any(left is None for left, _ in model.body.config.layer_contexts):
        raise ValueError("a streaming graph has a state of fixed size: encoder.left must be limited")

"""The model over audio that arrives in pieces, with the same results as for the whole.

Keys and values that later frames can reach are kept, so that nothing is computed twice. A frame is returned as soon as
its right context has arrived.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.attention import TruncatedSelfAttention
from speechattn.frontend.execution import single_precision
from speechattn.frontend.ready import ReadyStream
from speechattn.frontend.stream import FeatureStream
from speechattn.model.baselines import Blstm, Linear, Mlp, Tdnn
from speechattn.model.block import EncoderBlock
from speechattn.model.encoder import Encoder
from speechattn.model.step import Rows, attention_step, block_step, window_step

__all__ = ["AttentionStream", "BaselineStream", "ClassifierStream", "EncoderStream"]

GOES_ON = 1 << 60  # rows of a recording that has not ended: more than ever arrive
PIECE_STEPS = 4096  # of a large piece, so many are computed at a time: bounds the memory


class StreamMemory:
    """The memory of a stream, see `step.Memory`; `rewind` before each step."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []
        self._next = 0

    def rewind(self) -> StreamMemory:
        """Start reading from the first rows again."""
        self._next = 0
        return self

    def extended(self, rows: Tensor, count: int | None, *, dim: int = 0) -> Tensor:
        """See `step.Memory.extended`."""
        if count == 0:
            return rows
        if self._next == len(self._kept):
            self._kept.append(rows.new_zeros(*rows.shape[:dim], count or 0, *rows.shape[dim + 1 :]))
        rows = torch.cat([self._kept[self._next], rows], dim=dim)
        self._kept[self._next] = rows if count is None else rows.narrow(dim, rows.shape[dim] - count, count)
        self._next += 1
        return rows


class BodyStream:
    """Rows of one sequence that grows, in and out; subclasses define the step.

    Args:
        delay: Right context in rows.
        dim: Features of a row that comes out.
    """

    def __init__(self, delay: int, dim: int) -> None:
        self._delay, self._dim = delay, dim
        self._memory = StreamMemory()
        self._num_rows = 0

    def step(self, rows: Rows) -> Rows:
        """One step, see `step`."""
        raise NotImplementedError

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        """New rows (n, D) -> the results that became final, (m, dim); with `last` all that remain."""
        end = self._num_rows + len(x) if last else GOES_ON
        if last:
            x = F.pad(x, (0, 0, 0, self._delay))
        results = [x.new_zeros(0, self._dim)]
        for piece in x.split(PIECE_STEPS) if len(x) else ():
            values, first, _ = self.step(Rows(piece, self._num_rows, end))
            assert isinstance(first, int)
            results.append(values[max(-first, 0) : max(end - first, 0)])
            self._num_rows += len(piece)
        return results[1] if len(results) == 2 else torch.cat(results)


class AttentionStream(BodyStream):
    """`TruncatedSelfAttention` over one sequence that grows.

    Raises:
        ValueError: When the right context is unlimited.
    """

    def __init__(self, attention: TruncatedSelfAttention) -> None:
        super().__init__(_limited(attention), attention.output.out_features)
        self._attention = attention

    def step(self, rows: Rows) -> Rows:
        """One step of the layer."""
        return attention_step(self._attention, rows, self._memory.rewind())


class BaselineStream(BodyStream):
    """A baseline over one sequence of features that grows.

    Raises:
        ValueError: When it needs the whole sequence.
    """

    def __init__(self, body: Blstm | Linear | Mlp | Tdnn) -> None:
        self._windows = body.windows()
        super().__init__(sum(window.right for window in self._windows), body.output_dim)

    def step(self, rows: Rows) -> Rows:
        """One step of all layers."""
        memory = self._memory.rewind()
        for window in self._windows:
            rows = window_step(window, rows, memory)
        return rows


class _BlocksStream(BodyStream):
    def __init__(self, encoder: Encoder) -> None:
        self._blocks = [cast(EncoderBlock, block) for block in encoder.blocks]
        delay = sum(_limited(block.attention) + encoder.config.conv_kernel // 2 for block in self._blocks)
        super().__init__(delay, encoder.output_dim)

    def step(self, rows: Rows) -> Rows:
        memory = self._memory.rewind()
        for block in self._blocks:
            rows = block_step(block, rows, memory)
        return rows


class EncoderStream:
    """`Encoder` over one sequence of features that grows.

    Raises:
        ValueError: When a layer's right context is unlimited.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._num_steps = 0
        self._waiting: Tensor | None = None  # the first frames of the next step's input
        self._blocks = _BlocksStream(encoder)

    def push(self, features: Tensor, *, last: bool = False) -> Tensor:
        """New frames (n, input_dim) -> the outputs that became final, (m, dim); with `last` all that remain."""
        stack, context = self.encoder.config.stack, self.encoder.config.input_context
        if self._waiting is None:
            self._waiting = features.new_zeros(context, features.shape[1])
        features = torch.cat([self._waiting, features])
        missing = (context - len(features)) % stack if last else 0
        if last:
            features = F.pad(features, (0, 0, 0, context + missing))
        steps = max(len(features) - 2 * context, 0) // stack
        if not steps and not last:
            self._waiting = features
            return features.new_zeros(0, self.encoder.output_dim)
        self._waiting = features[steps * stack :]
        times = torch.arange(self._num_steps, self._num_steps + steps, device=features.device)
        window = features[None, : steps * stack + 2 * context] if steps else features[None, :0]
        self._num_steps += steps
        x = self._blocks.push(self.encoder.embed(window, times)[0], last=last)
        frames = self.encoder.frames(x[None])[0]
        return frames[: len(frames) - missing]


def _limited(attention: TruncatedSelfAttention) -> int:
    if attention.right is None:
        raise ValueError("attention with unlimited right context cannot stream: right=None needs the whole utterance")
    return attention.right


class ClassifierStream:
    """Log-posteriors of one recording, pushed in pieces of any size; `FrameClassifier.stream` makes one.

    Args:
        features: Stream of the front end.
        body: The model's body.
        output: Output layer.
        temperature: Divisor of the logits.

    Raises:
        ValueError: When the body needs the whole recording before its first frame.
    """

    def __init__(
        self,
        features: FeatureStream | ReadyStream,
        body: Encoder | Blstm | Linear | Mlp | Tdnn,
        output: nn.Linear,
        temperature: float,
    ) -> None:
        self._features, self._temperature = features, temperature
        _lay_out(body)
        _lay_out(output)
        self._output = output
        self._body = EncoderStream(body) if isinstance(body, Encoder) else BaselineStream(body)

    def push(self, samples: Any) -> Any:
        """Add samples and return the log-posteriors that became final.

        Args:
            samples: (n,) float in [-1, 1] or int16 at the model's sample rate, tensor or NumPy array; without a front
                end features, (n, D) float.

        Returns:
            (k, P), k >= 0, a NumPy array for NumPy input; exp of a row sums to 1.

        Raises:
            ValueError: When shape or dtype of the samples do not fit, or after `flush`.
        """
        with torch.inference_mode():  # 10 % faster than no_grad on so few rows
            return self._log_posteriors(self._features.push(samples), last=False)

    def flush(self) -> Any:
        """End the recording and return the log-posteriors of its last frames, (k, P). Only once."""
        with torch.inference_mode():
            return self._log_posteriors(self._features.flush(), last=True)

    def _log_posteriors(self, features: Any, *, last: bool) -> Any:
        weight = self._output.weight
        if len(features) == 0 and not last:
            empty = weight.new_zeros(0, len(weight))
            return empty.numpy(force=True) if isinstance(features, np.ndarray) else empty
        rows = torch.as_tensor(features, device=weight.device, dtype=weight.dtype)
        with torch.autocast(weight.device.type, enabled=False):  # steps this small gain nothing from it
            logits = self._output(self._body.push(rows, last=last))
            log_posteriors = (single_precision(logits) / self._temperature).log_softmax(dim=1)
        if isinstance(features, np.ndarray):
            return log_posteriors.numpy(force=True)
        with torch.inference_mode(False):
            return log_posteriors.clone()  # an ordinary tensor, usable with autograd


def _lay_out(module: nn.Module) -> None:
    """Transpose matrices and filters in memory, once: products with few rows are 20 % faster. Values do not change."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.T.is_contiguous():
            layer.weight.data = layer.weight.data.T.contiguous().T
        elif isinstance(layer, nn.Conv1d) and layer.groups > 1 and not layer.weight[:, 0].T.is_contiguous():
            layer.weight.data = layer.weight.data[:, 0].T.contiguous().T[:, None]

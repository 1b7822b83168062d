"""The model over audio that arrives in pieces, with the numbers of the whole.

Attention keeps the keys and values that later frames can see, so that nothing is computed twice; a frame's
result comes as soon as the frames to its right that it depends on are there.
"""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.attention import TruncatedSelfAttention, attend
from speechattn.frontend.ready import ReadyStream
from speechattn.frontend.stream import FeatureStream
from speechattn.model.baselines import Blstm, Linear, Mlp, Tdnn
from speechattn.model.block import ConvolutionModule, EncoderBlock
from speechattn.model.encoder import Encoder

__all__ = ["AttentionStream", "BaselineStream", "ClassifierStream", "EncoderStream"]

MOST_QUERIES = 256  # attended to at a time: bounds the scores of a large piece


class AttentionStream:
    """`TruncatedSelfAttention` over one sequence that grows.

    Args:
        attention: The layer, with a limited right context.

    Raises:
        ValueError: When the right context is unlimited.
    """

    def __init__(self, attention: TruncatedSelfAttention) -> None:
        if attention.right is None:
            raise ValueError(
                "attention with unlimited right context cannot stream: right=None needs the whole utterance"
            )
        self.attention, self.weighting = attention, attention.weighting
        self.left, self.right = attention.left, attention.right
        self._rows: Tensor | None = None  # (3, H, S, E): queries, keys and values of the frames from `_first` on
        self._first = 0  # time of the first frame that later ones may see
        self._given = 0  # frames whose result has been given out

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        """New frames (n, D) -> the outputs that became final, (m, D); with `last` all that are left."""
        attention = self.attention
        rows = self._project(x)
        self._rows = rows = rows if self._rows is None else torch.cat([self._rows, rows], dim=2)
        total = self._first + rows.shape[2]
        final = total if last else max(total - self.right, self._given)
        results = [
            self._attend(first, min(first + MOST_QUERIES, final), total)
            for first in range(self._given, final, MOST_QUERIES)
        ]
        self._given = final
        # What later frames can see stays.
        if self.left is not None and final - self.left > self._first:
            self._rows = rows[:, :, final - self.left - self._first :]
            self._first = final - self.left
        return attention.output(results[0] if len(results) == 1 else torch.cat([x[:0], *results]))

    def _project(self, x: Tensor) -> Tensor:
        """`TruncatedSelfAttention.project` of one sequence; queries and keys learn of time in one call."""
        attention, seen = self.attention, self._first + (0 if self._rows is None else self._rows.shape[2])
        times = torch.arange(seen, seen + len(x), device=x.device)
        shape = (len(x), 3, attention.heads, x.shape[1] // attention.heads)
        projected = attention.query_key_value(x).view(shape).permute(1, 2, 0, 3)
        return torch.cat([attention.position.encode(projected[:2], times), projected[2:]])

    def _attend(self, first: int, end: int, total: int) -> Tensor:
        """Results of frames [first, end), (frames, H * E), by the keys that any of them sees."""
        rows = cast(Tensor, self._rows)
        start = self._first if self.left is None else max(first - self.left, self._first)
        stop = min(end + self.right, total)
        queries = rows[:1, :, first - self._first : end - self._first]
        keys, values = rows[1:, None, :, start - self._first : stop - self._first]
        offset = _offsets(start - first, stop - first, end - first, rows.device)
        y = attend(queries, keys, values, offset, self.weighting)
        return y[0].transpose(0, 1).flatten(1)


@lru_cache(maxsize=32)  # pieces of one size need the same few again and again
def _offsets(start: int, stop: int, num_queries: int, device: torch.device) -> Tensor:
    """(queries, keys): times of keys from `start` to `stop`, less those of queries from 0."""
    return torch.arange(start, stop, device=device) - torch.arange(num_queries, device=device)[:, None]


class EncoderStream:
    """`Encoder` over one sequence of features that grows.

    Args:
        encoder: The encoder, with a limited right context in every layer.

    Raises:
        ValueError: When a layer's right context is unlimited.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._seen = 0  # steps
        self._waiting: Tensor | None = None  # the first frames that the next step's input will hold
        self._blocks = [_BlockStream(cast(EncoderBlock, block)) for block in encoder.blocks]

    def push(self, features: Tensor, *, last: bool = False) -> Tensor:
        """New frames (n, input_dim) -> the outputs that became final, (m, dim); with `last` all that are left."""
        stack, around = self.encoder.config.stack, self.encoder.config.input_context
        if self._waiting is None:
            self._waiting = features.new_zeros(around, features.shape[1])
        features = torch.cat([self._waiting, features])
        missing = (around - len(features)) % stack if last else 0
        if last:
            features = F.pad(features, (0, 0, 0, around + missing))
        steps = max(len(features) - 2 * around, 0) // stack
        self._waiting = features[steps * stack :]
        times = torch.arange(self._seen, self._seen + steps, device=features.device)
        entering = features[None, : steps * stack + 2 * around] if steps else features[None, :0]
        x = self.encoder.embed(entering, times)[0]
        self._seen += steps
        for block in self._blocks:
            x = block.push(x, last=last)
        frames = self.encoder.frames(x[None])[0]
        return frames[: len(frames) - missing]


class _BlockStream:
    """`EncoderBlock` over one sequence that grows."""

    def __init__(self, block: EncoderBlock) -> None:
        self.block = block
        self._attention = AttentionStream(block.attention)
        self._convolution = None if block.convolution is None else ConvolutionStream(block.convolution)
        self._pending: Tensor | None = None  # rows that attention has taken and not yet given
        self._unconvolved: Tensor | None = None  # likewise the convolution

    def push(self, x: Tensor, *, last: bool) -> Tensor:
        y = self._attention.push(self.block.attention_norm(x), last=last)
        x = x if self._pending is None else torch.cat([self._pending, x])
        self._pending, x = x[len(y) :], x[: len(y)] + y
        if self._convolution is not None:
            y = self._convolution.push(x, last=last)
            x = x if self._unconvolved is None else torch.cat([self._unconvolved, x])
            self._unconvolved, x = x[len(y) :], x[: len(y)] + y
        return x + self.block.feed_forward(x)


class ConvolutionStream:
    """`ConvolutionModule` over one sequence that grows; what comes before the convolution is kept, not repeated.

    Args:
        convolution: The module.
    """

    def __init__(self, convolution: ConvolutionModule) -> None:
        self.convolution, self.bias = convolution, cast(Tensor, convolution.depthwise.bias)
        self.taps = list(convolution.depthwise.weight[:, 0].T.contiguous())  # (D,) each
        self._rows = self.bias.new_zeros(len(self.taps) // 2, len(self.bias))  # those that later frames need

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        """New frames (n, D) -> the outputs that became final, (m, D); with `last` all that are left."""
        rows = torch.cat([self._rows, self.convolution.gated(x)])
        if last:
            rows = F.pad(rows, (0, 0, 0, len(self.taps) // 2))
        final = max(len(rows) - len(self.taps) + 1, 0)
        # A few rows are summed tap by tap several times as fast as `conv1d` does it.
        y = torch.addcmul(self.bias, rows[:final], self.taps[0])
        for number, tap in enumerate(self.taps[1:], 1):
            y.addcmul_(rows[number : number + final], tap)
        self._rows = rows[final:]
        return self.convolution.mixed(y)


class BaselineStream:
    """A baseline over one sequence of features that grows.

    Args:
        body: The baseline, with a limited right context.

    Raises:
        ValueError: When it needs the whole sequence.
    """

    def __init__(self, body: Blstm | Linear | Mlp | Tdnn) -> None:
        self._parts = body.stream_parts()

    def push(self, features: Tensor, *, last: bool = False) -> Tensor:
        """New frames (n, input_dim) -> the outputs that became final, (m, D); with `last` all that are left."""
        for part in self._parts:
            features = part.push(features, last=last)
        return features


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
        self._output, body = _transposed(output), _transposed(body)
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
        rows = self._body.push(torch.as_tensor(features, device=self._output.weight.device), last=last)
        log_posteriors = (self._output(rows) / self._temperature).log_softmax(dim=1)
        if isinstance(features, np.ndarray):
            return log_posteriors.numpy(force=True)
        with torch.inference_mode(False):
            return log_posteriors.clone()  # an ordinary tensor, usable with autograd


_M = TypeVar("_M", bound=nn.Module)


def _transposed(module: _M) -> _M:
    """A copy whose matrices are transposed in memory: products with few rows are 20 % faster."""
    module = deepcopy(module)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = layer.weight.data.T.contiguous().T
    return module

"""Multi-head truncated self-attention as a layer: projections around `truncated_attention`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from speechattn.attention.flex import check_flex
from speechattn.attention.paths import PATHS, dense, truncated_attention
from speechattn.attention.positions import Position, position_of
from speechattn.attention.weighting import NORMALISERS, SCORES, Weighting
from speechattn.frontend.masks import frame_mask

__all__ = ["TruncatedSelfAttention"]


class TruncatedSelfAttention(nn.Module):
    """Multi-head self-attention over a window around each frame.

    For frame t and a head with queries q, keys k and values v,

        y_t = sum_s a_ts v_s,   s in [t - L, t + R], s a real frame,   n_t of them,

    followed by an output projection of the concatenated heads. The score of s for t is

        dot        e_ts = q_t . k_s / sqrt(E)           (Vaswani et al. 2017, eq. 1)
        additive   e_ts = w . tanh(q_t + k_s)           (Bahdanau et al. 2015, app. A.1.2)

    plus what the position adds, and the weights are

        softmax    a_ts = exp(e_ts) / sum_s' exp(e_ts')
        relu       a_ts = max(e_ts, 0) / n_t            (Wortsman et al. 2023, eq. 3)
        sigmoid    a_ts = 1 / (1 + exp(log n_t - e_ts)) (Ramapuram et al. 2024, eq. 3)

    Args:
        dim: Features D, in and out.
        heads: Heads H; must divide `dim`.
        left: Frames L to the left that a frame sees, 0 or more; None for all.
        right: Frames R to the right that a frame sees, 0 or more; None for all.
        dropout: Share of attention weights dropped in training, [0, 1).
        path: `dense`, `blocked`, or `auto`: the cheaper of the two for the length at hand; `flex`: FlexAttention,
            for GPUs, which has the dot product, softmax and no dropout only. Never changes the result nor the
            parameters. With unlimited context there is no band, so `blocked` is dense, too.
        score: `dot` or `additive`.
        normaliser: `softmax`, `relu` or `sigmoid`.
        position: `none`, `relative` (a bias per offset), `rotary`, or a `Position` module.

    Raises:
        ValueError: When an argument is out of its range.

    Example:
        >>> attention = TruncatedSelfAttention(64, 4, left=16, right=16)
        >>> attention(torch.randn(2, 100, 64), torch.tensor([100, 80])).shape
        torch.Size([2, 100, 64])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        left: int | None = 16,
        right: int | None = 16,
        dropout: float = 0.0,
        path: str = "auto",
        score: str = "dot",
        normaliser: str = "softmax",
        position: str | Position = "none",
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads must divide dim, got dim={dim} and heads={heads}")
        for name, context in (("left", left), ("right", right)):
            if context is not None and context < 0:
                raise ValueError(f"{name} must be 0 or more frames, or None for all, got {name}={context}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got dropout={dropout}")
        choices = (("path", path, PATHS), ("score", score, SCORES), ("normaliser", normaliser, NORMALISERS))
        for name, value, known in choices:
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {name}={value!r}")
        self.heads, self.left, self.right, self.dropout, self.path = heads, left, right, dropout, path
        self.normaliser = normaliser
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.position = position_of(position, heads, dim // heads, left, right)
        self.additive: nn.Parameter | None = None
        if score == "additive":
            self.additive = nn.Parameter(torch.randn(heads, dim // heads) / math.sqrt(dim // heads))
        self.output = nn.Linear(dim, dim)
        if path == "flex":
            check_flex(self.weighting)

    def extra_repr(self) -> str:
        """What print() shows beside the submodules."""
        return f"heads={self.heads}, left={self.left}, right={self.right}, path={self.path}"

    @property
    def weighting(self) -> Weighting:
        """How this layer weighs frames, in training or not."""
        dropout = self.dropout if self.training else 0.0
        return Weighting(self.left, self.right, self.normaliser, self.additive, self.position, dropout)

    def forward(self, x: Tensor, frame_lengths: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, T, D) float.
            frame_lengths: (B,) int, real frames of each row; None when all are. Frames past it are
                neither attended to nor computed.

        Returns:
            (B, T, D) float; rows past an utterance's frames are 0.

        Raises:
            ValueError: When `x` is not (B, T, D).
        """
        if x.ndim != 3 or x.shape[2] != self.output.in_features:
            raise ValueError(f"x must be (B, T, {self.output.in_features}), got {tuple(x.shape)}")
        batch, num_frames, dim = x.shape
        if frame_lengths is None:
            frame_lengths = torch.full((batch,), num_frames, device=x.device)
        real = frame_mask(frame_lengths, num_frames)
        x = x.masked_fill(~real[..., None], 0.0)  # a weight of 0 would not silence a NaN
        query, key, value = self.project(x, torch.arange(num_frames, device=x.device))
        y = truncated_attention(query, key, value, self.weighting, frame_lengths, path=self.path)
        y = self.output(y.transpose(1, 2).reshape(batch, num_frames, dim))
        return y.masked_fill(~real[..., None], 0.0)

    def weights(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """What every frame listens to: (B, T, D) and (B,) frames -> (B, H, T, T), row t the weights of frame t.

        Rows and columns past an utterance's frames are 0.
        """
        num_frames = x.shape[1]
        real = frame_mask(frame_lengths, num_frames)
        query, key, _ = self.project(x, torch.arange(num_frames, device=x.device))
        each = torch.eye(num_frames, dtype=x.dtype, device=x.device).expand(len(x), self.heads, -1, -1)
        weights = dense(query, key, each, real, self.weighting)
        return weights.masked_fill(~real[:, None, :, None], 0.0)

    def project(self, x: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (B, T, D) at times (T,), each (B, H, T, E)."""
        batch, num_frames, dim = x.shape
        shape = (batch, num_frames, 3, self.heads, dim // self.heads)
        query, key, value = self.query_key_value(x).view(shape).permute(2, 0, 3, 1, 4)
        return self.position.encode(query, times), self.position.encode(key, times), value

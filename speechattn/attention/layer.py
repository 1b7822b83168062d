"""Multi-head truncated self-attention as a layer."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechattn.attention.blocked import blocked
from speechattn.attention.dense import dense
from speechattn.attention.positions import Position, position_of
from speechattn.attention.weighting import NORMALISERS, SCORES, Weighting
from speechattn.frontend.execution import is_transformed
from speechattn.frontend.masks import frame_mask, is_padded, zero_padding

__all__ = ["PATHS", "TruncatedSelfAttention", "truncated_attention"]

PATHS = ("auto", "dense", "blocked")
SHORT_FRAMES = 96  # up to L + R + this, the dense score matrix is cheaper than cutting blocks


class TruncatedSelfAttention(nn.Module):
    """Multi-head self-attention over a window around each frame.

    For frame t and a head with queries q, keys k and values v,

        y_t = sum_s a_ts v_s,   s in [t - L, t + R], s a real frame,   n_t of them,

    followed by an output projection of the concatenated heads. The score of s for t is

        dot        e_ts = q_t . k_s / sqrt(E)           (Vaswani et al. 2017, eq. 1)
        additive   e_ts = w . tanh(q_t + k_s)           (Bahdanau et al. 2015, app. A.1.2)

    plus the bias of the position, and the weights are

        softmax    a_ts = exp(e_ts) / sum_s' exp(e_ts')
        relu       a_ts = max(e_ts, 0) / n_t            (Wortsman et al. 2023, eq. 3)
        sigmoid    a_ts = 1 / (1 + exp(log n_t - e_ts)) (Ramapuram et al. 2024, eq. 3)

    Args:
        dim: Features D, in and out.
        heads: Heads H; must divide `dim`.
        left: Left context L in frames, 0 or more; None for unlimited.
        right: Right context R in frames, 0 or more; None for unlimited.
        dropout: Share of attention weights dropped in training, [0, 1).
        path: Implementation: `dense`, `blocked`, or `auto` for the cheaper of the two at the given length. Results and
            parameters are the same. With unlimited context there is no band, and `blocked` is dense, too.
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
        settings = (("path", path, PATHS), ("score", score, SCORES), ("normaliser", normaliser, NORMALISERS))
        for name, value, choices in settings:
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {name}={value!r}")
        self.heads, self.left, self.right, self.dropout, self.path = heads, left, right, dropout, path
        self.normaliser = normaliser
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.position = position_of(position, heads, dim // heads, left, right)
        self.additive: nn.Parameter | None = None
        if score == "additive":
            self.additive = nn.Parameter(torch.randn(heads, dim // heads) / math.sqrt(dim // heads))
        self.output = nn.Linear(dim, dim)

    def extra_repr(self) -> str:
        """Settings that print() shows beside the submodules."""
        return f"heads={self.heads}, left={self.left}, right={self.right}, path={self.path}"

    @property
    def weighting(self) -> Weighting:
        """Context, normaliser, position, and the dropout of the current mode."""
        dropout = self.dropout if self.training else 0.0
        return Weighting(self.left, self.right, self.normaliser, self.additive, self.position, dropout)

    def forward(self, x: Tensor, frame_lengths: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, T, D) float.
            frame_lengths: (B,) int, real frames per row; None when all are. Padding is never attended to.

        Returns:
            (B, T, D) float, 0 past each utterance's frames.

        Raises:
            ValueError: When `x` is not (B, T, D).
        """
        if x.ndim != 3 or x.shape[2] != self.output.in_features:
            raise ValueError(f"x must be (B, T, {self.output.in_features}), got {tuple(x.shape)}")
        batch, num_frames, dim = x.shape
        if frame_lengths is None:
            frame_lengths = torch.full((batch,), num_frames, device=x.device)
        padded = is_padded(frame_lengths, num_frames)
        if padded:
            x = zero_padding(x, frame_lengths)  # a weight of 0 would not remove a NaN
        query, key, value = self.project(x, torch.arange(num_frames, device=x.device))
        y = truncated_attention(query, key, value, self.weighting, frame_lengths, path=self.path)
        y = self.output(y.transpose(1, 2).reshape(batch, num_frames, dim))
        return zero_padding(y, frame_lengths) if padded else y

    def weights(self, x: Tensor, frame_lengths: Tensor) -> Tensor:
        """Attention weights: (B, T, D) and (B,) frames -> (B, H, T, T), row t those of frame t; 0 for padding."""
        num_frames = x.shape[1]
        mask = frame_mask(frame_lengths, num_frames)
        query, key, _ = self.project(x, torch.arange(num_frames, device=x.device))
        identity = torch.eye(num_frames, dtype=x.dtype, device=x.device).expand(len(x), self.heads, -1, -1)
        return dense(query, key, identity, mask, self.weighting).masked_fill(~mask[:, None, :, None], 0.0)

    def project(self, x: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (B, T, D) at times (T,), each (B, H, T, E)."""
        batch, num_frames, dim = x.shape
        shape = (batch, num_frames, 3, self.heads, dim // self.heads)
        query, key, value = self.query_key_value(x).view(shape).permute(2, 0, 3, 1, 4).unbind()
        return self.position.encode(query, times), self.position.encode(key, times), value


def truncated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weighting: Weighting,
    frame_lengths: Tensor | None = None,
    *,
    path: str = "auto",
) -> Tensor:
    """The attention itself, between the projections.

    Args:
        query: (B, H, T, E) float.
        key: (B, H, T, E).
        value: (B, H, T, E).
        weighting: Context, normaliser and position.
        frame_lengths: (B,) int, real frames per row; None when all are.
        path: See `TruncatedSelfAttention`.

    Returns:
        (B, H, T, E); undefined past each utterance's frames.
    """
    batch, _, num_frames, _ = query.shape
    if frame_lengths is None:
        frame_lengths = torch.full((batch,), num_frames, device=query.device)
    mask = frame_mask(frame_lengths, num_frames)
    is_exporting = torch.compiler.is_exporting()
    if path == "auto" and weighting.is_plain and not is_exporting and query.numel():
        return _unlimited(query, key, value, mask if is_padded(frame_lengths, num_frames) else None, weighting.dropout)
    if path == "dense" or weighting.left is None or weighting.right is None or is_transformed():
        return dense(query, key, value, mask, weighting)
    if not is_exporting:  # an exported graph serves all lengths
        short = path == "auto" and num_frames <= SHORT_FRAMES + weighting.left + weighting.right
        if short or query.numel() == 0:
            return dense(query, key, value, mask, weighting)
    return blocked(query, key, value, mask if is_padded(frame_lengths, num_frames) else None, weighting)


def _unlimited(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Softmax attention to all frames by PyTorch's fused kernel: arguments as `dense`, in linear memory."""
    if mask is not None:
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        mask = (mask | first)[:, None, None, :]  # a row without keys would give NaN
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)

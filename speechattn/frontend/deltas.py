"""Regression deltas: how fast each feature changes, and how fast that changes.

The first order is the slope of the least-squares line through the 2 * window + 1 frames around a frame (HTK Book,
section 5.9); higher orders apply it again. Two rules say what happens at an utterance's ends: Kaldi's add-deltas
(`DeltaFeatures` in feature-functions.cc) and `torchaudio.functional.compute_deltas`, applied once per order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from speechattn.frontend.masks import frame_mask, is_padded, take_frames

__all__ = ["DELTA_RULES", "add_deltas", "delta_filters"]

DELTA_RULES = ("kaldi", "torchaudio")


def delta_filters(order: int, window: int) -> Tensor:
    """Regression filters of orders 1..order; each is the one before, convolved with the first.

    The first filter's taps are k / sum(j^2) for k and j in -window..window. Tap i of a row multiplies frame
    t + i - order * window.

    Args:
        order: How many filters, at least 0.
        window: Frames to each side in the regression, at least 1.

    Returns:
        (order, 2 * order * window + 1) float64; lower orders are centred, with zeros around them.

    Raises:
        ValueError: When `order` or `window` is out of its range.
    """
    if order < 0:
        raise ValueError(f"order must be at least 0, got order={order}")
    if window < 1:
        raise ValueError(f"window must be at least 1, got window={window}")
    taps = np.arange(-window, window + 1, dtype=np.float64)
    first, current = taps / np.square(taps).sum(), np.ones(1)
    filters = np.zeros((order, 2 * order * window + 1))
    for row in range(order):
        current = np.convolve(current, first)
        margin = (order - 1 - row) * window
        filters[row, margin : margin + len(current)] = current
    return torch.from_numpy(filters)


def add_deltas(static: Tensor, frame_lengths: Tensor, filters: Tensor, *, rule: str) -> Tensor:
    """Append the deltas of every order to static features.

    Both rules agree away from an utterance's ends, and in the first order everywhere.

    Args:
        static: (B, T, C) float; rows past an utterance's frames are never read.
        frame_lengths: (B,) integer, frames of each utterance.
        filters: (order, taps), what `delta_filters` gives, in the dtype and on the device of `static`.
        rule: `kaldi`: every order is one filter over the static features, the utterance's own first and last frame
            repeated; `torchaudio`: every order is the first filter over the order before, whose own first and last
            frame is repeated.

    Returns:
        (B, T, C * (1 + order)): static features, first order, second order and so on; 0 past an utterance's frames.

    Raises:
        ValueError: When `rule` is neither.
    """
    if rule not in DELTA_RULES:
        raise ValueError(f"rule must be one of {', '.join(DELTA_RULES)}, got rule={rule!r}")
    orders, centre, num_frames = [static], filters.shape[1] // 2, static.shape[1]
    ends = frame_lengths if is_padded(frame_lengths, num_frames) else None
    if len(filters) == 0 and ends is None:
        return static
    window = centre // max(len(filters), 1)
    if rule == "kaldi":
        repeated = _repeat_edges(static, ends, centre)
        for order, taps in enumerate(filters, start=1):
            inner = slice(centre - order * window, centre + order * window + 1)  # without the zeros around the filter
            orders.append(_correlate(repeated[:, inner.start : inner.stop - 1 + num_frames], taps[inner]))
    else:
        first = slice(centre - window, centre + window + 1)
        for _ in filters:
            orders.append(_correlate(_repeat_edges(orders[-1], ends, window), filters[0, first]))
    features = torch.cat(orders, dim=2)
    return features if ends is None else features.masked_fill_(~frame_mask(ends, num_frames)[..., None], 0.0)


def _repeat_edges(features: Tensor, frame_lengths: Tensor | None, reach: int) -> Tensor:
    """(B, T, C) -> (B, reach + T + reach, C): before an utterance its first frame, after it its last one."""
    if frame_lengths is None and features.shape[1]:
        first, last = (features[:, edge, None].expand(-1, reach, -1) for edge in (0, -1))
        return torch.cat([first, features, last], dim=1)
    if frame_lengths is None:
        return features.new_zeros(len(features), 2 * reach, features.shape[2])
    times = torch.arange(-reach, features.shape[1] + reach, device=features.device).clamp(min=0)
    last = (frame_lengths - 1).clamp(min=0)
    readable = nn.functional.pad(features, (0, 0, 0, 1))  # one row more: there is one even for T = 0
    return take_frames(readable, torch.minimum(times, last[:, None]))


def _correlate(features: Tensor, taps: Tensor) -> Tensor:
    """(B, T + K - 1, C) and K taps -> (B, T, C): frame t is the sum of taps[k] * features[t + k].

    A sum of shifted slices streams through the cache; on CPU it takes a half to a fifth of the time of a convolution.
    """
    num_frames = features.shape[1] - taps.shape[0] + 1
    first, *others = taps.unbind()
    total = first * features[:, :num_frames]
    for k, tap in enumerate(others, start=1):
        total.addcmul_(tap, features[:, k : k + num_frames])
    return total

"""Cepstral mean and variance normalisation (CMVN): per utterance, sliding, online, by speaker or global statistics.

Kaldi's conventions (apply-cmvn, apply-cmvn-sliding, OnlineCmvn and feature-functions.cc), over padded batches: rows
past an utterance's frames never enter a statistic, whatever they hold, and come out 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechattn.frontend.masks import frame_mask, is_padded, take_frames, zero_padding

__all__ = [
    "FeatureStatistics",
    "OnlineCmvnStream",
    "online_cmvn",
    "scale_of",
    "sliding_cmvn",
    "sliding_reach",
    "utterance_cmvn",
]

VARIANCE_FLOOR = 1e-3  # speech has 0.5 and more; with less, the rounding errors of two-frame utterances would show
SLIDING_VARIANCE_FLOOR = 1e-10  # Kaldi's, in SlidingWindowCmn


def scale_of(variance: Tensor) -> Tensor:
    """The factor that brings a feature to unit variance: normalised = (features - mean) * scale.

    Args:
        variance: Any shape; less than 1e-3 counts as 1e-3.

    Returns:
        1 / sqrt(variance), of the same shape and dtype.
    """
    return variance.clamp(min=VARIANCE_FLOOR).rsqrt()


def utterance_cmvn(features: Tensor, frame_lengths: Tensor, *, variance: bool, ddof: int) -> Tensor:
    """Bring each utterance's features to zero mean and, if asked, unit variance over its own frames.

    Args:
        features: (B, T, D) float; rows past an utterance's frames may hold anything.
        frame_lengths: (B,) integer, frames of each utterance.
        variance: Whether to divide by the standard deviation too (variances under 1e-3 count as 1e-3).
        ddof: What the variance's divisor falls short of the number of frames: 0 as in Kaldi's apply-cmvn, 1 (unbiased)
            as in `torch.std` and so in s3prl's CMVN. A single frame comes out 0 with either.

    Returns:
        (B, T, D), 0 past an utterance's frames.

    Raises:
        ValueError: When `ddof` is neither 0 nor 1.
    """
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got ddof={ddof}")
    mask = frame_mask(frame_lengths, features.shape[1])[..., None]
    count = frame_lengths[:, None, None]
    if is_padded(frame_lengths, features.shape[1]):
        features = features.masked_fill(~mask, 0.0)
    # In float64, since not every runtime of exported graphs adds up thousands of frames as carefully as PyTorch.
    mean = (features.sum(dim=1, keepdim=True, dtype=torch.float64) / count.clamp(min=1)).to(features.dtype)
    features = torch.addcmul(features, mask.to(features.dtype), mean, value=-1)  # padding stays 0, in a single pass
    if not variance:
        return features
    squares = torch.linalg.vector_norm(features, dim=1, keepdim=True).square()  # without a large temporary
    return features * scale_of(squares / (count - ddof).clamp(min=1))


def sliding_cmvn(
    features: Tensor,
    frame_lengths: Tensor,
    *,
    window: int = 600,
    min_window: int = 100,
    center: bool = False,
    variance: bool,
) -> Tensor:
    """Normalise each frame by the frames around it: Kaldi's apply-cmvn-sliding.

    The window of frame t of an utterance of n frames is [start, end). Not centred: start = t - window and
    end = t + 1, so it holds window + 1 frames, the frame itself the last; it begins at 0 at the earliest and ends at
    min_window at the earliest. Centred: start = t - window // 2 and end = start + window, shifted to begin at 0 at the
    earliest. A window that then goes past n is shifted back by as much, and cut at 0. Sums are in float64: over an
    hour, float32 would drift.

    Args:
        features: (B, T, D) float; rows past an utterance's frames may hold anything.
        frame_lengths: (B,) integer, frames of each utterance.
        window: Length of the window in frames, at least 1.
        min_window: Frames that even the first window holds when the utterance has them, at least 1; of no effect when
            centred.
        center: Whether the window lies around the frame, or before it.
        variance: Whether to divide by the window's standard deviation too (population variance, floored at 1e-10). A
            window of a single frame gives 0.

    Returns:
        (B, T, D) in the dtype of `features`, 0 past an utterance's frames.

    Raises:
        ValueError: When `window` or `min_window` is less than 1.
    """
    _check_windows(window, min_window)
    num_frames = features.shape[1]
    start = torch.arange(num_frames, device=features.device).sub(window // 2 if center else window).clamp(min=0)
    end = start + window if center else torch.arange(1, num_frames + 1, device=features.device).clamp(min=min_window)
    overhang = (end - frame_lengths[:, None]).clamp(min=0)
    start, end = (start - overhang).clamp(min=0), end - overhang  # (B, T)
    count = (end - start).clamp(min=1)[..., None]

    def window_mean(values: Tensor) -> Tensor:
        sums = nn.functional.pad(values.cumsum(dim=1), (0, 0, 1, 0))  # (B, T + 1, D), row t: over the frames before t
        return (take_frames(sums, end) - take_frames(sums, start)) / count

    # Taking away the utterance's mean changes no result, but keeps the sums small and so their rounding errors.
    exact = utterance_cmvn(features.double(), frame_lengths, variance=False, ddof=0)
    mean = window_mean(exact)
    normalised = exact - mean
    if variance:
        spread = window_mean(exact.square()) - mean.square()
        normalised = normalised * spread.clamp(min=SLIDING_VARIANCE_FLOOR).rsqrt()
        normalised = normalised.masked_fill(count == 1, 0.0)
    return zero_padding(normalised, frame_lengths).to(features.dtype)


def online_cmvn(
    features: Tensor,
    frame_lengths: Tensor,
    *,
    window: int = 600,
    global_frames: int = 200,
    variance: bool,
    before: int | Tensor = 0,
) -> Tensor:
    """Normalise each frame by those before it, as it can be done while they come: Kaldi's OnlineCmvn.

    The window of a frame holds the frame itself and those before it, `window` at most. As long as it is not full, the
    training data's statistics count as `global_frames` further frames, or as many as are missing, so that an
    utterance's first frames are not normalised by themselves alone. Without statistics of the speaker. Sums are in
    float64.

    Args:
        features: (B, T, D) float, normalised by the training data's mean and, if `variance`, variance.
        frame_lengths: (B,) integer, frames of each utterance.
        window: Length of the window in frames, at least 1.
        global_frames: 0 or more.
        variance: Whether to divide by the standard deviation too; variances under 1e-3 of the training data's count as
            that.
        before: Frames of each utterance before the first one given. Results are right for frames whose window is given
            whole; it may be negative: so many rows of zeros then stand before the utterance's first frame.

    Returns:
        (B, T, D) in the dtype of `features`, 0 past an utterance's frames.

    Raises:
        ValueError: When `window` is less than 1 or `global_frames` less than 0.
    """
    _check_windows(window, 1)
    if global_frames < 0:
        raise ValueError(f"global_frames must not be negative, got global_frames={global_frames}")
    num_frames = features.shape[1]
    exact = zero_padding(features, frame_lengths).double()
    own = (torch.arange(1, num_frames + 1, device=features.device) + before).clamp(1, window)[:, None]
    added = (window - own).clamp(max=global_frames)

    def over_window(values: Tensor) -> Tensor:
        sums = values.cumsum(dim=1)
        return sums - nn.functional.pad(sums, (0, 0, window, 0))[:, :num_frames]

    squares = over_window(exact.square()) if variance else None
    normalised = _normalised_by(exact, over_window(exact), squares, own, added)
    return zero_padding(normalised, frame_lengths).to(features.dtype)


def _normalised_by(exact: Tensor, sums: Tensor, squares: Tensor | None, own: Tensor, added: Tensor) -> Tensor:
    """Frames normalised by `own` frames, of which these are the sums, and `added` ones of mean 0 and variance 1."""
    mean = sums / (own + added)
    normalised = exact - mean
    if squares is not None:
        normalised = normalised * scale_of((squares + added) / (own + added) - mean.square())
    return normalised


class OnlineCmvnStream:
    """`online_cmvn` of one utterance that grows, at the cost of its new frames alone.

    Args:
        window: As for `online_cmvn`.
        global_frames: As for `online_cmvn`.
        variance: As for `online_cmvn`.
    """

    def __init__(self, window: int, global_frames: int, variance: bool) -> None:
        self.window, self.global_frames, self.variance = window, global_frames, variance
        # (S, D or 2D) float64: sums over all frames up to each of the latest, in the rows before `_end`.
        self._sums: Tensor | None = None
        self._end = window
        self._seen = 0

    def push(self, features: Tensor) -> Tensor:
        """New frames (n, D), normalised by the training data's statistics -> (n, D), normalised."""
        num_frames, dim = features.shape
        exact = features.double()
        moments = torch.cat([exact, exact.square()], dim=1) if self.variance else exact
        known = self._with_room_for(moments)
        new = known[self._end : self._end + num_frames]
        torch.add(moments.cumsum(dim=0), known[self._end - 1], out=new)
        moments = new - known[self._end - self.window : self._end - self.window + num_frames]
        self._end += num_frames
        times = torch.arange(self._seen + 1, self._seen + num_frames + 1, device=features.device)
        own = times.clamp(max=self.window)[:, None]
        added = (self.window - own).clamp(max=self.global_frames)
        self._seen += num_frames
        squares = moments[:, dim:] if self.variance else None
        return _normalised_by(exact, moments[:, :dim], squares, own, added).to(features.dtype)

    def _with_room_for(self, moments: Tensor) -> Tensor:
        """The sums known so far, and room for as many rows behind them; rarely copied."""
        if self._sums is None:
            self._sums = moments.new_zeros(self.window, moments.shape[1])
        if self._end + len(moments) > len(self._sums):
            room = moments.new_empty(max(len(moments), 4 * self.window), moments.shape[1])
            self._sums = torch.cat([self._sums[self._end - self.window : self._end], room])
            self._end = self.window
        return self._sums


def sliding_reach(window: int, min_window: int, center: bool) -> tuple[int, int]:
    """How far from a frame the window of `sliding_cmvn` can reach, over all frames of utterances of any length.

    Args:
        window: As for `sliding_cmvn`.
        min_window: As for `sliding_cmvn`.
        center: As for `sliding_cmvn`.

    Returns:
        (left, right): frames before and after the frame, in the worst case. Shifting at an utterance's ends counts: a
        centred window can lie wholly to one side of its frame.

    Raises:
        ValueError: When `window` or `min_window` is less than 1.
    """
    _check_windows(window, min_window)
    if center:
        return window - 1, window - 1
    # With window < min_window, utterances of fewer than min_window frames shift the window further back.
    return max(window, (window + min_window - 1) // 2), min_window - 1


def _check_windows(window: int, min_window: int) -> None:
    if window < 1:
        raise ValueError(f"window must be at least 1 frame, got window={window}")
    if min_window < 1:
        raise ValueError(f"min_window must be at least 1 frame, got min_window={min_window}")


class FeatureStatistics:
    """Mean and variance of features over many batches: of one speaker's utterances, or of the training data.

    Three plain float64 sums. Subtracting the squared mean at the end is safe there: with means up to 100 and variances
    of 0.5 and more, as cepstra have them, it costs some 5 of the 16 digits. And sums add up: several processes reduce
    `count`, `total` and `squares` one by one and assign the results.

    Args:
        dim: D, features per frame.
        device: Where the sums live; None for the CPU.

    Attributes:
        count: () float64, frames so far.
        total: (D,) float64, the sum of each feature.
        squares: (D,) float64, the sum of each feature's squares.

    Example:
        >>> statistics = FeatureStatistics(1)
        >>> statistics.add(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([2]))
        >>> statistics.mean.item(), statistics.variance.item()
        (2.0, 1.0)
    """

    def __init__(self, dim: int, device: torch.device | str | None = None) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(dim, dtype=torch.float64, device=device)
        self.squares = torch.zeros(dim, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, features: Tensor, frame_lengths: Tensor) -> None:
        """Take in a batch.

        Args:
            features: (B, T, D) float; rows past an utterance's frames may hold anything.
            frame_lengths: (B,) integer, frames of each utterance.

        Raises:
            ValueError: When `features` have another D.
        """
        if features.ndim != 3 or features.shape[2] != len(self.total):
            raise ValueError(f"features must be (B, T, {len(self.total)}), got {tuple(features.shape)}")
        mask = frame_mask(frame_lengths, features.shape[1])
        features = zero_padding(features, frame_lengths).double()
        self.count += mask.sum()
        self.total += features.sum(dim=(0, 1))
        self.squares += features.square().sum(dim=(0, 1))

    @property
    def mean(self) -> Tensor:
        """(D,) float64. ValueError when no frame has been added."""
        self._check_not_empty()
        return self.total / self.count

    @property
    def variance(self) -> Tensor:
        """(D,) float64, the population variance, at least 0. ValueError when no frame has been added."""
        self._check_not_empty()
        return (self.squares / self.count - self.mean.square()).clamp(min=0.0)

    def _check_not_empty(self) -> None:
        if self.count == 0:
            raise ValueError("statistics of no frames: add features first")

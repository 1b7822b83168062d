"""Cepstral mean and variance normalisation (CMVN): per utterance, sliding, online, by speaker or global statistics.

Kaldi's conventions (apply-cmvn, apply-cmvn-sliding, OnlineCmvn and feature-functions.cc) for padded batches: features
(B, T, D) float and frame lengths (B,) -> (B, T, D). Rows past an utterance's frames may hold anything, enter no
statistic, and come out 0. With `variance`, features are divided by the standard deviation too.
"""

import torch
from torch import Tensor, nn

from speechattn.frontend.execution import wide_dtype
from speechattn.frontend.masks import frame_mask, is_padded, take_frames, zero_padding

__all__ = ["FeatureStatistics", "OnlineCmvnStream", "online_cmvn", "sliding_cmvn", "sliding_reach", "utterance_cmvn"]

VARIANCE_FLOOR = 1e-3  # cepstral variances of speech exceed 0.5; the floor keeps rounding noise from being amplified
SLIDING_VARIANCE_FLOOR = 1e-10  # as in Kaldi's SlidingWindowCmn
LEVEL_FRAMES = 100  # in which the level must vary for a frame to count as near speech
BELOW_ALL = -1e30  # finite, for ONNX runtimes


def scale_of(variance: Tensor) -> Tensor:
    """The factor that scales a feature to unit variance, 1 / sqrt(variance), for variances of at least 1e-3."""
    return variance.clamp(min=VARIANCE_FLOOR).rsqrt()


def utterance_cmvn(features: Tensor, frame_lengths: Tensor, *, variance: bool, ddof: int) -> Tensor:
    """Normalise each utterance over its own frames; variances are floored at 1e-3.

    The variance is divided by the number of frames less `ddof`: 0 as in Kaldi's apply-cmvn, 1 (unbiased) as in
    `torch.std` and s3prl's CMVN; another value is a ValueError. A single frame comes out 0 with either.
    """
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got ddof={ddof}")
    mask = frame_mask(frame_lengths, features.shape[1])[..., None]
    count = frame_lengths[:, None, None]
    if is_padded(frame_lengths, features.shape[1]):
        features = features.masked_fill(~mask, 0.0)
    # In float64, since some ONNX runtimes sum thousands of frames less accurately than PyTorch.
    mean = (features.sum(dim=1, keepdim=True, dtype=wide_dtype(features.device)) / count.clamp(min=1)).to(
        features.dtype
    )
    features = torch.addcmul(features, mask.to(features.dtype), mean, value=-1)  # padding stays 0, in one pass
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

    The window of frame t in an utterance of n frames is [start, end). Not centred: start = max(t - window, 0) and
    end = max(t + 1, min_window). Centred: start = max(t - window // 2, 0) and end = start + window. If end exceeds n,
    the window is shifted back by the difference and cut off at 0. Variances are floored at 1e-10, and a window of one
    frame gives 0. Sums are in float64, since float32 drifts over an hour. `window` or `min_window` below 1 is a
    ValueError.
    """
    _check_windows(window, min_window)
    num_frames = features.shape[1]
    start = torch.arange(num_frames, device=features.device).sub(window // 2 if center else window).clamp(min=0)
    end = start + window if center else torch.arange(1, num_frames + 1, device=features.device).clamp(min=min_window)
    overhang = (end - frame_lengths[:, None]).clamp(min=0)
    start, end = (start - overhang).clamp(min=0), end - overhang  # (B, T)
    count = (end - start).clamp(min=1)[..., None]

    def window_mean(values: Tensor) -> Tensor:
        sums = nn.functional.pad(values.cumsum(dim=1), (0, 0, 1, 0))  # (B, T + 1, D), row t: sum of the frames before t
        return (take_frames(sums, end) - take_frames(sums, start)) / count

    # Subtracting the utterance's mean first changes no result, but keeps the sums and their rounding errors small.
    exact = utterance_cmvn(features.to(wide_dtype(features.device)), frame_lengths, variance=False, ddof=0)
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
    min_range: float = 0.0,
    level: slice = slice(1),
    before: int | Tensor = 0,
) -> Tensor:
    """Normalise each frame by the frames up to it: Kaldi's OnlineCmvn, without statistics of the speaker.

    The window of a frame holds the frame itself and the previous ones, at most `window`. Until it is full, the
    statistics of the training data count as up to `global_frames` additional frames, which keeps an utterance's first
    frames from being normalised by themselves alone. Sums are in float64. `window` below 1 or negative `global_frames`
    is a ValueError.

    With `min_range`, only frames near speech enter the statistics: those in whose last second (100 frames) the level,
    the mean of the columns `level`, varied by at least `min_range`. Steady noise varies less, so neither a pause nor
    noise alone is scaled up to look like speech.

    `features` must be normalised by the training data's mean and, with `variance`, variance; variances are floored at
    1e-3 of that. They may be a part of an utterance with `before` frames before it: results are right for frames whose
    whole window, and the `LEVEL_FRAMES - 1` frames before it, are in this part. If `before` is negative, `features`
    begins with that many rows of zeros.
    """
    _check_windows(window, 1)
    if global_frames < 0:
        raise ValueError(f"global_frames must not be negative, got global_frames={global_frames}")
    num_frames = features.shape[1]
    times = torch.arange(num_frames, device=features.device) + before
    counted = (frame_mask(frame_lengths, num_frames) & (times >= 0))[..., None]
    if min_range:
        counted = counted & (level_range(features[..., level], counted) >= min_range)
    precision = wide_dtype(features.device)
    weights, exact = counted.to(precision), zero_padding(features, frame_lengths).to(precision)

    def window_sum(values: Tensor) -> Tensor:
        sums = values.cumsum(dim=1)
        return sums - nn.functional.pad(sums, (0, 0, window, 0))[:, :num_frames]

    squares = window_sum(weights * exact.square()) if variance else None
    sums = (window_sum(weights * exact), squares, window_sum(weights))
    return zero_padding(_normalised_online(exact, *sums, window, global_frames), frame_lengths).to(features.dtype)


def level_range(columns: Tensor, valid: Tensor) -> Tensor:
    """Range of the mean of `columns`, (B, T, C), over the last LEVEL_FRAMES valid rows: (B, T, 1)."""
    level, shape = columns.mean(dim=2, keepdim=True), (0, 0, LEVEL_FRAMES, 0)  # one more, for inputs without rows
    extremes = []
    for sign in (1.0, -1.0):
        values = nn.functional.pad((sign * level).masked_fill(~valid, BELOW_ALL), shape, value=BELOW_ALL)
        extremes.append(nn.functional.max_pool1d(values.transpose(1, 2), LEVEL_FRAMES, stride=1).transpose(1, 2))
    return (extremes[0] + extremes[1])[:, 1:]


def _normalised_online(
    exact: Tensor, sums: Tensor, squares: Tensor | None, count: Tensor, window: int, global_frames: int
) -> Tensor:
    """Frames normalised by the sums over the counted frames of their windows, and by the training data."""
    added = (window - count).clamp(max=global_frames)  # frames of mean 0 and variance 1
    added = torch.maximum(added, 1 - count)  # at least one frame in all
    mean = sums / (count + added)
    normalised = exact - mean
    if squares is not None:
        normalised = normalised * scale_of((squares + added) / (count + added) - mean.square())
    return normalised


class OnlineCmvnStream:
    """`online_cmvn` for one utterance that grows, computing only its new frames; arguments as there."""

    def __init__(
        self, window: int, global_frames: int, variance: bool, *, min_range: float = 0.0, level: slice = slice(1)
    ) -> None:
        self.window, self.global_frames, self.variance = window, global_frames, variance
        self.min_range, self.level = min_range, level
        self._levels: Tensor | None = None  # the last rows of the level columns
        self._sums: Tensor | None = None  # (S, D + 1 or 2D + 1) float64; row `_end - 1`: sums of all frames so far
        self._end = window

    def push(self, features: Tensor, *, last: bool = False) -> Tensor:
        """New frames (n, D), normalised by the training data's statistics -> (n, D), normalised."""
        num_frames, dim = features.shape
        precision = wide_dtype(features.device)
        exact, weights = features.to(precision), self._counted(features).to(precision)
        moments = torch.cat([weights, weights * exact, *([weights * exact.square()] if self.variance else [])], dim=1)
        if self._sums is None:
            self._sums = moments.new_zeros(self.window, moments.shape[1])
        if self._end + num_frames > len(self._sums):  # room for many pieces: copying a long window is slow
            room = moments.new_empty(max(num_frames, 4 * self.window), moments.shape[1])
            self._sums, self._end = torch.cat([self._sums[self._end - self.window : self._end], room]), self.window
        first, self._end = self._end, self._end + num_frames
        torch.add(moments.cumsum(dim=0), self._sums[first - 1], out=self._sums[first : self._end])
        moments = self._sums[first : self._end] - self._sums[first - self.window : self._end - self.window]
        squares = moments[:, dim + 1 :] if self.variance else None
        count, sums = moments[:, :1], moments[:, 1 : dim + 1]
        return _normalised_online(exact, sums, squares, count, self.window, self.global_frames).to(features.dtype)

    def _counted(self, features: Tensor) -> Tensor:
        """Which new frames enter the statistics, (n, 1) bool."""
        valid = torch.ones(1, len(features), 1, dtype=torch.bool, device=features.device)
        if not self.min_range:
            return valid[0]
        columns = features[:, self.level]
        if self._levels is not None:
            columns = torch.cat([self._levels, columns])
        self._levels = columns[-(LEVEL_FRAMES - 1) :]
        valid = torch.ones(1, len(columns), 1, dtype=torch.bool, device=features.device)
        return level_range(columns[None], valid)[0, len(columns) - len(features) :] >= self.min_range


def sliding_reach(window: int, min_window: int, center: bool) -> tuple[int, int]:
    """Maximum number of frames before and after a frame in its window of `sliding_cmvn`, in utterances of any length.

    Near an utterance's end, even a centred window can lie entirely on one side of its frame.
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

    Three float64 sums, which several processes can reduce separately and assign. The cancellation in the variance is
    harmless: with cepstral means up to 100 and variances above 0.5 it costs about 5 of the 16 digits.

    Args:
        dim: D, features per frame.
        device: Device of the sums; None: the CPU.

    Attributes:
        count: () float64, number of frames.
        total: (D,) float64, sum of each feature.
        squares: (D,) float64, sum of each feature's squares.

    Example:
        >>> statistics = FeatureStatistics(1)
        >>> statistics.add(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([2]))
        >>> statistics.mean.item(), statistics.variance.item()
        (2.0, 1.0)
    """

    def __init__(self, dim: int, device: torch.device | str | None = None) -> None:
        precision = wide_dtype(torch.device(device or "cpu"))
        self.count = torch.zeros((), dtype=precision, device=device)
        self.total = torch.zeros(dim, dtype=precision, device=device)
        self.squares = torch.zeros(dim, dtype=precision, device=device)

    @torch.no_grad()
    def add(self, features: Tensor, frame_lengths: Tensor) -> None:
        """Add a batch: features (B, T, D) float and frame lengths (B,). ValueError when D differs."""
        if features.ndim != 3 or features.shape[2] != len(self.total):
            raise ValueError(f"features must be (B, T, {len(self.total)}), got {tuple(features.shape)}")
        features = zero_padding(features, frame_lengths).to(self.total.dtype)
        self.count += frame_mask(frame_lengths, features.shape[1]).sum()
        self.total += features.sum(dim=(0, 1))
        self.squares += features.square().sum(dim=(0, 1))

    @property
    def mean(self) -> Tensor:
        """(D,) float64. ValueError when no frame has been added."""
        if self.count == 0:
            raise ValueError("statistics of no frames: add features first")
        return self.total / self.count

    @property
    def variance(self) -> Tensor:
        """(D,) float64, the population variance, at least 0. ValueError when no frame has been added."""
        return (self.squares / self.count - self.mean.square()).clamp(min=0.0)

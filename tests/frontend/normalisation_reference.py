import math

import torch
from hypothesis import strategies as st
from torch import Tensor

EXACT = {"rtol": 1e-9, "atol": 1e-9}


lengths_of_a_batch = st.lists(st.integers(0, 40), min_size=1, max_size=4)


def random_batch(lengths: list[int], extra: int = 0, padding: float = 0.0) -> tuple[Tensor, Tensor]:
    """Features (B, max(lengths) + extra, 3) float64, far from zero mean, and their lengths.

    No two frames of an utterance are near-equal: over a window of such two, the variance is all rounding error.
    """
    features = torch.full((len(lengths), max(lengths) + extra, 3), padding, dtype=torch.float64)
    for row, length in enumerate(lengths):
        values = torch.stack([torch.randperm(length) for _ in range(3)], dim=1).double() / 4
        features[row, :length] = values * torch.tensor([0.5, 2.0, 10.0]) + torch.tensor([-70.0, 0.0, 5.0])
    return features, torch.tensor(lengths)


def utterance_by_loops(features: Tensor, variance: bool, ddof: int) -> Tensor:
    """Every feature by itself: its mean, then the mean square around it; (T, D) -> (T, D)."""
    output = torch.zeros_like(features)
    for d in range(features.shape[1]):
        values = features[:, d].tolist()
        mean = sum(values) / max(len(values), 1)
        spread = sum((value - mean) ** 2 for value in values) / max(len(values) - ddof, 1)
        for t, value in enumerate(values):
            output[t, d] = (value - mean) / (math.sqrt(max(spread, 1e-3)) if variance else 1.0)
    return output


def kaldi_window(t: int, num_frames: int, window: int, min_window: int, center: bool) -> tuple[int, int]:
    """First frame of frame t's window and the one after its last: SlidingWindowCmn in feature-functions.cc."""
    if center:
        start = t - window // 2
        end = start + window
    else:
        start, end = t - window, t + 1
    if start < 0:
        start, end = 0, end - start
    if not center and end > t:
        end = max(t + 1, min_window)
    if end > num_frames:
        start, end = max(start - (end - num_frames), 0), num_frames
    return start, end


def sliding_by_loops(features: Tensor, window: int, min_window: int, center: bool, variance: bool) -> Tensor:
    """Every window summed afresh, the variance in two passes; (T, D) -> (T, D)."""
    output = torch.zeros_like(features)
    for t in range(len(features)):
        start, end = kaldi_window(t, len(features), window, min_window, center)
        for d in range(features.shape[1]):
            values = features[start:end, d].tolist()
            mean = sum(values) / len(values)
            spread = sum((value - mean) ** 2 for value in values) / len(values)
            output[t, d] = features[t, d] - mean
            if variance:
                output[t, d] *= 0.0 if len(values) == 1 else 1 / math.sqrt(max(spread, 1e-10))
    return output


def online_by_loops(
    features: Tensor, window: int, global_frames: int, variance: bool, min_range: float = 0.0, level: slice = slice(1)
) -> Tensor:
    """Every window summed afresh, with the frames that stand for the training data; (T, D) -> (T, D)."""
    output = torch.zeros_like(features)
    levels = [sum(row) / len(row) for row in features[:, level].tolist()]
    ranges = [max(levels[max(0, t - 99) : t + 1]) - min(levels[max(0, t - 99) : t + 1]) for t in range(len(levels))]
    for t in range(len(features)):
        for d in range(features.shape[1]):
            counted = [s for s in range(max(0, t + 1 - window), t + 1) if not min_range or ranges[s] >= min_range]
            own = [features[s, d].item() for s in counted]
            usual = max(min(global_frames, window - len(own)), 1 - len(own))
            mean = sum(own) / (len(own) + usual)  # theirs is 0, their variance 1
            spread = (sum(value**2 for value in own) + usual) / (len(own) + usual) - mean**2
            output[t, d] = (features[t, d] - mean) / (math.sqrt(max(spread, 1e-3)) if variance else 1.0)
    return output


def assert_rows(normalised: Tensor, expected: list[Tensor], **tolerance: float) -> None:
    """Each utterance as expected, and 0 past its frames."""
    for row, frames in zip(normalised, expected, strict=True):
        torch.testing.assert_close(row[: len(frames)], frames, **(tolerance or EXACT))
        assert not row[len(frames) :].any()

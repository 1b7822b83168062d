"""Rows of padded batches."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from speechattn.frontend.masks import frame_mask, take_frames


def test_frame_mask_is_true_on_real_frames() -> None:
    mask = frame_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.tolist() == [[False, False, False], [True, True, False], [True, True, True]]


@given(batch=st.integers(0, 4), num_frames=st.integers(1, 9), count=st.integers(0, 12))
def test_take_frames_picks_the_frames_of_each_utterance(batch: int, num_frames: int, count: int) -> None:
    features = torch.randn(batch, num_frames, 2)
    times = torch.randint(num_frames, (batch, count))
    taken = take_frames(features, times)
    assert taken.shape == (batch, count, 2)
    for row in range(batch):
        for i in range(count):
            assert torch.equal(taken[row, i], features[row, times[row, i]])

"""SpecAugment: masks within their limits, the same for a cut in any batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from speechattn.batches.spec_augment import SpecAugment, SpecAugmentConfig, cut_seed, warp_frequency
from speechattn.frontend import FrontendConfig, Mfcc

FRONTEND = FrontendConfig().resolved
NUM_MELS, FRAMES_PER_S = FRONTEND.num_mels, 100
CONFIG = SpecAugmentConfig(freq_masks=2, freq_width=5, time_masks_per_s=3.0, time_width=10)


def augmented(log_mel: Tensor, seeds: list[int], lengths: list[int], config: SpecAugmentConfig = CONFIG) -> Tensor:
    return SpecAugment(config, seeds, FRONTEND)(log_mel, torch.tensor(lengths))


def hidden(log_mel: Tensor, seed: int, config: SpecAugmentConfig = CONFIG) -> Tensor:
    """(T, M) bool, True = masked, for one utterance of distinct values."""
    return augmented(log_mel[None], [seed], [len(log_mel)], config)[0] != log_mel


def whole_lines(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Which channels and which frames are masked throughout."""
    return mask.all(dim=0), mask.all(dim=1)


@pytest.mark.parametrize("num_frames", [2, 30, 100, 333])
def test_masks_are_whole_channels_and_whole_frames_within_the_limits(num_frames: int) -> None:
    log_mel, most_channels, most_frames, sizes = torch.randn(num_frames, NUM_MELS), 0, 0, set()
    time_masks = round(3.0 * num_frames / FRAMES_PER_S)
    for seed in range(200):
        mask = hidden(log_mel, seed)
        channels, frames = whole_lines(mask)
        assert torch.equal(mask, channels[None, :] | frames[:, None])
        assert channels.sum() <= 2 * 5 and frames.sum() <= min(time_masks * 10, num_frames)
        most_channels, most_frames = max(most_channels, int(channels.sum())), max(most_frames, int(frames.sum()))
        sizes.add((int(channels.sum()), int(frames.sum())))
    assert most_channels >= 8 and (most_frames >= 8 * time_masks / 2) and len(sizes) > 5


def test_one_mask_of_each_kind_has_every_width_and_place() -> None:
    log_mel = torch.randn(100, NUM_MELS)
    for config, axis, size, widest in (
        (SpecAugmentConfig(freq_masks=1, freq_width=5, time_masks_per_s=0), 0, NUM_MELS, 5),
        (SpecAugmentConfig(freq_masks=0, time_masks_per_s=1, time_width=10), 1, 100, 10),
    ):
        widths, touched = set(), torch.zeros(size, dtype=torch.bool)
        for seed in range(1000):
            line = hidden(log_mel, seed, config).all(dim=axis)
            places = line.nonzero().flatten()
            if len(places):  # one stretch without a gap
                assert len(places) == places[-1] - places[0] + 1
            widths.add(len(places))
            touched |= line
        assert widths == set(range(widest + 1)) and touched.all()


def test_masked_cells_hold_the_mean_over_real_frames_and_others_are_untouched() -> None:
    log_mel, lengths = torch.randn(3, 120, NUM_MELS) + 7, [120, 77, 31]
    for row, length in enumerate(lengths):
        log_mel[row, length:] = 1e3  # padding would spoil a mean
    output = augmented(log_mel, [1, 2, 3], lengths)
    for row, length in enumerate(lengths):
        mean = log_mel[row, :length].mean(dim=0)
        changed = output[row, :length] != log_mel[row, :length]
        assert changed.any() and not changed.all()
        expected = torch.where(changed, mean.expand(length, -1), log_mel[row, :length])
        torch.testing.assert_close(output[row, :length], expected)


@given(
    lengths=st.lists(st.integers(0, 150), min_size=1, max_size=4),
    extra=st.integers(0, 40),
    first_seed=st.integers(0, 2**62),
)
def test_a_cut_is_masked_alike_in_any_batch(lengths: list[int], extra: int, first_seed: int) -> None:
    generator = torch.Generator().manual_seed(first_seed)
    log_mel = torch.randn(len(lengths), max(lengths) + extra, NUM_MELS, generator=generator)
    seeds = [first_seed + row for row in range(len(lengths))]
    torch_state = torch.get_rng_state()
    output = augmented(log_mel, seeds, lengths)
    assert torch.equal(torch.get_rng_state(), torch_state)  # no other randomness is used, or used up
    assert output.isfinite().all() and output.shape == log_mel.shape
    for row, length in enumerate(lengths):
        alone = augmented(log_mel[row : row + 1, :length], [seeds[row]], [length])
        torch.testing.assert_close(output[row, :length], alone[0])


def test_no_masks_change_nothing() -> None:
    log_mel = torch.randn(2, 50, NUM_MELS)
    config = SpecAugmentConfig(freq_masks=0, time_masks_per_s=0)
    assert torch.equal(augmented(log_mel, [1, 2], [50, 20], config), log_mel)
    with pytest.raises(ValueError):
        augmented(log_mel, [1], [50, 20])  # one seed for each utterance


def test_features_of_a_masked_batch_equal_those_alone() -> None:
    mfcc, waveforms, lengths = Mfcc(normalisation="utterance"), 0.1 * torch.randn(2, 16000), [16000, 9000]
    waveforms[1, 9000:] = torch.nan
    features, frame_lengths = mfcc(
        waveforms, torch.tensor(lengths), log_mel_transform=SpecAugment(CONFIG, [5, 6], FRONTEND)
    )
    assert features.isfinite().all()
    for row, length in enumerate(lengths):
        alone, _ = mfcc(waveforms[row : row + 1, :length], log_mel_transform=SpecAugment(CONFIG, [5 + row], FRONTEND))
        torch.testing.assert_close(features[row, : frame_lengths[row]], alone[0], rtol=1e-4, atol=1e-3)
        plain, _ = mfcc(waveforms[row : row + 1, :length])
        assert not torch.allclose(alone, plain, atol=0.1)


def test_cut_seeds_are_distinct_repeatable_and_63_bits() -> None:
    names = [f"cut-{index}" for index in range(50)] + ["", "ü", "cut-1|2"]
    seeds = {
        (seed, epoch, name): cut_seed(seed, epoch, name)
        for seed in (0, 1, 12)
        for epoch in (0, 1, 2, 11, 112)
        for name in names
    }
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= value < 2**63 for value in seeds.values())
    assert max(seeds.values()) > 2**61
    assert cut_seed(1, 2, "cut") == cut_seed(1, 2, "cut") == 1951546287207755714  # in every process and version


def warped_slowly(log_mel: np.ndarray, factor: float) -> np.ndarray:
    """(T, M): each channel's centre in Hz, times the factor, looked up between the channels' places in mel."""

    def mel(hertz: np.ndarray) -> np.ndarray:
        return 1127 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(np.array(20.0)), mel(np.array(8000.0)), NUM_MELS + 2)
    centres = edges[1:-1]
    sources = mel(700 * (np.exp(centres / 1127) - 1) * factor)
    return np.stack([np.interp(sources, centres, frame) for frame in log_mel])


@pytest.mark.parametrize("factor", [0.8, 0.97, 1.0, 1.2])
def test_warp_moves_energy_along_the_frequency_axis(factor):
    log_mel = torch.randn(2, 5, NUM_MELS)
    warped = warp_frequency(log_mel, torch.tensor([factor, 1.0]), FRONTEND)
    np.testing.assert_allclose(warped[0], warped_slowly(log_mel[0].numpy(), factor), atol=1e-3)
    torch.testing.assert_close(warped[1], log_mel[1], atol=1e-4, rtol=0)
    assert factor == 1.0 or (warped[0] - log_mel[0]).abs().max() > 0.1


def test_the_warp_is_drawn_for_each_utterance_and_leaves_the_masks_alone():
    config = SpecAugmentConfig(warp=0.2)
    log_mel = torch.randn(1, 60, NUM_MELS).repeat(2, 1, 1)
    one, two = augmented(log_mel, [1, 2], [60, 60], config)
    assert not torch.equal(one, two)
    assert torch.equal(one, augmented(log_mel[:1], [1], [60], config)[0])
    shape_of = {}
    for warp in (0.0, 0.2):  # masked rows of time are constant: the utterance's mean
        result = augmented(log_mel[:1], [1], [60], SpecAugmentConfig(freq_masks=0, time_masks_per_s=5, warp=warp))[0]
        shape_of[warp] = (result[1:] == result[:-1]).all(dim=1)
    assert shape_of[0.0].any() and torch.equal(shape_of[0.0], shape_of[0.2])


@pytest.mark.parametrize("field", ["freq_masks", "freq_width", "time_masks_per_s", "time_width", "warp"])
def test_a_field_out_of_range_is_named(field):
    with pytest.raises(ValueError, match=f"spec_augment.{field}"):
        SpecAugmentConfig(**{field: -1})

"""The auxiliary loss: neighbour labels against a loop, and its share of loss and gradient."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from speechattn.batches.loader import Batch
from speechattn.batches.spec_augment import SpecAugmentConfig
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.phones import IGNORED
from speechattn.training.auxiliary_loss import WithAuxiliaryOutput, neighbour_labels
from speechattn.training.config import OptimConfig, TrainConfig
from speechattn.training.optimisers import Learner


def neighbours_by_loop(row: list[int]) -> list[tuple[int, int]]:
    """Walk left and right from every frame until the label changes."""
    result = []
    for time, label in enumerate(row):
        before, after = time, time
        while before >= 0 and row[before] == label:
            before -= 1
        while after < len(row) and row[after] == label:
            after += 1
        left = row[before] if before >= 0 else IGNORED
        right = row[after] if after < len(row) else IGNORED
        result.append((IGNORED, IGNORED) if label == IGNORED else (left, right))
    return result


@given(
    st.integers(0, 12).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([IGNORED, 0, 1, 2]), min_size=n, max_size=n), min_size=1, max_size=3
        )
    )
)
def test_neighbours_are_those_of_a_loop(rows: list[list[int]]) -> None:
    labels = torch.tensor(rows, dtype=torch.int64).reshape(len(rows), -1)
    expected = torch.tensor([neighbours_by_loop(row) for row in rows], dtype=torch.int64).reshape(*labels.shape, 2)
    assert torch.equal(neighbour_labels(labels), expected)


SMALL = ClassifierConfig(
    encoder=EncoderConfig(dim=16, layers=1, heads=2, left=4, right=4, feed_forward=16, conv_kernel=3, dropout=0.0)
)


def test_the_main_output_is_unchanged():
    torch.manual_seed(0)
    model = FrameClassifier(SMALL).eval()
    task = WithAuxiliaryOutput(model).eval()
    waveforms, lengths = torch.randn(2, 4000), torch.tensor([4000, 3000])
    logits, neighbours, frame_lengths = task(waveforms, lengths)
    expected, expected_lengths = model(waveforms, lengths)
    assert torch.equal(logits, expected) and torch.equal(frame_lengths, expected_lengths)
    assert neighbours.shape == (*expected.shape[:2], 2, expected.shape[2])


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"optim\.context_weight must not be negative, got -0\.1"):
        OptimConfig(context_weight=-0.1)


def test_pooling_has_no_neighbours():
    with pytest.raises(ValueError, match=r"optim\.context_weight needs a phone for every frame"):
        TrainConfig(model=ClassifierConfig(pooling="mean", symbols=("a", "b")), optim=OptimConfig(context_weight=0.3))


def cross_entropy_by_loop(logits: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for row, label in zip(logits.reshape(-1, logits.shape[-1]), labels.ravel(), strict=True):
        if label != IGNORED:
            total += np.log(np.exp(row.astype(np.float64)).sum()) - row[label]
    return total


def learner_and_batch() -> tuple[Learner, Batch]:
    """A learner without randomness, and a batch whose second utterance is shorter and has unlabelled frames."""
    config = TrainConfig(
        model=SMALL,
        spec_augment=SpecAugmentConfig(freq_masks=0, time_masks_per_s=0),
        optim=OptimConfig(context_weight=0.3),
    )
    torch.manual_seed(0)
    learner = Learner(FrameClassifier(config.model), config, Accelerator())
    learner.wrapped.train()
    labels = torch.randint(0, 41, (2, 5)).repeat_interleave(4, dim=1)
    labels[1, 10:] = IGNORED
    waveforms = torch.randn(2, 400 + 19 * 160) / 10
    return learner, Batch(["a", "b"], waveforms, torch.tensor([waveforms.shape[1], 2000]), labels, [0, 0], 2.0)


def test_an_auxiliary_loss_that_is_not_finite_is_refused():
    learner, batch = learner_and_batch()
    with torch.no_grad():
        learner.network.output.bias[0] = torch.nan
    with pytest.raises(ValueError, match="the loss is nan in epoch 3 on cuts a b"):
        learner.backward([batch], 30, 2)


def test_the_losses_are_weighted_and_only_the_main_one_is_returned():
    learner, batch = learner_and_batch()
    loss, _ = learner.backward([batch], 30, 0)
    gradients = {name: parameter.grad.clone() for name, parameter in learner.network.named_parameters()}

    logits, neighbours, _ = learner.network(batch.waveforms, batch.lengths)
    around = torch.tensor([neighbours_by_loop(row) for row in batch.labels.tolist()])
    first = cross_entropy_by_loop(logits.detach().numpy(), batch.labels.numpy())
    assert loss == pytest.approx(first, rel=1e-5)
    expected = sum(
        weight * F.cross_entropy(scores.flatten(0, -2), target.flatten(), reduction="sum", ignore_index=IGNORED)
        for weight, scores, target in ((1, logits, batch.labels), (0.3, neighbours, around))
    )
    assert expected.item() > first + 1
    learner.network.zero_grad()
    (expected / 30).backward()
    for name, parameter in learner.network.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert gradients["output.weight"].abs().max() > 1e-3

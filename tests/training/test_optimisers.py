"""Optimisation steps: the loss by hand, steps over several batches and processes, and out-of-memory errors."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from speechattn.batches.loader import Batch
from speechattn.batches.spec_augment import SpecAugmentConfig
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import BlstmConfig, ClassifierConfig, EncoderConfig
from speechattn.phones import IGNORED
from speechattn.training import muon
from speechattn.training.config import DataConfig, OptimConfig, TrainConfig
from speechattn.training.optimisers import Learner, frame_loss, make_optimizer, padded_with_idle, schedule


def test_loss_is_the_sum_over_labelled_frames_by_hand():
    logits = torch.randn(2, 3, 5)
    labels = torch.tensor([[0, 4, -100], [2, -100, -100]])
    by_hand = 0.0
    for row, frame in ((0, 0), (0, 1), (1, 0)):
        by_hand -= F.log_softmax(logits[row, frame], dim=0)[labels[row, frame]].item()
    assert frame_loss(logits, labels).item() == pytest.approx(by_hand, rel=1e-5)
    assert frame_loss(logits, torch.full((2, 3), -100)).item() == 0


def test_loss_over_utterances_by_hand():
    logits, labels = torch.randn(3, 5), torch.tensor([4, 0, 2])
    by_hand = -sum(F.log_softmax(logits[row], dim=0)[label].item() for row, label in enumerate(labels))
    assert frame_loss(logits, labels).item() == pytest.approx(by_hand, rel=1e-5)


def test_schedule_rises_falls_and_ends_at_zero():
    assert schedule(0.0, 0.1) == 0
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == pytest.approx(1)
    assert schedule(0.55, 0.1) == pytest.approx(0.5)
    assert schedule(1.0, 0.1) == pytest.approx(0, abs=1e-12)
    shares = np.linspace(0.1, 1, 50)
    assert all(schedule(a, 0.1) > schedule(b, 0.1) for a, b in zip(shares, shares[1:], strict=False))
    assert math.isclose(schedule(0.0, 0.0), 1)


class Processes:
    """Stands for Accelerate in threads: `reduce` sums over them."""

    num_processes, device = 3, torch.device("cpu")

    def __init__(self):
        self.barrier, self.values = threading.Barrier(self.num_processes, timeout=20), []

    def reduce(self, value):
        self.values.append(value)
        self.barrier.wait()
        total = sum(self.values[-self.num_processes :])
        self.barrier.wait()
        return total


@pytest.mark.parametrize("counts", [(1, 2, 5), (3, 3, 3), (0, 0, 2)])
def test_processes_with_fewer_batches_keep_step_without_adding_to_the_loss(counts):
    processes = Processes()

    def batches(process):
        for number in range(counts[process]):
            name = [f"{process}-{number}"]
            yield Batch(name, torch.ones(1, 800), torch.tensor([800]), torch.ones(1, 3, dtype=torch.int64), [0], 1.0)

    idle = Batch([], torch.zeros(1, 400), torch.tensor([400]), torch.tensor([[IGNORED]]), [0], 0.0)
    with ThreadPoolExecutor(processes.num_processes) as pool:
        taken = list(pool.map(lambda process: list(padded_with_idle(batches(process), idle, processes)), range(3)))
    assert {len(mine) for mine in taken} == {max(counts)}
    for process, mine in enumerate(taken):
        own, rest = mine[: counts[process]], mine[counts[process] :]
        assert [batch.ids for batch in own] == [[f"{process}-{number}"] for number in range(counts[process])]
        assert all(batch is idle for batch in rest)


@pytest.fixture
def learner():
    """A learner for a small model without dropout, which would differ between batches."""
    from accelerate import Accelerator

    encoder = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=4, feed_forward=16, conv_kernel=3, dropout=0.0)
    config = TrainConfig(
        data=DataConfig(batch_seconds=7.5),
        model=ClassifierConfig(encoder=encoder),
        spec_augment=SpecAugmentConfig(freq_masks=0, time_masks_per_s=0),
    )
    return Learner(FrameClassifier(config.model), config, Accelerator())


def made_batch(names, generator):
    """Noise of various lengths, with some labels."""
    lengths = generator.integers(2000, 6000, len(names))
    waveforms = np.zeros((len(names), lengths.max()), dtype=np.float32)
    labels = np.full((len(names), 1 + (lengths.max() - 400) // 160), IGNORED)
    for row, length in enumerate(lengths):
        waveforms[row, :length] = generator.uniform(-0.5, 0.5, length)
        count = generator.integers(1, 2 + (length - 400) // 160)
        labels[row, :count] = generator.integers(0, 41, count)
    return Batch(
        names, torch.from_numpy(waveforms), torch.from_numpy(lengths), torch.from_numpy(labels), [0] * len(names), 1.0
    )


def joined(batches):
    """Several batches as one."""
    samples, frames = (max(getattr(batch, name).shape[1] for batch in batches) for name in ("waveforms", "labels"))
    return Batch(
        [name for batch in batches for name in batch.ids],
        torch.cat([F.pad(batch.waveforms, (0, samples - batch.waveforms.shape[1])) for batch in batches]),
        torch.cat([batch.lengths for batch in batches]),
        torch.cat([F.pad(batch.labels, (0, frames - batch.labels.shape[1]), value=IGNORED) for batch in batches]),
        [seed for batch in batches for seed in batch.seeds],
        sum(batch.num_utterances for batch in batches),
    )


def gradients(learner, batches):
    """Loss, frames and all gradients of a step."""
    learner.wrapped.train()
    learner.optimizer.zero_grad()
    labels = sum(int((batch.labels != IGNORED).sum()) for batch in batches)
    loss, frames = learner.backward(batches, labels, 0)
    return loss, frames, [parameter.grad.clone() for parameter in learner.model.parameters()]


def test_batches_accumulated_are_one_batch_as_large(learner):
    generator = np.random.default_rng(0)
    batches = [made_batch([f"{number}{row}" for row in range(number)], generator) for number in (1, 3, 2)]
    loss, frames, several = gradients(learner, batches)
    expected_loss, expected_frames, one = gradients(learner, [joined(batches)])
    assert loss == pytest.approx(expected_loss, rel=1e-5) and frames == expected_frames
    assert max(gradient.abs().max() for gradient in one) > 1e-2
    for gradient, expected in zip(several, one, strict=True):
        assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_names_the_utterances_and_what_to_lower(learner, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(learner, "wrapped", fail)
    batch = made_batch(["anna-1", "ben-2"], np.random.default_rng(0))
    with pytest.raises(
        ValueError, match=r"memory on cuts anna-1 ben-2: lower data\.batch_seconds, now 7\.5 \(optim\.acc"
    ):
        learner.backward([batch], 10, 0)


def test_other_errors_stay_what_they_are(learner, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(learner, "wrapped", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        learner.backward([made_batch(["a"], np.random.default_rng(0))], 10, 0)


def test_a_loss_that_is_not_finite_names_the_utterances(learner):
    batch = made_batch(["anna-1", "ben-2"], np.random.default_rng(0))
    with torch.no_grad():
        learner.model.output.bias[0] = torch.nan
    with pytest.raises(ValueError, match="the loss is nan in epoch 3 on cuts anna-1 ben-2"):
        learner.backward([batch], 10, 2)


def orthogonalised(matrix):
    """Newton and Schulz's iteration with Jordan's coefficients, in the bfloat16 that PyTorch's has."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if tall else x).float()


def test_a_first_step_of_muon_by_hand_and_of_adamw_for_the_rest():
    encoder = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=4, feed_forward=24, conv_kernel=3, stack=2)
    model = FrameClassifier(ClassifierConfig(encoder=encoder))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    gradients = {name: torch.randn_like(parameter) for name, parameter in before.items()}
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name].clone()
    make_optimizer(model, model.body, OptimConfig(optimizer="muon", learning_rate=0.01, weight_decay=0.1)).step()
    by_muon = set()
    for name, parameter in model.named_parameters():
        decay = 1 - 0.01 * 0.1 * (parameter.ndim > 1)
        if parameter.ndim == 2 and name.startswith(
            "body."
        ):  # Nesterov: 0.95 * (0.05 g) + 0.05 g, of which length is lost
            step = orthogonalised(gradients[name]) * 0.2 * max(parameter.shape) ** 0.5
            by_muon.add(name)
        else:
            step = gradients[name].sign()  # Adam's first step
        expected = before[name] * decay - 0.01 * step
        tolerance = 2e-3 if name in by_muon else 1e-5
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=tolerance, msg=name)
    assert len(by_muon) == 8  # input, two of attention, two of the convolution, two of the feed-forward module, unstack


@pytest.mark.parametrize("shape", [(6, 6), (5, 40), (48, 7), (1, 9)])
def test_muon_steps_as_pytorch_s_does_in_bfloat16(shape, monkeypatch):
    monkeypatch.setattr(muon, "computes_in_bfloat16", lambda device: True)
    own, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizers = (
        muon.Muon([own], lr=0.02, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for seed in range(4):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        own.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert not torch.equal(own, torch.ones(shape))
    torch.testing.assert_close(own, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("in_bfloat16", [True, False])
def test_muon_s_steps_are_nearly_orthogonal_in_either_precision(in_bfloat16, monkeypatch):
    monkeypatch.setattr(muon, "computes_in_bfloat16", lambda device: in_bfloat16)
    matrix = torch.randn(48, 200, generator=torch.Generator().manual_seed(0))
    [made] = muon.orthogonalised(matrix[None])
    assert made.dtype == (torch.bfloat16 if in_bfloat16 else torch.float32)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    spectrum = (left.T @ made.float() @ right.T).diagonal()  # its singular values, if it kept the vectors
    assert spectrum.min() > 0.6 and spectrum.max() < 1.3
    assert torch.linalg.svdvals(made.float()).sort().values == pytest.approx(spectrum.sort().values, abs=0.05)


def test_muon_takes_the_matrices_of_an_lstm_and_none_where_there_is_none():
    blstm = FrameClassifier(ClassifierConfig(kind="blstm", blstm=BlstmConfig(width=4, layers=1)))
    groups = make_optimizer(blstm, blstm.body, OptimConfig(optimizer="muon")).param_groups
    assert [len(group["params"]) for group in groups] == [4, 1, 5]  # two directions' two; the output layer's; biases
    linear = FrameClassifier(ClassifierConfig(kind="linear"))
    assert type(make_optimizer(linear, linear.body, OptimConfig(optimizer="muon"))) is torch.optim.AdamW


def test_every_parameter_has_one_optimiser():
    model = FrameClassifier(ClassifierConfig(encoder=EncoderConfig(dim=16, layers=1, position="relative")))
    for optimizer in ("adamw", "muon"):
        groups = make_optimizer(model, model.body, OptimConfig(optimizer=optimizer)).param_groups
        taken = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(taken) == sorted(id(parameter) for parameter in model.parameters())

"""Calibration against counting one by one, and temperatures against trying them all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechattn.evaluation.calibration import calibration_error, fit_temperature, reliability_counts

decisions = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60)


def counts_of(pairs: list[tuple[float, bool]]) -> np.ndarray:
    return reliability_counts(np.array([c for c, _ in pairs], dtype=float), np.array([r for _, r in pairs], dtype=bool))


@given(decisions, st.integers(0, 60))
def test_error_equals_guos_equation_3_bin_by_bin(pairs: list[tuple[float, bool]], cut: int) -> None:
    expected = 0.0
    for m in range(1, 16):
        own = [(c, r) for c, r in pairs if max(int(np.ceil(c * 15)), 1) == m]
        if own:
            accuracy = sum(r for _, r in own) / len(own)
            confidence = sum(c for c, _ in own) / len(own)
            expected += len(own) / len(pairs) * abs(accuracy - confidence)
    counts = counts_of(pairs)
    assert counts.shape == (15, 3) and counts[:, 0].sum() == len(pairs)
    assert calibration_error(counts) == (pytest.approx(expected, abs=1e-12) if pairs else None)
    np.testing.assert_allclose(counts_of(pairs[:cut]) + counts_of(pairs[cut:]), counts, atol=1e-12)


def test_bins_are_closed_above() -> None:
    assert np.flatnonzero(counts_of([(0.0, True), (1 / 15, True), (0.07, True), (1.0, True)])[:, 0]).tolist() == [
        0,
        1,
        14,
    ]


def test_a_perfectly_calibrated_set_has_no_error_and_a_boastful_one_its_excess() -> None:
    calibrated = [(n / 20, i < n) for n in range(1, 21) for i in range(20)]  # right as often as it says
    assert calibration_error(counts_of(calibrated)) == pytest.approx(0, abs=1e-12)
    boastful = [(0.9, i < 60) for i in range(100)]
    assert calibration_error(counts_of(boastful)) == pytest.approx(0.3)


def labelled_logits(num_frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with the probabilities that they say."""
    logits = 2 * rng.standard_normal((num_frames, 7))
    weights = np.exp(logits)
    drawn = rng.random((num_frames, 1)) * weights.sum(axis=1, keepdims=True)
    return logits, (weights.cumsum(axis=1) < drawn).sum(axis=1)


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    total = 0.0
    for row, label in zip(logits / temperature, labels, strict=True):
        total += np.log(np.exp(row - row.max()).sum()) + row.max() - row[label]
    return total


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.5])
def test_temperature_recovers_a_known_factor(factor: float) -> None:
    logits, labels = labelled_logits(20_000, np.random.default_rng(0))
    temperature = fit_temperature(factor * logits, labels)
    assert temperature == pytest.approx(factor, rel=0.03)
    assert temperature == pytest.approx(factor * fit_temperature(logits, labels), rel=1e-5)


def test_no_other_temperature_makes_the_labels_likelier() -> None:
    logits, labels = labelled_logits(300, np.random.default_rng(1))
    logits = (30 + 2.2 * logits).astype(np.float32)  # as from a model; a shift means nothing
    temperature = fit_temperature(logits, labels)
    least = negative_log_likelihood(logits, labels, temperature)
    others = np.geomspace(0.1, 10, 60)
    assert 1 < temperature < 4
    assert all(negative_log_likelihood(logits, labels, other) >= least for other in (*others, 0.999 * temperature))


def test_temperature_stays_in_its_range() -> None:
    logits = np.array([[900.0, 0.0], [0.0, 900.0]])  # exp overflows
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(0.1, rel=1e-4)  # always right: never too sure
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(10, rel=1e-4)  # always wrong
    with pytest.raises(ValueError, match="without labels"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int))

"""Figures against counting frame by frame."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechattn.evaluation.metrics import confusion_matrix, frame_figures, top_k_hits, utterance_figures

SYMBOLS = ("AA", "SIL", "B", "SPN")
SILENCES = {"SIL", "SPN"}

frames = st.lists(st.tuples(st.sampled_from([-100, 0, 1, 2, 3]), st.integers(0, 3)), max_size=40)


def share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def figures(pairs: list[tuple[int, int]], silences: set[str] = SILENCES) -> dict:
    reference, predicted = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    return frame_figures(confusion_matrix(reference, predicted, len(SYMBOLS)), SYMBOLS, silences)


@given(frames)
def test_confusion_equals_counting(pairs: list[tuple[int, int]]) -> None:
    reference, predicted = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    confusion = confusion_matrix(reference, predicted, 4)
    assert confusion.shape == (4, 4) and confusion.dtype == np.int64
    counts = Counter(pairs)
    assert all(confusion[row, column] == counts[row, column] for row in range(4) for column in range(4))


@given(frames, st.sampled_from([set(), {"SIL"}, SILENCES, set(SYMBOLS)]))
def test_figures_equal_counting(pairs: list[tuple[int, int]], silences: set[str]) -> None:
    result = figures(pairs, silences)
    scored = [(SYMBOLS[r], SYMBOLS[p]) for r, p in pairs if r >= 0]
    speech = [(r, p) for r, p in scored if r not in silences]
    assert result["num_frames"] == len(scored)
    assert result["frame_accuracy"] == pytest.approx(share([r == p for r, p in scored]))
    assert result["frame_accuracy_no_silence"] == pytest.approx(share([r == p for r, p in speech]))
    assert result["silence_share"] == pytest.approx(share([r in silences for r, _ in scored]))
    assert set(result["phones"]) == {r for r, _ in scored}
    recalls = [share([p == symbol for r, p in scored if r == symbol]) for symbol in {r for r, _ in scored}]
    assert result["macro_accuracy"] == (pytest.approx(sum(recalls) / len(recalls)) if recalls else None)
    for symbol, phone in result["phones"].items():
        own = [p == symbol for r, p in scored if r == symbol]
        assert phone == {"accuracy": pytest.approx(share(own)), "num_frames": len(own)}
    for suffix, kept in (("", scored), ("_no_silence", speech)):
        counts, majority = Counter(r for r, _ in kept), result["majority"]
        if kept:
            assert counts[majority[f"phone{suffix}"]] == max(counts.values())
        always = [r == majority[f"phone{suffix}"] for r, _ in kept]
        assert majority[f"frame_accuracy{suffix}"] == pytest.approx(share(always))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20))
def test_utterance_figures_equal_counting(pairs: list[tuple[int, int]]) -> None:
    reference, predicted = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    result = utterance_figures(confusion_matrix(reference, predicted, 4), SYMBOLS)
    assert result["num_utterances"] == len(pairs)
    assert result["accuracy"] == pytest.approx(share([r == p for r, p in pairs]))
    counts, majority = Counter(SYMBOLS[r] for r, _ in pairs), result["majority"]
    assert counts[majority["label"]] == max(counts.values(), default=0)
    assert majority["accuracy"] == pytest.approx(share([SYMBOLS[r] == majority["label"] for r, _ in pairs]))
    assert set(result["labels"]) == set(counts)
    for label, figure in result["labels"].items():
        own = [SYMBOLS[p] == label for r, p in pairs if SYMBOLS[r] == label]
        assert figure == {"accuracy": pytest.approx(share(own)), "num_utterances": len(own)}
    json.dumps(result)  # plain numbers


@given(st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=5, max_size=5), st.integers(0, 4)), max_size=20))
def test_among_the_likeliest_equals_sorting(rows: list[tuple[list[int], int]]) -> None:
    scores, labels = (
        np.array([row for row, _ in rows]).reshape(-1, 5),
        np.array([label for _, label in rows], dtype=int),
    )
    for count in (1, 3, 5):
        best = [
            sorted(range(5), key=lambda index: -row[index])[:count] for row in scores
        ]  # stable: the first of equals
        assert top_k_hits(scores, labels, count).tolist() == [y in b for y, b in zip(labels, best, strict=True)]
    assert (top_k_hits(scores, labels, 1) == (scores.argmax(axis=1) == labels)).all()


def test_counting_takes_any_shape_and_refuses_two() -> None:
    reference = np.array([[0, 1, -100], [2, 1, 0]])
    predicted = np.array([[0, 2, 2], [2, 1, 1]])
    expected = confusion_matrix(reference.ravel(), predicted.ravel(), 3)
    assert (confusion_matrix(reference, predicted, 3) == expected).all() and expected.sum() == 5
    with pytest.raises(ValueError, match=r"\(2, 3\) reference labels but \(2,\) predictions"):
        confusion_matrix(reference, predicted[:, 0], 3)


def test_a_case_by_hand() -> None:
    # Reference AA AA SIL SIL SIL B and an unscored frame; predicted AA B SIL SIL AA B SIL.
    result = figures([(0, 0), (0, 2), (1, 1), (1, 1), (1, 0), (2, 2), (-100, 1)])
    assert result["num_frames"] == 6 and result["silence_share"] == 0.5
    assert result["frame_accuracy"] == pytest.approx(4 / 6)
    assert result["frame_accuracy_no_silence"] == pytest.approx(2 / 3)
    assert result["macro_accuracy"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert result["majority"] == {
        "phone": "SIL",
        "frame_accuracy": 0.5,
        "phone_no_silence": "AA",
        "frame_accuracy_no_silence": pytest.approx(2 / 3),
    }
    assert result["phones"] == {
        "AA": {"accuracy": 0.5, "num_frames": 2},
        "SIL": {"accuracy": pytest.approx(2 / 3), "num_frames": 3},
        "B": {"accuracy": 1.0, "num_frames": 1},
    }


def test_accuracies_over_no_frames_are_none() -> None:
    for pairs in ([], [(-100, 1)]):
        result = figures(pairs)
        assert result["num_frames"] == 0 and result["phones"] == {}
        assert result["frame_accuracy"] is None and result["silence_share"] is None
        assert result["macro_accuracy"] is None
        assert result["frame_accuracy_no_silence"] is None and result["majority"]["frame_accuracy"] is None
    only_silence = figures([(1, 1), (3, 0)])
    assert only_silence["frame_accuracy"] == 0.5 and only_silence["frame_accuracy_no_silence"] is None


def test_figures_are_plain_numbers_that_json_can_hold() -> None:
    result = figures([(0, 0), (1, 2)])
    assert type(result["num_frames"]) is int and type(result["frame_accuracy"]) is float
    assert type(result["phones"]["AA"]["num_frames"]) is int

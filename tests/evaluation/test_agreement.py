"""Figures of two alignments against slow references: all pairings, all frames one by one."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechattn.evaluation.agreement import agreement_figures, frame_confusion
from speechattn.evaluation.boundaries import boundaries, boundary_figures, match_boundaries
from speechattn.labels.folding import fold_intervals, merge_closures
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

TIMIT = PhoneSet.load("timit39")


def best_pairing_by_trying_all(reference, hypothesis, tolerance):
    """(pairs, sum of distances) of the best one-to-one pairing."""
    few, many = sorted((reference, hypothesis), key=len)
    best = (0, 0)
    for count in range(1, len(few) + 1):
        for chosen in combinations(few, count):
            for partners in permutations(many, count):
                distances = [abs(a - b) for a, b in zip(chosen, partners, strict=True)]
                if max(distances) <= tolerance:
                    best = max(best, (count, -sum(distances)))
    return best[0], -best[1]


places = st.lists(st.integers(0, 40), unique=True, max_size=5).map(sorted)


@given(places, places, st.integers(0, 12))
def test_pairs_are_as_many_and_as_close_as_can_be(reference, hypothesis, tolerance):
    displacements = match_boundaries(reference, hypothesis, tolerance)
    distances = [abs(displacement) for displacement in displacements]
    assert (len(distances), sum(distances)) == best_pairing_by_trying_all(reference, hypothesis, tolerance)
    assert max(distances, default=0) <= tolerance
    mirrored = match_boundaries(hypothesis, reference, tolerance)
    assert (len(mirrored), sum(map(abs, mirrored))) == (len(distances), sum(distances))


def test_a_long_recording_is_matched_in_no_time():
    rng = np.random.default_rng(0)
    reference = np.cumsum(rng.integers(400, 2400, 20_000)).tolist()
    shifts = rng.integers(-160, 161, 20_000)
    hypothesis = [place + int(shift) for place, shift in zip(reference, shifts, strict=True)]
    assert match_boundaries(reference, hypothesis, 160) == shifts.tolist()


def test_a_boundary_is_found_once_only():
    assert match_boundaries([100], [95, 105], 10) in ([-5], [5])
    assert match_boundaries([100, 110], [105], 10) in ([5], [-5])
    assert match_boundaries([100, 110], [109, 119], 20) == [9, 9]  # nearest first would leave one alone


def test_tolerance_is_inclusive_and_displacement_signed():
    assert match_boundaries([100, 200], [110, 189], 10) == [10]
    assert match_boundaries([100, 200], [110, 189], 11) == [10, -11]


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["a", "b", None])), max_size=8))
def test_boundaries_are_where_the_label_of_a_sample_differs_from_the_one_before(stretches):
    intervals, labels = [], []
    for length, symbol in stretches:
        if symbol:
            intervals.append(Interval(len(labels), len(labels) + length, symbol))
        labels += [symbol] * length
    first = min((interval.start for interval in intervals), default=0)
    last = max((interval.end for interval in intervals), default=0)
    assert boundaries(intervals) == [t for t in range(first + 1, last) if labels[t] != labels[t - 1]]
    assert boundaries(intervals[::-1]) == boundaries(intervals)


def test_boundary_figures_by_hand():
    figures = boundary_figures(6, 8, 12)
    assert figures["precision"] == 0.5 and figures["recall"] == 0.75
    assert figures["f1"] == pytest.approx(2 * 0.5 * 0.75 / 1.25)
    over_segmentation = 0.75 / 0.5 - 1  # Räsänen's own form: recall over precision
    first = np.hypot(1 - 0.75, over_segmentation)
    second = (-over_segmentation + 0.75 - 1) / np.sqrt(2)
    assert figures["r_value"] == pytest.approx(1 - (abs(first) + abs(second)) / 2)
    assert boundary_figures(5, 5, 5) == {"precision": 1, "recall": 1, "f1": 1, "r_value": 1}
    assert boundary_figures(0, 3, 0)["precision"] is None and boundary_figures(0, 3, 0)["recall"] == 0
    assert set(boundary_figures(0, 0, 0).values()) == {None}


def test_random_boundaries_raise_recall_and_lower_the_r_value():
    rng = np.random.default_rng(0)
    reference = np.cumsum(rng.integers(800, 2400, 200)).tolist()
    found = [place + int(shift) for place, shift in zip(reference, rng.integers(-480, 481, 200), strict=True)]
    noisy = sorted({*found, *rng.integers(0, reference[-1], 200).tolist()})
    plain, more = (
        boundary_figures(len(match_boundaries(reference, side, 320)), len(reference), len(side))
        for side in (found, noisy)
    )
    assert more["recall"] > plain["recall"] and more["r_value"] < plain["r_value"]


intervals_of_ab = st.lists(
    st.tuples(st.integers(1, 900), st.sampled_from(["a", "b", "c", None])), min_size=1, max_size=8
).map(
    lambda stretches: [
        Interval(sum(n for n, _ in stretches[:k]), sum(n for n, _ in stretches[: k + 1]), symbol)
        for k, (_, symbol) in enumerate(stretches)
        if symbol
    ]
)


@given(intervals_of_ab, intervals_of_ab)
def test_frames_are_counted_by_the_labels_at_their_centres(reference, hypothesis):
    def label(intervals, sample):
        return next((i.symbol for i in intervals if i.start <= sample < i.end), None)

    symbols = ["a", "b", "c"]
    expected = np.zeros((4, 4), dtype=int)
    num_samples = reference[-1].end if reference else 0
    for start in range(0, num_samples - 399, 160):
        wanted, got = label(reference, start + 200), label(hypothesis, start + 200)
        if wanted is not None:
            expected[symbols.index(wanted), 3 if got is None else symbols.index(got)] += 1
    assert (frame_confusion(reference, hypothesis, symbols) == expected).all()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tcl t", "t"),
        ("tcl ch", "ch"),
        ("dcl jh", "jh"),
        ("kcl s", "k s"),  # unreleased
        ("bcl pcl p", "b p"),
        ("tcl d", "t d"),  # not its own stop
        ("h# t q epi", "h# t q epi"),
    ],
)
def test_closures_count_as_their_stops(before, after):
    intervals = [Interval(10 * k, 10 * k + 10, symbol) for k, symbol in enumerate(before.split())]
    merged = merge_closures(intervals)
    assert " ".join(interval.symbol for interval in merged) == after
    assert merged[0].start == 0 and merged[-1].end == intervals[-1].end
    assert boundaries(merged) == [interval.start for interval in merged[1:]]


def test_a_closure_does_not_reach_over_a_gap():
    apart = [Interval(0, 10, "tcl"), Interval(11, 20, "t")]
    assert merge_closures(apart) == [Interval(0, 10, "t"), Interval(11, 20, "t")]


@pytest.mark.parametrize(
    ("symbol", "phones", "folded"),
    [
        ("ix", "timit39", "ih"),
        ("AH0", "timit39", "ah"),
        ("ZH", "timit39", "sh"),
        ("SIL", "timit39", "sil"),
        ("sp", "timit39", "sil"),
        ("", "timit39", "sil"),
        ("SPN", "timit39", None),
        ("q", "timit39", None),
        ("AH0", "arpabet41", "AH"),
    ],
)
def test_symbols_of_other_tools_are_folded(symbol, phones, folded):
    folded_intervals = fold_intervals([Interval(0, 9, symbol)], PhoneSet.load(phones))
    assert folded_intervals == ([Interval(0, 9, folded)] if folded else [])


def test_figures_of_two_utterances():
    second = 16000
    reference = {
        "u": [Interval(0, second, "h#"), Interval(second, 2 * second, "ix"), Interval(2 * second, 3 * second, "s")],
        "v": [Interval(0, second, "q"), Interval(second, 2 * second, "z")],
    }
    hypothesis = {
        "u": [
            Interval(0, second - 240, "SIL"),
            Interval(second - 240, 2 * second + 800, "IH1"),
            Interval(2 * second + 800, 3 * second, "S"),
        ],
        "v": [Interval(0, 2 * second, "S")],
    }
    figures = agreement_figures(reference, hypothesis, TIMIT)
    # u: 298 frames; of sil the 2 with centres in [15760, 16000) are wrong (15880 is one: 160 t + 200), of s 5.
    centres = 160 * np.arange(298) + 200
    wrong = ((centres >= second - 240) & (centres < second)) | ((centres >= 2 * second) & (centres < 2 * second + 800))
    in_v = 160 * np.arange(198) + 200 >= second
    assert figures["num_frames"] == 298 + in_v.sum()
    assert figures["frame_agreement"] == pytest.approx((298 - wrong.sum()) / (298 + in_v.sum()))
    assert figures["phones"]["z"] == {"agreement": 0.0, "num_frames": in_v.sum()}
    assert figures["phones"]["ih"]["agreement"] == 1.0
    assert figures["num_boundaries"] == {"reference": 2, "hypothesis": 2}
    assert figures["boundaries"]["10"]["recall"] == 0
    assert figures["boundaries"]["20"]["recall"] == 0.5
    assert figures["boundaries"]["50"]["f1"] == 1
    assert figures["displacement_ms"] == {"mean": 17.5, "mean_absolute": 32.5, "median_absolute": 32.5}
    same = agreement_figures(reference, reference, TIMIT)
    assert same["frame_agreement"] == same["boundaries"]["10"]["f1"] == same["boundaries"]["10"]["r_value"] == 1


def test_silence_is_left_out_of_the_second_figure_and_a_missing_label_is_wrong():
    reference = {"u": [Interval(0, 16000, "SIL"), Interval(16000, 32000, "a")]}
    figures = agreement_figures(reference, {"u": [Interval(0, 16000, "SIL")]})
    assert figures["frame_agreement_no_silence"] == 0.0
    assert figures["frame_agreement"] == figures["phones"]["SIL"]["num_frames"] / figures["num_frames"]
    assert set(figures["phones"]) == {"SIL", "a"}
    assert agreement_figures(reference, {"u": []})["frame_agreement"] == 0.0
    assert agreement_figures(reference, {"u": [Interval(0, 32000, "")]})["frame_agreement"] == 0.0
    assert agreement_figures({"u": []}, {"u": []}, TIMIT)["frame_agreement"] is None


def test_what_cannot_be_compared_is_named():
    good = {"u": [Interval(0, 800, "aa")]}
    with pytest.raises(ValueError, match="cover different utterances"):
        agreement_figures(good, {"v": good["u"]}, TIMIT)
    with pytest.raises(ValueError, match="neither alignment has a phone"):
        agreement_figures({"u": []}, {"u": []})
    with pytest.raises(ValueError, match="utterance u: phone 'xx' is not in set 'timit39'"):
        agreement_figures(good, {"u": [Interval(0, 800, "xx")]}, TIMIT)
    with pytest.raises(ValueError, match=r"utterance u: interval \[400, 800\) 'aa' overlaps"):
        agreement_figures(good, {"u": [Interval(0, 500, "aa"), Interval(400, 800, "aa")]}, TIMIT)

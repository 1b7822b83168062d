"""The search finds the best path: against every path there is, in small graphs."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechattn.decoding import viterbi
from speechattn.decoding.viterbi import Graph, PathStream, best_path, transcript_graph

LOG = st.one_of(st.just(-np.inf), st.floats(-9, 9))


@st.composite
def graphs(draw):
    """(classes, arcs {(source, target): weight}, initial, final) of one to four states over three classes."""
    states = range(draw(st.integers(1, 4)))
    classes = [draw(st.integers(0, 2)) for _ in states]
    pairs = draw(st.sets(st.sampled_from(list(product(states, states)))))
    arcs = {pair: draw(LOG) for pair in sorted(pairs)}
    ends = [draw(st.dictionaries(st.sampled_from(states), LOG)) for _ in range(2)]
    return classes, arcs, *ends


def every_path(scores, classes, arcs, initial, final):
    """(total, states) of all sequences of states that the graph allows, one by one."""
    for states in product(range(len(classes)), repeat=len(scores)):
        total = initial.get(states[0], -np.inf) + final.get(states[-1], -np.inf)
        for frame, state in enumerate(states):
            total += scores[frame][classes[state]]
            if frame:
                total += arcs.get((states[frame - 1], state), -np.inf)
        if total > -np.inf:
            yield total, states


@given(graphs(), st.integers(1, 6), st.data())
def test_best_path_is_the_best_of_all(parts, num_frames, data):
    classes, arcs, initial, final = parts
    scores = np.array([[data.draw(LOG) for _ in range(3)] for _ in range(num_frames)])
    graph = Graph.of(classes, [(*pair, weight) for pair, weight in arcs.items()], initial=initial, final=final)
    paths = {states: total for total, states in every_path(scores, *parts)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viterbi, "SHORTEST_BLOCK", data.draw(st.sampled_from([1, 1024])))
        _check_best_path(scores, graph, paths)


def _check_best_path(scores, graph, paths):
    num_frames = len(scores)
    if not paths:
        with pytest.raises(ValueError, match=f"no path through the graph has {num_frames} frames"):
            best_path(scores, graph)
        return
    states, total = best_path(scores, graph)
    assert total == pytest.approx(max(paths.values()), abs=1e-9)
    assert paths[tuple(states)] == pytest.approx(total, abs=1e-9)


@given(graphs(), st.lists(st.integers(0, 4), max_size=5), st.data())
def test_a_path_in_any_pieces_is_the_best_path(parts, sizes, data):
    classes, arcs, initial, final = parts
    scores = np.array([[data.draw(LOG) for _ in range(3)] for _ in range(sum(sizes) + 1)])
    graph = Graph.of(classes, [(*pair, weight) for pair, weight in arcs.items()], initial=initial, final=final)
    stream, ends = PathStream(graph), np.cumsum([0, *sizes])
    told = [stream.push(scores[first:end]) for first, end in zip(ends, [*ends[1:], len(scores)], strict=True)]
    try:
        expected, _ = best_path(scores, graph)
    except ValueError:
        with pytest.raises(ValueError, match="no path"):
            stream.flush()
        return
    assert np.concatenate([*told, stream.flush()]).tolist() == expected.tolist()


def test_a_path_is_told_as_far_as_the_best_ways_to_all_states_agree():
    generator = np.random.default_rng(0)
    arcs = [(source, target, float(generator.normal())) for source, target in product(range(3), repeat=2)]
    starts, scores, told = dict.fromkeys(range(3), 0.0), generator.normal(size=(60, 3)), 0
    stream = PathStream(Graph.of(range(3), arcs, initial=starts, final=starts))
    for seen in range(1, 61):
        told += len(stream.push(scores[seen - 1 : seen]))
        ways = [
            best_path(scores[:seen], Graph.of(range(3), arcs, initial=starts, final={state: 0.0}))[0]
            for state in range(3)
        ]
        agreed = [len(set(states)) == 1 for states in zip(*ways, strict=True)]
        assert told == agreed.index(False)
    assert told > 50


def every_alignment(words, silence, num_frames):
    """(phones, frames of each), for every choice of pronunciations and pauses and every way to share out the frames."""
    for pronunciations in product(*words):
        for pauses in product((False, True), repeat=len(words) + 1):
            phones = [silence] * pauses[0]
            for pronunciation, pause in zip(pronunciations, pauses[1:], strict=True):
                phones += [*pronunciation, *[silence] * pause]
            for cuts in combinations(range(1, num_frames), len(phones) - 1):
                yield phones, np.diff([0, *cuts, num_frames])


PRONUNCIATION = st.lists(st.integers(0, 3), min_size=1, max_size=2)
TRANSCRIPT = st.lists(st.lists(PRONUNCIATION, min_size=1, max_size=2), min_size=1, max_size=2)
DURATIONS = st.lists(st.lists(LOG, min_size=1, max_size=4), min_size=4, max_size=4)


@given(TRANSCRIPT, st.none() | DURATIONS, st.integers(1, 8), st.data())
def test_transcript_is_aligned_as_by_trying_everything(words, durations, num_frames, data):
    silence = 0
    scores = np.array([[data.draw(st.floats(-9, 9)) for _ in range(4)] for _ in range(num_frames)])
    graph, units = transcript_graph(words, silence, durations=durations)
    totals = {}
    for phones, lengths in every_alignment(words, silence, num_frames):
        total = scores[np.arange(num_frames), np.repeat(phones, lengths)].sum()
        for phone, length in zip(phones, lengths, strict=True):
            total += durations[phone][min(length, len(durations[phone])) - 1] if durations else 0.0
        if total > -np.inf:
            totals[tuple(phones), tuple(lengths)] = total
    if not totals:
        with pytest.raises(ValueError, match="no path"):
            best_path(scores, graph)
        return
    states, total = best_path(scores, graph)
    firsts = np.flatnonzero(np.diff(units[states], prepend=-1))
    found = tuple(graph.classes[states[firsts]].tolist()), tuple(np.diff(firsts, append=num_frames).tolist())
    assert total == pytest.approx(max(totals.values()), abs=1e-9)
    assert totals[found] == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_long_recording_is_traced_back_across_all_checkpoints(block, monkeypatch):
    """A left-to-right chain over 1,000 frames whose best boundaries are known by construction."""
    monkeypatch.setattr(viterbi, "SHORTEST_BLOCK", block)
    generator = np.random.default_rng(0)
    boundaries = [0, *sorted(generator.choice(np.arange(1, 1000), size=29, replace=False).tolist()), 1000]
    truth = np.repeat(np.arange(30), np.diff(boundaries)) % 7
    scores = np.log(np.where(np.arange(7) == truth[:, None], 0.9, 0.1 / 6)) + generator.uniform(0, 0.1, (1000, 7))
    words = [[[phone % 7]] for phone in range(30)]
    graph, units = transcript_graph(words, silence=0)
    states, _ = best_path(scores, graph)
    np.testing.assert_array_equal(graph.classes[states], truth)
    assert (np.diff(units[states]) >= 0).all()


def test_two_equal_phones_in_a_row_stay_two():
    graph, units = transcript_graph([[[1, 2]], [[2, 1]]], silence=0)
    states, _ = best_path(np.array([[0, 9, 0], [0, 0, 9], [0, 0, 9], [0, 9, 0]]), graph)
    assert graph.classes[states].tolist() == [1, 2, 2, 1]
    assert len(set(units[states])) == 4


@pytest.mark.parametrize(("num_frames", "total"), [(1, 5.0), (2, 3.0), (3, -9.0), (7, -9.0)])
def test_a_phone_counts_its_whole_duration(num_frames, total):
    """The last weight is for all longer ones: a long phone cannot pass for a short one that waits."""
    graph, _ = transcript_graph([[[1]]], 0, durations=[[-99.0], [5.0, 3.0, -9.0]])
    assert best_path(np.zeros((num_frames, 2)), graph)[1] == total


def test_float32_scores_are_summed_in_float64():
    graph = Graph.of([0], [(0, 0, 0.0)], initial={0: 0.0}, final={0: 0.0})
    scores = np.full((10_000, 1), 0.1, dtype=np.float32)
    assert best_path(scores, graph)[1] == pytest.approx(float(scores[0, 0]) * 10_000, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Graph.of([], [], initial={}, final={}), "one of the graph's 0 states"),
        (lambda: Graph.of([0], [(0, 1, 0.0)], initial={0: 0.0}, final={0: 0.0}), "leaves the graph of 1 states"),
        (lambda: Graph.of([0], [], initial={1: 0.0}, final={0: 0.0}), "start and end in one of the graph's 1"),
        (lambda: transcript_graph([], 0), "a transcript needs words"),
        (lambda: transcript_graph([[]], 0), "a transcript needs words"),
        (lambda: transcript_graph([[[]]], 0), "at least one phone"),
        (lambda: transcript_graph([[[1]]], 0, durations=[[0.0], []]), "every class needs at least one duration"),
        (lambda: best_path(np.zeros((0, 1)), transcript_graph([[[0]]], 0)[0]), "no frames"),
        (lambda: best_path(np.array([[np.nan]]), transcript_graph([[[0]]], 0)[0]), "NaN"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

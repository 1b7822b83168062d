"""Long utterances in chunks: by brute force, every labelled frame is scored once, in its place, with its context."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speechattn.batches.chunks import Chunking, chunk_cut, num_chunks
from speechattn.batches.loader import Batches
from speechattn.batches.wave_augment import WaveAugmentConfig
from speechattn.cuts.files import phone_intervals, save_cuts, utterance_cut
from speechattn.cuts.model_inputs import cut_labels, cut_waveform, load_cuts
from speechattn.cuts.shards import write_shards
from speechattn.frontend import FrontendConfig
from speechattn.geometry import Geometry
from speechattn.labels.intervals import Interval
from speechattn.phones import IGNORED, PhoneSet

SYMBOLS = ("SIL", "AA", "IY", "S")
PHONES = PhoneSet.of(SYMBOLS)
GEOMETRY = Geometry()
FRAMES = st.none() | st.integers(0, 60)


def intervals_of(num_samples: int, generator: np.random.Generator) -> list[Interval]:
    """Phones with gaps between some of them, the last one often past the end."""
    intervals, time = [], int(generator.integers(0, 500))
    while time < num_samples:
        length = int(generator.integers(1, 4000))
        intervals.append(Interval(time, time + length, str(generator.choice(SYMBOLS))))
        time += length + int(generator.choice([0, 0, 700]))
    return intervals


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, 12 s, in 16 bits."""
    path = tmp_path_factory.mktemp("recording") / "noise.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 12 * 16000), 16000)
    return path


def long_cut(recording: Path, num_samples: int, seed: int = 0):
    """A cut of the first samples of a recording."""
    cut = utterance_cut(f"noise-{num_samples}", recording, speaker="anna", text="")
    cut.duration = num_samples / 16000
    intervals = intervals_of(num_samples, np.random.default_rng(seed))
    return utterance_with(cut, intervals)


def utterance_with(cut, intervals):
    from speechattn.cuts.files import alignment_items

    cut.supervisions[0].alignment = {"phone": alignment_items(intervals)}
    cut.supervisions[0].duration = cut.duration
    return cut


@given(st.integers(1, 400_000), st.floats(1.0, 8.0), FRAMES, FRAMES)
def test_chunks_cover_the_utterance_and_overlap_by_the_context(num_samples, max_seconds, left, right):
    chunking = Chunking.of(GEOMETRY, max_seconds, left, right)
    spans = chunking.spans(num_samples)
    assert len(spans) == 1 or num_samples > chunking.size
    assert spans[0][0] == spans[0][2] == 0 and spans[-1][1] == spans[-1][3] == num_samples
    for start, end, first, last in spans:
        assert start % 160 == 0 and 400 <= end - start <= max_seconds * 16000 or len(spans) == 1
        assert start <= first < last <= end
        assert start == 0 or first - start == chunking.left
        assert end == num_samples or end - last == chunking.right
    for (*_, last), (_, _, first, _) in zip(spans, spans[1:], strict=False):
        assert last == first
    for frames, context in ((left, chunking.left), (right, chunking.right)):
        wanted = np.inf if frames is None else frames * 160 + 400
        assert context >= min(wanted, max_seconds * 16000 / 4 - 160)


@pytest.mark.parametrize("geometry", [Geometry(), FrontendConfig(preset="librosa").geometry], ids=["kaldi", "centred"])
@given(num_samples=st.integers(400, 192_000), max_seconds=st.floats(1.0, 4.0), left=FRAMES, right=FRAMES)
def test_every_labelled_frame_is_scored_once(recording, geometry, num_samples, max_seconds, left, right):
    cut = long_cut(recording, num_samples, seed=num_samples)
    expected = cut_labels(cut, PHONES, geometry)
    found, count = np.full(len(expected), IGNORED), Counter()
    for chunk in chunk_cut(cut, Chunking.of(geometry, max_seconds, left, right)):
        start = round(chunk.start * 16000)
        labels = cut_labels(chunk, PHONES, geometry)
        assert len(labels) == geometry.num_frames(chunk.num_samples)
        for frame, label in enumerate(labels):
            if label != IGNORED:
                found[start // 160 + frame] = label
                count[start // 160 + frame] += 1
    assert np.array_equal(found, expected)
    assert set(count.values()) <= {1}


def test_chunks_are_samples_of_the_recording(recording):
    whole, _ = soundfile.read(recording, dtype="float32")
    cut = long_cut(recording, 12 * 16000)
    chunks = chunk_cut(cut, Chunking.of(GEOMETRY, 3.0, 20, 5))
    assert len(chunks) > 4 and len({chunk.id for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        start = round(chunk.start * 16000)
        assert np.array_equal(cut_waveform(chunk), whole[start : start + chunk.num_samples])
        assert num_chunks(chunk) == len(chunks) and chunk.supervisions[0].speaker == "anna"
    assert chunk_cut(cut, Chunking.of(GEOMETRY, 30.0, 20, 5)) == [cut] and num_chunks(cut) == 1


def test_a_piece_of_a_part_begins_there(recording):
    whole, _ = soundfile.read(recording, dtype="float32")
    cut = long_cut(recording, 6 * 16000)
    cut.start = 2.5
    for chunk in chunk_cut(cut, Chunking.of(GEOMETRY, 2.0, 5, 5)):
        start = round(chunk.start * 16000)
        assert start >= 40000 and np.array_equal(cut_waveform(chunk), whole[start : start + chunk.num_samples])


def test_windows_longer_than_a_quarter_of_a_chunk_are_refused():
    with pytest.raises(ValueError, match=r"data\.max_seconds must be at least four frames of 5000 samples, got 1"):
        Chunking.of(Geometry(16000, 5000, 160), 1, 0, 0)


@pytest.fixture(scope="module")
def corpus(recording, tmp_path_factory):
    """Cuts of 1, 2 ... 12 s."""
    folder = tmp_path_factory.mktemp("long")
    save_cuts(folder / "cuts.jsonl.gz", [long_cut(recording, seconds * 16000, seconds) for seconds in range(1, 13)])
    return folder / "cuts.jsonl.gz"


def batches(cuts, **options):
    return Batches(
        load_cuts(cuts, GEOMETRY), PHONES, GEOMETRY,
        batch_seconds=8.0, shuffle=True, chunking=Chunking.of(GEOMETRY, 4.0, 10, 10), **options,
    )  # fmt: skip


@pytest.mark.parametrize("sharded", [False, True])
def test_batches_hold_every_label_once_and_no_long_utterance(corpus, sharded, tmp_path):
    where = corpus
    if sharded:
        write_shards(corpus, tmp_path / "shards", size=5)
        where = tmp_path / "shards"
    expected = Counter()
    for cut in load_cuts(corpus, GEOMETRY):
        expected.update(cut_labels(cut, PHONES, GEOMETRY).tolist())
    found, utterances = Counter(), 0.0
    made = batches(where)
    assert made.num_cuts == 12
    for batch in made.epoch(1):
        assert batch.waveforms.numel() <= 8 * 16000 and batch.waveforms.shape[1] <= 4 * 16000 + 32 * 160
        found.update(batch.labels.flatten().tolist())
        utterances += batch.num_utterances
    assert utterances == pytest.approx(12)
    assert {label: found[label] for label in range(4)} == {label: expected[label] for label in range(4)}


def test_silence_is_cropped_but_not_the_context_of_a_chunk(corpus):
    made = batches(corpus, wave_augment=WaveAugmentConfig(edge_silence_s=0.0))
    lengths = {id_: int(n) for batch in made.epoch() for id_, n in zip(batch.ids, batch.lengths, strict=True)}
    cropped = 0
    for cut in load_cuts(corpus, GEOMETRY):
        for chunk in chunk_cut(cut, Chunking.of(GEOMETRY, 4.0, 10, 10)):
            start, end = 0, chunk.num_samples
            if num_chunks(chunk) == 1:
                intervals = phone_intervals(chunk)
                speech = [interval for interval in intervals if interval.symbol != "SIL"]
                start, end = speech[0].start, min(end, speech[-1].end)
                cropped += "SIL" in (intervals[0].symbol, intervals[-1].symbol)
            assert lengths[chunk.id] == end - start
    assert cropped

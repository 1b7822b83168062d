"""Waveforms in training: phones stay on their sounds, levels are what was asked for, and the seed decides."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet

from speechattn.batches.loader import Batches
from speechattn.batches.utterances import Utterances
from speechattn.batches.wave_augment import (
    WaveAugmentConfig,
    add_noise,
    at_speed,
    augment_waveform,
    cropped_intervals,
    plan_augmentation,
    speech_bounds,
)
from speechattn.cuts.files import alignment_items, phone_intervals, read_cuts
from speechattn.cuts.model_inputs import cut_labels, load_cuts
from speechattn.cuts.shards import write_shards
from speechattn.geometry import Geometry
from speechattn.labels.intervals import Interval
from speechattn.phones import IGNORED, PhoneSet

GEOMETRY = Geometry()
PHONES = PhoneSet.load("arpabet41")
EVERYTHING = WaveAugmentConfig(speeds=(0.9, 1.0, 1.1), edge_silence_s=0.02, snr_db=(10.0, 30.0), gain_db=6.0)


def augmented(waveform, intervals, config, seed=0, shortest=1):
    bounds = speech_bounds(intervals, {"SIL"})
    plan = plan_augmentation(len(waveform), bounds, config, seed=seed, sample_rate=16000, shortest=shortest)
    made, phones = augment_waveform(
        waveform, intervals, config, plan, seed=seed, silences={"SIL"}, pause_symbol="SIL", sample_rate=16000
    )
    assert len(made) == plan.num_samples and made.dtype == np.float32
    return made, phones


@pytest.mark.parametrize("speed", [0.9, 1.1, 1.25])
def test_labels_follow_the_speed(tone_corpus, speed):
    for cut in read_cuts(tone_corpus / "dev.jsonl.gz"):
        audio, _ = soundfile.read(cut.recording.sources[0].source, dtype="float32")
        intervals = phone_intervals(cut)
        played, moved = at_speed(audio, intervals, speed)
        labels = cut_labels(cut, PHONES, GEOMETRY, intervals=moved, num_samples=len(played))
        assert len(labels) == GEOMETRY.num_frames(len(played))
        for centre, label in zip(GEOMETRY.centres(len(played)), labels, strict=True):
            there = [i.symbol for i in intervals if i.start - 1 <= centre * speed <= i.end + 1]  # 1: rounding
            assert PHONES.symbols[label] in there


def test_a_tone_sounds_higher_at_a_higher_speed():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    played, _ = at_speed(tone, [], 1.25)
    assert len(played) == 12800
    assert np.abs(np.fft.rfft(played[:12800])).argmax() * 16000 / 12800 == pytest.approx(1250, abs=2)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_cropping_keeps_every_sample_under_its_phone(lengths, data):
    bounds = np.cumsum([0, *lengths])
    intervals = [Interval(int(a), int(b), f"p{n}") for n, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False))]
    total = int(bounds[-1]) + data.draw(st.integers(0, 3))  # the last samples may have no phone
    start = data.draw(st.integers(0, total))
    end = data.draw(st.integers(start, total))
    waveform = np.arange(total, dtype=np.float32)
    part, moved = waveform[start:end], cropped_intervals(intervals, start, end)
    expected = {int(sample): next((i.symbol for i in intervals if i.start <= sample < i.end), None) for sample in part}
    assert list(part) == list(range(start, end))
    for number, sample in enumerate(part):
        assert next((i.symbol for i in moved if i.start <= number < i.end), None) == expected[int(sample)]


def test_only_silence_at_the_ends_goes_and_never_more_than_was_there():
    intervals = [Interval(0, 50, "SIL"), Interval(50, 70, "AA"), Interval(70, 90, "SIL"), Interval(90, 100, "S")]
    assert speech_bounds(intervals, {"SIL"}) == (50, 100) and speech_bounds(intervals[:1], {"SIL"}) is None
    for seed in range(50):
        plan = plan_augmentation(
            160, (50, 100), WaveAugmentConfig(edge_silence_s=100 / 16000), seed=seed, sample_rate=16000
        )
        assert 0 <= plan.start <= 50 and 100 <= plan.end <= 160 and plan.num_samples == plan.end - plan.start
    waveform = np.zeros(160, dtype=np.float32)
    config = WaveAugmentConfig(edge_silence_s=0.0)
    assert augmented(waveform, intervals, config)[1][0] == Interval(0, 20, "AA")
    whole, phones = augmented(waveform, intervals, config, shortest=60)  # cropping would leave 50
    assert len(whole) == 160 and phones == intervals
    silent, phones = augmented(waveform, [Interval(0, 160, "SIL")], config)
    assert len(silent) == 160


@pytest.mark.parametrize(
    ("length", "speed", "expected"), [(420, 1.25, 420), (420, 1.04, 404), (300, 1.25, 300), (300, 0.5, 600)]
)
def test_a_speed_that_would_leave_too_little_is_not_taken(length, speed, expected):
    intervals = [Interval(0, length, "AA")]
    waveform, config = np.ones(length, dtype=np.float32), WaveAugmentConfig(speeds=(speed,))
    played, moved = augmented(waveform, intervals, config, shortest=400)
    assert len(played) == expected and moved == [Interval(0, expected, "AA")]


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_level_and_the_slope_asked_for(slope, snr_db):
    generator = np.random.default_rng(0)
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(160000) / 16000).astype(np.float32)
    noise = add_noise(tone, snr_db, slope, generator, power=float(np.square(tone).mean())) - tone
    measured = 10 * np.log10(np.square(tone, dtype=np.float64).sum() / np.square(noise, dtype=np.float64).sum())
    assert measured == pytest.approx(snr_db, abs=0.01)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [power[first : 2 * first].mean() for first in (2000, 4000, 8000, 16000, 32000)]
    steps = [10 * np.log10(high / low) for low, high in zip(octaves, octaves[1:], strict=False)]
    assert steps == pytest.approx([-10 * np.log10(2) * slope] * 4, abs=0.4)


def test_noise_leaves_silence_as_it_is_and_gain_stays_in_its_bounds():
    silent = np.zeros(1000, dtype=np.float32)
    assert not add_noise(silent, 10.0, 1.0, np.random.default_rng(0), power=0.0).any()
    ones = np.ones(10, dtype=np.float32)
    gains = [augmented(ones, [], WaveAugmentConfig(gain_db=6.0), seed)[0][0] for seed in range(200)]
    decibels = 20 * np.log10(gains)
    assert -6 <= decibels.min() < -5 and 5 < decibels.max() <= 6


def test_the_seed_decides_and_nothing_happens_unless_asked_for(speech):
    intervals = [Interval(0, 4000, "SIL"), Interval(4000, 20000, "AA"), Interval(20000, len(speech[0]), "SIL")]
    same, phones = augmented(speech[0], intervals, WaveAugmentConfig())
    assert np.array_equal(same, speech[0]) and phones == intervals
    first, again, other = (augmented(speech[0], intervals, EVERYTHING, seed) for seed in (3, 3, 4))
    assert np.array_equal(first[0], again[0]) and first[1] == again[1]
    assert len(first[0]) != len(other[0]) and first[0].dtype == np.float32
    assert first[1][-1].end <= len(first[0]) + 1


PAUSES = WaveAugmentConfig(pause_share=1.0, pause_s=(0.5, 2.0))


@given(st.integers(0, 2**32), st.lists(st.tuples(st.sampled_from("SAB"), st.integers(1, 4000)), max_size=8))
def test_a_pause_moves_what_follows_it_and_changes_nothing_else(seed, parts):
    bounds = np.cumsum([0, *(length for _, length in parts)]).tolist()
    intervals = [
        Interval(start, end, "SIL" if symbol == "S" else symbol)
        for (symbol, _), start, end in zip(parts, bounds, bounds[1:], strict=False)
    ]
    waveform = np.random.default_rng(0).standard_normal(bounds[-1] + 700).astype(np.float32)
    made, phones = augmented(waveform, intervals, PAUSES, seed)
    pause = len(made) - len(waveform)
    assert 8000 <= pause <= 32000
    place = next((n for n, (a, b) in enumerate(zip(waveform, made, strict=False)) if a != b), len(waveform))
    assert np.array_equal(made[place + pause :], waveform[place:])
    inside = [i for i in intervals if i.start < place < i.end]
    assert not inside or inside[0].symbol == "SIL"  # speech is not torn apart
    before = {n: i.symbol for i in intervals for n in (i.start, i.end - 1)}
    after = {n: i.symbol for i in phones for n in range(i.start, i.end)}
    for sample, symbol in before.items():
        assert after[sample if sample < place else sample + pause] == symbol
    assert all(after[n] == "SIL" for n in range(place, place + pause))


def test_noise_alone_is_as_long_as_the_utterance_and_all_silence(speech):
    intervals = [Interval(0, 4000, "SIL"), Interval(4000, 20000, "AA"), Interval(20000, len(speech[0]), "SIL")]
    config = WaveAugmentConfig(noise_share=0.5)
    replaced = 0
    for seed in range(40):
        made, phones = augmented(speech[0], intervals, config, seed)
        assert len(made) == len(speech[0])
        if not np.array_equal(made, speech[0]):
            assert phones == [Interval(0, len(made), "SIL")]
            replaced += 1
        else:
            assert phones == intervals
    assert 10 <= replaced <= 30


def test_a_share_is_a_share(speech):
    config = WaveAugmentConfig(pause_share=0.3, pause_s=(1.0, 10.0))
    plans = [plan_augmentation(16000, None, config, seed=seed, sample_rate=16000) for seed in range(500)]
    pauses = [plan.pause for plan in plans if plan.pause]
    assert 0.23 < len(pauses) / len(plans) < 0.37
    assert min(pauses) >= 16000 and max(pauses) <= 160000
    assert np.median(pauses) == pytest.approx(16000 * np.sqrt(10), rel=0.25)


@pytest.mark.parametrize("pauses", [0.0, 0.3])
@pytest.mark.parametrize("sharded", [False, True])
def test_batches_are_capped_by_the_length_after_augmentation(tone_corpus, tmp_path, sharded, pauses):
    path = tone_corpus / "train.jsonl.gz"
    cuts = {cut.id for cut in read_cuts(path)}
    if sharded:
        write_shards(path, tmp_path / "shards", size=24)
        path = tmp_path / "shards"
    config = WaveAugmentConfig(speeds=(0.9, 1.1), pause_share=pauses, pause_s=(0.5, 3.0))
    batches = Batches(load_cuts(path, GEOMETRY), PHONES, GEOMETRY, batch_seconds=6.0, shuffle=True, wave_augment=config)
    for epoch in range(3):
        made = list(batches.epoch(epoch))
        assert all(len(b.ids) == 1 or b.waveforms.numel() <= 6 * 16000 for b in made)
        assert sorted(name for b in made for name in b.ids) == sorted(cuts) and any(len(b.ids) > 1 for b in made)
        if not sharded:  # whose batches hold what happens to be read together
            assert sum(int(b.lengths.sum()) for b in made) > 0.8 * sum(b.waveforms.numel() for b in made)


@pytest.mark.parametrize(
    "wrong", [(8000, 8000, "IY"), (-3000, 8000, "AA"), (9000, 8500, "IY"), (17000, 18000, "XX")], ids=str
)
@pytest.mark.parametrize("config", [WaveAugmentConfig(), EVERYTHING], ids=["plain", "augmented"])
def test_wrong_labels_are_refused_and_not_augmented_away(tone_corpus, tmp_path, wrong, config):
    cut = next(iter(read_cuts(tone_corpus / "dev.jsonl.gz")))
    intervals = [Interval(0, 8000, "AA"), Interval(*wrong)]
    cut.supervisions[0].alignment["phone"] = alignment_items(intervals)
    cuts = CutSet.from_cuts([cut])
    batches = Batches(cuts, PHONES, GEOMETRY, batch_seconds=9.0, shuffle=False, wave_augment=config)
    with pytest.raises(ValueError, match=f"cut {cut.id}"):
        list(batches.epoch())


def test_a_pause_does_not_split_a_closure():
    """Nor does one go into a stop whose closure the 39 classes count as silence."""
    timit = PhoneSet.load("timit39")
    utterances = Utterances(timit, GEOMETRY, 0, PAUSES, False, False)
    intervals = [Interval(0, 100, "h#"), Interval(100, 200, "tcl"), Interval(200, 300, "t"), Interval(300, 400, "pau")]
    assert utterances._silences(intervals) == {"h#", "pau"}


@given(st.integers(400, 3_000_000), st.sampled_from([0.9, 0.97, 1.0, 1.1, 1.25]))
@settings(max_examples=10, deadline=None)
def test_the_length_of_an_utterance_at_another_speed_is_known_beforehand(length, speed):
    waveform = np.zeros(length, dtype=np.float32)
    assert len(augmented(waveform, [], WaveAugmentConfig(speeds=(speed,)))[0]) > 0  # which compares them


def test_batches_draw_anew_in_every_epoch_and_for_every_utterance(tone_corpus):
    def lengths(epoch, **options):
        batches = Batches(
            load_cuts(tone_corpus / "train.jsonl.gz", GEOMETRY), PHONES, GEOMETRY,
            batch_seconds=4.0, shuffle=False, **options,
        )  # fmt: skip
        return {name: int(n) for b in batches.epoch(epoch) for name, n in zip(b.ids, b.lengths, strict=True)}

    speeds = {"wave_augment": WaveAugmentConfig(speeds=(0.9, 1.0, 1.1))}
    plain, first, second = lengths(0), lengths(0, **speeds), lengths(1, **speeds)
    ratios = {round(plain[name] / first[name], 1) for name in plain}
    assert ratios == {0.9, 1.0, 1.1}
    assert first != second and first == lengths(0, **speeds, num_workers=1)


def test_augmented_batches_keep_labels_on_their_tones(tone_corpus):
    """Each phone is a tone of its own: the label of a frame is told by its spectrum."""
    batches = Batches(
        load_cuts(tone_corpus / "train.jsonl.gz", GEOMETRY), PHONES, GEOMETRY,
        batch_seconds=10.0, shuffle=True, wave_augment=EVERYTHING,
    )  # fmt: skip
    tones = {"AA": 300.0, "IY": 700.0, "S": 3000.0}
    right = total = 0
    for batch in batches.epoch(2):
        for row, length in enumerate(batch.lengths.tolist()):
            frames = batch.waveforms[row, :length].unfold(0, 400, 160)
            peaks = (torch.fft.rfft(frames * torch.hann_window(400)).abs()[:, 4:].argmax(dim=1) + 4) * 40.0
            for peak, label in zip(peaks.tolist(), batch.labels[row].tolist(), strict=False):
                if label != IGNORED and (symbol := PHONES.symbols[label]) in tones:
                    nearest = min(tones, key=lambda name: abs(np.log(peak / tones[name])))
                    right, total = right + (nearest == symbol), total + 1
    assert total > 1000 and right / total > 0.9


@pytest.mark.parametrize(
    "field, value",
    [
        ("speeds", ()),
        ("speeds", (3.0,)),
        ("edge_silence_s", -1.0),
        ("snr_db", (20.0, 10.0)),
        ("snr_db", (1.0,)),
        ("gain_db", -1.0),
        ("pause_share", 1.5),
        ("noise_share", -0.1),
        ("pause_s", (3.0, 2.0)),
        ("pause_s", (0.0, 2.0)),
    ],
)
def test_settings_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=rf"wave_augment\.{field}"):
        WaveAugmentConfig(**{field: value})

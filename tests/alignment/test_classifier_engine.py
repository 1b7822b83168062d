"""A model as aligner: corrects labels that were jittered, and its labels are kept out of scores."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechattn.alignment.aligner import Utterance, align_each
from speechattn.alignment.classifier_engine import (
    ClassifierEngine,
    Statistics,
    _align,
    _log_normal,
    align_posteriors,
    statistics_of,
)
from speechattn.alignment.cuts import aligned_cut
from speechattn.commands import main as cli
from speechattn.cuts.files import phone_intervals, read_cuts, save_cuts, utterance_cut
from speechattn.evaluation.evaluate import evaluate
from speechattn.frontend import FrontendConfig
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig
from speechattn.training.run import DataConfig, OptimConfig, TrainConfig, train

LEXICON = "aa AA\niy IY\nboth AA IY\nboth(2) IY AA\ns S\n"
FLAT = np.zeros((41, 1))  # any duration alike


def jittered(intervals, generator):
    """The same phones with boundaries up to 35 ms off."""
    bounds = [i.end + int(generator.integers(-560, 561)) for i in intervals[:-1]]
    starts, ends = [0, *bounds], [*bounds, intervals[-1].end]
    return [Interval(start, end, i.symbol) for start, end, i in zip(starts, ends, intervals, strict=True)]


@pytest.fixture(scope="module")
def realigned(tone_corpus, tmp_path_factory):
    """Folder with jittered.jsonl.gz, a model trained on it, and realigned.jsonl.gz, by that model."""
    from lhotse.utils import fastcopy

    folder, generator = tmp_path_factory.mktemp("realigned"), np.random.default_rng(0)
    cuts = []
    for cut in read_cuts(tone_corpus / "train.jsonl.gz"):
        intervals = phone_intervals(cut)
        text = " ".join(i.symbol.lower() for i in intervals if i.symbol != "SIL")
        cut = aligned_cut(cut, jittered(intervals, generator))
        cuts.append(fastcopy(cut, supervisions=[fastcopy(cut.supervisions[0], text=text)]))
    save_cuts(folder / "jittered.jsonl.gz", cuts)
    (folder / "lexicon.dict").write_text(LEXICON)
    config = TrainConfig(
        output=str(folder / "model"),
        data=DataConfig(str(folder / "jittered.jsonl.gz"), str(tone_corpus / "dev.jsonl.gz"), 10, num_workers=0),
        model=ClassifierConfig(kind="linear", frontend=FrontendConfig(delta_order=0)),
        optim=OptimConfig(epochs=8, learning_rate=0.05, average=0.0),
    )
    train(config)
    arguments = ["--cuts", "jittered.jsonl.gz", "--output", "realigned.jsonl.gz", "--lexicon", "lexicon.dict"]
    paths = [a if a.startswith("--") else str(folder / a) for a in [*arguments, "--model", "model"]]
    cli.main(["align", *paths, "--num-jobs", "1"])
    return folder


def agreement(reference, cuts):
    """The share of frames whose labels are those of the reference, over the cuts that there are."""
    ids = {"SIL": 0, "AA": 1, "IY": 2, "S": 3}
    truth = {cut.id: frame_labels(phone_intervals(cut), cut.num_samples, ids) for cut in reference}
    pairs = [(truth[cut.id], frame_labels(phone_intervals(cut), cut.num_samples, ids)) for cut in cuts]
    return np.mean(np.concatenate([expected == found for expected, found in pairs]))


def test_realigned_labels_are_nearer_to_the_truth(tone_corpus, realigned):
    truth = read_cuts(tone_corpus / "train.jsonl.gz")
    before = read_cuts(realigned / "jittered.jsonl.gz")
    after = read_cuts(realigned / "realigned.jsonl.gz")
    assert len(after) >= 20
    assert agreement(truth, before) < 0.94
    assert agreement(truth, after) > 0.97  # what is left is the transition, where a frame hears both tones


def test_realigned_cuts_are_complete_and_name_their_aligner(realigned):
    for cut in read_cuts(realigned / "realigned.jsonl.gz"):
        intervals = phone_intervals(cut)
        assert (intervals[0].start, intervals[-1].end) == (0, cut.num_samples)
        assert all((interval.start - 120) % 160 == 0 for interval in intervals[1:])
        spoken = " ".join(i.symbol.lower() for i in intervals if i.symbol != "SIL")
        assert spoken == cut.supervisions[0].text
        assert cut.supervisions[0].custom == {"aligner": "model"}


def test_realigned_labels_are_trained_on_and_never_scored(realigned, tone_corpus, tmp_path):
    model, cuts = FrameClassifier.from_pretrained(realigned / "model"), realigned / "realigned.jsonl.gz"
    with pytest.raises(ValueError, match=r"realigned\.jsonl\.gz: the phones of cut train-\d+ were placed by a model"):
        evaluate(model, cuts)

    def one_epoch(dev):
        data = DataConfig(str(cuts), str(dev), 30, num_workers=0)
        shape = ClassifierConfig(kind="linear", frontend=FrontendConfig(delta_order=0))
        train(TrainConfig(str(tmp_path / "model"), data=data, model=shape, optim=OptimConfig(epochs=1)))

    with pytest.raises(ValueError, match="were placed by a model"):
        one_epoch(cuts)
    one_epoch(tone_corpus / "dev.jsonl.gz")
    # Labels that another aligner makes of these cuts may be scored again.
    again = aligned_cut(read_cuts(cuts)[0], [Interval(0, 160, "SIL")])
    assert again.supervisions[0].custom is None


def test_statistics_are_those_of_the_training_cuts(realigned):
    model = FrameClassifier.from_pretrained(realigned / "model")
    cuts = list(read_cuts(realigned / "jittered.jsonl.gz"))
    statistics = statistics_of(model, cuts)
    frames = [row for cut in cuts for row in model.posteriors(model.samples(cut.recording.sources[0].source))]
    np.testing.assert_allclose(statistics.prior, np.mean(np.array(frames, dtype=np.float64), axis=0), rtol=1e-9)
    logs = [[] for _ in range(41)]
    for cut in cuts:
        for start, end, symbol in phone_intervals(cut):
            if symbol != "SIL":
                logs[model.phones.symbols.index(symbol)].append(math.log((end - start) / 160))
    np.testing.assert_allclose(statistics.durations, _log_normal(logs), atol=1e-9)


def test_training_cuts_below_one_frame_are_skipped(realigned, tmp_path):
    model = FrameClassifier.from_pretrained(realigned / "model")
    cuts = list(read_cuts(realigned / "jittered.jsonl.gz"))[:2]
    soundfile.write(tmp_path / "short.wav", np.zeros(300), 16000)
    short = utterance_cut(
        "short", tmp_path / "short.wav", speaker="s", text="aa", intervals=[Interval(0, 300, "AA")]
    )  # fmt: skip
    np.testing.assert_array_equal(statistics_of(model, [*cuts, short]).prior, statistics_of(model, cuts).prior)
    with pytest.raises(ValueError, match="no training cut has a frame"):
        statistics_of(model, [short])


def test_durations_are_log_normal_and_a_rare_phone_is_average():
    generator = np.random.default_rng(0)
    logs = [generator.normal(2.5, 0.5, 20_000).tolist(), generator.normal(1.5, 0.5, 20_000).tolist(), []]
    durations = np.exp(_log_normal(logs))
    np.testing.assert_allclose(durations.sum(axis=1), 1)
    for row, mean in zip(durations, (2.5, 1.5), strict=False):
        weights = [math.exp(-(((math.log(n) - mean) / 0.5) ** 2) / 2) / n for n in range(1, 31)]
        np.testing.assert_allclose(row, np.array(weights) / sum(weights), atol=0.005)
    assert durations[2].argmax() not in (durations[0].argmax(), durations[1].argmax())
    # A phone seen once, at 100 ms, may have other durations.
    assert np.exp(_log_normal([[math.log(10)], logs[1]]))[0].max() < 0.2
    with pytest.raises(ValueError, match="no phones but silence"):
        _log_normal([[], []])


def posteriors_of(path, confidence=0.9):
    """(T, 41) posteriors that favour the given class in each frame."""
    return np.where(np.arange(41) == np.array(path)[:, None], confidence, (1 - confidence) / 40)


def test_the_path_follows_the_spoken_pronunciation_and_pauses():
    spoken = [0] * 4 + [5] * 3 + [6] * 5 + [0] * 3 + [6] * 4 + [5] * 2
    words = [[[6, 5], [5, 6]], [[6, 5], [5, 6]]]
    statistics = Statistics(np.full(41, 1 / 41), FLAT)
    units, classes, score = align_posteriors(posteriors_of(spoken), words, 0, statistics)
    assert classes.tolist() == spoken
    assert len(set(units)) == 6
    assert score == pytest.approx(math.log(0.9) + math.log(41) / 2, abs=1e-9)


def test_frequent_classes_are_discounted():
    """A model that predicts silence everywhere, and phone 5 a little more than usual in the middle."""
    posteriors = np.full((12, 41), 0.1 / 40)
    posteriors[:, 0], posteriors[4:8, 5], posteriors[[0, 1, 2, 3, 8, 9, 10, 11], 5] = 0.6, 0.3, 0.01
    prior = posteriors.mean(axis=0)
    _, classes, _ = align_posteriors(posteriors, [[[5]]], 0, Statistics(prior, FLAT))
    assert classes.tolist() == [0] * 4 + [5] * 4 + [0] * 4
    _, classes, _ = align_posteriors(posteriors, [[[5]]], 0, Statistics(np.full(41, 1 / 41), FLAT))
    assert (classes == 5).sum() == 1


def test_durations_decide_where_frames_do_not():
    posteriors = np.full((16, 41), 1 / 41)
    durations = np.full((41, 30), -9.0)
    durations[5, 11], durations[6, 3] = 0.0, 0.0  # twelve frames and four
    _, classes, _ = align_posteriors(posteriors, [[[5, 6]]], 0, Statistics(np.full(41, 1 / 41), durations))
    assert classes.tolist() == [5] * 12 + [6] * 4


@pytest.mark.parametrize("preset", ["kaldi", "librosa"])
def test_boundaries_lie_half_way_between_the_models_frames(preset):
    model = FrameClassifier(ClassifierConfig(kind="linear", frontend=FrontendConfig(preset=preset))).eval()
    geometry, ids = model.frontend.geometry, {s: n for n, s in enumerate(model.phones.symbols)}
    num_samples = 3200
    frames = geometry.num_frames(num_samples)
    path = [ids["S"]] * 5 + [ids["AA"]] * (frames - 5)
    model.posteriors = lambda samples: posteriors_of(path)
    model.samples = lambda audio, channel: np.zeros(num_samples, dtype=np.float32)
    statistics, lexicon = Statistics(np.full(41, 1 / 41), FLAT), {"x": [("S", "AA", "AA")]}
    alignment = _align(model, statistics, lexicon, Utterance("a", Path("a.wav"), "x"))
    assert alignment.phones == "S AA AA"
    centres = geometry.centres(num_samples)
    assert alignment.starts[0] == 0
    assert alignment.starts[1] == round((centres[4] + centres[5]) / 2 * 16000 / geometry.sample_rate)
    assert alignment.num_samples == round(num_samples * 16000 / geometry.sample_rate)


def test_an_utterance_that_cannot_be_aligned_has_a_reason(realigned):
    cuts = list(read_cuts(realigned / "jittered.jsonl.gz"))
    engine = ClassifierEngine.of(str(realigned / "model"), cuts[:2])
    audio = Path(cuts[0].recording.sources[0].source)
    utterances = [
        Utterance("unknown", audio, "aa zz"),
        Utterance("long", audio, "aa " * 5000),
        Utterance("missing", realigned / "none.wav", "aa"),
    ]
    unknown, long, missing = (alignment.reason for alignment in align_each(utterances, {"aa": [("AA",)]}, engine))
    assert unknown == "not in the lexicon: zz"
    assert long.endswith("frames for at least 5000 phones")
    assert "none.wav" in missing
    assert engine.identity != ClassifierEngine.of(str(realigned / "model"), cuts[:3]).identity


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ClassifierConfig(kind="linear", pooling="mean", symbols=("yes", "no")), "labels whole utterances"),
        (ClassifierConfig(kind="linear", phones="timit39"), "needs a model of ARPAbet phones"),
    ],
)
def test_models_that_cannot_align_are_refused(config, message, realigned, tmp_path):
    FrameClassifier(config).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        ClassifierEngine.of(str(tmp_path / "model"), list(read_cuts(realigned / "jittered.jsonl.gz")))

"""The synthetic corpus: its plan, its labels against its audio and against CMUdict, and that it repeats."""

import hashlib
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut

from speechattn.alignment import espeak_process
from speechattn.alignment.espeak import phones_by_mnemonic
from speechattn.alignment.espeak_process import Event, Request, synthesise
from speechattn.assets import asset_lines
from speechattn.corpora.espeak import Speaker, intervals_of, plan, prepare_espeak
from speechattn.cuts.files import phone_intervals
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

pytest.importorskip("espeakng_loader", reason="eSpeak NG is an optional extra")

ACCENTS = ("en-us", "en-us-nyc", "en", "en-gb-x-rp", "en-029", "en-gb-scotland")
FRICATIVES, VOWELS = {"S", "SH"}, {"AA", "AE", "AO", "EH", "IY", "AY", "OW"}


def small_plan() -> list[Speaker]:
    """A speaker a split, three sentences each; the test speaker has the accent that is nowhere else."""
    chosen = {"en-us+m1", "en-gb-x-rp+linda", "en-gb-scotland+rob"}
    return [speaker._replace(requests=speaker.requests[:3]) for speaker in plan() if speaker.voice in chosen]


def cuts_of(output: Path) -> list[MonoCut]:
    return [cut for split in ("train", "dev", "test") for cut in CutSet.from_file(output / f"{split}.jsonl.gz")]


def audio_of(cut: MonoCut) -> np.ndarray:
    samples, rate = soundfile.read(cut.recording.sources[0].source, dtype="int16")
    assert rate == 16000
    return samples.astype(float)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("espeak")
    prepare_espeak(folder / "audio", folder / "cuts", speakers=small_plan())
    return folder


# The plan


def test_speakers_and_sentences_occur_once():
    speakers = plan()
    voices = [speaker.voice for speaker in speakers]
    sentences = [request.text for speaker in speakers for request in speaker.requests]
    assert len(set(voices)) == len(voices) >= 40
    assert len(set(sentences)) == len(sentences) >= 900


def test_test_split_has_an_accent_and_two_variants_of_its_own():
    accents, variants = defaultdict(set), defaultdict(set)
    for speaker in plan():
        accent, variant = speaker.voice.split("+")
        accents[speaker.split].add(accent)
        variants[speaker.split].add(variant)
    assert accents["test"] - accents["train"] - accents["dev"] == {"en-gb-scotland"}
    assert variants["test"] - variants["train"] - variants["dev"] == {"belinda", "rob"}
    assert len(accents["train"]) >= 4 and len(variants["train"]) >= 8


def test_plan_repeats_and_depends_on_its_seed():
    assert plan() == plan()
    assert plan(1) != plan()


def test_every_slot_of_the_grammar_is_filled():
    texts = [request.text for speaker in plan() for request in speaker.requests]
    assert all(re.fullmatch(r"[A-Z][A-Za-z',]*( [A-Za-z',]+)+[.?]", text) for text in texts)


# Audio and labels


def test_cuts_are_labelled_without_gaps_in_known_phones(corpus: Path):
    known = set(PhoneSet.load("arpabet41").symbols)
    cuts = cuts_of(corpus / "cuts")
    assert len(cuts) == 9
    for cut in cuts:
        intervals = phone_intervals(cut)
        starts, ends, symbols = zip(*intervals, strict=True)
        assert starts == (0, *ends[:-1]) and ends[-1] == cut.recording.num_samples == len(audio_of(cut))
        assert min(np.subtract(ends, starts)) >= 160
        assert set(symbols) <= known - {"SPN"}
        assert symbols[0] == symbols[-1] == "SIL"


def test_labels_fit_the_sound(corpus: Path):
    loudness, crossings = defaultdict(list), defaultdict(list)
    for cut in cuts_of(corpus / "cuts"):
        samples = audio_of(cut)
        for start, end, symbol in phone_intervals(cut):
            inside = samples[start + 16 : end - 16]  # a millisecond off each end: the resampler rings
            loudness[symbol].append(np.sqrt(np.mean(inside**2)))
            crossings[symbol].append(np.mean(np.diff(np.signbit(inside))))
    loudest_vowel = max(np.median(loudness[vowel]) for vowel in VOWELS if vowel in loudness)
    assert loudest_vowel > 1000
    assert max(loudness["SIL"]) < 0.005 * loudest_vowel
    fricatives = [rate for phone in FRICATIVES for rate in crossings[phone]]
    vowels = [rate for phone in VOWELS for rate in crossings[phone]]
    assert min(len(fricatives), len(vowels)) >= 10
    assert np.median(fricatives) > 3 * np.median(vowels)
    assert np.mean(np.array(vowels) < np.min(fricatives)) > 0.9


def test_silence_is_a_small_share(corpus: Path):
    for split in ("train", "dev", "test"):
        silent = total = 0
        for cut in CutSet.from_file(corpus / "cuts" / f"{split}.jsonl.gz"):
            for start, end, symbol in phone_intervals(cut):
                total += end - start
                silent += (end - start) * (symbol == "SIL")
        assert 0.02 < silent / total < 0.2


def test_another_folder_and_another_number_of_jobs_give_the_same_bytes(corpus: Path, tmp_path: Path):
    prepare_espeak(tmp_path / "audio", tmp_path / "cuts", num_jobs=1, speakers=small_plan())

    def fingerprint(folder: Path) -> list[tuple]:
        return [
            (
                cut.id,
                cut.supervisions[0].text,
                hashlib.sha256(Path(cut.recording.sources[0].source).read_bytes()).hexdigest(),
                phone_intervals(cut),
            )
            for cut in cuts_of(folder / "cuts")
        ]

    assert fingerprint(tmp_path) == fingerprint(corpus)
    assert not list(tmp_path.rglob(".*"))  # nothing half-written stays


# Phonemes to phones


def test_closures_shared_events_and_pauses():
    # 0-99 silence, AA R 100-299, closure 300-349, K 350-399, l without length, gap 400-409, M, pause.
    samples = np.ones(700, np.int16)
    samples[[*range(100), *range(300, 350), *range(400, 410), *range(500, 700)]] = 0
    events = [Event(100, "'A@"), Event(350, "k"), Event(410, ",m"), Event(500, "_:")]
    assert intervals_of(samples, events, phones_by_mnemonic("en-us")) == [
        Interval(0, 100, "SIL"),
        Interval(100, 200, "AA"),
        Interval(200, 300, "R"),
        Interval(300, 410, "K"),
        Interval(410, 500, "M"),
        Interval(500, 700, "SIL"),
    ]


def test_l_without_sound_takes_half_of_its_vowel():
    samples = np.ones(400, np.int16)
    samples[200:250] = 0  # eSpeak: oU 0-200, l in the closure of d, d
    events = [Event(0, "oU"), Event(200, "l"), Event(250, "d")]
    assert intervals_of(samples, events, phones_by_mnemonic("en")) == [
        Interval(0, 100, "OW"),
        Interval(100, 200, "L"),
        Interval(200, 400, "D"),
    ]


def test_glide_belongs_to_its_vowel_and_linked_r_is_one_phone():
    samples = np.ones(600, np.int16)
    events = [
        Event(0, "i:"),
        Event(100, ";"),
        Event(150, "I"),
        Event(200, "o@"),
        Event(300, "r"),
        Event(400, "i"),
    ]
    assert intervals_of(samples, events, phones_by_mnemonic("en-us")) == [
        Interval(0, 150, "IY"),
        Interval(150, 200, "IH"),
        Interval(200, 250, "AO"),
        Interval(250, 400, "R"),
        Interval(400, 600, "IY"),
    ]


def test_unknown_phoneme_is_an_error():
    with pytest.raises(ValueError, match="'qq' is not in assets/espeak/mnemonics.tsv"):
        intervals_of(np.ones(10, np.int16), [Event(0, "'qq")], phones_by_mnemonic("en"))


@pytest.mark.parametrize("accent", ACCENTS)
def test_table_covers_every_word_of_the_grammar(accent: str):
    phones = phones_by_mnemonic(accent)
    assert {phone for row in phones.values() for phone in row} - {"+"} <= set(PhoneSet.load("arpabet41").symbols)
    lines = [" ".join(words) for words in vocabulary_lines()]
    for line, speech in zip(lines, synthesise(accent, [Request(line, 180, 50) for line in lines]), strict=True):
        intervals = intervals_of(np.asarray(speech.samples), speech.events, phones)
        assert len(intervals) > 2 * len(line.split())


def test_american_phones_agree_with_cmudict():
    pocketsphinx = pytest.importorskip("pocketsphinx")
    pronunciations = defaultdict(list)
    for line in Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text().splitlines():
        word, *symbols = line.split()
        pronunciations[word.split("(")[0]].append(symbols)
    words = sorted({word.lower() for words in vocabulary_lines() for word in words} & set(pronunciations))
    assert len(words) > 450
    phones = phones_by_mnemonic("en-us")
    num_phones = num_edits = 0
    for word, speech in zip(words, synthesise("en-us", [Request(w, 160, 50) for w in words]), strict=True):
        intervals = intervals_of(np.asarray(speech.samples), speech.events, phones)
        spoken = [interval.symbol for interval in intervals if interval.symbol != "SIL"]
        num_phones += len(spoken)
        num_edits += min(edit_distance(spoken, pronunciation) for pronunciation in pronunciations[word])
    assert num_edits / num_phones < 0.03


def vocabulary_lines() -> list[list[str]]:
    lines = [line.partition(": ") for line in asset_lines("espeak/grammar.txt")]
    return [words.replace("-", " ").split() for name, _, words in lines if name != "sentence"]


def edit_distance(left: list[str], right: list[str]) -> int:
    row = list(range(len(right) + 1))
    for number, symbol in enumerate(left, 1):
        row, previous = [number], row
        for column, other in enumerate(right, 1):
            row.append(min(previous[column] + 1, row[-1] + 1, previous[column - 1] + (symbol != other)))
    return row[-1]


# The process that speaks


def test_same_requests_give_the_same_speech():
    requests = [Request("The old bridge.", 160, 50), Request("The old bridge.", 200, 70)]
    first, again = synthesise("en-us+f1", requests), synthesise("en-us+f1", requests)
    assert first == again
    assert len(first[0].samples) > len(first[1].samples) > 10_000  # faster is shorter


@pytest.mark.parametrize("voice", ["en-gb", "tlh-x", "en-us+nobody"])
def test_missing_voice_is_an_error(voice: str):
    with pytest.raises(ValueError, match=re.escape(repr(voice))) as caught:
        synthesise(voice, [Request("Hello.", 160, 50)])
    assert "\n" not in str(caught.value)


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(espeak_process.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install espeakng-loader"):
        prepare_espeak(tmp_path / "audio", tmp_path / "cuts", speakers=small_plan())
    assert not list(tmp_path.rglob("*.flac")) and not (tmp_path / "cuts").exists()

"""How far aligners agree with labels by hand, every utterance counted: a Markdown table.

    python benchmarks/alignment_agreement.py REFERENCE CUTS [MODEL=TRAINING_CUTS ...]

REFERENCE is what `speechattn score` takes, such as the folder of the TIMIT sample; CUTS are its utterances with their
texts. There is no gate: an utterance that an aligner finds no alignment for is wrong in all of its frames. The first
aligner is PocketSphinx, the others are models of ARPAbet phones with the cuts that they were trained on; all have the
same words and pronunciations. Classes are the 39 of TIMIT, closures counted as their stops, `q` not scored. The last
columns are of the models' own decisions, without the words.
"""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from speechattn.alignment.aligner import Engine, Utterance
from speechattn.alignment.classifier_engine import ClassifierEngine
from speechattn.alignment.cuts import cut_utterance
from speechattn.alignment.lexicon import Lexicon, find_pronunciations
from speechattn.alignment.pocketsphinx_engine import PocketSphinxEngine
from speechattn.audio import SAMPLE_RATE
from speechattn.cuts.files import read_cuts
from speechattn.evaluation.agreement import frame_confusion
from speechattn.evaluation.metrics import frame_figures, percent
from speechattn.evaluation.scoring import read_phone_intervals
from speechattn.labels.folding import fold_intervals, merge_closures
from speechattn.labels.intervals import Interval
from speechattn.model.classifier import FrameClassifier
from speechattn.phones import PhoneSet

PHONES = PhoneSet.load("timit39")
POCKETSPHINX = "PocketSphinx"

Alignments = Mapping[str, Sequence[Interval]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", help="phones by hand")
    parser.add_argument("cuts", help="the same utterances with their texts")
    parser.add_argument("models", nargs="*", metavar="MODEL=TRAINING_CUTS", help="a model, and what it was trained on")
    args = parser.parse_args()

    utterances = [cut_utterance(cut) for cut in read_cuts(args.cuts)]
    lexicon, _ = find_pronunciations((utterance.text for utterance in utterances), None)
    by_hand = read_phone_intervals(args.reference)
    reference = {utterance.id: folded(by_hand[utterance.id]) for utterance in utterances}
    found = align(utterances, lexicon, PocketSphinxEngine())
    print(
        f"| aligner | all {len(reference)} | the {len(found)} of PocketSphinx | its own decisions | without silence |"
    )
    print("|---|--:|--:|--:|--:|")
    everything = {"all": reference, "aligned": {name: reference[name] for name in found}}
    print(row(POCKETSPHINX, everything, found, ["", ""]))
    for name, training_cuts in (model.rsplit("=", 1) for model in args.models):
        aligned = align(utterances, lexicon, ClassifierEngine.of(name, list(read_cuts(training_cuts))))
        heard = figures(reference, decide(utterances, FrameClassifier.from_pretrained(name)))
        own = [percent(heard[key]) for key in ("frame_accuracy", "frame_accuracy_no_silence")]
        print(row(name, everything, aligned, own))


def row(name: str, references: Mapping[str, Alignments], found: Alignments, own: Sequence[str]) -> str:
    """A line of the table."""
    agreement = [percent(figures(reference, found)["frame_accuracy"]) for reference in references.values()]
    return f"| {' | '.join([name, *agreement, *own])} |"


def align(utterances: Sequence[Utterance], lexicon: Lexicon, engine: Engine) -> dict[str, list[Interval]]:
    """The alignments of an engine, folded; those that it does not find are left out."""
    search, found = engine.start(lexicon), {}
    for utterance in utterances:
        try:
            found[utterance.id] = folded(search(utterance).intervals)
        except ValueError:  # which says why there is none
            continue
    return found


def decide(utterances: Sequence[Utterance], model: FrameClassifier) -> dict[str, list[Interval]]:
    """What a model makes of the audio alone, folded."""
    found = {}
    for utterance in utterances:
        segments = model.classify(utterance.audio, channel=utterance.channel)
        found[utterance.id] = folded(
            [Interval(round(s.start * SAMPLE_RATE), round(s.end * SAMPLE_RATE), s.phone) for s in segments]
        )
    return found


def folded(intervals: Sequence[Interval]) -> list[Interval]:
    """Phones of TIMIT or ARPAbet as the 39 classes, closures as stops."""
    return fold_intervals(merge_closures(intervals), PHONES)


def figures(reference: Alignments, found: Alignments) -> dict[str, float]:
    """What `frame_figures` gives; where nothing was found, all is wrong."""
    names = [*PHONES.symbols, ""]  # "": no label
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for utterance, intervals in reference.items():
        counts += frame_confusion(intervals, found.get(utterance, []), PHONES.symbols)
    return frame_figures(counts, names, PHONES.silences)


if __name__ == "__main__":
    main()

"""A small LibriSpeech on a mirror: synthetic speech in its layout, with TextGrids and CPC labels."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechattn.corpora.espeak import Speaker, plan, prepare_espeak
from speechattn.corpora.librispeech_labels import MFA_SHIFT
from speechattn.cuts.files import phone_intervals, read_cuts
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

# Subset -> LibriSpeech speaker -> eSpeak voice; each speaker has one chapter.
VOICES = {
    "train-clean-100": {"103": "en-us+m1", "1034": "en-us+f1", "19": "en-us+linda"},
    "dev-clean": {"84": "en-us+m8"},
    "test-clean": {"61": "en-us+steph"},
}
UTTERANCES_PER_SPEAKER = 4
CHAPTER = "1240"
RESOURCE = {"train-clean-5": 31, "dev-clean-2": 31}  # OpenSLR's numbers; 12 for the others
CPC_IDS = {symbol: (5 * number + 3) % 41 for number, symbol in enumerate(PhoneSet.load("arpabet41").symbols)}
MFA_SILENCES = ("sil", "sp", "")


class Made(NamedTuple):
    """A synthetic utterance."""

    id: str
    subset: str
    audio: Path
    text: str
    num_samples: int
    intervals: list[Interval]

    @property
    def speaker(self) -> str:
        return self.id.split("-")[0]

    @property
    def cpc_labels(self) -> np.ndarray:
        return frame_labels(self.intervals, self.num_samples, CPC_IDS)


class MadeCorpus(NamedTuple):
    """A mirror of the servers, and the utterances in its archives."""

    mirror: Path
    utterances: list[Made]


def make_utterances(folder: Path) -> list[Made]:
    """Synthesise the utterances."""
    speaker_of = {voice: (subset, name) for subset, voices in VOICES.items() for name, voice in voices.items()}
    speakers = [
        Speaker(speaker.voice, speaker_of[speaker.voice][0].split("-")[0], speaker.requests[:UTTERANCES_PER_SPEAKER])
        for speaker in plan()
        if speaker.voice in speaker_of
    ]
    prepare_espeak(folder / "audio", folder / "cuts", speakers=speakers)
    utterances = []
    for split in ("train", "dev", "test"):
        for cut in read_cuts(folder / f"cuts/{split}.jsonl.gz"):
            supervision = cut.supervisions[0]
            subset, name = speaker_of[supervision.speaker]
            number = int(cut.id.rsplit("-", 1)[1])
            utterances.append(
                Made(
                    f"{name}-{CHAPTER}-{number:04d}", subset, Path(cut.recording.sources[0].source),
                    "".join(c for c in supervision.text.upper() if c.isalpha() or c in " '"), cut.num_samples,
                    phone_intervals(cut),
                )
            )  # fmt: skip
    return utterances


def textgrid(utterance: Made) -> str:
    """The tiers `words` and `phones` as the Montreal Forced Aligner writes them: 7.5 ms early, with stress."""
    phones = []
    for number, (start, end, symbol) in enumerate(utterance.intervals):
        name = MFA_SILENCES[number % 3] if symbol == "SIL" else symbol + ("1" if symbol[0] in "AEIOU" else "")
        times = (time - MFA_SHIFT if 0 < time < utterance.num_samples else time for time in (start, end))
        phones.append((*(time / 16000 for time in times), name))
    duration = utterance.num_samples / 16000
    tiers = {"words": [(0.0, duration, utterance.text.lower())], "phones": phones}
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {duration}",
        "tiers? <exists>", f"size = {len(tiers)}", "item []:",
    ]  # fmt: skip
    for number, (name, rows) in enumerate(tiers.items(), 1):
        lines += [
            f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"', "        xmin = 0",
            f"        xmax = {duration}", f"        intervals: size = {len(rows)}",
        ]  # fmt: skip
        for row, (start, end, label) in enumerate(rows, 1):
            lines += [f"        intervals [{row}]:", f"            xmin = {start}", f"            xmax = {end}"]
            lines += [f'            text = "{label}"']
    return "\n".join(lines) + "\n"


def make_mirror(mirror: Path, utterances: Sequence[Made]) -> None:
    """Write a mirror with every archive and its checksum."""
    by_subset = {subset: [u for u in utterances if u.subset == subset] for subset in VOICES}
    by_subset["train-clean-5"] = by_subset["train-clean-100"]
    by_subset["dev-clean-2"] = by_subset["dev-clean"] + by_subset["test-clean"]
    for subset, members in by_subset.items():
        _publish(mirror / f"openslr/{RESOURCE.get(subset, 12)}/{subset}.tar.gz", _tar(subset, members))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for utterance in utterances:
            folder = f"{utterance.subset}/{utterance.speaker}/{CHAPTER}"
            file.writestr(f"{folder}/{utterance.id}.TextGrid", textgrid(utterance))
    _publish(mirror / "zenodo/2619474/librispeech_alignments.zip", content.getvalue())

    train = by_subset["train-clean-100"]
    labels = "".join(f"{u.id} {' '.join(map(str, u.cpc_labels))}\n" for u in train)
    test_list = [u.id for u in train[::UTTERANCES_PER_SPEAKER]]  # one per speaker
    train_list = [u.id for u in train if u.id not in test_list]
    for name, text in (
        ("converted_aligned_phones.txt", labels),
        ("train_split.txt", "\n".join(train_list)),  # no newline at the end, as in the published ones
        ("test_split.txt", "\n".join(test_list)),
    ):
        _publish(mirror / f"s3prl/phone_linear/{name}", text.encode())


def _tar(subset: str, utterances: Sequence[Made]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as tar:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(f"LibriSpeech/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        speakers = sorted({utterance.speaker for utterance in utterances})
        add("LICENSE.TXT", b"CC BY 4.0\n")
        rows = "".join(f"{name} | M | {subset} | 1.0 | Somebody\n" for name in speakers)
        add("SPEAKERS.TXT", f"; ID | SEX | SUBSET | MINUTES | NAME\n{rows}".encode())
        for name in speakers:
            chapter = f"{subset}/{name}/{CHAPTER}"
            spoken = [utterance for utterance in utterances if utterance.speaker == name]
            add(f"{chapter}/{name}-{CHAPTER}.trans.txt", "".join(f"{u.id} {u.text}\n" for u in spoken).encode())
            for utterance in spoken:
                add(f"{chapter}/{utterance.id}.flac", utterance.audio.read_bytes())
    return content.getvalue()


def _publish(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    Path(f"{path}.md5").write_text(f"{hashlib.md5(content).hexdigest()}  {path.name}\n")

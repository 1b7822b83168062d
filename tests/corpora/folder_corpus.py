from pathlib import Path

import numpy as np
import soundfile
from prepared import read_splits

from speechattn.corpora.folder import FolderOptions, prepare_folder
from speechattn.labels.files import write_csv, write_ctm, write_json, write_textgrid
from speechattn.labels.intervals import Interval, Segment

SPEAKERS = ("anna", "ben", "çem")


RATE = 16000


# In samples at 16 kHz, of 1 s; there is a gap before the last one.
TRACK = [Interval(0, 3000, "SIL"), Interval(3000, 7001, "ɪ̃"), Interval(7001, 12000, "t"), Interval(12800, 16000, "SIL")]


def sound(path: Path, rate: int = RATE, seconds: float = 1.0, channels: int = 1) -> Path:
    """A ramp: the value of sample t says t, for either channel another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 0.5, round(rate * seconds))
    soundfile.write(path, np.stack([ramp / (1 + number) for number in range(channels)], axis=1), rate)
    return path


def segments(track=TRACK):
    return [Segment(symbol, start / RATE, end / RATE) for start, end, symbol in track]


def write_alignment(path: Path, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".TextGrid", ".ctm", ".json", ".csv"):
        {".TextGrid": write_textgrid, ".ctm": write_ctm, ".json": write_json, ".csv": write_csv}[path.suffix](
            path, segments()
        )
        return
    unit = {".phn": rate, ".lab": 10_000_000, ".txt": 1}[path.suffix]
    rows = [(start * unit / RATE, end * unit / RATE, symbol) for start, end, symbol in TRACK]
    if path.suffix == ".txt":
        text = "".join(f"{start:.7f}\t{end:.7f}\t{symbol}\n" for start, end, symbol in rows)
    else:
        text = "".join(f"{round(start)} {round(end)} {symbol}\n" for start, end, symbol in rows)
    path.write_text(text)


def corpus(root: Path, suffix: str = ".TextGrid", audio: str = ".wav", rate: int = RATE) -> Path:
    """Three speakers with two utterances each, phones beside the audio."""
    for speaker in SPEAKERS:
        for number in (1, 2):
            sound(root / speaker / f"u{number}{audio}", rate)
            write_alignment(root / speaker / f"u{number}{suffix}", rate)
    return root


def prepare(root: Path, output: Path, **options) -> dict:
    """Prepare, and every cut by its id."""
    prepare_folder(root, output, options=FolderOptions(**options))
    return {cut.id: cut for cuts in read_splits(output).values() for cut in cuts}


def rejected(output: Path) -> dict[str, str]:
    lines = (output / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)

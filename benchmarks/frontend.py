"""Speed and memory of the frontend beside those of other libraries, on the same real audio in one run.

    python benchmarks/frontend.py FILE.wav ... --output FOLDER [--threads 1 2] [--repeats 9]

Everybody computes 13 MFCCs from windows of 400 samples, hops of 160, an FFT of 512 and 23 mel filters, and keeps its
own defaults otherwise; samples come in each library's own scale and container, prepared outside the time. Each number
of threads has fresh processes with OMP_NUM_THREADS and the like set, because some libraries read these only once.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import kaldi_native_fbank
import librosa
import numpy as np
import python_speech_features
import soundfile
import torch
import torchaudio
from harness import Job, circumstances, cpu_name, in_process, milliseconds, peak_of, take_turns
from numpy.typing import NDArray

from speechattn.audio import SAMPLE_RATE, load_audio
from speechattn.frontend import Mfcc

WINDOW, HOP, N_FFT, NUM_MELS, NUM_CEPS = 400, 160, 512, 23, 13
INT16_SCALE = np.float32(32768)
MINUTE = 60 * SAMPLE_RATE
CHUNK = SAMPLE_RATE // 10
PACKAGES = ("torch", "torchaudio", "librosa", "kaldi-native-fbank", "python_speech_features", "numpy", "soundfile")

Waveforms = NDArray[np.float32]  # (B, N) in [-1, 1]

# -------------------------------------------------------- the contenders: waveforms -> a job, ready to be timed


def speechattn(waveforms: Waveforms, delta_order: int, normalisation: str) -> Job:
    """This frontend."""
    mfcc = Mfcc(preset="kaldi", delta_order=delta_order, normalisation=normalisation)
    batch = torch.from_numpy(waveforms)
    return lambda: mfcc(batch)


def torchaudio_transforms(waveforms: Waveforms, by_rows: bool = False) -> Job:
    """The transform that torchaudio's users call; row by row it can be faster than on the whole batch."""
    spectrum = {"n_fft": N_FFT, "win_length": WINDOW, "hop_length": HOP, "n_mels": NUM_MELS}
    mfcc = torchaudio.transforms.MFCC(SAMPLE_RATE, NUM_CEPS, melkwargs=spectrum)
    batch = torch.from_numpy(waveforms)
    return (lambda: [mfcc(row) for row in batch]) if by_rows else (lambda: mfcc(batch))


def torchaudio_compliance(waveforms: Waveforms) -> Job:
    """Kaldi's MFCC in torchaudio; its defaults are the settings here. One utterance at a time is all it takes."""
    batch = torch.from_numpy(INT16_SCALE * waveforms)
    return lambda: [torchaudio.compliance.kaldi.mfcc(row[None], dither=0.0) for row in batch]


def librosa_mfcc(waveforms: Waveforms) -> Job:
    """MFCC of librosa, which takes a batch."""
    return lambda: librosa.feature.mfcc(
        y=waveforms, sr=SAMPLE_RATE, n_mfcc=NUM_CEPS, n_fft=N_FFT, win_length=WINDOW, hop_length=HOP, n_mels=NUM_MELS
    )


def kaldi_native(waveforms: Waveforms) -> Job:
    """Kaldi's C++; a memoryview is the quickest thing it accepts samples from (a list or an array takes 1.4 times)."""
    batch = INT16_SCALE * waveforms

    def one(row: NDArray[np.float32]) -> NDArray[np.float32]:
        mfcc = kaldi_native_fbank.OnlineMfcc(_kaldi_options())
        mfcc.accept_waveform(SAMPLE_RATE, memoryview(row))
        mfcc.input_finished()
        return np.array([mfcc.get_frame(t) for t in range(mfcc.num_frames_ready)])

    return lambda: [one(row) for row in batch]


def _kaldi_options() -> kaldi_native_fbank.MfccOptions:
    options = kaldi_native_fbank.MfccOptions(use_energy=False)
    options.frame_opts.dither = 0.0
    return options


def psf(waveforms: Waveforms) -> Job:
    """MFCC of python_speech_features, one utterance at a time."""
    batch = INT16_SCALE * waveforms
    return lambda: [python_speech_features.mfcc(row, SAMPLE_RATE, nfilt=NUM_MELS, nfft=N_FFT) for row in batch]


def bare_fft(waveforms: Waveforms) -> Job:
    """The floor: nothing but the real FFT of the same frames, in blocks through one reused, zero-padded buffer."""
    block = 1024
    frames = torch.from_numpy(waveforms).unfold(1, WINDOW, HOP)
    buffer = torch.zeros(block, N_FFT)
    spectrum = torch.empty(block, N_FFT // 2 + 1, dtype=torch.complex64)

    def transform() -> None:
        for row in frames:
            for part in row.split(block):
                buffer[: len(part), :WINDOW] = part
                torch.fft.rfft(buffer[: len(part)], out=spectrum[: len(part)])

    return transform


def stream_speechattn(waveforms: Waveforms, delta_order: int) -> Job:
    """This frontend fed in chunks."""
    mfcc, chunks = Mfcc(preset="kaldi", delta_order=delta_order), _chunks(torch.from_numpy(waveforms[0]))

    def run() -> None:
        stream = mfcc.stream()
        for chunk in chunks:
            stream.push(chunk)
        stream.flush()

    return run


def stream_kaldi_native(waveforms: Waveforms) -> Job:
    """Kaldi's C++ fed in chunks; frames are fetched as they become ready."""
    chunks = _chunks(INT16_SCALE * waveforms[0])

    def run() -> None:
        mfcc, done = kaldi_native_fbank.OnlineMfcc(_kaldi_options()), 0
        for chunk in chunks:
            mfcc.accept_waveform(SAMPLE_RATE, memoryview(chunk))
            np.array([mfcc.get_frame(t) for t in range(done, mfcc.num_frames_ready)])
            done = mfcc.num_frames_ready
        mfcc.input_finished()

    return run


def _chunks(samples: Any) -> list[Any]:
    return [samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK)]


OURS, OURS_39, FLOOR = "speechattn", "speechattn, 39 dimensions", "bare torch.fft.rfft"
TRANSFORMS, ROWS, COMPLIANCE = "torchaudio.transforms", "torchaudio.transforms, rows", "torchaudio.compliance.kaldi"
LIBROSA, NATIVE, PSF = "librosa", "kaldi-native-fbank", "python_speech_features"
OFFLINE = {
    OURS: partial(speechattn, delta_order=0, normalisation="none"),
    OURS_39: partial(speechattn, delta_order=2, normalisation="utterance"),
    TRANSFORMS: torchaudio_transforms,
    LIBROSA: librosa_mfcc,
    COMPLIANCE: torchaudio_compliance,
    NATIVE: kaldi_native,
    PSF: psf,
    FLOOR: bare_fft,
}
BATCH = OFFLINE | {ROWS: partial(torchaudio_transforms, by_rows=True)}
STREAM = {
    OURS: partial(stream_speechattn, delta_order=0),
    OURS_39: partial(stream_speechattn, delta_order=2),
    NATIVE: stream_kaldi_native,
}
COLOURS = {OURS: "#d1495b", OURS_39: "#d1495b", FLOOR: "#bbbbbb"}


# ------------------------------------------------------------------------------------------------- measurement


def main() -> None:
    """Measure, print the tables, write the JSON and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE.wav", help="real audio; other rates are resampled to 16 kHz")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for frontend_speed.json and .png")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (default: 1 2)")
    parser.add_argument("--repeats", type=int, default=9, help="of each, a third of it for the hour (default: 9)")
    args = parser.parse_args()

    audio = np.concatenate([load_audio(file) for file in args.files])
    results = [run for threads in args.threads for run in measure(audio, threads, args.repeats)]
    report = {
        **circumstances(PACKAGES),
        "repeats": args.repeats,
        "results": [asdict(run) for run in results],
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "frontend_speed.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for run in results:
        print(table(run), end="\n\n")
    first = [run for run in results if run.threads == args.threads[0]]
    print(targets(first))
    draw(first, cpu_name(), args.output / "frontend_speed.png")


@dataclass(frozen=True)
class Run:
    """One workload at one number of threads; medians by contender, and for the hour peak memory above the waveform."""

    workload: str
    audio_s: float
    threads: int
    milliseconds: dict[str, float]
    peak_mb: dict[str, float]

    @property
    def title(self) -> str:
        """Such as "60 s, 1 thread"."""
        return f"{self.workload}, {self.threads} thread{'s' * (self.threads > 1)}"


def measure(audio: NDArray[np.float32], threads: int, repeats: int) -> list[Run]:
    """All workloads at one number of threads, each in a fresh process."""
    minute, batch = np.resize(audio, (1, MINUTE)), np.resize(audio, (32, 10 * SAMPLE_RATE))
    runs = [
        Run(name, waveforms.size / SAMPLE_RATE, threads, in_process(threads, medians, jobs, waveforms, repeats), {})
        for name, jobs, waveforms in [
            ("60 s", OFFLINE, minute),
            ("32 x 10 s", BATCH, batch),
            ("stream", STREAM, minute),
        ]
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.wav"
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, channels=1, subtype="PCM_16") as file:
            for _ in range(60):
                file.write(minute[0])
        hours = {name: in_process(threads, hour, build, path, max(1, repeats // 3)) for name, build in OFFLINE.items()}
    times, peaks = ({name: figures[i] for name, figures in hours.items()} for i in (0, 1))
    return [*runs, Run("1 h from a file", 3600.0, threads, times, peaks)]


def medians(builders: dict[str, Callable[[Waveforms], Job]], waveforms: Waveforms, repeats: int) -> dict[str, float]:
    """Median milliseconds of each contender."""
    jobs = {name: build(waveforms) for name, build in builders.items()}
    return take_turns(jobs, repeats)


def hour(build: Callable[[Waveforms], Job], path: Path, repeats: int) -> tuple[float, float]:
    """Median milliseconds for a long file, and the peak of memory in MB above what there was with it loaded."""
    samples, _ = soundfile.read(path, dtype="float32")
    build(samples[None, :SAMPLE_RATE])()  # what libraries load at their first call
    job = build(samples[None])
    peak, _ = peak_of(job)
    return statistics.median(milliseconds(job) for _ in range(repeats)), peak / 1e6


# ------------------------------------------------------------------------------------------------ presentation


def table(run: Run) -> str:
    """One workload as text, fastest first; the factors say how many times as long as ours, and as the bare FFT."""
    lines = [run.title, f"{'':30}{'ms':>10}{'x ours':>9}{'x floor':>9}{'x real time':>13}{'peak MB':>9}"]
    for name, ms in sorted(run.milliseconds.items(), key=lambda item: item[1]):
        floor = f"{ms / run.milliseconds[FLOOR]:.2f}" if FLOOR in run.milliseconds else ""
        peak = f"{run.peak_mb[name]:.0f}" if name in run.peak_mb else ""
        speed = 1e3 * run.audio_s / ms
        lines.append(f"{name:30}{ms:10.1f}{ms / run.milliseconds[OURS]:9.2f}{floor:>9}{speed:13.0f}{peak:>9}")
    return "\n".join(lines)


def targets(results: Sequence[Run]) -> str:
    """One line for each figure that has a target."""
    lines = [f"{'figure':82}{'measured':>10}{'target':>10}"]
    for run in results:
        ms = run.milliseconds
        rows: list[tuple[str, float, str]] = []
        if run.workload == "stream":
            rows = [(f"times real time, {name}", 1e3 * run.audio_s / ms[name], ">= 300") for name in (OURS, OURS_39)]
        elif run.peak_mb:
            rows = [(f"peak MB above the waveform, {name}", run.peak_mb[name], "< 300") for name in (OURS, OURS_39)]
        else:
            fastest = min(ms[name] for name in (TRANSFORMS, ROWS, LIBROSA) if name in ms)
            rows = [
                ("speed over the faster of torchaudio.transforms, librosa", fastest / ms[OURS], ">= 3.5"),
                ("speed over torchaudio.compliance.kaldi", ms[COMPLIANCE] / ms[OURS], ">= 8"),
                ("time over the bare FFT", ms[OURS] / ms[FLOOR], "<= 4"),
                ("time of 39 dimensions with CMVN over 13", ms[OURS_39] / ms[OURS], "<= 1.5"),
            ]
        lines += [f"{f'{run.title}: {text}':82}{figure:10.2f}{target:>10}" for text, figure, target in rows]
    return "\n".join(lines)


def draw(results: Sequence[Run], cpu: str, path: Path) -> None:
    """Bars for one minute and for the batch: milliseconds, and how many times as long as ours."""
    from matplotlib.figure import Figure

    runs = [run for run in results if run.workload in ("60 s", "32 x 10 s")]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, run in zip(figure.subplots(1, len(runs)), runs, strict=True):
        names = sorted(run.milliseconds, key=lambda name: run.milliseconds[name], reverse=True)
        times = [run.milliseconds[name] for name in names]
        colours = [COLOURS.get(name, "#30638e") for name in names]
        labels = [f"{ms:.3g} ms, {ms / run.milliseconds[OURS]:.1f} x" for ms in times]
        axes.bar_label(axes.barh(names, times, color=colours), labels, padding=4, fontsize=9)
        axes.set_title(f"MFCCs of {run.title}", fontsize=10)
        axes.set_xlim(0, 1.35 * max(times))
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.supxlabel(f"milliseconds, and how many times as long as {OURS} takes; {cpu}", fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

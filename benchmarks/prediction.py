"""What somebody waits for who wants the phones of a recording: the start, an hour, many files, live speech.

    python benchmarks/prediction.py --audio FILE [FILE ...] --output FOLDER [--model MODEL] [--threads 2] [--repeats 3]
    python benchmarks/prediction.py --audio FILE [FILE ...] --against COMMIT --model FOLDER [--threads 2] [--repeats 3]

Speech of the files is strung together to the lengths that are measured. The peer is PocketSphinx's own decoder
of phones ("allphone"), with the acoustic model and the phones' trigrams that come with it. With `--against`, an older
commit and this one take turns; the folder must hold a model that both can read, with a limited look-ahead.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from harness import circumstances, compare_trees, in_process, milliseconds, python_in, take_turns

from speechattn.audio import SAMPLE_RATE, load_audio
from speechattn.model.classifier import FrameClassifier
from speechattn.prediction.live import LiveSegments

START_S, PEER_S, HOUR_S, MANY, EACH_S = 10, 60, 3600, 60, 30
PIECES = (160, 800, 1600, 16000)  # samples: 10 ms to 1 s
# The command in a process of its own, which tells the most memory that it held, in kB, on standard error; Linux says
# it of the process alone, while getrusage may say that of the one that started it.
COMMAND = """
import re, sys
from speechattn.commands.main import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write("peak " + re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1] + "\\n")
"""


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audio", type=Path, nargs="+", required=True, help="recordings of speech")
    parser.add_argument("--output", type=Path, help="folder for prediction_speed.json")
    parser.add_argument("--against", type=str, help="an older commit, to compare with")
    parser.add_argument("--model", type=str, default="english-small", help="default: english-small")
    parser.add_argument("--threads", type=int, default=2, help="number of threads (default: 2)")
    parser.add_argument("--repeats", type=int, default=3, help="of each (default: 3)")
    args = parser.parse_args()
    if (args.against is None) == (args.output is None):
        parser.error("either --output or --against is needed")
    speech = np.concatenate([load_audio(path) for path in args.audio])
    if args.against is not None:
        model = str(Path(args.model).resolve())
        with tempfile.TemporaryDirectory() as folder:
            for name, seconds in (("hour", HOUR_S), ("minute", PEER_S)):
                soundfile.write(Path(folder) / f"{name}.wav", of_length(speech, seconds), SAMPLE_RATE)
            measure = partial(predicted, folder=Path(folder), model=model, threads=args.threads)
            print(compare_trees(args.against, measure, args.repeats))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "start": start(Path(folder), speech, args.model, args.threads, args.repeats),
            "hour": hour(Path(folder), speech, args.model, args.threads),
            "many": many(Path(folder), speech, args.model, args.threads),
            "one_thread": in_process(1, one_thread, of_length(speech, PEER_S), args.model, args.repeats),
        }
    report = {
        **circumstances(["torch", "pocketsphinx"]),
        "model": args.model,
        "threads": args.threads,
        "repeats": args.repeats,
        **figures,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "prediction_speed.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(table(figures))


def of_length(speech: np.ndarray, seconds: int) -> np.ndarray:
    """(seconds * rate,) of the speech, over and over."""
    return np.resize(speech, seconds * SAMPLE_RATE)


def start(folder: Path, speech: np.ndarray, model: str, threads: int, repeats: int) -> dict[str, float]:
    """Seconds from calling the command to its end for a short file, and of importing PyTorch alone."""
    path = folder / "short.wav"
    soundfile.write(path, of_length(speech, START_S), SAMPLE_RATE)
    jobs = {
        "predict": lambda: run([*PREDICT, str(path), "--model", model], threads),
        "import": lambda: run([sys.executable, "-c", "import torch, torchaudio"], threads),
    }
    return {name: ms / 1e3 for name, ms in take_turns(jobs, repeats).items()}


def hour(folder: Path, speech: np.ndarray, model: str, threads: int) -> dict[str, dict[str, float]]:
    """One file of an hour, decided by frame and smoothed: times real time, and the process's peak of memory in MB."""
    path = folder / "hour.wav"
    soundfile.write(path, of_length(speech, HOUR_S), SAMPLE_RATE)
    return {
        name: times_real_time([str(path), "--model", model, *options], HOUR_S, folder / name, threads)
        for name, options in {"raw": [], "smooth": ["--smooth"]}.items()
    }


def many(folder: Path, speech: np.ndarray, model: str, threads: int) -> dict[str, dict[str, float]]:
    """As many files at a time as there are threads, and one after the other."""
    files = folder / "files"
    files.mkdir()
    for number, piece in enumerate(np.split(of_length(speech, MANY * EACH_S), MANY)):
        soundfile.write(files / f"{number}.wav", piece, SAMPLE_RATE)
    return {
        name: times_real_time(
            [str(files), "--model", model, "--num-jobs", str(jobs)], MANY * EACH_S, folder / name, threads
        )
        for name, jobs in {"in_turn": 1, "at_a_time": threads}.items()
    }


# For the package of any tree: prints seconds by workload as JSON.
LIVE = """
import json, sys, time
import numpy, soundfile, torch
from speechattn import FrameClassifier
torch.set_num_threads(1)
model = FrameClassifier.from_pretrained(sys.argv[1])
speech = soundfile.read(sys.argv[2], dtype="float32")[0]
pieces = numpy.split(speech[: len(speech) // 16000 * 16000], len(speech) // 16000 * 10)
def seconds(function):
    function()
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
def stream(size):
    session = model.stream()
    for first in range(0, len(speech) // 4, size):
        session.push(speech[first : first + size])
    session.flush()
def in_turn():
    sessions = [model.stream() for _ in range(16)]
    for piece in pieces[:50]:
        for session in sessions:
            session.push(piece)
def together():
    if not hasattr(model, "batched_stream"):
        return in_turn()
    sessions = model.batched_stream(16)
    for piece in pieces[:50]:
        sessions.push([piece] * 16)
print(json.dumps({
    "live, one thread, 10 ms pieces, 15 s": seconds(lambda: stream(160)),
    "live, one thread, 100 ms pieces, 15 s": seconds(lambda: stream(1600)),
    "opening a stream": seconds(model.stream),
    "16 sessions at once, 5 s, one thread": seconds(together),
}))
"""


def predicted(tree: Path, *, folder: Path, model: str, threads: int) -> dict[str, float]:
    """Seconds that the code of a tree needs, by workload."""
    options = [str(folder / "hour.wav"), "--model", model, "--output", str(folder / "out")]
    figures = {}
    for name, more in (("a file of an hour", []), ("a file of an hour, smoothed", ["--smooth"])):
        command = ["-m", "speechattn", "predict", *options, *more]
        figures[name] = milliseconds(lambda command=command: python_in(tree, command, threads)) / 1e3
        shutil.rmtree(folder / "out")
    live = python_in(tree, ["-c", LIVE, model, str(folder / "minute.wav")], 1)
    return figures | json.loads(live.splitlines()[-1])


PREDICT = [sys.executable, "-c", COMMAND, "predict"]


def times_real_time(options: Sequence[str], seconds: int, output: Path, threads: int) -> dict[str, float]:
    """How many seconds of speech `predict` does in a second, its start included, and its peak of memory in MB."""
    told: list[str] = []
    took = milliseconds(lambda: told.append(run([*PREDICT, *options, "--output", str(output)], threads)))
    return {"times_real_time": 1e3 * seconds / took, "peak_mb": int(told[0].split("peak ")[-1]) / 1024}


def run(command: Sequence[str], threads: int) -> str:
    """Run a command to its good end; what it said on standard error."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stderr


def one_thread(speech: np.ndarray, model_name: str, repeats: int) -> dict[str, float]:
    """Times real time on one thread: the whole, streams in pieces, and the peer."""
    model = FrameClassifier.from_pretrained(model_name)
    jobs = {
        "whole": lambda: model.classify(speech),
        "whole, smoothed": lambda: model.classify(speech, smooth=True),
        **{
            f"stream, {1e3 * size / SAMPLE_RATE:g} ms": lambda size=size: streamed(model, speech, size)
            for size in PIECES
        },
        "PocketSphinx allphone": lambda: allphone(speech),
    }
    seconds = len(speech) / SAMPLE_RATE
    return {name: 1e3 * seconds / ms for name, ms in take_turns(jobs, repeats).items()}


def streamed(model: FrameClassifier, speech: np.ndarray, size: int) -> None:
    """Push all of it in pieces of one size."""
    live = LiveSegments(model)
    for first in range(0, len(speech), size):
        live.push(speech[first : first + size])
    live.flush()


def allphone(speech: np.ndarray) -> None:
    """PocketSphinx's phones of the whole."""
    import pocketsphinx

    phones = pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin")
    decoder = pocketsphinx.Decoder(lm=None, allphone=phones, lw=2.0, beam=1e-20, pbeam=1e-20, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw((speech * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    assert len(list(decoder.seg())) > len(speech) / SAMPLE_RATE  # it did hear phones, more than one a second


# ------------------------------------------------------------------------------------------------ presentation


def table(figures: dict[str, dict]) -> str:
    """All figures, a line for each."""
    seconds, whole = figures["start"], figures["one_thread"]["whole"]
    lines = [
        f"predict a file of {START_S} s, from a cold start: {seconds['predict']:.1f} s, "
        f"{seconds['import']:.1f} s of them importing PyTorch"
    ]
    for name, figure in (figures["hour"] | figures["many"]).items():
        lines.append(f"{TITLES[name]:48}{figure['times_real_time']:8.0f} x real time, peak {figure['peak_mb']:.0f} MB")
    for name, speed in figures["one_thread"].items():
        lines.append(
            f"{f'one thread, {PEER_S} s: {name}':48}{speed:8.0f} x real time, {speed / whole:.2f} of the whole"
        )
    return "\n".join(lines)


TITLES = {
    "raw": "a file of an hour",
    "smooth": "a file of an hour, smoothed",
    "in_turn": f"{MANY} files of {EACH_S} s, one at a time",
    "at_a_time": f"{MANY} files of {EACH_S} s, several at a time",
}


if __name__ == "__main__":
    main()

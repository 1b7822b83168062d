"""Commands that use a model: predict, stream, serve, export."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jsonargparse import ArgumentParser

from speechattn.commands import fail, say_error
from speechattn.commands.models import DEVICE_HELP, MODEL_HELP, RIGHT_HELP

if TYPE_CHECKING:
    from speechattn.model.classifier import FrameClassifier

log = logging.getLogger("speechattn")

BOXED = "english-small"
MODEL_OPTION_HELP = f"{MODEL_HELP}; default: the model that comes with speechattn"
SMOOTH_HELP = "smooth decisions with phone durations and transitions learned in training"
SYMBOLS_HELP = "model: the model's symbols; ipa: the International Phonetic Alphabet"


def add_predict(parser: ArgumentParser) -> None:
    """Options of `predict`."""
    audio = parser.add_argument(
        "audio", type=str, nargs="*", help="audio files of any rate, folders, patterns, or - for standard input"
    )
    audio.required = False  # not with --cuts
    parser.add_argument("--cuts", type=str, help="predict the recordings of these cuts; the cuts' ids name the results")
    parser.add_argument("--model", type=str, default=BOXED, help=MODEL_OPTION_HELP)
    parser.add_argument("--format", type=str, default="textgrid", help="some of textgrid,ctm,json,csv,audacity,npy")
    parser.add_argument("--output", type=str, help="write files to this folder; default: print the phones")
    parser.add_argument("--channel", type=int, help="channel, counted from 0; default: the mean of all channels")
    parser.add_argument("--smooth", action="store_true", help=SMOOTH_HELP)
    parser.add_argument("--right", type=int, help=RIGHT_HELP)
    parser.add_argument("--symbols", type=str, default="model", help=SYMBOLS_HELP)
    parser.add_argument("--speech", action="store_true", help="find speech and silence instead of phones")
    parser.add_argument("--plot", action="store_true", help="also draw spectrogram, segments and posteriors")
    parser.add_argument("--device", type=str, default="cpu", help=DEVICE_HELP)
    parser.add_argument("--num-jobs", type=int, help="files processed at the same time; default: number of cores")
    parser.add_argument("--frames", type=str, help="with --cuts: write only this CSV file, a row `Id,Class` per frame")


# Options that --cuts does not take, and their defaults.
FILE_ONLY_OPTIONS = dict(channel=None, smooth=False, right=None, symbols="model", speech=False, plot=False)


def predict(arguments: Any) -> None:
    """Predict the phones of audio files."""
    from speechattn.prediction.cuts import predict_cuts, predict_frames

    formats = [name.strip().lower() for name in arguments.format.split(",")]
    arguments.symbols = arguments.symbols.lower()
    has_file_options = any(arguments[name] != default for name, default in FILE_ONLY_OPTIONS.items())
    if bool(arguments.audio) == bool(arguments.cuts):
        raise ValueError("predict takes either audio files or --cuts FILE")
    if arguments.frames and (not arguments.cuts or arguments.output is not None or has_file_options):
        raise ValueError("predict --frames needs --cuts, and takes no other option but --model")
    if arguments.num_jobs is not None and arguments.num_jobs < 1:
        raise ValueError(f"--num-jobs must be 1 or more, got {arguments.num_jobs}")
    num_jobs = arguments.num_jobs or os.cpu_count() or 1
    if arguments.frames:
        predict_frames(arguments.model, arguments.cuts, arguments.frames, device=arguments.device)
    elif arguments.cuts and (arguments.output is None or has_file_options):
        raise ValueError(
            f"predict --cuts needs --output, and takes none of {' '.join(f'--{name}' for name in FILE_ONLY_OPTIONS)}"
        )
    elif arguments.cuts:
        predict_cuts(
            arguments.model, arguments.cuts, arguments.output, formats=formats, num_jobs=num_jobs,
            device=arguments.device,
        )  # fmt: skip
    else:
        _predict_files(arguments, formats, num_jobs)


def _predict_files(arguments: Any, formats: list[str], num_jobs: int) -> None:
    from speechattn.prediction.files import OutputOptions, predict_files
    from speechattn.prediction.recordings import find_recordings

    options = OutputOptions(
        formats,
        plot=arguments.plot,
        channel=arguments.channel,
        smooth=arguments.smooth,
        symbols=arguments.symbols,
        speech_only=arguments.speech,
    )
    model = _model(arguments, arguments.device)
    recordings = find_recordings(path for path in arguments.audio if path != "-")
    with _standard_input("-" in arguments.audio) as piped:
        if piped is not None and recordings.setdefault("stdin", piped) != piped:
            raise ValueError("a file called stdin and standard input would both write stdin.*: predict them separately")
        failures = predict_files(model, recordings, options, output=arguments.output, num_jobs=num_jobs)
        if piped is not None:
            failures = [failure.replace(str(piped), "standard input") for failure in failures]
    if arguments.output is not None and len(failures) < len(recordings):
        log.info("%s: results of %d recording(s)", arguments.output, len(recordings) - len(failures))
    for failure in failures[:-1]:
        say_error(failure)
    if failures:
        several = f" ({len(failures)} of {len(recordings)} files failed)" if len(recordings) > 1 else ""
        fail(failures[-1] + several)


def _model(arguments: Any, device: str = "cpu") -> FrameClassifier:
    from speechattn.model.classifier import FrameClassifier
    from speechattn.model.device import checked_device

    model = FrameClassifier.from_pretrained(arguments.model)
    if arguments.right is not None:
        model.limit_right(arguments.right)
    return model.to(checked_device(device))


@contextmanager
def _standard_input(used: bool) -> Iterator[Path | None]:
    """Standard input as a temporary file, since audio readers seek."""
    if not used:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin"
        with open(path, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield path


def add_stream(parser: ArgumentParser) -> None:
    """Options of `stream`."""
    parser.add_argument(
        "source",
        type=str,
        nargs="?",
        default="microphone",
        help="microphone, or - for raw samples on standard input: 16-bit little-endian, one channel, the model's rate",
    )
    parser.add_argument("--model", type=str, default=BOXED, help=MODEL_OPTION_HELP)
    parser.add_argument(
        "--device", type=str, help="number or part of the name of the microphone, see `python -m sounddevice`"
    )
    parser.add_argument("--smooth", action="store_true", help=SMOOTH_HELP)
    parser.add_argument("--right", type=int, help=RIGHT_HELP)
    parser.add_argument("--symbols", type=str, default="model", help=SYMBOLS_HELP)


def stream(arguments: Any) -> None:
    """Print the phones of live speech as they become final."""
    from speechattn.prediction.live import microphone, pcm, print_live

    if arguments.source not in ("microphone", "-"):
        raise ValueError(f"stream takes microphone or -, not {arguments.source!r}; for files use predict")
    model = _model(arguments)
    rate = model.frontend.geometry.sample_rate
    if arguments.source == "-":
        pieces = pcm(cast(BufferedIOBase, sys.stdin.buffer), rate)
    else:
        device = arguments.device
        pieces = microphone(rate, device=int(device) if device and device.isdecimal() else device)
    print_live(model, pieces, smooth=arguments.smooth, symbols=arguments.symbols.lower())


def add_serve(parser: ArgumentParser) -> None:
    """Options of `serve`."""
    from speechattn.server.limits import Limits

    limits = Limits()
    parser.add_argument("--model", type=str, default=BOXED, help=MODEL_OPTION_HELP)
    parser.add_argument(
        "--host", type=str, default="127.0.0.1", help="address to listen on; the default accepts only this machine"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0: any free port")
    parser.add_argument("--max-upload", type=float, default=limits.upload_mb, help="largest file, in MB")
    parser.add_argument("--max-duration", type=float, default=limits.duration_s, help="longest recording, in seconds")
    parser.add_argument("--num-jobs", type=int, default=limits.jobs, help="recordings processed at the same time")
    parser.add_argument(
        "--allow-host",
        type=str,
        action="append",
        default=[],
        metavar="NAME",
        help="another host name of the server, such as that of a proxy; may be repeated",
    )


def serve(arguments: Any) -> None:
    """Show the phones of recordings and of live speech on a web page."""
    from speechattn.server.limits import Limits
    from speechattn.server.serving import serve as serve_model

    serve_model(
        arguments.model,
        host=arguments.host,
        port=arguments.port,
        limits=Limits(upload_mb=arguments.max_upload, duration_s=arguments.max_duration, jobs=arguments.num_jobs),
        allow_hosts=arguments.allow_host,
    )


def add_export(parser: ArgumentParser) -> None:
    """Options of `export`."""
    parser.add_argument("model", type=str, help=f"{MODEL_HELP}, or {BOXED}")
    parser.add_argument("--output", type=str, required=True, help="file to write: .onnx, or .pt2 for torch.export")
    parser.add_argument("--int8", action="store_true", help="store weights in 8 bits; .onnx only")
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="export one step of a stream, state in and out; .onnx only",
    )
    parser.add_argument("--check", action="store_true", help="compare the file with PyTorch on speech-like signals")


def export(arguments: Any) -> None:
    """Export a model to one file that runs without this package."""
    from speechattn.export.file import export_file

    export_file(
        arguments.model,
        arguments.output,
        int8=arguments.int8,
        streaming=arguments.streaming,
        check=arguments.check,
    )

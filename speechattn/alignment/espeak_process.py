"""Synthetic speech with phoneme times from eSpeak NG, in a process of its own.

eSpeak NG is GPL-3.0-or-later, so its library is loaded only by the child process that this file is when run
as a script; the package talks to it through a pipe. A fresh process per speaker also makes the audio
reproducible: eSpeak keeps state from one utterance to the next that nothing resets. The calls follow
eSpeak NG 1.52's public header, speak_lib.h.
"""

from __future__ import annotations

import array
import ctypes
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["SAMPLE_RATE", "Event", "Request", "Speech", "synthesise"]

SAMPLE_RATE = 22050  # of eSpeak's audio


class Request(NamedTuple):
    """One utterance to be spoken; rate in words a minute (80-450), pitch 0-99 (50: the voice as it is)."""

    text: str
    rate: int
    pitch: int


class Event(NamedTuple):
    """The start of a phoneme: its sample at 22,050 Hz, and eSpeak's mnemonic with stress marks."""

    sample: int
    mnemonic: str


class Speech(NamedTuple):
    """What eSpeak made of a request: int16 samples at 22,050 Hz, and its phoneme events in order."""

    samples: array.array[int]
    events: list[Event]


def synthesise(voice: str, requests: Sequence[Request]) -> list[Speech]:
    """Speak the requests, in order, with one voice in one fresh process.

    The same voice and requests give the same bytes; a request alone need not sound as it does in a series.

    Args:
        voice: An eSpeak voice, with or without a variant: `en-us`, `en-us+f1`.
        requests: What to say.

    Returns:
        One Speech a request.

    Raises:
        ValueError: When espeakng-loader is not installed, or eSpeak has no such voice or variant.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise ValueError("synthetic speech needs eSpeak NG, which is not installed: pip install espeakng-loader")
    # Run by path, not by -m: the child needs neither the package nor what the package imports.
    child = subprocess.run(
        [sys.executable, str(Path(__file__).resolve())],
        input=json.dumps([voice, requests]).encode(),
        capture_output=True,
    )
    if child.returncode:
        reason = child.stderr.decode(errors="replace").strip().splitlines() or [f"exit {child.returncode}"]
        raise ValueError(f"eSpeak cannot speak with voice {voice!r}: {reason[-1]}")
    speeches, position = [], 0
    for _ in requests:  # a line of JSON, then the samples it announces
        header_end = child.stdout.index(b"\n", position)
        num_samples, events = json.loads(child.stdout[position:header_end])
        position = header_end + 1 + 2 * num_samples
        samples = array.array("h", child.stdout[header_end + 1 : position])
        speeches.append(Speech(samples, [Event(*event) for event in events]))
    return speeches


# What follows runs in the child.

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS = 1  # initialise: report phonemes, by mnemonic
_PHONEME, _LIST_TERMINATED = 7, 0  # event types
_RATE, _PITCH = 1, 3  # parameters
_POSITION_CHARACTER, _TEXT_IS_UTF8 = 1, 1


class _EventName(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventName),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def _speak(voice: str, requests: Sequence[Sequence]) -> Iterator[tuple[bytes, list[Event]]]:
    import espeakng_loader

    data = Path(espeakng_loader.get_data_path())
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), _PHONEME_EVENTS)
    if rate != SAMPLE_RATE:
        raise ValueError(f"expected audio at {SAMPLE_RATE} Hz, eSpeak NG starts with {rate}")
    # An unknown voice leaves the last one set, an unknown variant is ignored: neither may pass.
    variant = voice.partition("+")[2]
    variants = sorted(path.name for path in (data / "voices" / "!v").iterdir())
    if variant and variant not in variants:
        raise ValueError(f"no variant {variant!r}; there are {', '.join(variants)}")
    if library.espeak_SetVoiceByName(voice.encode()):
        raise ValueError("no such voice")

    audio = bytearray()
    events: list[Event] = []

    @_Callback
    def receive(samples, num_samples, event):  # type: ignore[no-untyped-def]
        if samples and num_samples:
            audio.extend(ctypes.string_at(samples, 2 * num_samples))
        number = 0
        while event[number].type != _LIST_TERMINATED:
            if event[number].type == _PHONEME:
                events.append(Event(event[number].sample, event[number].id.string.decode()))
            number += 1
        return 0

    library.espeak_SetSynthCallback(receive)
    for text, words_per_minute, pitch in requests:
        audio.clear()
        events.clear()
        # Set anew each time: they outlive the utterance.
        library.espeak_SetParameter(_RATE, words_per_minute, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        encoded = text.encode() + b"\0"
        status = library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, _POSITION_CHARACTER, 0, _TEXT_IS_UTF8, None, None
        )
        if status or library.espeak_Synchronize():
            raise ValueError(f"cannot speak {text!r}")
        yield bytes(audio), list(events)


def _main() -> None:
    voice, requests = json.load(sys.stdin)
    out = sys.stdout.buffer
    try:
        for audio, events in _speak(voice, requests):
            out.write(json.dumps([len(audio) // 2, events]).encode() + b"\n" + audio)
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()

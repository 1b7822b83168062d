"""Synthetic speech with phoneme times from eSpeak NG, in a separate process.

eSpeak NG is GPL-3.0-or-later, so only the child process loads its library: this file, run as a script, which talks to
the package through a pipe. A fresh process per speaker also makes the audio reproducible, since eSpeak carries state
from one utterance to the next. The calls follow eSpeak NG 1.52's public header, speak_lib.h.
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

__all__ = ["ESPEAK_RATE", "Event", "Request", "Speech", "is_installed", "synthesise"]

ESPEAK_RATE = 22050  # sample rate of eSpeak's audio, Hz


class Request(NamedTuple):
    """A text to speak; rate in words per minute (80-450), pitch 0-99 (50: the voice's own)."""

    text: str
    rate: int
    pitch: int


class Event(NamedTuple):
    """The start of a phoneme: sample index at 22,050 Hz, and eSpeak's mnemonic with stress marks."""

    sample: int
    mnemonic: str


class Speech(NamedTuple):
    """A spoken request: int16 samples at 22,050 Hz, and its phoneme events in order."""

    samples: array.array[int]
    events: list[Event]


def is_installed() -> bool:
    """Whether eSpeak NG can be loaded."""
    return importlib.util.find_spec("espeakng_loader") is not None


def synthesise(voice: str, requests: Sequence[Request]) -> list[Speech]:
    """Speak requests in order, in a fresh process, with an eSpeak voice, such as `en-us`, or `en-us+f1` (a variant).

    The same voice and requests give the same bytes; a request may sound different alone than in a series.

    Raises:
        ValueError: When espeakng-loader is not installed, or eSpeak has no such voice or variant.
    """
    if not is_installed():
        raise ValueError("synthetic speech needs eSpeak NG, which is not installed: pip install espeakng-loader")
    # Run by path, not by -m: the child does not import the package.
    command = [sys.executable, str(Path(__file__).resolve())]
    child = subprocess.run(command, input=json.dumps([voice, requests]).encode(), capture_output=True)
    if child.returncode:
        reason = child.stderr.decode(errors="replace").strip().splitlines() or [f"exit {child.returncode}"]
        raise ValueError(f"eSpeak cannot speak with voice {voice!r}: {reason[-1]}")
    speeches, position = [], 0
    for _ in requests:  # a line of JSON with the number of samples, then the samples
        header_end = child.stdout.index(b"\n", position)
        num_samples, events = json.loads(child.stdout[position:header_end])
        position = header_end + 1 + 2 * num_samples
        samples = array.array("h", child.stdout[header_end + 1 : position])
        speeches.append(Speech(samples, [Event(*event) for event in events]))
    return speeches


# The rest runs in the child.

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS = 1  # initialise: report phonemes, by mnemonic
_PHONEME, _LIST_TERMINATED = 7, 0  # event types
_RATE, _PITCH = 1, 3  # parameters
_POSITION_CHARACTER, _TEXT_IS_UTF8 = 1, 1


class _Event(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("type", "unique_identifier", "text_position", "length")),
        *(("audio_position", ctypes.c_int), ("sample", ctypes.c_int), ("user_data", ctypes.c_void_p)),
        ("mnemonic", ctypes.c_char * 8),  # a union of this, a number and a pointer
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def _speak(voice: str, requests: Sequence[Sequence]) -> Iterator[tuple[bytes, list[Event]]]:
    import espeakng_loader

    data = Path(espeakng_loader.get_data_path())
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), _PHONEME_EVENTS)
    if rate != ESPEAK_RATE:
        raise ValueError(f"expected audio at {ESPEAK_RATE} Hz, eSpeak NG starts with {rate}")
    # eSpeak itself keeps the last voice if it does not know a new one, and ignores an unknown variant.
    variant = voice.partition("+")[2]
    variants = sorted(path.name for path in (data / "voices" / "!v").iterdir())
    if variant and variant not in variants:
        raise ValueError(f"no variant {variant!r}; choose one of {', '.join(variants)}")
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
                events.append(Event(event[number].sample, event[number].mnemonic.decode()))
            number += 1
        return 0

    library.espeak_SetSynthCallback(receive)
    for text, words_per_minute, pitch in requests:
        audio.clear()
        events.clear()
        library.espeak_SetParameter(_RATE, words_per_minute, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        encoded = text.encode() + b"\0"
        size = ctypes.c_size_t(len(encoded))
        status = library.espeak_Synth(encoded, size, 0, _POSITION_CHARACTER, 0, _TEXT_IS_UTF8, None, None)
        if status or library.espeak_Synchronize():
            raise ValueError(f"cannot speak {text!r}")
        yield bytes(audio), list(events)


def _main() -> None:
    voice, requests = json.load(sys.stdin)
    try:
        for audio, events in _speak(voice, requests):
            sys.stdout.buffer.write(json.dumps([len(audio) // 2, events]).encode() + b"\n" + audio)
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()

"""Load audio files and arrays as mono float32 in [-1, 1] at a given rate."""

from speechattn.audio.container import AudioError, is_container
from speechattn.audio.folder import AUDIO_SUFFIXES, find_audio
from speechattn.audio.load import AudioInfo, audio_blocks, audio_info, load_audio, read_audio, seeks_exactly
from speechattn.audio.resampling import SAMPLE_RATE, import_torchaudio, resample

__all__ = [
    "AUDIO_SUFFIXES", "SAMPLE_RATE", "AudioError", "AudioInfo", "audio_blocks", "audio_info", "find_audio",
    "import_torchaudio", "is_container", "load_audio", "read_audio", "resample", "seeks_exactly",
]  # fmt: skip

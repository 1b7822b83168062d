"""Cut long utterances into overlapping chunks, so that a batch of any size can hold them.

Each chunk is extended on both sides by the model's receptive field; the extension has no labels. So each labelled frame
of an utterance counts exactly once. Positions are in samples. Lhotse's `truncate` is not used, because it does not move
the times of phones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speechattn.batches.wave_augment import cropped_intervals
from speechattn.cuts.files import phone_intervals, with_phones
from speechattn.cuts.model_inputs import cut_length
from speechattn.geometry import Geometry

__all__ = ["Chunking", "chunk_cut", "num_chunks"]


@dataclass(frozen=True)
class Chunking:
    """How to cut long utterances; made by `Chunking.of`.

    Args:
        geometry: The model's frame geometry.
        size: Maximum length of a chunk in samples, extensions included.
        left: Samples by which each chunk but the first is extended to the left.
        right: Samples by which each chunk but the last is extended to the right.
    """

    geometry: Geometry
    size: int
    left: int
    right: int

    @staticmethod
    def of(geometry: Geometry, max_seconds: float, left_frames: int | None, right_frames: int | None) -> Chunking:
        """Chunks for a model.

        Args:
            geometry: The model's frame geometry.
            max_seconds: Maximum length of a chunk (s).
            left_frames: Receptive field to the left; None if unlimited. The extension is at most a quarter of a chunk,
                so that at least half of it is scored.
            right_frames: Receptive field to the right, likewise.

        Raises:
            ValueError: If a quarter of a chunk is shorter than a frame.
        """
        hop = geometry.hop
        quarter = int(max_seconds * geometry.sample_rate) // 4 // hop * hop
        window = -(-geometry.window // hop) * hop  # the outermost scored frame needs its whole window
        if quarter < window:
            raise ValueError(
                f"data.max_seconds must be at least four frames of {geometry.window} samples, got {max_seconds}"
            )
        left, right = (
            quarter if frames is None else min(frames * hop + window, quarter) for frames in (left_frames, right_frames)
        )
        return Chunking(geometry, 4 * quarter, left, right)

    def spans(self, num_samples: int) -> list[tuple[int, int, int, int]]:
        """Divide an utterance into chunks of about equal length.

        Chunks start at whole hops, so that their frames are frames of the utterance.

        Args:
            num_samples: Length of the utterance.

        Returns:
            (start, end, first, last) of each chunk. It holds the samples [start, end), and the frames with their centre
            in [first, last) are scored. The scored ranges cover the utterance without overlap.
        """
        if num_samples <= self.size:
            return [(0, num_samples, 0, num_samples)]
        hop, scored = self.geometry.hop, num_samples - self.left - self.right
        count = -(-scored // (self.size - self.left - self.right))
        step = -(-scored // (count * hop)) * hop
        starts = range(0, scored, step)
        borders = [0, *(start + self.left for start in starts[1:]), num_samples]
        return [
            (start, min(start + step + self.left + self.right, num_samples), first, last)
            for start, first, last in zip(starts, borders[:-1], borders[1:], strict=True)
        ]


def chunk_cut(cut: Any, chunking: Chunking) -> list[Any]:
    """Cut a Lhotse cut with phones into chunks, which are cuts too. A short cut is returned as it is.

    Raises:
        ValueError: As for `phone_intervals`.
    """
    from lhotse.utils import fastcopy

    rate = chunking.geometry.sample_rate
    spans = chunking.spans(cut_length(cut))
    if len(spans) == 1:
        return [cut]
    intervals, chunks = phone_intervals(cut, rate), []
    for number, (start, end, first, last) in enumerate(spans, 1):
        duration = (end - start) / rate
        chunk = fastcopy(
            cut, id=f"{cut.id}-{number}-of-{len(spans)}", start=cut.start + start / rate, duration=duration,
            custom={**(cut.custom or {}), "num_chunks": len(spans)},
        )  # fmt: skip
        phones = cropped_intervals(intervals, first, last, origin=start)
        chunks.append(with_phones(chunk, phones, rate, start=0.0, duration=duration))
    return chunks


def num_chunks(cut: Any) -> int:
    """Number of chunks of the utterance that a cut belongs to; 1 for a whole utterance."""
    return (cut.custom or {}).get("num_chunks", 1)

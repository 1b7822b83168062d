"""Long utterances in pieces that overlap, so that a batch of any cap can hold them.

A piece hears as much before and behind the frames that it is scored on as the model looks at. The labels of that
context are left out of it: over all pieces of an utterance each labelled frame counts once. All is done in samples, on
Lhotse's cuts but not by its `truncate`, which leaves the times of phones as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speechattn.batches.wave_augment import cropped_intervals
from speechattn.cuts.files import alignment_items, phone_intervals
from speechattn.cuts.model_inputs import cut_length
from speechattn.geometry import Geometry

__all__ = ["Chunking", "chunk_cut", "num_chunks"]


@dataclass(frozen=True)
class Chunking:
    """How long utterances are cut; make it with `Chunking.of`.

    Args:
        geometry: Where the frames lie.
        size: Most samples in a piece.
        left: Samples before those that a piece, unless it is the first, is scored on.
        right: Samples behind them, unless it is the last.
    """

    geometry: Geometry
    size: int
    left: int
    right: int

    @staticmethod
    def of(geometry: Geometry, max_seconds: float, left_frames: int | None, right_frames: int | None) -> Chunking:
        """Pieces for a model.

        Args:
            geometry: Where its frames lie.
            max_seconds: Longest piece.
            left_frames: Frames to the left that a frame's result depends on; None: all of them. More than a quarter of
                a piece is not taken, so that at least half of it is scored.
            right_frames: Likewise, to the right.

        Raises:
            ValueError: When a quarter of a piece is shorter than a frame.
        """
        hop = geometry.hop
        quarter = int(max_seconds * geometry.sample_rate) // 4 // hop * hop
        window = -(-geometry.window // hop) * hop  # of the outermost frame that is scored
        if quarter < window:
            raise ValueError(
                f"data.max_seconds must be at least four frames of {geometry.window} samples, got {max_seconds}"
            )
        left, right = (
            quarter if frames is None else min(frames * hop + window, quarter) for frames in (left_frames, right_frames)
        )
        return Chunking(geometry, 4 * quarter, left, right)

    def pieces(self, num_samples: int) -> list[tuple[int, int, int, int]]:
        """The pieces of an utterance, about equal.

        Starts are whole hops, so that the frames of a piece are frames of the utterance.

        Args:
            num_samples: Length of the utterance.

        Returns:
            (start, end, first, last) of each piece: its samples are [start, end), and it is scored on the frames whose
            centre lies in [first, last). The latter do not overlap, and cover the utterance.
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
    """A Lhotse cut with phones in pieces, each a cut like others; itself when it is short enough.

    Raises:
        ValueError: As `phone_intervals`.
    """
    from lhotse.utils import fastcopy

    rate = chunking.geometry.sample_rate
    pieces = chunking.pieces(cut_length(cut))
    if len(pieces) == 1:
        return [cut]
    intervals, chunks = phone_intervals(cut, rate), []
    for number, (start, end, first, last) in enumerate(pieces, 1):
        phones = alignment_items(cropped_intervals(intervals, first, last, origin=start), rate)
        duration = (end - start) / rate
        supervision = fastcopy(cut.supervisions[0], duration=duration, alignment={"phone": phones})
        chunks.append(
            fastcopy(
                cut,
                id=f"{cut.id}-{number}-of-{len(pieces)}",
                start=cut.start + start / rate,
                duration=duration,
                supervisions=[supervision],
                custom={**(cut.custom or {}), "num_chunks": len(pieces)},
            )
        )
    return chunks


def num_chunks(cut: Any) -> int:
    """Of how many pieces of an utterance a cut is one; 1 when it is the whole."""
    return (cut.custom or {}).get("num_chunks", 1)

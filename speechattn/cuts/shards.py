"""Cuts and their audio in Lhotse Shar shards, which are read from end to end, from a disk or from object storage.

A set of shards is a folder, `train`, and beside it its list, `train.json`. The folder holds what Lhotse's
`CutSet.from_shar` reads, `cuts.000000.jsonl.gz` and `recording.000000.tar` (FLAC) and so on; the list says what is in
them, so that nothing needs to be opened to know how many cuts there are, how long, and with which phones.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from speechattn.jobs.atomic import atomic_path, save_json
from speechattn.jobs.processes import process_map
from speechattn.jobs.stamps import VERSION, checksum

__all__ = ["Shards", "checksum_or_path", "is_sharded", "read_shards", "write_shards"]

NUM_BUCKETS = 8
KINDS = ("cuts", "recording")


def is_sharded(cuts: str | Path) -> bool:
    """Whether these are shards (their list, their folder, an address) and not a file of cuts."""
    return "://" in str(cuts) or str(cuts).endswith(".json") or Path(cuts).is_dir()


def checksum_or_path(cuts: str | Path) -> str | Path:
    """What a stamp (see `stages`) has to know of cuts: the checksum of shards' list, or the path of a file."""
    return read_shards(cuts).digest if is_sharded(cuts) else Path(cuts)


@dataclass(frozen=True)
class Shards:
    """A set of shards; iterating over it opens one after the other and gives their cuts, audio included.

    Args:
        location: Path or address of the list.
        shards: For each shard, where its `cuts` and its `recording` lie, relative to the list, and its `num_cuts`.
        seconds: Of all audio.
        duration_bounds: Seconds; between two of them, and before and after, lies as much audio each.
        symbols: The phones that occur.
        sample_rates: Those that occur, in Hz.
        digest: Hex digest of the list.
    """

    location: str
    shards: tuple[dict[str, Any], ...]
    seconds: float
    duration_bounds: tuple[float, ...]
    symbols: tuple[str, ...]
    sample_rates: tuple[int, ...]
    digest: str

    def __len__(self) -> int:
        """Number of cuts."""
        return sum(shard["num_cuts"] for shard in self.shards)

    def __iter__(self) -> Iterator[Any]:
        return self.share()

    def share(self, *, part: int = 0, num_parts: int = 1, seed: str | None = None) -> Iterator[Any]:
        """The cuts of every `num_parts`-th shard; one shard is open at a time.

        Args:
            part: Index of the reader, in [0, num_parts).
            num_parts: Number of readers that together read every shard once.
            seed: Shuffles the shards, for all readers alike; None: as they were written.

        Raises:
            ValueError: When a shard cannot be read, or is not whole; names it.
        """
        order = list(range(len(self.shards)))
        if seed is not None:
            random.Random(seed).shuffle(order)
        for number in order[part::num_parts]:
            yield from self._cuts(self.shards[number])

    def _cuts(self, shard: dict[str, Any]) -> Iterator[Any]:
        from lhotse import CutSet

        # A string, and no Path, which would halve the // of an address.
        base = self.location.rpartition("/")[0]
        fields = {kind: [f"{base}/{shard[kind]}" if base else shard[kind]] for kind in KINDS}
        count = 0
        try:
            for cut in CutSet.from_shar(fields=fields):
                count += 1
                yield cut
        except Exception as error:  # whatever gzip, tarfile, JSON, Lhotse or a server say
            raise ValueError(f"{fields['recording'][0]}: shard cannot be read after {count} cuts: {error}") from error
        if count != shard["num_cuts"]:  # a tar that ends early looks like a whole one
            raise ValueError(f"{fields['recording'][0]}: shard ends after {count} of {shard['num_cuts']} cuts")


def read_shards(location: str | Path) -> Shards:
    """Open a set of shards by its list.

    Args:
        location: The list, `DIR.json`, or the folder that it stands beside, `DIR`; a path or an address. Addresses
            need the package smart_open.

    Raises:
        ValueError: When there is no such list, or it is not one of shards.
    """
    from lhotse.serialization import open_best

    name = str(location).rstrip("/")
    name = name if name.endswith(".json") else f"{name}.json"
    try:
        with open_best(name, "rb") as file:  # of text Lhotse does not say in which encoding
            content = file.read()
    except Exception as error:  # of any of the libraries behind smart_open
        reason = error.__context__ or error  # Lhotse takes whatever happens at an address for a missing smart_open
        raise ValueError(f"{location}: cannot read {name}, the list of its shards: {reason}") from error
    try:
        index = json.loads(content)
        shards = Shards(
            location=name,
            shards=tuple({**{kind: str(row[kind]) for kind in KINDS}, "num_cuts": int(row["num_cuts"])}
                         for row in index["shards"]),
            seconds=float(index["seconds"]),
            duration_bounds=tuple(index["duration_bounds"]),
            symbols=tuple(index["symbols"]),
            sample_rates=tuple(index["sample_rates"]),
            digest=hashlib.sha256(content).hexdigest(),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name} is not a list of shards, as `speechattn prepare --shards` writes it") from error
    if not len(shards):
        raise ValueError(f"{name} lists no cuts")
    return shards


def write_shards(cuts: Path, output: Path, *, size: int, num_jobs: int = 1) -> None:
    """Write a file of cuts, and their audio as 16-bit FLAC, as shards. What is written already is not written again.

    Cuts are dealt to the shards at random, always the same way: a shard is a fair sample of all, so that readers that
    shuffle shards and a small buffer mix speakers. When it is stopped, the shards that were finished are kept for the
    next run.

    Args:
        cuts: File of cuts with audio.
        output: Folder of the shards; their list is `<output>.json`.
        size: Most cuts in a shard.
        num_jobs: Processes.

    Raises:
        ValueError: When the size is not positive, the file is not one of cuts, or the audio of one cannot be read.
    """
    if size < 1:
        raise ValueError(f"shards must hold at least 1 cut, got {size}")
    if not cuts.is_file():
        raise ValueError(f"{cuts}: no such file of cuts")
    source = {"cuts": checksum(cuts), "size": size, "version": VERSION}
    index = output.with_name(f"{output.name}.json")
    if _is_written(index, source):
        print(f"{output}: shards of {cuts} written already")
        return
    digest = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:12]
    workshop = output.with_name(f".{output.name}.{digest}.unfinished")
    for stale in output.parent.glob(f".{output.name}.*.unfinished"):
        if stale != workshop:
            shutil.rmtree(stale)
    for folder in ("shards", "summaries"):
        (workshop / folder).mkdir(parents=True, exist_ok=True)

    hands = _deal(cuts, size)
    with process_map(min(num_jobs, len(hands))) as run:
        written = run(partial(_write_shard, workshop), range(len(hands)), hands)
        summaries = list(tqdm(written, total=len(hands), desc=output.name, unit="shard", leave=False, disable=None))

    index.unlink(missing_ok=True)
    with atomic_path(output) as temporary:
        (workshop / "shards").rename(temporary)
    save_json(index, _index(output.name, source, summaries))
    shutil.rmtree(workshop)
    hours = sum(sum(summary["durations"]) for summary in summaries) / 3600
    print(f"{output}: {len(hands)} shards of {hours:.2f} h")


def _is_written(index: Path, source: dict[str, Any]) -> bool:
    """Whether the list is of this source, and its files have the sizes that they were written with."""
    try:
        record = json.loads(index.read_text(encoding="utf-8"))
        return record["source"] == source and _are_whole(index.parent, record["shards"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # no list, or not one of ours


def _are_whole(folder: Path, shards: Sequence[dict[str, Any]]) -> bool:
    """Whether the files of the shards are there, with the sizes that they were written with."""
    paths = [(folder / shard[kind], shard["bytes"][kind]) for shard in shards for kind in KINDS]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _deal(cuts: Path, size: int) -> list[list[bytes]]:
    """The lines of a file of cuts in hands of at most `size`, equal but for one, at random."""
    with open(cuts, "rb") as raw, gzip.open(raw) if cuts.suffix == ".gz" else raw as file:
        try:
            lines = [line for line in file if line.strip()]
        except (OSError, EOFError) as error:
            raise ValueError(f"{cuts} is damaged: {error}") from error
    if not lines:
        raise ValueError(f"{cuts} holds no cuts")
    random.Random(0).shuffle(lines)
    num_hands = -(-len(lines) // size)
    return [lines[number::num_hands] for number in range(num_hands)]


def _write_shard(workshop: Path, number: int, lines: Sequence[bytes]) -> dict[str, Any]:
    """Write a shard, or find it written; returns what is in it."""
    from lhotse import CutSet
    from lhotse.audio import set_current_audio_backend
    from lhotse.audio.backend import LibsndfileBackend
    from lhotse.shar import SharWriter

    summary_file = workshop / "summaries" / f"{number:06d}.json"
    if summary_file.is_file():
        summary = json.loads(summary_file.read_text(encoding="utf-8"))
        if _are_whole(workshop / "shards", [summary]):
            return summary
    set_current_audio_backend(LibsndfileBackend())
    durations: list[float] = []
    symbols: set[str] = set()
    rates: set[int] = set()
    with SharWriter(
        workshop / "shards", fields={"recording": "flac"}, shard_size=None, shard_suffix=f".{number:06d}"
    ) as writer:
        for line in lines:
            try:
                [cut] = CutSet.from_dicts([json.loads(line)])
                has_audio = cut.has_recording
            except Exception as error:  # whatever JSON or Lhotse say of a line that is not theirs
                raise ValueError(f"a line of the file is not a Lhotse cut: {line[:60]!r}") from error
            if not has_audio:
                raise ValueError(f"cut {cut.id} has no audio: shards are of audio")
            try:
                writer.write(cut)
            except Exception as error:  # Lhotse wraps and re-raises whatever its reader and soundfile raise
                raise ValueError(f"cut {cut.id}: its audio {cut.recording.sources[0].source} cannot be read") from error
            durations.append(cut.duration)
            rates.add(cut.sampling_rate)
            for supervision in cut.supervisions:
                symbols.update(item.symbol for item in (supervision.alignment or {}).get("phone", ()))
        paths = {kind: Path(files[0]) for kind, files in writer.output_paths.items()}
    summary = {
        **{kind: path.name for kind, path in paths.items()},
        "bytes": {kind: path.stat().st_size for kind, path in paths.items()},
        "durations": durations,
        "symbols": sorted(symbols),
        "sample_rates": sorted(rates),
    }
    save_json(summary_file, summary)  # the sign that the shard is whole
    return summary


def _index(folder: str, source: dict[str, Any], summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The list of the shards."""
    durations = np.sort(np.concatenate([summary["durations"] for summary in summaries]))
    shares = np.cumsum(durations) / durations.sum()
    quantiles = np.searchsorted(shares, np.arange(1, NUM_BUCKETS) / NUM_BUCKETS)
    return {
        "source": source,
        "seconds": round(float(durations.sum()), 3),
        "duration_bounds": sorted(set(durations[quantiles].tolist())),
        "symbols": sorted({symbol for summary in summaries for symbol in summary["symbols"]}),
        "sample_rates": sorted({rate for summary in summaries for rate in summary["sample_rates"]}),
        "shards": [
            {
                **{kind: f"{folder}/{summary[kind]}" for kind in KINDS},
                "num_cuts": len(summary["durations"]),
                "bytes": summary["bytes"],
            }
            for summary in summaries
        ],
    }

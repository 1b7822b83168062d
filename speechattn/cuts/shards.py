"""Cuts and their audio in Lhotse Shar shards, read sequentially from a disk or from object storage.

A set of shards is a folder `train` and its index `train.json` beside it. The folder holds what Lhotse's
`CutSet.from_shar` reads: `cuts.000000.jsonl.gz`, `recording.000000.tar` (FLAC), and so on. The index gives number,
durations and phones of the cuts, so that a run can be set up without opening a shard.
"""

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
from lhotse import CutSet
from lhotse.audio import set_current_audio_backend
from lhotse.audio.backend import LibsndfileBackend
from lhotse.serialization import open_best
from lhotse.shar import SharWriter
from lhotse.utils import fastcopy
from tqdm import tqdm

from speechattn.jobs.atomic import atomic_path, save_json
from speechattn.jobs.processes import process_map
from speechattn.jobs.stamps import VERSION, checksum

__all__ = ["Shards", "checksum_or_path", "is_sharded", "read_shards", "write_shards"]

NUM_BUCKETS = 8
FILES = ("cuts", "recording")  # the files of a shard


def is_sharded(cuts: str | Path) -> bool:
    """Whether this names shards (their index, folder or address) and not a file of cuts."""
    return "://" in str(cuts) or str(cuts).endswith(".json") or Path(cuts).is_dir()


def checksum_or_path(cuts: str | Path) -> str | Path:
    """What a stamp takes as input (see `jobs.stamps`): the checksum of the shards' index, or the path of a file."""
    return read_shards(cuts).digest if is_sharded(cuts) else Path(cuts)


@dataclass(frozen=True)
class Shards:
    """A set of shards. Iterating opens one after the other and yields their cuts, audio included.

    Args:
        location: Path or address of the index.
        shards: For each shard, its files `cuts` and `recording`, relative to the index, and its `num_cuts`.
        seconds: Total duration.
        duration_bounds: In seconds; they divide the cuts into buckets of equal total duration.
        symbols: All phones that occur.
        sample_rates: All sample rates that occur, in Hz.
        digest: SHA-256 of the index.
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
            num_parts: Number of readers, which together read every shard once.
            seed: Shuffles the shards, identically for all readers; None: the order in which they were written.

        Raises:
            ValueError: When a shard is incomplete or cannot be read; names it.
        """
        order = list(range(len(self.shards)))
        if seed is not None:
            random.Random(seed).shuffle(order)
        for number in order[part::num_parts]:
            yield from self._cuts(self.shards[number])

    def _cuts(self, shard: dict[str, Any]) -> Iterator[Any]:
        base = self.location.rpartition("/")[0]  # not a Path, which would turn the // of an address into /
        fields = {kind: [f"{base}/{shard[kind]}" if base else shard[kind]] for kind in FILES}
        count = 0
        try:
            for cut in CutSet.from_shar(fields=fields):
                count += 1
                yield cut
        except Exception as error:  # gzip, tarfile, JSON, Lhotse and servers raise anything
            raise ValueError(f"{fields['recording'][0]}: shard cannot be read after {count} cuts: {error}") from error
        if count != shard["num_cuts"]:  # a truncated tar raises no error
            raise ValueError(f"{fields['recording'][0]}: shard ends after {count} of {shard['num_cuts']} cuts")


def read_shards(location: str | Path) -> Shards:
    """Open a set of shards by its index.

    Args:
        location: The index, `DIR.json`, or the folder beside it, `DIR`; a path or an address. Addresses need the
            package smart_open.

    Raises:
        ValueError: When the index does not exist, is something else, or lists no cuts.
    """
    name = str(location).rstrip("/")
    name = name if name.endswith(".json") else f"{name}.json"
    try:
        with open_best(name, "rb") as file:  # binary, since Lhotse opens text in the locale's encoding
            content = file.read()
    except Exception as error:  # depends on the library behind smart_open
        reason = error.__context__ or error  # Lhotse reports every error at an address as a missing smart_open
        raise ValueError(f"{location}: cannot read {name}, the index of its shards: {reason}") from error
    try:
        index = json.loads(content)
        rows = tuple({key: row[key] for key in (*FILES, "num_cuts")} for row in index["shards"])
        bounds, symbols, rates = (tuple(index[key]) for key in ("duration_bounds", "symbols", "sample_rates"))
        digest = hashlib.sha256(content).hexdigest()
        shards = Shards(name, rows, float(index["seconds"]), bounds, symbols, rates, digest)
        num_cuts = len(shards)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name} is not an index of shards, as written by `speechattn prepare --shards`") from error
    if num_cuts == 0:
        raise ValueError(f"{name} lists no cuts")
    return shards


def write_shards(cuts: Path, output: Path, *, size: int, num_jobs: int = 1) -> None:
    """Write a file of cuts and their audio (16-bit FLAC) as shards, unless that is done already.

    Cuts are assigned to shards at random, with a fixed seed: each shard is a fair sample, so readers that shuffle
    shards and a small buffer mix speakers. An interrupted call keeps its finished shards for the next one.

    Args:
        cuts: File of cuts with audio.
        output: Folder of the shards; their index is `<output>.json`.
        size: Maximum number of cuts per shard.
        num_jobs: Number of processes.

    Raises:
        ValueError: When the size is not positive, the file does not hold cuts, or their audio cannot be read.
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
    unfinished = output.with_name(f".{output.name}.{digest}.unfinished")
    for other in output.parent.glob(f".{output.name}.*.unfinished"):
        if other != unfinished:
            shutil.rmtree(other)
    for folder in ("shards", "summaries"):
        (unfinished / folder).mkdir(parents=True, exist_ok=True)

    shards = _assign(cuts, size)
    with process_map(min(num_jobs, len(shards))) as run:
        written = run(partial(_write_shard, unfinished), range(len(shards)), shards)
        summaries = list(tqdm(written, total=len(shards), desc=output.name, unit="shard", leave=False, disable=None))

    index.unlink(missing_ok=True)
    with atomic_path(output) as temporary:
        (unfinished / "shards").rename(temporary)
    save_json(index, _index(output.name, source, summaries))
    shutil.rmtree(unfinished)
    hours = sum(sum(summary["durations"]) for summary in summaries) / 3600
    print(f"{output}: {len(shards)} shards of {hours:.2f} h")


def _is_written(index: Path, source: dict[str, Any]) -> bool:
    """Whether the index is for this source, and its shards are complete."""
    try:
        record = json.loads(index.read_text(encoding="utf-8"))
        return record["source"] == source and _are_complete(index.parent, record["shards"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # no index, or another file


def _are_complete(folder: Path, shards: Sequence[dict[str, Any]]) -> bool:
    """Whether the files of the shards exist with their recorded sizes."""
    sizes = [(folder / shard[kind], shard["bytes"][kind]) for shard in shards for kind in FILES]
    return all(path.is_file() and path.stat().st_size == size for path, size in sizes)


def _assign(cuts: Path, size: int) -> list[list[bytes]]:
    """Assign the lines of a file of cuts to shards at random; shard sizes differ by at most one."""
    with open(cuts, "rb") as raw, gzip.open(raw) if cuts.suffix == ".gz" else raw as file:
        try:
            lines = [line for line in file if line.strip()]
        except (OSError, EOFError) as error:
            raise ValueError(f"{cuts} is damaged: {error}") from error
    if not lines:
        raise ValueError(f"{cuts} holds no cuts")
    random.Random(0).shuffle(lines)
    num_shards = -(-len(lines) // size)
    return [lines[number::num_shards] for number in range(num_shards)]


def _write_shard(unfinished: Path, number: int, lines: Sequence[bytes]) -> dict[str, Any]:
    """Write a shard unless it is complete; return its summary."""
    summary_file = unfinished / "summaries" / f"{number:06d}.json"
    if summary_file.is_file():
        summary = json.loads(summary_file.read_text(encoding="utf-8"))
        if _are_complete(unfinished / "shards", [summary]):
            return summary
    set_current_audio_backend(LibsndfileBackend())
    durations: list[float] = []
    symbols: set[str] = set()
    rates: set[int] = set()
    fields, suffix = {"recording": "flac"}, f".{number:06d}"
    with SharWriter(unfinished / "shards", fields=fields, shard_size=None, shard_suffix=suffix) as writer:
        for cut in map(_parse_cut, lines):
            try:
                writer.write(_counting_from_its_start(cut))
            except Exception as error:  # Lhotse and soundfile raise anything
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
    save_json(summary_file, summary)  # last: it marks the shard as complete
    return summary


def _counting_from_its_start(cut: Any) -> Any:
    """Shift the alignments of a cut: in a shard, its recording begins where the cut does."""
    supervisions = []
    for supervision in cut.supervisions:
        alignment = {
            kind: [item._replace(start=item.start - cut.start) for item in items]
            for kind, items in (supervision.alignment or {}).items()
        }
        supervisions.append(fastcopy(supervision, alignment=alignment or None))
    return fastcopy(cut, supervisions=supervisions)


def _parse_cut(line: bytes) -> Any:
    try:
        [cut] = CutSet.from_dicts([json.loads(line)])
        has_audio = cut.has_recording
    except Exception as error:  # JSON and Lhotse raise anything
        raise ValueError(f"a line of the file is not a Lhotse cut: {line[:60]!r}") from error
    if not has_audio:
        raise ValueError(f"cut {cut.id} has no audio to write to a shard")
    return cut


def _index(folder: str, source: dict[str, Any], summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    durations = np.sort(np.concatenate([summary["durations"] for summary in summaries]))
    shares = np.cumsum(durations) / durations.sum()
    quantiles = np.searchsorted(shares, np.arange(1, NUM_BUCKETS) / NUM_BUCKETS)
    shards = [
        {
            **{kind: f"{folder}/{summary[kind]}" for kind in FILES},
            "num_cuts": len(summary["durations"]),
            "bytes": summary["bytes"],
        }
        for summary in summaries
    ]
    return {
        "source": source,
        "seconds": round(float(durations.sum()), 3),
        "duration_bounds": sorted(set(durations[quantiles].tolist())),
        "symbols": sorted({symbol for summary in summaries for symbol in summary["symbols"]}),
        "sample_rates": sorted({rate for summary in summaries for rate in summary["sample_rates"]}),
        "shards": shards,
    }

"""Shards: the same cuts, the same audio and labels as from the files of cuts, one shard open at a time."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet
from served_folder import served
from tiny_configuration import write_tiny

from speechattn.batches import shards as shard_batches
from speechattn.batches.loader import Batches
from speechattn.commands.main import main
from speechattn.cuts import shards as module
from speechattn.cuts.files import alignment_items, phone_intervals, read_cuts, save_cuts
from speechattn.cuts.model_inputs import check_labels, cut_waveform, load_cuts
from speechattn.cuts.shards import Shards, checksum_or_path, is_sharded, read_shards, write_shards
from speechattn.geometry import Geometry
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet

GEOMETRY = Geometry()
PHONES = PhoneSet.load("arpabet41")


@pytest.fixture(scope="module")
def sharded(tone_corpus, tmp_path_factory) -> Path:
    """The corpus of tones as shards: 5 of train, 1 of dev."""
    folder = tmp_path_factory.mktemp("sharded") / "shards"
    for split, size in (("train", 5), ("dev", 100)):
        write_shards(tone_corpus / f"{split}.jsonl.gz", folder / split, size=size)
    return folder


@pytest.fixture
def copy(sharded, tmp_path) -> Path:
    return shutil.copytree(sharded, tmp_path / "copy")


def make_batches(path, **options):
    return Batches(load_cuts(path, GEOMETRY), PHONES, GEOMETRY, batch_seconds=4.0, **options)


def contents(batches: Batches, epoch: int = 0) -> dict[str, tuple[bytes, bytes]]:
    """Utterance -> its samples and labels, without padding."""
    found = {}
    for batch in batches.epoch(epoch):
        for row, cut_id in enumerate(batch.ids):
            length = int(batch.lengths[row])
            labels = batch.labels[row, : GEOMETRY.num_frames(length)]
            assert cut_id not in found
            found[cut_id] = (batch.waveforms[row, :length].numpy().tobytes(), labels.numpy().tobytes())
    return found


@pytest.mark.parametrize(("shuffle", "num_workers"), [(False, 0), (True, 0), (True, 2)])
def test_batches_hold_what_those_of_the_file_hold(tone_corpus, sharded, shuffle, num_workers):
    expected = contents(make_batches(tone_corpus / "train.jsonl.gz", shuffle=False))
    batches = make_batches(sharded / "train", shuffle=shuffle, num_workers=num_workers)
    epochs = [contents(batches, number) for number in (0, 1)]
    assert epochs[0] == epochs[1] == expected and len(expected) == batches.num_cuts == 24
    assert (list(epochs[0]) != list(epochs[1])) == shuffle


def test_lhotse_reads_the_folder_and_finds_every_phone(tone_corpus, sharded):
    expected = {cut.id: cut for cut in read_cuts(tone_corpus / "train.jsonl.gz")}
    found = {cut.id: cut for cut in CutSet.from_shar(in_dir=sharded / "train")}
    assert found.keys() == expected.keys()
    for cut_id, cut in found.items():
        assert phone_intervals(cut) == phone_intervals(expected[cut_id])
        assert cut.supervisions[0].speaker == expected[cut_id].supervisions[0].speaker
        assert np.array_equal(cut_waveform(cut), cut_waveform(expected[cut_id]))


def test_the_list_says_what_is_in_the_shards(tone_corpus, sharded):
    cuts = read_cuts(tone_corpus / "train.jsonl.gz")
    shards = read_shards(sharded / "train")
    assert shards == read_shards(f"{sharded}/train/") == read_shards(sharded / "train.json")
    assert sorted(shard["num_cuts"] for shard in shards.shards) == [4, 5, 5, 5, 5]
    assert shards.seconds == pytest.approx(sum(cut.duration for cut in cuts), abs=1e-3)
    assert shards.symbols == ("AA", "IY", "S", "SIL") and shards.sample_rates == (16000,)
    for number, bound in enumerate(shards.duration_bounds, 1):
        below = sum(cut.duration for cut in cuts if cut.duration < bound) / shards.seconds
        upto = sum(cut.duration for cut in cuts if cut.duration <= bound) / shards.seconds
        assert below <= number / 8 <= upto


def test_the_list_can_be_read_by_people_in_any_language(tone_corpus, tmp_path):
    [cut, *_] = read_cuts(tone_corpus / "dev.jsonl.gz")
    cut.supervisions[0].alignment["phone"] = alignment_items([Interval(0, cut.num_samples, "\u0259")])
    save_cuts(tmp_path / "cuts.jsonl.gz", [cut])
    write_shards(tmp_path / "cuts.jsonl.gz", tmp_path / "shards", size=1)
    content = (tmp_path / "shards.json").read_bytes()
    shards = read_shards(tmp_path / "shards")
    assert "\u0259".encode() in content
    assert shards.symbols == ("\u0259",) and shards.digest == hashlib.sha256(content).hexdigest()


def test_each_shard_is_a_sample_of_all(tone_corpus, sharded):
    order = [cut.id for cut in read_shards(sharded / "train")]
    assert order != sorted(order, key=lambda name: int(name.split("-")[1]))
    for path in sorted((sharded / "train").glob("cuts*")):
        with gzip.open(path, "rt") as file:
            numbers = [int(json.loads(line)["id"].split("-")[1]) for line in file]
        assert max(numbers) - min(numbers) > 6  # of 24; neighbours would have 4
        assert len({after - before for before, after in pairwise(numbers)}) > 1  # and not every fifth


@given(
    num_shards=st.integers(1, 12),
    num_parts=st.integers(1, 6),
    seed=st.none() | st.text(max_size=3),
)
def test_readers_together_read_every_shard_once(num_shards, num_parts, seed):
    listed = tuple({"cuts": f"{n}", "recording": f"{n}", "num_cuts": 1} for n in range(num_shards))

    class Named(Shards):
        def _cuts(self, shard):
            yield shard["cuts"]

    shards = Named("x.json", listed, 1.0, (), (), (16000,), "")
    parts = [list(shards.share(part=part, num_parts=num_parts, seed=seed)) for part in range(num_parts)]
    assert sorted(sum(parts, [])) == sorted(shard["cuts"] for shard in listed)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parts == [list(shards.share(part=part, num_parts=num_parts, seed=seed)) for part in range(num_parts)]


def test_processes_share_the_shards_without_repeating_a_cut(tone_corpus, sharded):
    expected = contents(make_batches(tone_corpus / "train.jsonl.gz", shuffle=False))
    shares = [contents(make_batches(sharded / "train", shuffle=True, rank=rank, world_size=2)) for rank in (0, 1)]
    assert not shares[0].keys() & shares[1].keys() and shares[0] | shares[1] == expected
    rest = contents(make_batches(sharded / "dev", shuffle=False, rank=1, world_size=2))
    assert rest == {}  # one shard: all of dev is the first process's


def test_order_is_a_function_of_seed_and_epoch(sharded):
    def order(seed, epoch):
        return list(contents(make_batches(sharded / "train", shuffle=True, seed=seed), epoch))

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    # Not only within the buffer: shards, too, come in another order.
    shards = read_shards(sharded / "train")
    orders = [[cut.id for cut in shards.share(seed=seed)] for seed in (None, "0 0", "0 1")]
    assert orders[0] != orders[1] != orders[2] != orders[0] and sorted(orders[1]) == sorted(orders[2])


def test_many_cuts_are_stratified_by_length(tone_corpus, sharded, monkeypatch):
    expected = contents(make_batches(tone_corpus / "train.jsonl.gz", shuffle=False))
    sampler, asked = shard_batches._sampler, []
    monkeypatch.setattr(
        shard_batches, "_sampler", lambda cuts, bins, **options: asked.append(bins) or sampler(cuts, bins, **options)
    )
    for many in (8, 0):  # 24 cuts are few, then many
        monkeypatch.setattr(shard_batches, "MAX_BUCKETS", many)
        assert contents(make_batches(sharded / "train", shuffle=True)) == expected
    assert asked[0] is None and len(asked[1]) == 7


@pytest.fixture
def asked() -> list[str]:
    """What was fetched from `address`."""
    return []


@pytest.fixture
def address(sharded, asked) -> Iterator[str]:
    """The shards on a server."""
    pytest.importorskip("smart_open")
    with served(sharded, asked) as address:
        yield address


def test_an_address_serves_as_well(sharded, address):
    assert contents(make_batches(f"{address}/train", shuffle=True)) == contents(
        make_batches(sharded / "train", shuffle=True)
    )
    assert checksum_or_path(f"{address}/train.json") == checksum_or_path(sharded / "train")
    with pytest.raises(ValueError, match=r"/nowhere: cannot read .*nowhere\.json.*404"):
        read_shards(f"{address}/nowhere")


def test_a_shard_is_fetched_when_its_turn_comes(address, asked, monkeypatch):
    cuts = iter(read_shards(f"{address}/train"))
    assert asked == ["/train.json"]
    for number in range(24):
        next(cuts)
        assert len(asked) == 1 + 2 * (1 + number // 5)

    monkeypatch.setattr(shard_batches, "SHARD_BUFFER", 2)
    asked.clear()
    batches = make_batches(f"{address}/train", shuffle=True).epoch(0)
    next(batches)
    assert len(asked) <= 1 + 2 * 2  # of 5 shards: enough for a batch and the buffer


def test_the_audio_in_waiting_does_not_grow_with_the_number_of_shards(tone_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_batches, "SHARD_BUFFER", 2)
    alive, most = set(), {}

    class Counted:
        def __init__(self, cut):
            self.cut = cut
            alive.add(id(self))

        def __getattr__(self, name):
            return getattr(self.__dict__["cut"], name)

        def __del__(self):
            alive.discard(id(self))

    for size in (1, 12):
        write_shards(tone_corpus / "train.jsonl.gz", tmp_path / str(size), size=size)
        shards = read_shards(tmp_path / str(size))
        sampler = shard_batches._sampler((Counted(cut) for cut in shards), None, max_duration=4.0, shuffle=True, seed=0)
        most[size] = 0
        for batch in sampler:
            most[size] = max(most[size], len(alive))
            del batch
    assert 0 < most[1] <= most[12] + 1 < 12


def test_a_short_cut_is_left_out_by_name_and_another_rate_refused(tone_corpus, tmp_path, caplog):
    cuts = list(read_cuts(tone_corpus / "dev.jsonl.gz"))
    cuts[0] = cuts[0].truncate(duration=300 / 16000, preserve_id=True)
    path = tmp_path / "cuts.jsonl"
    path.write_text("".join(json.dumps(cut.to_dict()) + "\n" for cut in cuts))
    write_shards(path, tmp_path / "short", size=4)
    batches = make_batches(tmp_path / "short", shuffle=False)
    for _ in range(2):  # as dev is read in every epoch
        assert contents(batches).keys() == {cut.id for cut in cuts[1:]}
    assert caplog.text.count(f"below one frame left out: {cuts[0].id}") == 1
    with pytest.raises(ValueError, match="16000 Hz, the model is at 8000 Hz"):
        load_cuts(tmp_path / "short", Geometry(8000, 200, 80))


def test_a_phone_that_the_model_lacks_is_refused_before_training(sharded):
    check_labels(read_shards(sharded / "train"), PHONES, GEOMETRY)
    with pytest.raises(ValueError, match=r"train\.json: phone 'AA' is not in set 'timit39'"):
        check_labels(read_shards(sharded / "train"), PhoneSet.load("timit39"), GEOMETRY)


def cut_tar(path: Path, num_members: int) -> None:
    """Rewrite a tar with its first members only: whole to a reader that does not count."""
    with tarfile.open(path) as old:
        members = [(member, old.extractfile(member).read()) for member in old.getmembers()[:num_members]]
    with tarfile.open(path, "w") as new:
        for member, content in members:
            new.addfile(member, io.BytesIO(content))


def test_damage_names_the_shard(copy):
    tar = copy / "train/recording.000003.tar"
    whole = tar.read_bytes()
    cut_tar(tar, 4)
    with pytest.raises(ValueError, match=r"recording\.000003\.tar: shard ends after 2 of 5 cuts"):
        list(read_shards(copy / "train"))
    for content in (whole[:2000], b"", b"no tar"):
        tar.write_bytes(content)
        with pytest.raises(ValueError, match=r"recording\.000003\.tar: shard (ends|cannot be read) after"):
            list(read_shards(copy / "train"))
    tar.unlink()
    with pytest.raises(ValueError, match=r"recording\.000003\.tar: shard cannot be read after 0 cuts"):
        list(read_shards(copy / "train"))


def test_damaged_samples_name_the_cut(copy):
    tar = copy / "dev/recording.000000.tar"
    content = bytearray(tar.read_bytes())
    content[512:1512] = bytes(1000)  # the first FLAC file
    tar.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"^cut dev-\d: its audio in a shard cannot be read$"):
        list(make_batches(copy / "dev", shuffle=False).epoch())


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"shards": [{}], "seconds": 1}', "no json"])
def test_what_is_not_a_list_of_shards_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json is not an index of shards"):
        read_shards(tmp_path / "x")
    with pytest.raises(ValueError, match=r"cannot read .*absent\.json"):
        read_shards(tmp_path / "absent")


def test_what_is_sharded(tone_corpus, sharded):
    assert not is_sharded(tone_corpus / "train.jsonl.gz") and not is_sharded("cuts.jsonl")
    assert is_sharded(sharded / "train") and is_sharded("x/train.json") and is_sharded("s3://bucket/train")


def test_a_stopped_run_is_taken_up_again(tone_corpus, tmp_path, monkeypatch):
    source, output = tone_corpus / "train.jsonl.gz", tmp_path / "train"
    write = module._write_shard
    written: list[int] = []

    def stopping_at(last):
        def write_or_stop(workshop, number, lines):
            if number == last:
                raise KeyboardInterrupt
            summary_file = workshop / "summaries" / f"{number:06d}.json"
            if not summary_file.exists():
                written.append(number)
            return write(workshop, number, lines)

        return write_or_stop

    monkeypatch.setattr(module, "_write_shard", stopping_at(3))
    with pytest.raises(KeyboardInterrupt):
        write_shards(source, output, size=5)
    assert not output.exists() and not output.with_name("train.json").exists() and written == [0, 1, 2]
    half_written = next(tmp_path.glob(".train.*.unfinished")) / "shards/recording.000001.tar"
    half_written.write_bytes(half_written.read_bytes()[:100])
    monkeypatch.setattr(module, "_write_shard", stopping_at(None))
    write_shards(source, output, size=5)
    assert written == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "train.json"]
    assert len(list(read_shards(output))) == 24

    write_shards(source, output, size=5)  # done already
    assert written == [0, 1, 2, 3, 4]
    write_shards(source, output, size=12)  # other shards: made anew, and the old ones gone
    assert written[5:] == [0, 1] and len(list(output.glob("*"))) == 4
    (output / "recording.000001.tar").write_bytes(b"")  # damaged
    write_shards(source, output, size=12)
    assert len(list(read_shards(output))) == 24


@pytest.mark.slow
def test_several_processes_write_the_same_shards(tone_corpus, sharded, tmp_path):
    write_shards(tone_corpus / "train.jsonl.gz", tmp_path / "train", size=5, num_jobs=2)
    for path in sorted((tmp_path / "train").glob("*.tar")):
        assert path.read_bytes() == (sharded / "train" / path.name).read_bytes()
    assert [cut.id for cut in read_shards(tmp_path / "train")] == [cut.id for cut in read_shards(sharded / "train")]


def test_a_cut_that_cannot_be_written_is_named_and_nothing_looks_finished(tone_corpus, tmp_path):
    rows = [cut.to_dict() for cut in read_cuts(tone_corpus / "dev.jsonl.gz")]
    rows[2]["recording"]["sources"][0]["source"] = str(tmp_path / "gone.flac")
    path = tmp_path / "cuts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=rf"cut {rows[2]['id']}: its audio .*gone\.flac cannot be read"):
        write_shards(path, tmp_path / "x", size=3)
    assert not (tmp_path / "x").exists() and not (tmp_path / "x.json").exists()
    for content, reason in (("", "holds no cuts"), ("{}\n", "not a Lhotse cut"), ("no json\n", "not a Lhotse cut")):
        path.write_text(content)
        with pytest.raises(ValueError, match=reason):
            write_shards(path, tmp_path / "x", size=3)
    with pytest.raises(ValueError, match="at least 1"):
        write_shards(path, tmp_path / "x", size=0)
    with pytest.raises(ValueError, match="no such file"):
        write_shards(tmp_path / "absent.jsonl.gz", tmp_path / "x", size=1)


def test_the_command_prepares_trains_and_scores_from_shards(tone_corpus, tmp_path, monkeypatch):
    def copy_splits(corpus, output, **_):
        output.mkdir()
        for split in ("train", "dev", "test"):
            shutil.copy(tone_corpus / f"{split}.jsonl.gz", output)

    monkeypatch.setattr("speechattn.corpora.prepare_corpus", copy_splits)
    folder = tmp_path / "data"
    main(["prepare", "espeak", "--output", str(folder), "--shards", "10", "--num-jobs", "1"])
    assert {path.name for path in (folder / "shards").iterdir()} == {
        f"{split}{suffix}" for split in ("train", "dev", "test") for suffix in ("", ".json")
    }
    train = ["train", "--config", str(write_tiny(tmp_path / "tiny.yaml")), "--output", str(tmp_path / "model")]
    train += ["--data.train", str(folder / "shards/train"), "--data.dev", str(folder / "shards/dev.json")]
    main(train)
    weights = tmp_path / "model/model.safetensors"
    made = weights.stat().st_mtime_ns
    main(train)
    assert weights.stat().st_mtime_ns == made  # done already
    report, plain = tmp_path / "report", tmp_path / "plain.json"
    evaluate = ["evaluate", str(tmp_path / "model"), "--cuts"]
    main([*evaluate, str(folder / "shards/test"), "--report", str(report)])
    main([*evaluate, str(folder / "test.jsonl.gz"), "--json", str(plain)])
    scores, sharded = json.loads(plain.read_text()), json.loads((report / "test.json").read_text())
    for name in [name for name in scores if name.startswith("expected_calibration_error")]:
        assert scores.pop(name) == pytest.approx(sharded.pop(name), abs=1e-5)  # posteriors, in batches of other cuts
    assert scores == sharded and scores["num_utterances"] == 6
    assert (report / "test_example.png").is_file()

    write_shards(folder / "train.jsonl.gz", folder / "shards/train", size=5)  # other shards: another run
    main([*train, "--overwrite"])
    assert weights.stat().st_mtime_ns > made

"""Packed phones are the list that they replace: for Lhotse, for JSON, for other processes, in less memory."""

import json
import pickle
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from lhotse import MonoCut, SupervisionSegment
from lhotse.supervision import AlignmentItem

from speechattn.cuts.files import phone_intervals, read_cuts, save_cuts, utterance_cut
from speechattn.cuts.packed import PackedItems, packed
from speechattn.labels.intervals import Interval

ITEMS = st.lists(st.builds(AlignmentItem, st.text(max_size=3), st.floats(0, 9), st.floats(0, 9), st.none()), max_size=5)


def cut_of(items):
    supervision = SupervisionSegment("a", "a", 0.0, 9.0, text="A", speaker="s", alignment={"phone": items})
    return MonoCut("a", 0.0, 9.0, channel=0, supervisions=[supervision])


@given(ITEMS)
def test_packed_items_are_the_list(items):
    plain, cut = cut_of(items), packed(cut_of(list(items)))
    kept = cut.supervisions[0].alignment["phone"]
    assert isinstance(kept, PackedItems) and kept == items and list(kept) == items and len(kept) == len(items)
    assert [kept[index] for index in range(len(items))] == items and kept[1:] == items[1:] and repr(kept) == repr(items)
    assert all(type(item) is AlignmentItem and type(item.start) is float for item in kept)
    assert json.dumps(cut.to_dict()) == json.dumps(plain.to_dict())
    assert pickle.loads(pickle.dumps(cut)).supervisions[0].alignment["phone"] == items
    for change in (lambda c: c.supervisions[0].with_offset(0.5), lambda c: c.supervisions[0].trim(4.0)):
        assert change(cut) == change(plain)


@pytest.mark.parametrize("item", [("A", 0, 1.0), ("A", 0.0, 1.0, 0.5), ("A", "x", 1.0), (1, 0.0, 1.0)])
def test_what_would_lose_something_stays_a_list(item):
    assert type(packed(cut_of([AlignmentItem(*item)])).supervisions[0].alignment["phone"]) is list


def test_files_of_cuts_are_packed_and_written_unchanged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1000), 16000)
    cut = utterance_cut(
        "a", tmp_path / "a.wav", speaker="s", text="A", intervals=[Interval(0, 77, "AA"), Interval(77, 999, "B")]
    )
    save_cuts(tmp_path / "a.jsonl.gz", [cut])
    [read] = read_cuts(tmp_path / "a.jsonl.gz")
    assert isinstance(read.supervisions[0].alignment["phone"], PackedItems)
    assert phone_intervals(read) == [(0, 77, "AA"), (77, 999, "B")]
    save_cuts(tmp_path / "b.jsonl.gz", [read])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_packed_phones_take_a_fraction_of_the_memory():
    rows = [(f"P{index % 40}", 0.1 * index, 0.1) for index in range(40)]
    lines = [json.dumps(rows) for _ in range(500)]
    taken = []
    for function in (lambda cut: cut, packed):
        tracemalloc.start()
        cuts = [function(cut_of([AlignmentItem(*row) for row in json.loads(line)])) for line in lines]
        taken.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(cuts) == 500
    assert taken[1] < 0.35 * taken[0], np.array(taken) / 500

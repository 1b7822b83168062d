"""Speakers stay together, shares are met about as well as can be, lists are followed to the letter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse import MonoCut, SupervisionSegment

from speechattn.cuts.splits import draw_speakers, split_cuts

SPEAKERS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.floats(0.5, 900), min_size=3, max_size=30)


@given(SPEAKERS, st.floats(0.01, 0.49), st.floats(0.01, 0.49), st.integers(0, 99))
def test_every_split_gets_somebody_and_about_its_share(seconds, dev, test, seed):
    total = sum(seconds.values())
    wanted = {"dev": dev * total, "test": test * total}
    drawn = draw_speakers(seconds, wanted, seed)
    assert drawn == draw_speakers(dict(reversed(seconds.items())), wanted, seed)
    assert set(drawn.values()) == {"dev", "test"} and len(drawn) < len(seconds)
    for split, target in wanted.items():
        times = [seconds[speaker] for speaker, name in drawn.items() if name == split]
        if len(times) > 1:  # without any one of them it would be no nearer: so it is at most half of one too long
            assert sum(times) <= target + max(times) / 2 + 1e-9


def test_another_seed_draws_others():
    seconds = {f"s{number:02}": 10.0 for number in range(40)}
    draws = {tuple(sorted(draw_speakers(seconds, {"dev": 40.0, "test": 40.0}, seed))) for seed in range(5)}
    assert len(draws) == 5 and all(len(draw) == 8 for draw in draws)


def cuts(**speakers):
    return [
        MonoCut(f"{speaker}-{n}", 0.0, 1.0, 0, [SupervisionSegment(f"{speaker}-{n}", "r", 0.0, 1.0, speaker=speaker)])
        for speaker, count in speakers.items()
        for n in range(count)
    ]


def names(splits):
    return {split: [cut.id for cut in members] for split, members in splits.items()}


def test_lists_of_speakers_and_of_utterances(tmp_path):
    (tmp_path / "dev").write_text("b\n\n")
    (tmp_path / "test").write_text("c-0 c\nc-1 c\nlost-0 lost\n")  # Kaldi's utt2spk: its first word counts
    options = dict(dev=str(tmp_path / "dev"), test=str(tmp_path / "test"), seed=0)
    allowed = {"a", "b", "c", "c-0", "c-1", "lost-0"}
    splits = split_cuts(cuts(a=2, b=2, c=2), allowed=allowed, **options)
    assert names(splits) == {"train": ["a-0", "a-1"], "dev": ["b-0", "b-1"], "test": ["c-0", "c-1"]}
    with pytest.raises(ValueError, match=r"test:3: lost-0 is neither an utterance nor a speaker of this corpus"):
        split_cuts(cuts(a=2, b=2, c=2), allowed=allowed - {"lost-0"}, **options)
    (tmp_path / "test").write_text("c\nb\n")
    with pytest.raises(ValueError, match=r"test:2: b is in the list of dev already"):
        split_cuts(cuts(a=2, b=2, c=2), allowed=allowed, **options)


def test_one_list_and_one_share(tmp_path):
    (tmp_path / "test").write_text("c\n")
    splits = names(split_cuts(cuts(a=3, b=3, c=2), dev=0.3, test=str(tmp_path / "test"), seed=0, allowed={"c"}))
    assert splits["test"] == ["c-0", "c-1"] and len(splits["dev"]) == len(splits["train"]) == 3


def test_too_few_speakers():
    with pytest.raises(ValueError, match="2 speakers cannot be divided among train and dev and test: .*--speaker"):
        split_cuts(cuts(a=2, b=2), dev=0.1, test=0.1, seed=0, allowed=set())

"""TextGrids: long and short ones of any encoding come back to the last bit; Praat opens what we write."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import parselmouth
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parselmouth.praat import call

from speechattn.geometry import num_frames
from speechattn.labels.frames import frames_to_segments
from speechattn.labels.intervals import Segment
from speechattn.labels.textgrid import read_textgrid, write_textgrid

LABEL = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029"), max_size=6)
TIMES = st.lists(st.floats(1e-12, 1e4, allow_nan=False), min_size=1, max_size=8, unique=True).map(sorted)


@st.composite
def tiers(draw):
    """One or two interval tiers and perhaps points: (class, name, rows)."""
    made = []
    for name in ("phones", "words")[: draw(st.integers(1, 2))]:
        times = [0.0, *draw(TIMES)]
        rows = [(start, end, draw(LABEL).strip()) for start, end in pairwise(times)]
        made.append(("IntervalTier", name, [row for row in rows if draw(st.booleans()) or len(rows) == 1]))
    if draw(st.booleans()):
        made.insert(draw(st.integers(0, 1)), ("TextTier", "phones", [(time, draw(LABEL)) for time in draw(TIMES)]))
    return made


def text_of(tiers: list, form: str) -> str:
    """A TextGrid as Praat would write it, by string formatting alone."""
    end = max(max(row[:-1]) for _, _, rows in tiers for row in [*rows, (1.0, "")])
    long = form == "long"
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]

    def put(name: str, value: object) -> None:
        lines.append(f"   {name} = {value} " if long else str(value))

    put("xmin", 0), put("xmax", repr(end))
    lines.append("tiers? <exists> " if long else "<exists>")
    put("size", len(tiers))
    lines.extend(["item []: "] if long else [])
    for number, (class_, name, rows) in enumerate(tiers, 1):
        lines.extend([f"    item [{number}]:"] if long else [])
        put("class", f'"{class_}"'), put("name", f'"{name}"'), put("xmin", 0), put("xmax", repr(end))
        kind = "intervals" if class_ == "IntervalTier" else "points"
        put(f"{kind}: size", len(rows))
        for index, row in enumerate(rows, 1):
            lines.extend([f"        {kind} [{index}]:"] if long else [])
            for name_, value in zip(("xmin", "xmax") if len(row) == 3 else ("number",), row, strict=False):
                put(name_, repr(value))
            put("text", '"' + row[-1].replace('"', '""') + '"')
    return "\n".join(lines) + "\n"


@given(tiers(), st.sampled_from(["long", "short"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.booleans())
def test_every_time_and_label_comes_back(tmp_path_factory, tiers, form, encoding, windows) -> None:
    path = tmp_path_factory.mktemp("grid") / "a.TextGrid"
    text = text_of(tiers, form)
    path.write_bytes((text.replace("\n", "\r\n") if windows else text).encode(encoding))
    for class_, name, rows in tiers:
        if class_ == "IntervalTier":
            assert read_textgrid(path, name) == [Segment(label, start, end) for start, end, label in rows]


@given(TIMES, st.data())
def test_what_is_written_comes_back_with_empty_intervals_in_its_gaps(tmp_path_factory, times, data) -> None:
    path = tmp_path_factory.mktemp("grid") / "a.TextGrid"
    rows = [Segment(data.draw(LABEL).strip(), start, end) for start, end in pairwise([0.0, *times])]
    kept = [row for row in rows[:-1] if data.draw(st.booleans())] + rows[-1:]
    write_textgrid(path, kept)
    back = read_textgrid(path)
    assert [segment for segment in back if segment.phone or segment in kept] == kept
    assert back[0].start == 0 and all(left.end == right.start for left, right in pairwise(back))


def segments_of(length: int, rate: int) -> list[Segment]:
    random = np.random.default_rng(length + rate)
    classes = random.integers(0, 3, num_frames(-(-length * 16000 // rate)))
    confidences = random.uniform(0.3, 1, len(classes))
    return frames_to_segments(classes, confidences, ["SIL", 'a "b"', "ɪ̃"], length / rate)


@pytest.mark.parametrize("length, rate", [(16_000, 16_000), (49_999, 44_100), (12_347, 8000)])
def test_praat_opens_a_textgrid_that_is_as_long_as_the_sound(tmp_path: Path, length: int, rate: int) -> None:
    segments = segments_of(length, rate)
    write_textgrid(tmp_path / "a.TextGrid", segments)
    grid = parselmouth.read(str(tmp_path / "a.TextGrid"))
    sound = parselmouth.Sound(np.zeros(length), sampling_frequency=rate)
    assert grid.xmin == 0 and grid.xmax == segments[-1].end == length / rate
    assert grid.xmax == pytest.approx(sound.xmax, abs=1e-12)
    assert call(grid, "Get number of tiers") == 1 and call(grid, "Get tier name", 1) == "phones"
    assert call(grid, "Get number of intervals", 1) == len(segments)
    for number, segment in enumerate(segments, 1):
        assert call(grid, "Get label of interval", 1, number) == segment.phone
        assert call(grid, "Get start time of interval", 1, number) == segment.start
        assert call(grid, "Get end time of interval", 1, number) == segment.end


def test_gaps_become_empty_intervals_for_praat_too(tmp_path: Path) -> None:
    write_textgrid(tmp_path / "a.TextGrid", [Segment("a", 0.1, 0.2), Segment('say "b"', 0.3, 1e-5 + 0.3)])
    assert [tuple(s[:3]) for s in read_textgrid(tmp_path / "a.TextGrid")] == [
        ("", 0.0, 0.1), ("a", 0.1, 0.2), ("", 0.2, 0.3), ('say "b"', 0.3, 1e-5 + 0.3),
    ]  # fmt: skip
    grid = parselmouth.read(str(tmp_path / "a.TextGrid"))
    assert call(grid, "Get label of interval", 1, 4) == 'say "b"' and call(grid, "Get number of intervals", 1) == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["long", "short"])
def test_textgrids_that_praat_writes_are_read(tmp_path: Path, encoding: str, form: str) -> None:
    grid = call("Create TextGrid", 0, 1.0000625, "words phones marks", "marks")
    call(grid, "Insert boundary", 2, 0.30625)
    call(grid, "Insert boundary", 2, 1e-7)  # Praat writes it with an exponent
    call(grid, "Set interval text", 2, 2, 'ɪ̃ "\nb')
    call(grid, "Insert point", 3, 0.5, "mark")
    path = tmp_path / "praat.TextGrid"
    call(grid, "Save as short text file" if form == "short" else "Save as text file", str(path))
    text = path.read_bytes().decode("utf-16" if path.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    assert "e-07" in text
    path.write_bytes(text.encode(encoding))
    assert read_textgrid(path) == [
        Segment("", 0.0, 1e-7), Segment('ɪ̃ "\nb', 1e-7, 0.30625), Segment("", 0.30625, 1.0000625),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no interval tier 'marks'; its interval tiers: words, phones"):
        read_textgrid(path, "marks")


GRID = text_of([("IntervalTier", "phones", [(0.0, 0.5, "a"), (0.5, 1.0, "b")])], "short")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r'a.TextGrid: not a TextGrid: the file ends where "ooTextFile" is expected'),
        ("hello 3\n", r'a.TextGrid:1: not a TextGrid: expected "ooTextFile", found \'3\''),
        (GRID.replace('"TextGrid"', '"PitchTier"'), 'a.TextGrid:2: .* expected "TextGrid", found .PitchTier'),
        (GRID.replace("<exists>", "<absent>"), "no interval tier 'phones'; its interval tiers: none"),
        (GRID.replace('"phones"', '"words"'), "no interval tier 'phones'; its interval tiers: words"),
        (
            GRID.replace('"IntervalTier"', '"PitchTier"'),
            "a.TextGrid:8: .*expected .IntervalTier. or .TextTier., found 'PitchTier'",
        ),
        (GRID.replace("\n0\n1.0\n<", "\n1.5\n2\n<"), "a.TextGrid:4: starts at 1.5 s"),
        (GRID.replace("<exists>\n1\n", "<exists>\n-1\n"), "a.TextGrid:7: .*expected the number of tiers, found '-1'"),
        (GRID.replace('0.5\n1.0\n"b"', '0.5\n"b"'), "a.TextGrid:17: .*expected an end time, found 'b'"),
        (GRID.replace('"b"\n', ""), "a.TextGrid: .*the file ends where a label is expected"),
        (GRID.replace('"b"', '"b'), "a.TextGrid:18: .*a quotation mark is not closed"),
        (GRID.replace("0.5\n1.0", "0.3\n1.0"), "a.TextGrid:18: phone 'b' from 0.3 to 1.0 overlaps 'a'"),
        (GRID.replace("0.5\n1.0", "0.5\n0.5"), "a.TextGrid:18: phone 'b' from 0.5 to 0.5 is empty"),
        (GRID.replace("0.0\n0.5", "-0.1\n0.5"), "a.TextGrid:15: phone 'a' from -0.1 to 0.5 is empty or before 0"),
    ],
)
def test_bad_textgrids_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.TextGrid").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_textgrid(tmp_path / "a.TextGrid")
    assert "\n" not in str(caught.value)


def test_two_tiers_of_one_name_are_ambiguous(tmp_path: Path) -> None:
    tier = ("IntervalTier", "phones", [(0.0, 0.5, "a")])
    (tmp_path / "a.TextGrid").write_text(text_of([tier, tier], "long"))
    with pytest.raises(ValueError, match="more than one interval tier 'phones'"):
        read_textgrid(tmp_path / "a.TextGrid")


def test_comments_and_the_old_short_header_are_understood(tmp_path: Path) -> None:
    text = GRID.replace('"ooTextFile"', '"ooTextFile short"').replace("<exists>", '<exists> ! 5 "x"\n! 7')
    (tmp_path / "a.TextGrid").write_text(text)
    assert read_textgrid(tmp_path / "a.TextGrid") == [Segment("a", 0.0, 0.5), Segment("b", 0.5, 1.0)]

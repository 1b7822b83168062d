"""`speechattn score`: alignments of any tool, read and compared, and utterances of one side named."""

import json

import numpy as np
import pytest
import soundfile
from refused import refused

from speechattn.commands.main import main
from speechattn.cuts.files import save_cuts, utterance_cut
from speechattn.evaluation.scoring import read_phone_intervals
from speechattn.labels.files import write_csv, write_ctm, write_json, write_textgrid
from speechattn.labels.intervals import Interval, Segment

SEGMENTS = [Segment("SIL", 0.0, 0.5), Segment("AH", 0.5, 0.75), Segment("S", 0.75, 1.0)]
LATE = [Segment("SIL", 0.0, 0.515), Segment("AH", 0.515, 0.765), Segment("S", 0.765, 1.0)]
INTERVALS = [Interval(0, 8000, "SIL"), Interval(8000, 12000, "AH"), Interval(12000, 16000, "S")]
WRITERS = {"TextGrid": write_textgrid, "ctm": write_ctm, "json": write_json, "csv": write_csv}


def cuts(path, *names):
    soundfile.write(path.parent / "a.wav", np.zeros(16000), 16000)
    audio = path.parent / "a.wav"
    save_cuts(path, [utterance_cut(name, audio, speaker="s", text="a", intervals=INTERVALS) for name in names])
    return path


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_one_file_of_any_format(tmp_path, suffix):
    WRITERS[suffix](tmp_path / f"u.{suffix}", SEGMENTS)
    assert read_phone_intervals(tmp_path / f"u.{suffix}") == {"u": INTERVALS}


def test_cuts_and_phn(tmp_path):
    assert read_phone_intervals(cuts(tmp_path / "cuts.jsonl.gz", "a", "b")) == {"a": INTERVALS, "b": INTERVALS}
    (tmp_path / "x.PHN").write_text("0 8000 SIL\n8000 12000 AH\n12000 16000 S\n")
    assert read_phone_intervals(tmp_path / "x.PHN") == {"x": INTERVALS}


def test_a_folder_is_read_in_one_format_and_named_by_path(tmp_path):
    for name in ("one/sa1", "two/sa1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.phn").write_text("0 8000 SIL\n8000 12000 AH\n12000 16000 S\n")
        (tmp_path / f"{name}.txt").write_text("0 16000 Not Audacity's labels.\n")
    (tmp_path / "one" / "._sa1.TextGrid").write_text("what a Mac leaves beside a file")
    assert read_phone_intervals(tmp_path) == {"one/sa1": INTERVALS, "two/sa1": INTERVALS}
    write_ctm(tmp_path / "u.ctm", SEGMENTS)
    assert read_phone_intervals(tmp_path) == {"u": INTERVALS}
    (tmp_path / "one" / "again.ctm").write_bytes((tmp_path / "u.ctm").read_bytes())
    with pytest.raises(ValueError, match="another file has an utterance u, too"):
        read_phone_intervals(tmp_path)


def test_figures_are_printed_and_written(tmp_path, capsys):
    write_textgrid(tmp_path / "by-hand.TextGrid", SEGMENTS)
    write_json(tmp_path / "by-machine.json", LATE)
    names = [str(tmp_path / name) for name in ("by-hand.TextGrid", "by-machine.json")]
    main(["score", *names, "--json", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["num_utterances"] == 1 and figures["num_frames"] == 98
    assert figures["boundaries"]["10"]["f1"] == 0 and figures["boundaries"]["20"]["f1"] == 1
    assert figures["displacement_ms"]["mean"] == pytest.approx(15)
    assert figures["only_in_reference"] == figures["only_in_hypothesis"] == []
    printed = capsys.readouterr().out
    assert f"frame agreement {100 * figures['frame_agreement']:.2f} %" in printed
    assert "20 ms       100.00 %    100.00 %    100.00 %    100.00 %" in printed
    assert "displacement within 50 ms: mean +15.0 ms" in printed
    assert "AH      " in printed


def test_utterances_of_one_side_are_named_and_the_others_compared(tmp_path, capsys):
    reference = cuts(tmp_path / "ref.jsonl.gz", "u", *(f"only-{number:02}" for number in range(12)))
    hypothesis = cuts(tmp_path / "hyp.jsonl.gz", "u", "extra")
    main(["score", str(reference), str(hypothesis), "--json", str(tmp_path / "figures.json")])
    captured = capsys.readouterr()
    assert f"12 utterances only in {reference}: only-00, only-01" in captured.err
    assert "only-09 and 2 more" in captured.err
    assert f"1 utterances only in {hypothesis}: extra" in captured.err
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["num_utterances"] == 1 and figures["frame_agreement"] == 1
    assert len(figures["only_in_reference"]) == 12 and figures["only_in_hypothesis"] == ["extra"]


def test_inventories_are_folded(tmp_path):
    (tmp_path / "u.phn").write_text("0 8000 h#\n8000 9000 q\n9000 12000 tcl\n12000 12500 t\n12500 16000 ix\n")
    write_ctm(tmp_path / "u.ctm", [Segment("SIL", 0, 0.5625), Segment("T", 0.5625, 0.78125), Segment("IH", 0.78125, 1)])
    arguments = ["score", str(tmp_path / "u.phn"), str(tmp_path / "u.ctm"), "--phones", "timit39"]
    for option, agreement in (([], 0.75), (["--closures-as-stops"], 1.0)):
        main([*arguments, *option, "--json", str(tmp_path / "figures.json")])
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert figures["num_frames"] == 98 - 6  # frames with their centres in q
        assert figures["frame_agreement"] == pytest.approx(agreement, abs=0.05)
        assert (figures["frame_agreement"] == 1) == bool(option)


def test_what_cannot_be_compared_is_one_line(tmp_path, capsys):
    def refusal(*arguments):
        return refused(capsys, "score", *arguments)

    one, other = cuts(tmp_path / "one.jsonl.gz", "a"), cuts(tmp_path / "other.jsonl.gz", "b")
    assert "share no utterance; their first ones: a, b" in refusal(one, other)
    assert "no such file" in refusal(one, tmp_path / "nothing.ctm")
    assert "unknown phone set 'timit40'" in refusal(one, one, "--phones", "timit40")
    (tmp_path / "a.phn").write_text("0 8000 h#\n8000 16000 ix\n")
    assert "phone 'h#' is not in set 'arpabet41'" in refusal(tmp_path / "a.phn", one, "--phones", "arpabet41")
    (tmp_path / "empty").mkdir()
    assert "no label files found" in refusal(one, tmp_path / "empty")
    write_textgrid(tmp_path / "a.TextGrid", SEGMENTS)
    assert "no interval tier 'words'" in refusal(tmp_path / "a.TextGrid", tmp_path / "a.TextGrid", "--tier", "words")

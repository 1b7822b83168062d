"""Two hundred bad files and some of chance: each gets its line, and the server neither dies, hangs nor swells."""

from __future__ import annotations

import resource
import time

from malformed_audio import fuzzed_files, malformed_files
from served_app import send

SLOWEST_S = 10.0  # on a busy machine
MOST_GROWTH_MB = 200


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_malformed_files_are_refused_by_name(server, recording, tmp_path):
    paths = malformed_files(tmp_path)
    assert len(paths) >= 200
    expected = send(server, recording, format="ctm").text
    before, slowest = peak_mb(), 0.0
    for path in paths:
        began = time.monotonic()
        answer = send(server, path)
        slowest = max(slowest, time.monotonic() - began)
        assert answer.status_code in (400, 413, 415), path.name
        error = answer.json()["error"]
        if path.stat().st_size:
            assert error.startswith(f"{path.name}: "), error
        assert "\n" not in error and "/" not in error.replace(path.name, "").replace("WAV/W64/RF64", ""), error
        assert 10 < len(error) < 200, error
    assert slowest < SLOWEST_S and peak_mb() - before < MOST_GROWTH_MB
    assert send(server, recording, format="ctm").text == expected


def test_fuzzed_headers_do_no_harm(server, recording, tmp_path):
    send(server, recording)
    before, statuses = peak_mb(), []
    for path in fuzzed_files(tmp_path, 80):
        answer = send(server, path)
        statuses.append(answer.status_code)
        if answer.status_code != 200:
            assert answer.status_code in (400, 413, 415) and str(tmp_path) not in answer.json()["error"]
    assert statuses.count(200) >= 10 and statuses.count(415) >= 10  # both kinds were among them
    assert peak_mb() - before < MOST_GROWTH_MB
    assert send(server, recording).status_code == 200

"""The built wheel carries everything, and works outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_wheel_predicts_from_anywhere(tmp_path, model_folder):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        packed = set(file.namelist())
    for path in (ROOT / "speechattn").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT)) in packed
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    soundfile.write(tmp_path / "a.wav", [0.1, -0.1] * 4000, 16000)
    command = [sys.executable, "-m", "speechattn", "predict", "a.wav", "--model", str(model_folder)]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1].split()[1] == "0.5000"
    where = "import speechattn; print(speechattn.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert found.stdout.startswith(str(site))

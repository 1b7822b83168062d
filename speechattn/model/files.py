"""The files of a model, and where models are found: in a folder, in the package, on the Hugging Face Hub."""

import re
from pathlib import Path

from speechattn.model.hub import fetch

__all__ = ["CONFIG_FILE", "PHONOTACTICS_FILE", "WEIGHTS_FILE", "find_model", "model_files"]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
PHONOTACTICS_FILE = "phonotactics.json"  # only of models that can smooth
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, PHONOTACTICS_FILE)
BOXED = Path(__file__).parents[1] / "assets"  # models that come with the package
RETIRED = {  # models that used to come with the package, and their replacement
    "speechocean762-small": "use english-small, or train it with `bash recipes/speechocean762/run.sh --conf "
    "recipes/speechocean762/conf/long.yaml`"
}


def model_files(name: str | Path) -> dict[str, Path]:
    """Files of a local or boxed model by name; empty for a model on the Hub."""
    folder = _boxed(name) or Path(name)
    files = {file: path for file in MODEL_FILES if (path := folder / file).is_file()}
    return files if CONFIG_FILE in files and WEIGHTS_FILE in files else {}


def find_model(name: str | Path) -> Path:
    """Folder of a model. Only `hf:` reaches the Hub, so that a mistyped folder never loads a stranger's model.

    Args:
        name: A folder, a boxed model such as `english-small`, or `hf:owner/name` on the Hub.

    Raises:
        ValueError: When there is no such model.
    """
    if str(name).startswith("hf:"):
        return fetch(str(name).removeprefix("hf:"), MODEL_FILES)
    folder = _boxed(name) or Path(name)
    if (folder / CONFIG_FILE).is_file():
        return folder
    if str(name) in RETIRED:
        raise ValueError(f"{name} no longer comes with speechattn: {RETIRED[str(name)]}")
    may_be_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name)) and not folder.exists()
    hint = f"; a model on the Hugging Face Hub is written hf:{name}" if may_be_id else ""
    raise ValueError(f"no model at {name}: a folder with {CONFIG_FILE} and {WEIGHTS_FILE} is needed{hint}")


def _boxed(name: str | Path) -> Path | None:
    """Folder of a boxed model; a model in a local folder of that name takes precedence."""
    boxed = BOXED / name
    found = str(name) == boxed.name and (boxed / CONFIG_FILE).is_file() and not (Path(name) / CONFIG_FILE).exists()
    return boxed if found else None

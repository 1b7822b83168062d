"""Commands to train, evaluate and compare models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from speechattn.commands import Parser

CLOSURES_HELP = "count TIMIT's closures as parts of their stops"
RIGHT_HELP = "limit the right context of each attention layer to this many frames (or steps, see encoder.stack)"
DEVICE_HELP = "cpu, cuda, cuda:1, mps ..."
MODEL_HELP = "folder of a model, a boxed model such as english-small, or hf:OWNER/NAME on the Hugging Face Hub"


def check_configs(argv: Sequence[str]) -> None:
    """Refuse configuration files that are not UTF-8: the parser would not name them."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        path = following if word == "--config" else word.removeprefix("--config=")
        if path != word and Path(path).is_file():
            try:
                Path(path).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{path}: a configuration must be text in UTF-8") from None


def add_train(parser: ArgumentParser) -> None:
    """Options of `train`."""
    from speechattn.training.run import TrainConfig

    parser.add_argument("--config", action="config", help="YAML file with any of the options below; may be repeated")
    parser.add_argument("--init", type=str, help="model to start from")
    parser.add_argument(
        "--overwrite", action="store_true", help="train in a folder that holds another finished model, which is renamed"
    )
    parser.add_argument(
        "--processes", type=int,
        help="processes on this machine that share each step; default: 2 for a model of a million parameters on a CPU "
        "with two cores or more, else 1",
    )  # fmt: skip
    parser.add_class_arguments(TrainConfig, as_group=False)


def train(arguments: Any) -> None:
    """Train a model."""
    from dataclasses import fields

    from speechattn.model.classifier import FrameClassifier
    from speechattn.training.local_group import default_processes
    from speechattn.training.run import TrainConfig, train

    parser = Parser()
    parser.add_class_arguments(TrainConfig, as_group=False)
    built = parser.instantiate(arguments.clone(with_meta=False))
    config = TrainConfig(**{field.name: built[field.name] for field in fields(TrainConfig)})
    processes = arguments.processes
    if processes is None:
        init = arguments.init
        model = FrameClassifier(config.model) if init is None else FrameClassifier.from_pretrained(init)
        processes = default_processes(sum(parameter.numel() for parameter in model.parameters()))
    elif processes < 1:
        raise ValueError(f"--processes must be 1 or more, got {processes}")
    train(config, init=arguments.init, overwrite=arguments.overwrite, processes=processes)


def add_evaluate(parser: ArgumentParser) -> None:
    """Options of `evaluate`."""
    parser.add_argument("model", type=str, help=MODEL_HELP)
    parser.add_argument("--cuts", type=str, required=True, help="cuts with phones")
    parser.add_argument("--phones", type=str, help="phone set to score on, such as timit39; default: the model's own")
    parser.add_argument("--closures-as-stops", action="store_true", help=CLOSURES_HELP)
    parser.add_argument("--report", type=str, help="write figures, pictures and an HTML page to this folder")
    parser.add_argument("--smooth", action="store_true", help="also score smoothed decisions")
    parser.add_argument("--right", type=int, help=RIGHT_HELP)
    parser.add_argument("--device", type=str, default="cpu", help=DEVICE_HELP)
    parser.add_argument("--json", type=str, help="write the figures to this file")


def evaluate(arguments: Any) -> None:
    """Evaluate a model on cuts."""
    from speechattn.reports.evaluation_report import evaluate_and_report

    evaluate_and_report(
        arguments.model,
        arguments.cuts,
        phones=arguments.phones,
        closures_as_stops=arguments.closures_as_stops,
        report=arguments.report,
        json_file=arguments.json,
        smooth=arguments.smooth,
        right=arguments.right,
        device=arguments.device,
    )


def add_compare(parser: ArgumentParser) -> None:
    """Options of `compare`."""
    parser.add_argument("model_a", metavar="A", type=str, help=MODEL_HELP)
    parser.add_argument("model_b", metavar="B", type=str, help=MODEL_HELP)
    parser.add_argument("--cuts", type=str, required=True, help="cuts with phones")
    parser.add_argument("--phones", type=str, help="phone set to score on, such as timit39; default: the models' own")
    parser.add_argument("--closures-as-stops", action="store_true", help=CLOSURES_HELP)
    parser.add_argument("--json", type=str, help="write the figures to this file")


def compare(arguments: Any) -> None:
    """Test whether one of two models is better on cuts."""
    from speechattn.evaluation.comparison import compare_and_print

    compare_and_print(
        arguments.model_a,
        arguments.model_b,
        arguments.cuts,
        phones=arguments.phones,
        closures_as_stops=arguments.closures_as_stops,
        json_file=arguments.json,
    )

"""The whole model, waveform in and a phone per frame out: front end, body, output layer.

With pooling between body and output layer it is one label per utterance; without a front end, features go in.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from speechattn.audio import audio_info, load_audio
from speechattn.decoding.smoothing import Phonotactics, smooth
from speechattn.frontend import Frontend, LogMelTransform, ReadyFeatures, make_frontend
from speechattn.jobs.atomic import atomic_path, save_json
from speechattn.labels.frames import frames_to_segments
from speechattn.labels.intervals import Segment
from speechattn.model.baselines import Blstm, Linear, Mlp, Tdnn
from speechattn.model.config import ClassifierConfig
from speechattn.model.encoder import Encoder
from speechattn.model.pooling import AttentionPooling, MeanPooling
from speechattn.phones import PhoneSet

if TYPE_CHECKING:
    from speechattn.model.stream import ClassifierStream

__all__ = ["ClassifierConfig", "FrameClassifier", "model_files"]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
PHONOTACTICS_FILE = "phonotactics.json"  # of models that know theirs
RETIRED = {  # models that used to come with the package -> what to do instead
    "speechocean762-small": "use english-small, or train it with `bash recipes/speechocean762/run.sh --conf "
    "recipes/speechocean762/conf/long.yaml`"
}
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, PHONOTACTICS_FILE)


class FrameClassifier(nn.Module):
    """Predicts a phone for every 10 ms of speech or, with pooling, one label for an utterance.

    Args:
        config: The model's shape; fresh weights come from PyTorch's random state.

    Example:
        >>> model = FrameClassifier(ClassifierConfig(phones="timit39"))
        >>> logits, frame_lengths = model(torch.zeros(2, 16000), torch.tensor([16000, 8000]))
        >>> logits.shape, frame_lengths
        (torch.Size([2, 98, 39]), tensor([98, 48]))
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        if config.pooling == "none":
            self.phones = PhoneSet.of(config.symbols or PhoneSet.load(config.phones).symbols, config.phones)
        else:
            self.phones = PhoneSet.of(config.symbols, "labels")
        frontend = config.frontend and config.frontend.resolved  # saved as such: a preset may change
        self.config = config = replace(config, symbols=self.phones.symbols, frontend=frontend)
        self.frontend: Frontend | ReadyFeatures
        if config.frontend is None:
            self.frontend = ReadyFeatures(config.feature_dim)
        else:
            self.frontend = make_frontend(config.frontend)
        self.body: Encoder | Blstm | Tdnn | Mlp | Linear
        if config.kind == "encoder":
            self.body = Encoder(self.frontend.dim, config.encoder)
        elif config.kind == "blstm":
            self.body = Blstm(self.frontend.dim, config.blstm)
        elif config.kind == "tdnn":
            self.body = Tdnn(self.frontend.dim, config.tdnn)
        elif config.kind == "mlp":
            self.body = Mlp(self.frontend.dim, config.mlp)
        else:
            self.body = Linear(self.frontend.dim)
        self.pooling: MeanPooling | AttentionPooling | None = None
        if config.pooling == "mean":
            self.pooling = MeanPooling()
        elif config.pooling == "attention":
            self.pooling = AttentionPooling(self.body.output_dim)
        self.output = nn.Linear(self.body.output_dim, len(self.phones))
        self.phonotactics: Phonotactics | None = None  # how the labels that it was trained on follow each other

    @property
    def feature_dim(self) -> int | None:
        """Values in a frame of the ready features that the model takes; None: it takes waveforms."""
        return self.frontend.dim if self.config.frontend is None else None

    @property
    def lookahead(self) -> int | None:
        """Frames to the right that a frame's result depends on at most, front end included; None: unlimited."""
        if self.pooling is not None or self.body.right_context is None or self.frontend.lookahead is None:
            return None
        return self.body.right_context + self.frontend.lookahead

    @property
    def lookahead_ms(self) -> float | None:
        """Milliseconds from a frame's centre to the last sample that its result depends on."""
        geometry = self.frontend.geometry
        if self.lookahead is None:
            return None
        return 1000 * (self.lookahead * geometry.hop + geometry.window / 2) / geometry.sample_rate

    def forward(
        self, waveforms: Tensor, lengths: Tensor | None = None, *, log_mel_transform: LogMelTransform | None = None
    ) -> tuple[Tensor, Tensor]:
        """Score every phone for every frame or, with pooling, every label for every utterance.

        Args:
            waveforms: (B, N) float in [-1, 1], or int16; without a front end features, (B, T, D) float.
            lengths: (B,) samples, or frames, in each row; None when every row is full.
            log_mel_transform: See `Mfcc.forward`.

        Returns:
            (logits, frame_lengths): (B, T, P) float32, or float64 of a model in float64, and (B,) int64. What stands
            past an utterance's frames has no meaning. With pooling, logits are (B, P). They are as trained, not
            divided by `config.temperature`, and so is what an export of this function gives: the posteriors are
            softmax(logits / temperature).
        """
        hidden, frame_lengths = self.hidden(waveforms, lengths, log_mel_transform=log_mel_transform)
        return single_precision(self.output(hidden)), frame_lengths

    def hidden(
        self, waveforms: Tensor, lengths: Tensor | None = None, *, log_mel_transform: LogMelTransform | None = None
    ) -> tuple[Tensor, Tensor]:
        """What goes into the output layer, (B, T, D) or, with pooling, (B, D), and frame lengths: as for `forward`."""
        features, frame_lengths = self.frontend(
            torch.atleast_2d(waveforms), lengths, log_mel_transform=log_mel_transform
        )
        hidden = self.body(features, frame_lengths)
        if self.pooling is not None:
            hidden = self.pooling(hidden, frame_lengths)
        return hidden, frame_lengths

    @torch.inference_mode()
    def posteriors(self, samples: np.ndarray) -> np.ndarray:
        """Posterior of every phone in every frame, softmax(logits / temperature).

        Args:
            samples: (N,) float32 in [-1, 1] at the model's sample rate; without a front end features, (T, D).

        Returns:
            (T, P) float32, rows sum to 1; with pooling (P,).
        """
        device = self.output.weight.device
        logits, _ = self(torch.as_tensor(samples, device=device)[None])
        return (logits[0] / self.config.temperature).softmax(dim=-1).numpy(force=True)

    def smoothed(self, posteriors: np.ndarray) -> np.ndarray:
        """Decisions that follow each other and last as the phones of training did, see `smoothing`.

        Args:
            posteriors: (T, P) float, T >= 1, rows sum to 1.

        Returns:
            (T,) int64, a class for every frame.

        Raises:
            ValueError: As for `known_phonotactics`.
        """
        return smooth(posteriors, self.known_phonotactics())

    def known_phonotactics(self) -> Phonotactics:
        """What the model smooths by; a ValueError where it has none."""
        if self.phonotactics is None:
            raise ValueError(
                f"the model cannot smooth: it has no {PHONOTACTICS_FILE}, which training leaves that had cuts with "
                "labels of frames, and no shards"
            )
        return self.phonotactics

    @torch.inference_mode()
    def attention_weights(self, source: str | Path | np.ndarray, *, layer: int = -1) -> np.ndarray:
        """What each frame of a recording listens to; `plots.plot_attention` draws it.

        Args:
            source: As for `classify`.
            layer: Which layer's attention, from 0; negative: from the last.

        Returns:
            (H, T, T) float32: of each head, row t the weights with which frame t attends to the others.

        Raises:
            ValueError: When the model's body is not an encoder or has no such layer, or the recording is not
                audio or shorter than one frame.
        """
        if not isinstance(self.body, Encoder):
            raise ValueError(f"a model of kind {self.config.kind!r} has no attention")
        layers = len(self.body.blocks)
        if not -layers <= layer < layers:
            raise ValueError(f"layer must lie in {-layers}..{layers - 1}, got layer={layer}")
        samples = torch.as_tensor(self.samples(source), device=self.output.weight.device)
        features, frame_lengths = self.frontend(samples[None])  # as a batch, for its frame lengths
        return self.body.attention_weights(features, frame_lengths, layer)[0].numpy(force=True)

    def limit_right(self, right: int) -> None:
        """Let every layer of attention see at most so many frames to the right; `lookahead` says what that leaves.

        For models trained with `EncoderConfig.rights`, which lose little by it.

        Raises:
            ValueError: When a layer sees fewer as it is, or the body is not an encoder.
        """
        if not isinstance(self.body, Encoder):
            raise ValueError(
                f"a model of kind {self.config.kind!r} has no attention whose right context can be limited"
            )
        self.body.limit_right(right)
        self.config = replace(self.config, encoder=self.body.config)

    def stream(self) -> ClassifierStream:
        """The same posteriors from input that comes in pieces: `push(samples)`, in the end `flush()`.

        Raises:
            ValueError: When the model needs the whole recording (`lookahead` is None), or is in training mode.
        """
        from speechattn.model.stream import ClassifierStream

        return ClassifierStream(self)

    def classify(
        self, source: str | Path | np.ndarray, *, channel: int | None = None, smooth: bool = False
    ) -> list[Segment]:
        """Phones with their times; with pooling the label, over the whole recording.

        Args:
            source: An audio file at any sample rate, or (N,) samples at the model's rate; without a front end
                features, (T, D).
            channel: Which channel of a file to take; None: their mean.
            smooth: Whether to take the decisions of `smoothed` instead of each frame's likeliest phone.

        Returns:
            Segments that cover the recording from 0 to its end, in seconds; their confidence is the phone's
            mean posterior over its frames.

        Raises:
            ValueError: When the file is not audio, or shorter than one frame; or any file, without a front end; or the
                model cannot smooth.
        """
        samples = self.samples(source, channel=channel)
        return self.segments(self.posteriors(samples), self.duration(source), smooth=smooth)

    def duration(self, source: str | Path | np.ndarray) -> float:
        """Seconds that a recording lasts: a file's at its own rate, an array's at the model's."""
        if isinstance(source, np.ndarray):
            geometry = self.frontend.geometry
            num_samples = len(source) if self.feature_dim is None else geometry.num_samples(len(source))
            return num_samples / geometry.sample_rate
        info = audio_info(source)
        return info.num_samples / info.sample_rate

    def samples(self, source: str | Path | np.ndarray, *, channel: int | None = None) -> np.ndarray:
        """A recording as this model hears it, (N,) float32 or ready features; at least one frame, else ValueError."""
        if self.feature_dim is not None:
            return self._features(source)
        geometry = self.frontend.geometry
        samples = load_audio(source, sample_rate=geometry.sample_rate, channel=channel)
        if geometry.num_frames(len(samples)) == 0:
            what = "the signal" if isinstance(source, np.ndarray) else str(source)
            raise ValueError(
                f"{what}: {len(samples)} samples at {geometry.sample_rate} Hz are less than "
                f"one frame of {geometry.window}"
            )
        return samples

    def _features(self, source: str | Path | np.ndarray) -> np.ndarray:
        """Ready features, (T, D) with T >= 1, as they are."""
        if not isinstance(source, np.ndarray):
            raise ValueError(f"{source}: the model has no front end: it takes features, not audio")
        if len(source) == 0:
            raise ValueError("the features have no frame")
        return source

    def segments(self, posteriors: np.ndarray, duration: float, *, smooth: bool = False) -> list[Segment]:
        """Posteriors (T, P) -> segments from 0 to `duration` seconds; (P,) -> one segment. `smooth`: see `classify`."""
        posteriors = np.atleast_2d(posteriors)
        decided = self.smoothed(posteriors) if smooth else posteriors.argmax(axis=1)
        return frames_to_segments(
            decided,
            posteriors[np.arange(len(decided)), decided],
            self.phones.symbols,
            duration,
            geometry=self.frontend.geometry,
        )

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write `config.json`, `model.safetensors` and, where it has them, `phonotactics.json`, each whole or not.

        Args:
            folder: Where to.
            half: Whether to store matrices and filters in float16, in half the space; they are float32 again when the
                model is loaded.

        Raises:
            OSError: When they cannot be written.
        """
        from safetensors.torch import save

        folder = Path(folder)
        weights = {
            name: (tensor.half() if half and tensor.ndim > 1 else tensor).contiguous()
            for name, tensor in self.state_dict().items()
        }
        with atomic_path(folder / WEIGHTS_FILE) as path:
            path.write_bytes(save(weights))  # its `save_file` would leave a file that only its owner can read
        save_json(folder / CONFIG_FILE, asdict(self.config))
        (folder / PHONOTACTICS_FILE).unlink(missing_ok=True)  # of a model that was there before
        if self.phonotactics is not None:
            save_json(folder / PHONOTACTICS_FILE, asdict(self.phonotactics))

    def push_to_hub(self, name: str, *, card: str | None = None, private: bool = False) -> str:
        """Upload the model to the Hugging Face Hub, by the token that `huggingface-cli login` or $HF_TOKEN leaves.

        Args:
            name: `owner/name`; made when there is none.
            card: What becomes README.md there, in Markdown: say what it was trained on, and under which licence. None:
                what the model's configuration tells.
            private: Whether others may not see it, if it is made now.

        Returns:
            The address of the upload.

        Raises:
            ValueError: When the Hub refuses, or cannot be reached.
        """
        from speechattn.model.hub import default_card, push

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            (Path(folder) / "README.md").write_text(card or default_card(self, name), encoding="utf-8")
            return push(folder, name, private=private)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> FrameClassifier:
        """Load a model, in eval mode on the CPU.

        Args:
            name: A folder that `save_pretrained` wrote, the name of a model that comes with the package, such as
                `english-small`, or the id of one on the Hugging Face Hub, `hf:owner/name` or `owner/name`.

        Raises:
            ValueError: When there is no such model, or its files are not a model's.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = _model_folder(name)
        try:
            config = ClassifierConfig.from_dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
            model = cls(config)
            model.load_state_dict(load_file(folder / WEIGHTS_FILE))
            if (phonotactics := folder / PHONOTACTICS_FILE).is_file():
                model.phonotactics = Phonotactics(**json.loads(phonotactics.read_text(encoding="utf-8")))
                if len(model.phonotactics.runs) != len(model.phones):
                    raise ValueError(f"{PHONOTACTICS_FILE} is not of its {len(model.phones)} phones")
        except (OSError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{folder} does not hold a model that this version can read: {reason}") from error
        return model.eval()


def single_precision(logits: Tensor) -> Tensor:
    """In float32 what mixed precision left in fewer bits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def model_files(name: str | Path) -> dict[str, Path]:
    """The files of a model in a folder or of the package, by what they are; none for one on the Hub."""
    folder = _boxed(name) or Path(name)
    files = {file: path for file in MODEL_FILES if (path := folder / file).is_file()}
    return files if CONFIG_FILE in files and WEIGHTS_FILE in files else {}


def _boxed(name: str | Path) -> Path | None:
    """The folder of a model that comes with the package, if it is one's name and not that of a model here."""
    boxed = Path(__file__).parents[1] / "assets" / name
    found = str(name) == boxed.name and (boxed / CONFIG_FILE).is_file() and not (Path(name) / CONFIG_FILE).exists()
    return boxed if found else None


def _model_folder(name: str | Path) -> Path:
    folder = _boxed(name) or Path(name)
    if (folder / CONFIG_FILE).is_file():
        return folder
    if str(name) in RETIRED:
        raise ValueError(f"{name} no longer comes with speechattn: {RETIRED[str(name)]}")
    on_hub = str(name).removeprefix("hf:")
    if folder.exists() or on_hub.count("/") != 1 or on_hub.startswith((".", "/", "~")):
        raise ValueError(f"no model at {name}: a folder with {CONFIG_FILE} and {WEIGHTS_FILE} is needed")
    from speechattn.model.hub import fetch

    return fetch(on_hub, MODEL_FILES)

"""The whole model, from waveform to one phone per frame: front end, body, output layer.

With pooling between body and output layer it predicts one label per utterance; without a front end it takes features.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from speechattn.audio import audio_info, load_audio
from speechattn.decoding.smoothing import Phonotactics, smooth
from speechattn.frontend import Frontend, LogMelTransform, ReadyFeatures, make_frontend
from speechattn.frontend.execution import single_precision
from speechattn.frontend.inputs import as_tensor, check_amplitudes
from speechattn.jobs.atomic import atomic_path, save_json
from speechattn.labels.frames import frames_to_segments
from speechattn.labels.intervals import Segment
from speechattn.model.baselines import Blstm, Linear, Mlp, Tdnn
from speechattn.model.config import ClassifierConfig
from speechattn.model.encoder import Encoder
from speechattn.model.files import CONFIG_FILE, PHONOTACTICS_FILE, WEIGHTS_FILE, find_model
from speechattn.model.hub import default_card, push
from speechattn.model.pooling import AttentionPooling, MeanPooling
from speechattn.model.stream import ClassifierStream
from speechattn.phones import PhoneSet

__all__ = ["FrameClassifier"]


class FrameClassifier(nn.Module):
    """Predicts a phone for every 10 ms of speech or, with pooling, one label per utterance.

    Args:
        config: The shape. New weights are drawn from PyTorch's random state.

    Attributes:
        phones: The phone set; index = class.
        phonotactics: How long the phones of the training labels last and how they follow each other, for smoothing;
            None when unknown.

    Example:
        >>> from speechattn.model.config import ClassifierConfig
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
        self.config = replace(config, symbols=self.phones.symbols, frontend=frontend)
        self.frontend: Frontend | ReadyFeatures = (
            ReadyFeatures(config.feature_dim) if frontend is None else make_frontend(frontend)
        )
        self.body = _make_body(config, self.frontend.dim)
        self.pooling: MeanPooling | AttentionPooling | None = None
        if config.pooling == "mean":
            self.pooling = MeanPooling()
        elif config.pooling == "attention":
            self.pooling = AttentionPooling(self.body.output_dim)
        self.output = nn.Linear(self.body.output_dim, len(self.phones))
        self.phonotactics: Phonotactics | None = None

    @property
    def feature_dim(self) -> int | None:
        """Features per frame of a model that takes ready features; None for a model that takes waveforms."""
        return self.frontend.dim if self.config.frontend is None else None

    @property
    def lookahead(self) -> int | None:
        """Right context of a frame in all, front end included, in frames; None: unlimited."""
        if self.pooling is not None or self.body.right_context is None or self.frontend.lookahead is None:
            return None
        return self.body.right_context + self.frontend.lookahead

    @property
    def lookahead_ms(self) -> float | None:
        """Time from a frame's centre to the last sample that it depends on, in ms; None: unlimited."""
        geometry = self.frontend.geometry
        if self.lookahead is None:
            return None
        return 1000 * (self.lookahead * geometry.hop + geometry.window / 2) / geometry.sample_rate

    def forward(
        self, waveforms: Tensor, lengths: Tensor | None = None, *, log_mel_transform: LogMelTransform | None = None
    ) -> tuple[Tensor, Tensor]:
        """Score every phone in every frame or, with pooling, every label for every utterance.

        Args:
            waveforms: (B, N) float in [-1, 1] or int16; without a front end features, (B, T, D) float.
            lengths: (B,) samples, or frames, per row; None when every row is full.
            log_mel_transform: See `Mfcc.forward`.

        Returns:
            (logits, frame_lengths): (B, T, P) float32, or float64 of a model in float64, and (B,) int64. With pooling
            logits are (B, P). They are undefined past each utterance's frames, and not divided by
            `config.temperature`: posteriors are softmax(logits / temperature).
        """
        hidden, frame_lengths = self.hidden(waveforms, lengths, log_mel_transform=log_mel_transform)
        return single_precision(self.output(hidden)), frame_lengths

    def hidden(
        self, waveforms: Tensor, lengths: Tensor | None = None, *, log_mel_transform: LogMelTransform | None = None
    ) -> tuple[Tensor, Tensor]:
        """Input of the output layer, (B, T, D) or, with pooling, (B, D), and frame lengths; arguments as `forward`."""
        features, frame_lengths = self.frontend(
            torch.atleast_2d(waveforms), lengths, log_mel_transform=log_mel_transform
        )
        hidden = self.body(features.to(self.output.weight.dtype), frame_lengths)
        if self.pooling is not None:
            hidden = self.pooling(hidden, frame_lengths)
        return hidden, frame_lengths

    @torch.inference_mode()
    def posteriors(self, samples: np.ndarray) -> np.ndarray:
        """Posterior probability of every phone in every frame, softmax(logits / temperature).

        Args:
            samples: (N,) float32 in [-1, 1] at the model's sample rate; without a front end features, (T, D).

        Returns:
            (T, P) float32, rows sum to 1; with pooling (P,).
        """
        device = self.output.weight.device
        waveforms = as_tensor(samples, torch.device("cpu"))[None]
        if self.feature_dim is None:
            check_amplitudes(waveforms)  # here, since other devices do not check
        logits, _ = self(waveforms.to(device))
        return (logits[0] / self.config.temperature).softmax(dim=-1).numpy(force=True)

    def smoothed(self, posteriors: np.ndarray) -> np.ndarray:
        """Most probable sequence of phones, given how phones last and follow each other, see `decoding.smoothing`.

        Args:
            posteriors: (T, P) float, T >= 1, rows sum to 1.

        Returns:
            (T,) int64, the class of every frame.

        Raises:
            ValueError: When the model has no phonotactics.
        """
        return smooth(posteriors, self.known_phonotactics())

    def known_phonotactics(self) -> Phonotactics:
        """The model's phonotactics, or a ValueError when it has none."""
        if self.phonotactics is None:
            raise ValueError(
                f"the model cannot smooth: it has no {PHONOTACTICS_FILE}, which training leaves that had cuts with "
                "labels of frames, and no shards"
            )
        return self.phonotactics

    @torch.inference_mode()
    def attention_weights(self, source: str | Path | np.ndarray, *, layer: int = -1) -> np.ndarray:
        """Attention weights of one layer for one recording; `plots.plot_attention` draws them.

        Args:
            source: As for `classify`.
            layer: Index of the layer; negative: from the last.

        Returns:
            (H, T, T) float32: per head, row t holds the weights of frame t.

        Raises:
            ValueError: When the body is not an encoder or has no such layer, or the recording is not audio or shorter
                than one frame.
        """
        if not isinstance(self.body, Encoder):
            raise ValueError(f"a model of kind {self.config.kind!r} has no attention")
        layers = len(self.body.blocks)
        if not -layers <= layer < layers:
            raise ValueError(f"layer must lie in {-layers}..{layers - 1}, got layer={layer}")
        samples = torch.as_tensor(self.samples(source), device=self.output.weight.device)
        features, frame_lengths = self.frontend(samples[None])
        return self.body.attention_weights(features, frame_lengths, layer)[0].numpy(force=True)

    def limit_right(self, right: int) -> None:
        """Limit the right context of every attention layer, see `Encoder.limit_right`.

        Raises:
            ValueError: When a layer's right context is smaller already, or the body is not an encoder.
        """
        if not isinstance(self.body, Encoder):
            raise ValueError(
                f"a model of kind {self.config.kind!r} has no attention whose right context can be limited"
            )
        self.body.limit_right(right)
        self.config = replace(self.config, encoder=self.body.config)

    def stream(self) -> ClassifierStream:
        """Start a stream: the same posteriors from input that arrives in pieces.

        Raises:
            ValueError: When the model needs the whole recording (`lookahead` is None) or is in training mode.
        """
        if self.training:
            raise ValueError("a model streams in eval mode: call model.eval() first")
        if self.pooling is not None:
            raise ValueError(
                f"a model with pooling {self.config.pooling!r} cannot stream: it needs the whole utterance"
            )
        return ClassifierStream(self.frontend.stream(), self.body, self.output, self.config.temperature)

    def classify(
        self, source: str | Path | np.ndarray, *, channel: int | None = None, smooth: bool = False
    ) -> list[Segment]:
        """Phones with their times; with pooling the label, over the whole recording.

        Args:
            source: An audio file at any sample rate, or (N,) samples at the model's rate (an array, a tensor, or a
                list of floats); without a front end features, (T, D).
            channel: Channel of the file; None averages all channels.
            smooth: Whether to use `smoothed` instead of the most probable phone of each frame.

        Returns:
            Segments from 0 to the end of the recording, in seconds; their confidence is the mean posterior of the
            phone over its frames.

        Raises:
            ValueError: When the file is not audio or shorter than one frame; for any file without a front end; when
                the model cannot smooth.
        """
        samples = self.samples(source, channel=channel)
        return self.segments(self.posteriors(samples), self.duration(source), smooth=smooth)

    def duration(self, source: str | Path | np.ndarray) -> float:
        """Duration in seconds: of a file at its own rate, of an array at the model's."""
        if not isinstance(source, str | Path):
            geometry = self.frontend.geometry
            num_samples = len(source) if self.feature_dim is None else geometry.num_samples(len(source))
            return num_samples / geometry.sample_rate
        info = audio_info(source)
        return info.num_samples / info.sample_rate

    def samples(self, source: str | Path | np.ndarray, *, channel: int | None = None) -> np.ndarray:
        """Read a recording for this model: (N,) float32, or ready features (T, D); arguments as `classify`.

        Raises:
            ValueError: When it is shorter than one frame, or is not what the model takes.
        """
        if isinstance(source, Tensor):
            source = source.detach().cpu()
            source = source.float() if source.dtype == torch.bfloat16 else source  # NumPy has none
        source = source if isinstance(source, str | Path) else np.asarray(source)
        if self.feature_dim is not None:
            if isinstance(source, str | Path):
                raise ValueError(f"{source}: the model has no front end: it takes features, not audio")
            if len(source) == 0:
                raise ValueError("the features have no frame")
            return source
        geometry = self.frontend.geometry
        samples = load_audio(source, sample_rate=geometry.sample_rate, channel=channel)
        if geometry.num_frames(len(samples)) == 0:
            what = "the signal" if isinstance(source, np.ndarray) else str(source)
            raise ValueError(
                f"{what}: {len(samples)} samples at {geometry.sample_rate} Hz are less than "
                f"one frame of {geometry.window}"
            )
        return samples

    def segments(self, posteriors: np.ndarray, duration: float, *, smooth: bool = False) -> list[Segment]:
        """Posteriors (T, P) -> segments from 0 to `duration` seconds; (P,) -> one segment. `smooth`: see `classify`."""
        posteriors = np.atleast_2d(posteriors)
        classes = self.smoothed(posteriors) if smooth else posteriors.argmax(axis=1)
        confidences = posteriors[np.arange(len(classes)), classes]
        return frames_to_segments(classes, confidences, self.phones.symbols, duration, geometry=self.frontend.geometry)

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write `config.json`, `model.safetensors` and, if known, `phonotactics.json`, each atomically.

        Args:
            folder: Target folder.
            half: Whether to store matrices and filters in float16, half the size; loading makes them float32 again.

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
            path.write_bytes(save(weights))  # safetensors' save_file makes a file that only its owner can read
        save_json(folder / CONFIG_FILE, asdict(self.config))
        (folder / PHONOTACTICS_FILE).unlink(missing_ok=True)
        if self.phonotactics is not None:
            save_json(folder / PHONOTACTICS_FILE, asdict(self.phonotactics))

    def push_to_hub(self, name: str, *, card: str | None = None, private: bool = False) -> str:
        """Upload the model to the Hugging Face Hub, with the token of `huggingface-cli login` or $HF_TOKEN.

        Args:
            name: `owner/name`; created if missing.
            card: Model card in Markdown; should say what the model was trained on and its licence. None: a card from
                the configuration alone.
            private: Whether a repository created now is private.

        Returns:
            URL of the upload.

        Raises:
            ValueError: When the Hub refuses or cannot be reached.
        """
        if card is None:
            num_parameters = sum(parameter.numel() for parameter in self.parameters())
            card = default_card(name, self.config.kind, num_parameters, self.phones.symbols, self.lookahead_ms)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            (Path(folder) / "README.md").write_text(card, encoding="utf-8")
            return push(folder, name, private=private)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> FrameClassifier:
        """Load a model, in eval mode on the CPU.

        Args:
            name: A folder that `save_pretrained` wrote, a model of the package such as `english-small`, or
                `hf:owner/name` on the Hugging Face Hub.

        Raises:
            ValueError: When there is no such model, or its files are invalid.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = find_model(name)
        try:
            config = ClassifierConfig.from_dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
            model = cls(config)
            model.load_state_dict(load_file(folder / WEIGHTS_FILE))
            if (phonotactics := folder / PHONOTACTICS_FILE).is_file():
                model.phonotactics = Phonotactics(**json.loads(phonotactics.read_text(encoding="utf-8")))
                if len(model.phonotactics.runs) != len(model.phones):
                    raise ValueError(f"{PHONOTACTICS_FILE} is not for its {len(model.phones)} phones")
        except (OSError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{folder} does not hold a model that this version can read: {reason}") from error
        return model.eval()


def _make_body(config: ClassifierConfig, input_dim: int) -> Encoder | Blstm | Tdnn | Mlp | Linear:
    if config.kind == "encoder":
        return Encoder(input_dim, config.encoder)
    if config.kind == "blstm":
        return Blstm(input_dim, config.blstm)
    if config.kind == "tdnn":
        return Tdnn(input_dim, config.tdnn)
    return Mlp(input_dim, config.mlp) if config.kind == "mlp" else Linear(input_dim)

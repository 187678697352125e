"""The bundle's manifest: what a device needs to know about the graphs beside it.

Every class here is a frozen dataclass of plain values; the manifest is their JSON, written
unchanged by ``edge.export`` and read back by ``edge.runtime``. Frames are encoder frames (after
subsampling) unless a name says otherwise.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from edge.runtime.errors import BundleError

SCHEMA_VERSION = 1
"""Raised when an older runtime would misread the bundle, and not for fields it may ignore (docs/contract.md)."""

_CONVERT = "convert the checkpoint again: u2edge convert CKPT -o BUNDLE"
MAX_POSITIONS = 5000  # frames of WeNet's position table
DEFAULT_CHUNK = 16  # encoder frames; WeNet's usual choice, 640 ms at 40 ms per frame
SUBSAMPLING = {"conv2d": (4, 6), "conv2d6": (6, 10), "conv2d8": (8, 14)}  # input_layer -> subsampling, right_context

_RETIRED = frozenset({"manifest.encoder.reduce_range", "manifest.decoder.reduce_range"})
"""Fields that earlier versions wrote and that mean nothing any more: neither read nor listed as unknown."""


class ManifestError(BundleError):
    """A manifest that is not valid JSON of this schema; the message names the field."""


@dataclass(frozen=True)
class FeatureOptions:
    """Kaldi-compatible log-mel filter bank, as WeNet computes it (int16-scaled samples, no energy)."""

    sample_rate: int = 16000  # Hz
    num_mel_bins: int = 80
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    window: str = "povey"
    dither: float = 0.0  # standard deviation of added noise in 16-bit steps; WeNet recognises with 0, Kaldi with 1


@dataclass(frozen=True)
class TokenOptions:
    """Special token ids and how tokens join to text."""

    size: int  # entries in tokens.txt = width of log_probs
    blank: int
    sos: int
    eos: int
    unk: int | None = None
    joining: str = "pieces"  # how tokens become text: a name in edge.runtime.joining.JOININGS


@dataclass(frozen=True)
class StreamOptions:
    """How feature frames become encoder frames, and whether chunks are allowed."""

    subsampling: int  # feature frames per encoder frame
    right_context: int  # feature frames needed after the first one of an encoder frame
    streaming: bool  # False: full context only
    why_not_streaming: str = ""  # one sentence when streaming is False
    max_chunk: int = 25  # frames; the largest chunk seen in training (WeNet: one second)
    static_chunk: int = 0  # frames; > 0: the model was trained for this chunk only
    reencode: bool = False  # recommended: encode a finished utterance again in full context before rescoring
    max_positions: int = MAX_POSITIONS  # frames; the position table ends here

    @property
    def default_chunk(self) -> int:
        """Encoder frames per chunk when nothing is asked for: the trained size, or WeNet's usual choice."""
        return self.static_chunk or min(DEFAULT_CHUNK, self.max_chunk, self.max_positions)

    def window(self, frames: int) -> int:
        """Feature frames that ``frames`` encoder frames span."""
        return (frames - 1) * self.subsampling + self.right_context + 1

    def encoder_frames(self, feature_frames: int) -> int:
        """Encoder frames that ``feature_frames`` give: WeNet's conv2d, conv2d6 and conv2d8 in closed form."""
        return max(0, (feature_frames - self.right_context - 1) // self.subsampling + 1)


@dataclass(frozen=True)
class CacheShape:
    """att_cache is (blocks, heads, L, 2 * head_dim); cnn_cache is (blocks, 1, dim, conv_context)."""

    blocks: int
    heads: int
    head_dim: int
    dim: int
    conv_context: int  # kernel - 1 for causal convolution, else 0


@dataclass(frozen=True)
class RescoringOptions:
    """What the decoder graph offers and the checkpoint's own rescoring weights."""

    bidirectional: bool
    reverse_weight: float = 0.0  # as trained


@dataclass(frozen=True)
class MoeOptions:
    """Mixture-of-experts layers, in the order of the rows of ``expert_counts``."""

    layers: tuple[str, ...] = ()  # module paths in the encoder
    experts: int = 0
    active: int = 0


@dataclass(frozen=True)
class GraphInfo:
    """One ONNX graph of the bundle."""

    file: str
    scheme: str = "fp32"
    storage: str = "fp32"  # dtype the float weights are stored in; arithmetic is fp32
    bytes: int = 0  # with external data


@dataclass(frozen=True)
class Source:
    """Where the bundle came from."""

    checkpoint: str = ""
    sha256: str = ""
    parameters: int = 0


@dataclass(frozen=True)
class Manifest:
    """Everything beside the weights. ``checksums`` maps every other file of the bundle to its SHA-256."""

    name: str
    features: FeatureOptions
    tokens: TokenOptions
    stream: StreamOptions
    caches: CacheShape
    rescoring: RescoringOptions
    moe: MoeOptions
    encoder: GraphInfo
    decoder: GraphInfo | None  # None: CTC only
    source: Source = Source()
    model: dict[str, Any] = field(default_factory=dict)  # edge.model.config.ModelConfig, as a dict
    parity: dict[str, float] = field(default_factory=dict)  # largest absolute errors seen at export
    calibration: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def graphs(self) -> tuple[GraphInfo, ...]:
        """Encoder and, unless the model is CTC only, decoder."""
        return (self.encoder,) if self.decoder is None else (self.encoder, self.decoder)

    def to_json(self) -> str:
        """The manifest as indented JSON with sorted keys left in declaration order."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse and check ``text``.

        Fields that this version does not know are ignored: a newer u2edge may add some without raising the schema
        version. :func:`unknown_fields` lists them.

        Raises:
            ManifestError: not JSON, another schema version, or a field that is missing or wrong, by name.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ManifestError(f"manifest.json is not JSON: {error}") from None
        if not isinstance(data, dict):
            raise ManifestError(f"manifest.json: expected an object, found {type(data).__name__}")
        _check_version(data.get("schema_version"), data.get("tools"))
        manifest = typing.cast(Manifest, _build(cls, data, "manifest"))
        manifest.check()
        return manifest

    def check(self) -> None:
        """Check that numbers are in range and agree with each other.

        Raises:
            ManifestError: naming the field, what was expected and what was found.
        """
        features, tokens, stream, caches = self.features, self.tokens, self.stream, self.caches
        positive = {
            "features.sample_rate": features.sample_rate,
            "features.num_mel_bins": features.num_mel_bins,
            "features.frame_length_ms": features.frame_length_ms,
            "features.frame_shift_ms": features.frame_shift_ms,
            "tokens.size": tokens.size,
            "stream.subsampling": stream.subsampling,
            "stream.max_chunk": stream.max_chunk,
            "stream.max_positions": stream.max_positions,
            "caches.blocks": caches.blocks,
            "caches.heads": caches.heads,
            "caches.head_dim": caches.head_dim,
            "caches.dim": caches.dim,
        }
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise ManifestError(f"manifest.{name}: expected a positive number, found {value!r}")
        # Outside these the feature extractor crashes or allocates without end.
        bounds = {
            "features.sample_rate": (features.sample_rate, 1000, 192000),
            "features.num_mel_bins": (features.num_mel_bins, 3, 512),
            "features.frame_length_ms": (features.frame_length_ms, 2.0, 500.0),
            "features.frame_shift_ms": (features.frame_shift_ms, 1.0, 500.0),
            "features.dither": (features.dither, 0.0, 100.0),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise ManifestError(f"manifest.{name}: expected {low:g}..{high:g}, found {value!r}")
        not_negative = {
            "stream.right_context": stream.right_context,
            "stream.static_chunk": stream.static_chunk,
            "caches.conv_context": caches.conv_context,
            "moe.experts": self.moe.experts,
            "moe.active": self.moe.active,
            "encoder.bytes": self.encoder.bytes,
            "decoder.bytes": self.decoder.bytes if self.decoder else 0,
        }
        for name, value in not_negative.items():
            if value < 0:
                raise ManifestError(f"manifest.{name}: expected 0 or more, found {value!r}")
        for name in ("blank", "sos", "eos", "unk"):
            value = getattr(tokens, name)
            if value is not None and not 0 <= value < tokens.size:
                raise ManifestError(f"manifest.tokens.{name}: expected an id in 0..{tokens.size - 1}, found {value}")
        if stream.right_context + 1 < stream.subsampling:
            raise ManifestError(
                f"manifest.stream.right_context: expected at least subsampling - 1 = {stream.subsampling - 1}, "
                f"found {stream.right_context}"
            )
        if not 0.0 <= self.rescoring.reverse_weight <= 1.0:
            raise ManifestError(
                f"manifest.rescoring.reverse_weight: expected 0..1, found {self.rescoring.reverse_weight!r}"
            )
        self._check_model()

    def _check_model(self) -> None:
        """What the manifest says twice, it says alike: nothing else notices an edited sample rate or frame shift."""
        features, stream, caches = self.features, self.stream, self.caches
        trained, encoder = _section(self.model, "features"), _section(self.model, "encoder")
        pairs: list[tuple[str, Any, Any]] = [
            (f"features.{name}", getattr(features, name), trained.get(name))
            for name in ("sample_rate", "num_mel_bins", "frame_length_ms", "frame_shift_ms", "window")
        ]
        pairs.append(("tokens.size", self.tokens.size, self.model.get("vocab_size")))
        pairs.append(("caches.blocks", caches.blocks, encoder.get("num_blocks")))
        pairs.append(("caches.heads", caches.heads, encoder.get("attention_heads")))
        pairs.append(("caches.dim", caches.dim, encoder.get("output_size")))
        if "static_chunk_size" in encoder and "use_dynamic_chunk" in encoder:
            trained_chunk = 0 if encoder["use_dynamic_chunk"] else encoder["static_chunk_size"]
            pairs.append(("stream.static_chunk", stream.static_chunk, trained_chunk))
        rate, context = SUBSAMPLING.get(str(encoder.get("input_layer")), (None, None))
        pairs.append(("stream.subsampling", stream.subsampling, rate))
        pairs.append(("stream.right_context", stream.right_context, context))
        for name, found, expected in pairs:
            if expected is not None and found != expected:
                raise ManifestError(
                    f"manifest.{name}: expected {expected!r} as the model was trained, found {found!r}: the manifest "
                    f"was edited; copy the bundle again, or {_CONVERT}"
                )


def unknown_fields(text: str) -> tuple[str, ...]:
    """Fields of a manifest that :meth:`Manifest.from_json` ignores, such as ``manifest.stream.lookahead``: written by a
    newer u2edge, or misspelt. Fields that an older one wrote and that have gone since are not among them."""
    data = json.loads(text)
    found = _unknown(Manifest, data, "manifest") if isinstance(data, dict) else []
    return tuple(name for name in found if name not in _RETIRED)


def _unknown(kind: Any, data: dict[str, Any], where: str) -> list[str]:
    hints = typing.get_type_hints(kind)
    found = []
    for name, value in data.items():
        if name not in hints:
            found.append(f"{where}.{name}")
        elif dataclasses.is_dataclass(hints[name]) and isinstance(value, dict):
            found += _unknown(hints[name], value, f"{where}.{name}")
    return found


def _check_version(version: object, tools: object) -> None:
    """``version`` is the schema this runtime reads; the advice differs for a newer and an older bundle."""
    if version == SCHEMA_VERSION and not isinstance(version, bool):
        return
    writer = tools.get("u2edge") if isinstance(tools, dict) else None
    by = f" (written by u2edge {writer})" if isinstance(writer, str) and writer != "unknown" else ""
    found = f"manifest.json: expected schema_version {SCHEMA_VERSION}, found {version!r}"
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ManifestError(f"{found}: not a bundle that u2edge wrote; {_CONVERT}")
    if version > SCHEMA_VERSION:
        raise ManifestError(
            f"{found}{by}: the bundle is newer than this u2edge; update u2edge: pip install --upgrade u2edge"
        )
    raise ManifestError(f"{found}{by}: the bundle is older than this u2edge reads; {_CONVERT}")


def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _build(kind: Any, value: Any, where: str) -> Any:
    """``value`` as ``kind`` (a dataclass, a container or a scalar type), checked field by field."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ManifestError(f"{where}: expected an object, found {type(value).__name__}")
        hints = typing.get_type_hints(kind)
        fields = {f.name: f for f in dataclasses.fields(kind)}
        arguments = {}
        for name, f in fields.items():
            if name in value:
                arguments[name] = _build(hints[name], value[name], f"{where}.{name}")
            elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise ManifestError(f"{where}: field {name!r} is missing")
        return typing.cast(Any, kind)(**arguments)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        if value is None and type(None) in args:
            return None
        return _build(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ManifestError(f"{where}: expected a list, found {type(value).__name__}")
        return tuple(_build(args[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ManifestError(f"{where}: expected an object, found {type(value).__name__}")
        return {key: _build(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ManifestError(f"{where}: expected {kind.__name__}, found {value!r}")
    return value

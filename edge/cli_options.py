"""Options that several commands share."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_BUNDLE = Path("models/reference-bundle")


class Engine(enum.StrEnum):
    """What computes."""

    onnxruntime = "onnxruntime"
    openvino = "openvino"
    auto = "auto"


class Device(enum.StrEnum):
    """Where it computes."""

    CPU = "CPU"
    GPU = "GPU"
    AUTO = "AUTO"


class Precision(enum.StrEnum):
    """Of float arithmetic."""

    f32 = "f32"
    bf16 = "bf16"
    f16 = "f16"


BundleOption = Annotated[
    Path, typer.Option("--bundle", "-b", help="Bundle directory, as u2edge convert writes it.", show_default=True)
]
ChunkMs = Annotated[
    float | None,
    typer.Option(help="Milliseconds of audio per chunk, a multiple of the encoder frame (40 ms). [default: 640]"),
]
FullContext = Annotated[
    bool, typer.Option("--full-context", help="Encode each file at once: most accurate, no partial results.")
]
LeftChunks = Annotated[
    int, typer.Option(help="Chunks of history that attention sees; -1: all of the utterance, 0: none.")
]
Rescoring = Annotated[
    bool, typer.Option("--rescoring/--no-rescoring", help="Let the attention decoders choose the final text.")
]
Reencode = Annotated[
    bool | None,
    typer.Option(
        "--reencode/--no-reencode",
        help="Encode a finished utterance again in full context before rescoring. [default: as the bundle says]",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Threads of the inference engine. [default: as many as pay here, measured once]"),
]
EngineOption = Annotated[
    Engine, typer.Option(help="Inference engine; auto: the faster one here, tried for two seconds and remembered.")
]
DeviceOption = Annotated[
    Device,
    typer.Option(
        case_sensitive=False,
        help="With openvino also an Intel GPU (the CPU when it cannot be used); AUTO: a GPU if there is one.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="Of float arithmetic, the router's too; bf16 and f16 with openvino, where the device has them. int8 stays."
    ),
]

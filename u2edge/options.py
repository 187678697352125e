"""Options that several commands share."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edge.runtime.engines.config import EngineConfig
from edge.system.assets import default_bundle

DEFAULT_BUNDLE = default_bundle()
REFERENCE = Path("models/reference")  # the checkpoint of a checkout


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


class Rate(enum.StrEnum):
    """What errors are counted in."""

    auto = "auto"
    wer = "wer"
    cer = "cer"
    mer = "mer"


class Punctuation(enum.StrEnum):
    """In the texts that are compared."""

    keep = "keep"
    drop = "drop"


class Precision(enum.StrEnum):
    """Of float arithmetic."""

    f32 = "f32"
    bf16 = "bf16"
    f16 = "f16"


BundleOption = Annotated[
    Path,
    typer.Option(
        "--bundle",
        "-b",
        help="Use this bundle, a directory that u2edge convert wrote. [default: the reference model that comes with "
        "u2edge]",
        show_default=False,
    ),
]
ChunkMs = Annotated[
    float | None,
    typer.Option(
        help="Decode chunks of this many milliseconds, a multiple of the encoder frame (40 ms). [default: 640]"
    ),
]
FullContext = Annotated[
    bool,
    typer.Option(
        "--full-context", help="Encode each file at once, which is most accurate and gives no partial results."
    ),
]
LeftChunks = Annotated[
    int, typer.Option(help="Let attention see this many chunks of history; -1 is all of the utterance, 0 none.")
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
    typer.Option(
        min=1, max=256, help="Give the engine this many threads. [default: as many as pay here, measured once]"
    ),
]
EngineOption = Annotated[
    Engine,
    typer.Option(help="Compute with this engine; auto tries for two seconds which is faster here, and remembers it."),
]
DeviceOption = Annotated[
    Device,
    typer.Option(
        case_sensitive=False,
        help="Compute on this device. GPU is an Intel one, with openvino (the CPU when it cannot be used); AUTO "
        "takes a GPU if there is one.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="Compute what is float in this precision, the router too; bf16 and f16 need openvino and a device that "
        "has them. int8 stays int8."
    ),
]


Baseline = Annotated[
    Path | None, typer.Option("--baseline", "-a", help="Compare with this bundle, usually the fp32 one.")
]
BaselineEngine = Annotated[
    Engine | None,
    typer.Option(help="Compute --baseline with this engine, on the CPU in f32. [default: as the bundle]"),
]
Json = Annotated[Path | None, typer.Option("--json", help="Write everything to this file, for reports.")]
Manifests = Annotated[
    list[Path] | None,
    typer.Option(
        "--data", "-d", help="Measure on this manifest (JSONL with audio and text), or its folder; repeatable."
    ),
]
Split = Annotated[
    str, typer.Option(help="Take only lines of this split, and lines that name none; 'all' takes every line.")
]
Limit = Annotated[int, typer.Option(min=0, help="Take at most this many recordings, spread evenly; 0 takes all.")]
Match = Annotated[str, typer.Option(help="Take only recordings whose name contains this.")]
Beam = Annotated[int, typer.Option(min=1, help="Keep and rescore this many hypotheses of the CTC search.")]
ChannelOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Hear this channel alone, counted from 1. [default: all mixed, or one alone where mixing would cancel it]",
    ),
]
RateOption = Annotated[
    Rate,
    typer.Option(
        help="Count errors in words (wer), in characters (cer), or in CJK characters and other words (mer); auto takes "
        "mer where the transcripts have CJK characters, cer for Thai and others without spaces, else wer."
    ),
]
PunctuationOption = Annotated[
    Punctuation, typer.Option(help="Keep punctuation in both texts, or drop it from both before they are compared.")
]
Processes = Annotated[
    int,
    typer.Option(min=0, help="Start this many fresh processes per bundle for load time and memory; 0 leaves both out."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a bundle that is already there.")]
Recommend = Annotated[
    bool, typer.Option("--reencode", help="Recommend a second pass in full context when an utterance ends.")
]


def baseline_config(bundle: EngineConfig, baseline: Path | None, engine: Engine | None) -> EngineConfig:
    """What runs the baseline: the engine of the bundle, or ``engine`` as it is by default: on the CPU, in f32.

    Raises:
        OptionsError: an engine for no baseline.
    """
    if engine is None:
        return bundle
    if baseline is None:
        from edge.runtime.errors import OptionsError

        raise OptionsError(
            "--baseline-engine: expected a bundle to compare with, found none; add --baseline BUNDLE, which may be the "
            "same one"
        )
    return EngineConfig(engine.value, threads=bundle.threads)


def beside(checkpoint: Path, ending: str) -> Path:
    """build/<checkpoint><ending>: where what is made of a checkpoint goes when nothing else is said."""
    folder = checkpoint.resolve()
    return Path("build") / f"{folder.parent.name if folder.is_file() else folder.name}{ending}"

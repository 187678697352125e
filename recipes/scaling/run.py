"""Dense-S, MoE and Dense-L on the same data and steps: word errors, size and speed in fp32 and int8, and one plot.

    python -m recipes.scaling.run build/scaling --speech ../shared/speech --synthetic build/synthetic --seeds 1 2 3

Everything that is there already is kept, so an interrupted run goes on. Training is recipes.reference.train; int8,
word errors and times are the commands of u2edge, one process each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from edge.system.files import write_json
from recipes.scaling.models import NAMES, configuration

BASE = Path(__file__).parents[1] / "reference" / "train.yaml"
console = Console()


@dataclass(frozen=True)
class Measured:
    """One model of one seed in one precision."""

    model: str
    seed: int
    precision: str  # fp32, int8
    parameters: int
    bytes: int
    hours: float  # of audio seen in training
    wer: dict[str, float]  # mode -> percent
    rtf: float  # one thread
    chunk_ms: float  # median time of a 640 ms chunk, one thread


def call(*arguments: object) -> None:
    """Run a module of this environment; its output is shown. Raises SystemExit when it fails."""
    command = [sys.executable, "-m", *map(str, arguments)]
    console.print("$ " + " ".join(command[1:]), style="dim", soft_wrap=True, highlight=False)
    code = subprocess.run(command, check=False).returncode
    if code:
        raise SystemExit(f"{arguments[0]} ended with exit code {code}; start the same command again to go on")


def train(name: str, seed: int, args: argparse.Namespace) -> Path:
    """The experiment folder of one model, trained to ``args.steps``."""
    out: Path = args.out / f"{name}-{seed}"
    out.mkdir(parents=True, exist_ok=True)
    if (out / "trained").exists():
        return out
    if args.cut is not None:
        shutil.copy(args.cut, out / "digits.json")  # where train.py looks for it
    config = out / "configuration.yaml"
    config.write_text(yaml.safe_dump(configuration(yaml.safe_load(BASE.read_text()), name), sort_keys=False))
    options = ["--steps", args.steps, "--seed", seed, "--mix", args.mix, "--config", config, "--threads", args.threads]
    options += ["--easy-steps", args.easy_steps, "--decoder-step", args.decoder_step, "--peak", args.peak]
    options += ["--speech", args.speech, "--synthetic", *args.synthetic, "--features", args.features]
    call("recipes.reference.train", out, *options)
    (out / "trained").touch()
    return out


def measure(experiment: Path, name: str, seed: int, args: argparse.Namespace) -> list[Measured]:
    """Convert, calibrate on training recordings, quantize, and measure both precisions side by side."""
    bundles = {"fp32": experiment / "fp32", "int8": experiment / "int8"}
    profile = experiment / "calibration.profile"
    if not bundles["fp32"].exists():
        call("u2edge", "convert", experiment, "-o", bundles["fp32"], "--dither", 1)
    if not profile.exists():
        data = ["--data", args.speech / "digits-human", "--limit", args.calibrate]
        call("u2edge", "calibrate", experiment, *data, "--dither", 1, "-o", profile)
    if not bundles["int8"].exists():
        call("u2edge", "quantize", experiment, "--profile", profile, "-o", bundles["int8"])
    both = ["--bundle", bundles["int8"], "--baseline", bundles["fp32"]]
    files = {part: experiment / f"{part}.json" for part in ("wer", "bench")}
    if not files["wer"].exists():
        call("u2edge", "wer", *both, "--data", args.dev, "--json", files["wer"])
    if not files["bench"].exists():
        audio = ["--audio", args.dev, "--threads", 1, "--seconds", args.seconds, "--processes", 0]
        call("u2edge", "bench", *both, *audio, "--json", files["bench"])
    wer, bench = (json.loads(files[part].read_text()) for part in ("wer", "bench"))
    hours = json.loads((experiment / "log.jsonl").read_text().splitlines()[-1])["hours"]
    found = []
    for precision, side in (("fp32", "baseline"), ("int8", "bundle")):
        errors = {mode["key"]: mode[side]["wer"] for mode in wer["modes"]}
        times = bench[side]
        size = int(wer[side]["bytes"])
        parameters = int(times["parameters"])
        found.append(
            Measured(name, seed, precision, parameters, size, hours, errors, times["rtf"], times["chunk"]["p50"])
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of all runs; scaling.json and scaling.png are written there")
    parser.add_argument("--speech", type=Path, required=True, help="folder of digits-human, sentences-human, …")
    parser.add_argument("--synthetic", type=Path, nargs="*", default=[], help="folders made by synthesize.py")
    parser.add_argument("--features", type=Path, default=None, help="feature cache (default: OUT/features)")
    parser.add_argument("--dev", type=Path, default=Path("build/dev-digits"), help="made by `make digits`")
    parser.add_argument("--cut", type=Path, default=None, help="digits.json of recipes.reference.align: more speakers")
    parser.add_argument("--models", nargs="*", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--easy-steps", type=int, default=400)
    parser.add_argument("--decoder-step", type=int, default=800)
    parser.add_argument("--peak", type=float, default=2.5e-3)
    parser.add_argument("--mix", default="digits")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calibrate", type=int, default=300, help="training recordings that set the int8 scales")
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing per model")
    args = parser.parse_args()
    args.features = args.features or args.out / "features"
    measured: list[Measured] = []
    for seed in args.seeds:  # all models of a seed first: an interrupted run still compares
        for name in args.models:
            measured += measure(train(name, seed, args), name, seed, args)
            write(args.out, measured, vars(args))
    console.print(f"{args.out / 'scaling.json'}\n{args.out / 'scaling.png'}")


def write(out: Path, measured: list[Measured], options: dict[str, Any]) -> None:
    """The numbers, and the plot of them."""
    from recipes.scaling.plot import plot

    said = {k: v for k, v in options.items() if k not in ("out", "speech", "synthetic", "features", "dev", "cut")}
    write_json(out / "scaling.json", {"options": said, "measured": [asdict(m) for m in measured]})
    plot(measured, out / "scaling.png")


if __name__ == "__main__":
    main()

"""A model of a realistic size with random weights, to measure latency and memory with; it recognises nothing.

    python -m recipes.random_model --out build/random
    u2edge convert build/random -o build/random-fp32

The result is a WeNet experiment of a streaming U2++ MoE conformer: d 512, hidden 2048, 12 blocks, 8 experts of which 2
are active, 420 M parameters, 0.9 GB as float16.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from edge.model.train_yaml import from_wenet
from edge.model.u2pp import U2pp

MEL = 80
_DECISIVE = 5.0  # gain of routers and output layers: top-2 scores and tokens are seldom near a tie, as after training
_SMALL = 0.1  # gain of biases
_RELU_GAIN = 6**0.5  # keeps the variance of torch's initial convolutions through a ReLU
_LOG_MEL = (10.0, 0.25)  # mean and inverse standard deviation of a filter bank of 16-bit speech


@dataclass(frozen=True)
class Sizes:
    """What decides the cost of a model."""

    dim: int = 512
    hidden: int = 2048
    heads: int = 8
    blocks: int = 12
    experts: int = 8  # of the encoder; 0: dense
    active: int = 2
    decoder_blocks: int = 3  # of each direction
    decoder_experts: int = 0
    tokens: int = 5000


def train_yaml(sizes: Sizes) -> dict[str, Any]:
    """The settings WeNet would have trained such a model with."""

    def mixture(experts: int) -> dict[str, Any]:
        if not experts:
            return {}
        return {"mlp_type": "moe", "n_expert": experts, "n_expert_activated": sizes.active}

    return {
        "input_dim": MEL,
        "output_dim": sizes.tokens,
        "encoder": "conformer",
        "encoder_conf": {
            "output_size": sizes.dim,
            "attention_heads": sizes.heads,
            "linear_units": sizes.hidden,
            "num_blocks": sizes.blocks,
            "input_layer": "conv2d",
            "cnn_module_kernel": 15,
            "cnn_module_norm": "layer_norm",
            "causal": True,
            "use_dynamic_chunk": True,
            **mixture(sizes.experts),
        },
        "decoder": "bitransformer",
        "decoder_conf": {
            "attention_heads": sizes.heads,
            "linear_units": sizes.hidden,
            "num_blocks": sizes.decoder_blocks,
            "r_num_blocks": sizes.decoder_blocks,
            **mixture(sizes.decoder_experts),
        },
        "tokenizer": "char",
        "tokenizer_conf": {
            "symbol_table_path": "units.txt",
            "special_tokens": {"<blank>": 0, "<unk>": 1, "<sos>": 2, "<eos>": 2},
        },
        "ctc": "ctc",
        "ctc_conf": {"ctc_blank_id": 0},
        "cmvn": "global_cmvn",
        "cmvn_conf": {"cmvn_file": "global_cmvn", "is_json_cmvn": True},
        "model": "asr_model",
        "model_conf": {"ctc_weight": 0.3, "reverse_weight": 0.3},
        "dataset_conf": {"fbank_conf": {"num_mel_bins": MEL, "frame_shift": 10, "frame_length": 25}},
    }


def write_model(out: Path, sizes: Sizes = Sizes(), seed: int = 0) -> int:
    """Write the experiment directory ``out``, complete or not at all; equal seeds give equal weights.

    Weights start as torch initialises layers, whose outputs are smaller than their inputs, so that activations stay
    within a few dozen units through any number of blocks.

    Returns:
        The number of parameters.

    Raises:
        FileExistsError: ``out`` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out}: expected a new directory, found an existing one; choose another with --out")
    settings = train_yaml(sizes)
    torch.manual_seed(seed)
    state = U2pp(from_wenet(settings)).state_dict()
    half = {}
    for key in [key for key in state if not key.endswith(".pe")]:
        value = state.pop(key)
        if ".gate." in key or key.endswith(("ctc_lo.weight", "output_layer.weight")):
            value = value * _DECISIVE
        elif key.endswith(".bias"):  # equal for all frames, which then choose the same experts
            value = value * _SMALL
        elif key.startswith("encoder.embed."):
            value = value * _RELU_GAIN
        half[key] = value.half() if value.is_floating_point() else value
    for name, statistic in zip(("mean", "istd"), _LOG_MEL):
        half[f"encoder.global_cmvn.{name}"] = torch.full((MEL,), statistic)
    specials = ["<blank>", "<unk>", "<sos/eos>"]
    tokens = specials + [chr(0x4E00 + i) for i in range(sizes.tokens - len(specials))]  # Chinese characters
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        (folder / "train.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        (folder / "units.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)), encoding="utf-8")
        torch.save(half, folder / "final.pt")
        folder.chmod(0o755)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return sum(value.numel() for value in half.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/random"), help="new experiment directory")
    parser.add_argument("--seed", type=int, default=0)
    default = Sizes()
    for name, value in vars(default).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    args = parser.parse_args()
    sizes = Sizes(**{name: getattr(args, name) for name in vars(default)})
    try:
        parameters = write_model(args.out, sizes, args.seed)
    except FileExistsError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"wrote {args.out}: {parameters / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()

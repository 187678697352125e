"""Trains the reference model: a small U2++ MoE on human and synthetic English.

    python -m recipes.reference.train build/reference --speech ../shared/speech --synthetic build/synthetic

Stops with Ctrl-C or TERM and goes on where it was when started again. Writes a WeNet experiment
(train.yaml, final.pt, units.txt, global_cmvn) into OUT at every evaluation.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from edge.model.checkpoint import load_experiment
from edge.model.config import ModelConfig
from edge.model.train_yaml import from_wenet
from edge.model.u2pp import U2pp
from edge.system.files import replacing
from recipes.reference.augment import LIGHT, MEDIUM, AugmentOptions
from recipes.reference.batches import (
    COMMANDS,
    DIGITS,
    EASY,
    SENTENCES,
    SPEECH,
    UNITS,
    VOICES,
    Batch,
    Mixer,
    MixOptions,
)
from recipes.reference.dev_wer import dev_features, word_error_rates
from recipes.reference.distil import Distillation
from recipes.reference.phones import PhoneHead
from recipes.reference.prefetch import prefetch, prefetch_in_processes
from recipes.reference.store import Clip, build

MIXES = {"base": MixOptions(), "speech": SPEECH, "digits": DIGITS, "sentences": SENTENCES, "voices": VOICES}
MIXES["commands"] = COMMANDS
AUGMENT = {"full": AugmentOptions(), "medium": MEDIUM, "light": LIGHT}
HERE = Path(__file__).parent


@dataclass(frozen=True)
class TrainOptions:
    """Steps, learning rate and curriculum (short easy digits first: they end CTC's all-blank plateau)."""

    steps: int = 6000
    easy_steps: int = 400  # short digit strings, light augmentation, CTC only
    decoder_step: int = 1200  # attention losses from here
    warmup: int = 300
    peak: float = 2.5e-3
    floor: float = 5e-5
    weight_decay: float = 1e-2
    clip: float = 5.0
    streaming: float = 0.0  # share of batches trained in chunks of 640 ms, where the bar is, instead of a drawn size
    distil: float = 0.0  # weight of the distance to the first weights in full context (distil.py); needs --init
    phones: float = 0.0  # weight of the phones' CTC (phones.py)
    phone_block: int = 4  # of the encoder, from 1: where the phones are spelled
    average: float = 0.999  # decay of the weight average that is evaluated and shipped
    evaluate_every: int = 400
    save_every: int = 100
    seed: int = 1


def use_bfloat16_subsampling(model: U2pp) -> None:
    """Run the subsampling convolutions, most of a small model's arithmetic, in bfloat16 (1.4x on AMX CPUs).

    The rest stays in float32: its matrices are too small to gain and the router must not flip.
    """
    forward = model.encoder.embed.conv.forward

    def convolve(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return forward(x).float()  # type: ignore[no-untyped-call]

    model.encoder.embed.conv.forward = convolve  # type: ignore[method-assign]


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then a cosine down to ``floor``."""
    if step < options.warmup:
        return options.peak * (step + 1) / options.warmup
    progress = min(1.0, (step - options.warmup) / max(1, options.steps - options.warmup))
    return options.floor + (options.peak - options.floor) * 0.5 * (1 + math.cos(math.pi * progress))


class Trainer:
    """Model, averaged weights, optimiser and their file."""

    def __init__(self, config: ModelConfig, options: TrainOptions, out: Path, device: torch.device) -> None:
        torch.manual_seed(options.seed)
        self.config, self.options, self.out, self.device = config, options, out, device
        self.model = U2pp(config).to(device)
        self.average = U2pp(config).to(device)
        self.average.load_state_dict(self.model.state_dict())
        self.average.eval()
        self.phones = PhoneHead(self.model, options.phone_block).to(device) if options.phones else None
        learned = [*self.model.parameters(), *(self.phones.parameters() if self.phones else ())]
        decay = [p for p in learned if p.ndim > 1]
        plain = [p for p in learned if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=options.peak,
            betas=(0.9, 0.98),
            eps=1e-8,
        )
        use_bfloat16_subsampling(self.model)
        self.step = 0
        self.audio_seconds = 0.0
        self.distillation: Distillation | None = None

    def set_cmvn(self, mean: np.ndarray, istd: np.ndarray) -> None:
        for model in (self.model, self.average):
            assert model.encoder.global_cmvn is not None
            model.encoder.global_cmvn.mean.copy_(torch.from_numpy(mean))
            model.encoder.global_cmvn.istd.copy_(torch.from_numpy(istd))

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "audio_seconds": self.audio_seconds,
            "phones": self.phones.state_dict() if self.phones else {},
        }
        with replacing(self.out / "resume.pt") as temporary:
            torch.save(state, temporary)

    def resume(self) -> bool:
        path = self.out / "resume.pt"
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        if self.phones:
            self.phones.load_state_dict(state["phones"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.audio_seconds = state["step"], state["audio_seconds"]
        return True

    def start_from(self, path: Path) -> None:
        """Take the (averaged) weights of a resume.pt or of an experiment's final.pt; the schedule starts anew."""
        if path.name == "resume.pt":
            state = torch.load(path, map_location=self.device, weights_only=True)["average"]
        else:
            state = load_experiment(path.parent).build().state_dict()
        self.model.load_state_dict(state)
        self.average.load_state_dict(state)

    def distil_from(self, path: Path) -> None:
        """Learn from the averaged weights of another run's resume.pt in full context, too."""
        teacher = U2pp(self.config).to(self.device)
        teacher.load_state_dict(torch.load(path, map_location=self.device, weights_only=True)["average"])
        use_bfloat16_subsampling(teacher)
        self.distillation = Distillation(self.model, teacher)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One update; returns the losses per sentence."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.options)
        self.model.train()
        weight = 1.0 if self.step < self.options.decoder_step else None
        losses = self.model.losses(
            batch.feats.to(self.device),
            batch.feat_lengths.to(self.device),
            batch.tokens.to(self.device),
            batch.token_lengths.to(self.device),
            ctc_weight=weight,
            chunk=16 if float(torch.rand(())) < self.options.streaming else None,
        )
        total = losses.total
        if self.distillation is not None:
            total = total + self.options.distil * self.distillation.loss(batch, self.device)
        phones = self.phones.loss(batch) if self.phones else None
        if phones is not None:
            total = total + self.options.phones * phones
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        decay = min(self.options.average, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.model.parameters()):
                mine.lerp_(theirs, 1 - decay)
        self.step += 1
        self.audio_seconds += float(batch.feat_lengths.sum()) / 100
        attention = float(losses.attention.detach()) if losses.attention is not None else float("nan")
        values = {"ctc": float(losses.ctc.detach()), "att": attention, "norm": float(norm)}
        return values if phones is None else values | {"phones": float(phones.detach())}


def write_experiment(trainer: Trainer, cmvn: dict[str, Any], configuration: dict[str, Any], half: bool = True) -> None:
    """The averaged weights as WeNet writes an experiment; float16 on disk keeps it small."""
    state = {k: v.detach().cpu() for k, v in trainer.average.state_dict().items() if not k.endswith(".pe")}
    if half:
        state = {k: v.half() if v.is_floating_point() and "cmvn" not in k else v for k, v in state.items()}
    with replacing(trainer.out / "final.pt") as temporary:
        torch.save(state, temporary)
    (trainer.out / "units.txt").write_text("".join(f"{u} {i}\n" for i, u in enumerate(UNITS)), encoding="utf-8")
    (trainer.out / "global_cmvn").write_text(json.dumps(cmvn))
    (trainer.out / "train.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="experiment folder; training resumes when it holds resume.pt")
    parser.add_argument("--speech", type=Path, required=True, help="folder of digits-human, sentences-human, …")
    parser.add_argument("--synthetic", type=Path, nargs="*", default=[], help="folders made by synthesize.py")
    parser.add_argument("--features", type=Path, default=None, help="feature cache (default: OUT/features)")
    parser.add_argument("--config", type=Path, default=HERE / "train.yaml", help="model configuration")
    parser.add_argument("--steps", type=int, default=TrainOptions.steps)
    parser.add_argument("--easy-steps", type=int, default=TrainOptions.easy_steps)
    parser.add_argument("--decoder-step", type=int, default=TrainOptions.decoder_step)
    parser.add_argument("--peak", type=float, default=TrainOptions.peak)
    parser.add_argument("--mix", choices=MIXES, default="base", help="what is drawn how often (batches.py)")
    parser.add_argument("--streaming", type=float, default=0.0, help="share of batches in 640 ms chunks")
    parser.add_argument(
        "--dither", type=float, default=AugmentOptions.dither, help="share with one 16-bit step of noise"
    )
    parser.add_argument("--distil", type=float, default=0.0, help="weight of distil.py; the teacher is --init")
    parser.add_argument("--phones", type=float, default=0.0, help="weight of the intermediate phones' CTC (phones.py)")
    parser.add_argument(
        "--augment", choices=AUGMENT, default="full", help="how much recordings are varied (augment.py)"
    )
    parser.add_argument("--average", type=float, default=TrainOptions.average, help="decay of the average of weights")
    parser.add_argument("--init", type=Path, default=None, help="resume.pt or final.pt whose weights to start from")
    parser.add_argument(
        "--extra",
        type=Path,
        nargs="*",
        default=[],
        help="more human speech: folders digits…, sentences… or keywords… with manifest.jsonl",
    )
    parser.add_argument("--seed", type=int, default=TrainOptions.seed)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that draw batches; 0: a thread (a GPU wants 12)"
    )
    parser.add_argument("--batch-frames", type=int, default=MixOptions.batch_frames, help="feature frames per batch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # saves, too
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU; CPUs are not affected
    args.out.mkdir(parents=True, exist_ok=True)
    configuration = yaml.safe_load(args.config.read_text())
    options = TrainOptions(
        steps=args.steps,
        easy_steps=args.easy_steps,
        decoder_step=args.decoder_step,
        peak=args.peak,
        streaming=args.streaming,
        distil=args.distil,
        phones=args.phones,
        average=args.average,
        seed=args.seed,
    )
    trainer = Trainer(from_wenet(configuration), options, args.out, torch.device(args.device))
    print(f"{sum(p.numel() for p in trainer.model.parameters()) / 1e6:.2f} M parameters", flush=True)

    features = args.features or args.out / "features"
    corpora = [args.speech / n for n in ("digits-human", "sentences-human", "keywords-human")]
    corpora += args.extra + args.synthetic
    store = build([c for c in corpora if (c / "manifest.jsonl").exists()], features / "speech", "train")
    noise = build([args.speech / "noise"], features / "noise", "train")
    print(f"{store.seconds() / 3600:.1f} h of speech, {noise.seconds() / 60:.0f} min of noise", flush=True)
    dev = dev_features(args.speech)

    resumed = trainer.resume()
    if not resumed and args.init:
        trainer.start_from(args.init)
        shutil.copyfile(args.init.parent / "global_cmvn", args.out / "global_cmvn")
    if args.distil:
        if args.init is None:
            parser.error("--distil: expected --init RESUME.PT, the teacher's weights; found none")
        trainer.distil_from(args.init)
    cut = args.out / "digits.json"  # written by align.py once the model is good enough
    augmentation = replace(AUGMENT[args.augment], dither=args.dither)
    digits = [Clip(**c) for c in json.loads(cut.read_text())] if cut.exists() else None
    mix = replace(MIXES[args.mix], batch_frames=args.batch_frames)
    mixer = Mixer(store, noise, mix, augmentation, options.seed + trainer.step, digits)
    cmvn_path = args.out / "global_cmvn"
    if cmvn_path.exists() and (resumed or args.init):
        cmvn = json.loads(cmvn_path.read_text())
    else:
        frames = np.concatenate([mixer.draw()[0] for _ in range(600)]).astype(np.float64)
        cmvn = {"mean_stat": frames.sum(0).tolist(), "var_stat": (frames**2).sum(0).tolist(), "frame_num": len(frames)}
        mean, std = frames.mean(0), frames.std(0)
        trainer.set_cmvn(mean.astype(np.float32), (1 / std).astype(np.float32))
        cmvn_path.write_text(json.dumps(cmvn))

    easy = prefetch(Mixer(store, noise, EASY, LIGHT, seed=options.seed).batches())
    full = prefetch_in_processes(mixer, args.workers) if args.workers else prefetch(mixer.batches())
    log = (args.out / "log.jsonl").open("a")
    began, before, audio = time.time(), trainer.step, trainer.audio_seconds
    sums: dict[str, float] = {}
    try:
        while trainer.step < options.steps:
            values = trainer.train_step(next(easy if trainer.step < options.easy_steps else full))
            for key, value in values.items():
                old = sums.get(key, math.nan)
                sums[key] = value if math.isnan(old) else 0.95 * old + 0.05 * value
            done = trainer.step - before
            if trainer.step % 10 == 0:
                spent = time.time() - began
                left = (options.steps - trainer.step) * spent / done
                print(
                    f"step {trainer.step}/{options.steps}  "
                    + "  ".join(f"{key} {value:.2f}" for key, value in sums.items())
                    + f"  lr {learning_rate(trainer.step, options):.1e}  "
                    f"{(trainer.audio_seconds - audio) / spent:.0f}x real time  "
                    f"{trainer.audio_seconds / 3600:.1f} h seen  ETA {left / 60:.0f} min",
                    flush=True,
                )
            if trainer.step % options.save_every == 0:
                trainer.save()
            if trainer.step % options.evaluate_every == 0 or trainer.step == options.steps:
                scores = word_error_rates(trainer.average, dev, trainer.device)
                print("WER " + "  ".join(f"{k} {v:.1f} %" for k, v in scores.items()), flush=True)
                log.write(json.dumps({"step": trainer.step, "hours": trainer.audio_seconds / 3600, **scores}) + "\n")
                log.flush()
                write_experiment(trainer, cmvn, configuration)
                snapshots = args.out / "snapshots"  # for average.py
                snapshots.mkdir(exist_ok=True)
                shutil.copyfile(args.out / "final.pt", snapshots / f"step-{trainer.step:06d}.pt")
    except KeyboardInterrupt:
        print("interrupted; start again with the same command to go on")
    trainer.save()
    write_experiment(trainer, cmvn, configuration)
    print(f"wrote {args.out}/final.pt")


if __name__ == "__main__":
    main()

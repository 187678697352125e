"""The synthetic voices of Debian main: which are installed, a random choice of voice and prosody, and speaking.

espeak-ng is formant synthesis with many accents and voice variants; flite and festival have the few recorded voices of
CMU and CSTR as diphones, clustergen and HMM models. Programs are run with argument lists, never through a shell.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from recipes.reference.texts import normalise

_ENGINE_SHARE = {"espeak": 0.5, "flite": 0.3, "festival": 0.2}
_FLITE_VOICES = {"kal16": 105, "awb": 130, "rms": 90, "slt": 170}  # mean pitch in Hz
_FESTIVAL_VOICES = {"kal_diphone": 105, "ked_diphone": 105, "cmu_us_slt_arctic_hts": 170}
# Variants that are not speech-like (whisper, robot, heavy echo, speed tests) or sound the same as another one.
_SKIPPED_VARIANTS = re.compile(
    r"whisper|croak|demonic|announcer|robo|unirobot|ricishay|kaukovalta|fast|tweaky|anxious|storm|mr serious|"
    r"klatt6|adam|caleb|anikarobot",
    re.IGNORECASE,
)
_PACKAGES = {  # Debian packages; programs have the name of their package
    "kal_diphone": "festvox-kallpc16k",
    "ked_diphone": "festvox-kdlpc16k",
    "cmu_us_slt_arctic_hts": "festvox-us-slt-hts",
}
_TIMEOUT = 120.0  # s, for one process


class SynthesisError(RuntimeError):
    """A synthesiser is missing or failed in a way that repeating will not cure."""


@dataclass(frozen=True)
class Clip:
    """One utterance to synthesise; everything that decides its sound."""

    kind: str  # "digits" or "sentences"
    index: int
    spoken: str  # with punctuation
    engine: str  # "espeak", "flite" or "festival"
    voice: str
    stretch: float  # duration factor (espeak-ng: relative to 160 words per minute)
    pitch: int  # espeak-ng: 0 to 99; otherwise mean F0 in Hz (no effect on flite rms and the festival HTS voice)
    gap: int  # espeak-ng pause between words, units of 10 ms at its default speed
    scale: float  # playback speed factor: scales formants and pitch together, as a shorter or longer vocal tract would

    @property
    def text(self) -> str:
        """The transcript: lower-case words of a-z and apostrophe."""
        return normalise(self.spoken)

    @property
    def speaker(self) -> str:
        """Speaker identity: engine and voice."""
        return f"{self.engine}-{self.voice}"

    @property
    def path(self) -> str:
        """Path relative to the output directory."""
        digest = hashlib.sha256(repr(astuple(self)).encode()).hexdigest()[:8]
        return f"{self.kind}/{self.index:06d}-{digest}.flac"


def require(program: str) -> str:
    """Return the path of a program.

    Raises:
        SynthesisError: it is not installed; the message names the Debian package.
    """
    found = shutil.which(program)
    if found is None:
        raise SynthesisError(f"expected the program {program}, found none on PATH: apt-get install {program}")
    return found


def run(arguments: Sequence[str], *, cwd: Path | None = None) -> str:
    """Run a program without a shell and return its standard output.

    Raises:
        SynthesisError: it failed or ran longer than two minutes.
    """
    try:
        done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise SynthesisError(f"{arguments[0]} did not end within {_TIMEOUT:.0f} s: {' '.join(arguments)}") from error
    if done.returncode:
        raise SynthesisError(f"{' '.join(arguments)} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def espeak_voices() -> list[str]:
    """Return the installed English accents of espeak-ng times its speech-like variants, such as `en-gb-scotland+f3`.

    Raises:
        SynthesisError: espeak-ng is missing or lists no English accent.
    """
    program = require("espeak-ng")
    # Columns: priority, language, age/gender, name, file, other languages. mb/ voices need the non-free mbrola.
    rows = [line.split() for line in run([program, "--voices=en"]).splitlines()[1:]]
    accents = sorted(
        {row[1] for row in rows if len(row) > 4 and row[1].startswith("en") and not row[4].startswith("mb/")}
    )
    listing = run([program, "--voices=variant"])
    variants = sorted(set(re.findall(r"!v/([\w-]+)\s*(?:\(|$)", listing, re.MULTILINE)))
    variants = [name for name in variants if not _SKIPPED_VARIANTS.search(name)]
    if not accents or not variants:
        raise SynthesisError(
            f"expected English accents and variants of espeak-ng, found {len(accents)} and {len(variants)}: "
            "apt-get install --reinstall espeak-ng espeak-ng-data"
        )
    return [f"{accent}+{variant}" for accent in accents for variant in variants]


def check_engines() -> list[str]:
    """Check that all synthesisers and voices are installed; return the espeak-ng voices.

    Raises:
        SynthesisError: something is missing; the message names the Debian package.
    """
    listed = run([require("flite"), "-lv"]).split()
    if missing := [voice for voice in _FLITE_VOICES if voice not in listed]:
        raise SynthesisError(
            f"expected the flite voices {list(_FLITE_VOICES)}, missing {missing}: apt-get install flite"
        )
    listed = re.findall(r"[\w-]+", run([require("festival"), "--batch", "(print (voice.list))"]))
    if missing := [_PACKAGES[voice] for voice in _FESTIVAL_VOICES if voice not in listed]:
        raise SynthesisError(
            f"expected the festival voices {list(_FESTIVAL_VOICES)}: apt-get install {' '.join(missing)}"
        )
    return espeak_voices()


def plan_clip(kind: str, index: int, spoken: str, seed: int, espeak: Sequence[str]) -> Clip:
    """Choose engine, voice and prosody of a clip at random, fixed by kind, index and seed."""
    rng = random.Random(f"voice:{kind}:{seed}:{index}")
    engine = rng.choices(list(_ENGINE_SHARE), list(_ENGINE_SHARE.values()))[0]
    scale = round(rng.uniform(0.9, 1.12), 3) if rng.random() < 0.5 else 1.0
    if engine == "espeak":
        stretch = round(160 / rng.randint(110, 220), 4)
        return Clip(
            kind, index, spoken, engine, rng.choice(espeak), stretch, rng.randint(20, 90), rng.randint(0, 6), scale
        )
    voices = _FLITE_VOICES if engine == "flite" else _FESTIVAL_VOICES
    voice = rng.choice(list(voices))
    stretch = round(rng.uniform(0.8, 1.3), 3)
    return Clip(kind, index, spoken, engine, voice, stretch, round(voices[voice] * rng.uniform(0.8, 1.25)), 0, scale)


def _festival_script(clips: Sequence[Clip]) -> str:
    """Return the Scheme program that speaks each clip into the file `<position>.wav` of the working directory.

    Raises:
        SynthesisError: a text has characters that could end its Scheme string.
    """
    lines = []
    for position, clip in enumerate(clips):
        if not re.fullmatch(r"[A-Za-z' ,.?]+", clip.spoken):
            raise SynthesisError(f"expected letters, spaces and ' , . ? in a text for festival, found {clip.spoken!r}")
        lines.append(f"(voice_{clip.voice})")
        if clip.voice.endswith("_hts"):  # HTS takes the speaking rate as an engine parameter
            rate = 1 / clip.stretch
            lines.append(
                f'(set! hts_engine_params (append {clip.voice}::hts_engine_params (list (list "-r" {rate:.3f}))))'
            )
        else:
            lines.append(f"(Parameter.set 'Duration_Stretch {clip.stretch})")
            lines.append(
                f"(set! int_lr_params '((target_f0_mean {clip.pitch}) (target_f0_std 15) "
                "(model_f0_mean 170) (model_f0_std 34)))"
            )
        lines.append(f'(utt.save.wave (utt.synth (Utterance Text "{clip.spoken}")) "{position}.wav" \'riff)')
    return "\n".join(lines) + "\n"


def speak(clips: Sequence[Clip], folder: Path) -> None:
    """Synthesise clips of one engine into `folder`/<position>.wav at the engine's own sample rate."""
    engine = clips[0].engine
    if engine == "festival":
        (folder / "batch.scm").write_text(_festival_script(clips), encoding="ascii")
        run([require("festival"), "--batch", "batch.scm"], cwd=folder)
        return
    for position, clip in enumerate(clips):
        target = str(folder / f"{position}.wav")
        if engine == "flite":
            features = ("--setf", f"duration_stretch={clip.stretch}", "--setf", f"int_f0_target_mean={clip.pitch}")
            run([require("flite"), "-voice", clip.voice, *features, "-t", clip.spoken, "-o", target])
        else:
            speed, pitch, gap = str(round(160 / clip.stretch)), str(clip.pitch), str(clip.gap)
            program = require("espeak-ng")
            run([program, "-v", clip.voice, "-s", speed, "-p", pitch, "-g", gap, "-w", target, "--", clip.spoken])

"""The calibration profile: what every layer and every expert saw, in one file that can be merged.

All sums are integers and all extremes exact, so a profile does not depend on the order of the utterances, on
interruptions, or on how the corpus was divided among machines.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.histogram import BINS, ActivationStats
from edge.runtime.errors import EdgeError
from edge.system.files import write_bytes

VERSION = 1
WEIGHT_ONE = 1 << 20
"""A routing weight of 1.0 in the fixed-point sums."""

PART_MEMBER = "part.json"
"""In the archive of an unfinished run (``calibration.run``), beside what a profile holds."""

_MAX_BYTES = 2 << 30
# What zipfile, zlib, json and numpy raise for files that are not what they should be.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, MemoryError, OverflowError),
    *(AttributeError, KeyError, IndexError, TypeError, ValueError),
)


class ProfileError(EdgeError, ValueError):
    """A profile that cannot be read, or does not belong to what it is used with."""


@dataclass(frozen=True)
class CalibrationOptions:
    """What decides the numbers in a profile; two profiles merge only when these agree."""

    chunks: tuple[int, ...] = (16, -1)  # encoder frames per chunk of each pass; -1: full context
    dither: float = 0.0  # as the recognizer adds, in 16-bit steps
    hypotheses: int = 4  # of the model's own n-best that the decoders are shown, per utterance
    all_experts_every: int = 4  # every n-th frame goes through all experts too: what an expert that saw little borrows
    max_seconds: float = 20.0  # longer recordings are cut


@dataclass(frozen=True)
class Header:
    """Where a profile came from. ``utterances`` and ``skipped`` are sorted."""

    checkpoint: str
    checkpoint_sha256: str
    options: CalibrationOptions
    utterances: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()  # unreadable, with --skip-bad
    samples: int = 0  # of audio, at the model's sample rate
    sample_rate: int = 16000
    version: int = VERSION


@dataclass(frozen=True)
class Routing:
    """Frames and routing weight of one MoE layer, both int64 of shape (passes, experts).

    A frame counts once for each of its active experts; weights are in units of 1 / WEIGHT_ONE. Passes are those of
    ``CalibrationOptions.chunks``. ``frames`` is a decoder layer's number of tokens.
    """

    counts: NDArray[np.int64]
    weights: NDArray[np.int64]
    frames: NDArray[np.int64]  # (passes,)
    active: int

    def __add__(self, other: Routing) -> Routing:
        return Routing(
            self.counts + other.counts, self.weights + other.weights, self.frames + other.frames, self.active
        )


@dataclass(frozen=True)
class Coverage:
    """How much one expert saw. ``share`` is of the layer's frames (all experts together: ``active``)."""

    layer: str
    expert: int
    frames: int
    share: float
    weight: float  # mean routing weight times share: what the layer's output owes to this expert
    covered: bool


@dataclass(frozen=True)
class CoverageRule:
    """Below either bound an expert's own statistics are not trusted and it borrows (Olive uses the same bounds)."""

    share: float = 0.005  # of the layer's frames
    rows_per_hidden: float = 2.0  # times the expert's hidden units


DEFAULT_RULE = CoverageRule()
_TABLES = {"sites": "inputs", "outputs": "outputs", "borrowed": "borrowed"}
"""Name in the file -> attribute."""


@dataclass(frozen=True)
class Profile:
    """``inputs``: of every linear layer and convolution by module path. ``outputs``: of a convolution, after its
    ReLU. ``borrowed``: input of the linear layers of every expert if all frames went to it. ``routing``: by MoE layer.
    """

    header: Header
    inputs: dict[str, ActivationStats]
    outputs: dict[str, ActivationStats]
    borrowed: dict[str, ActivationStats]
    routing: dict[str, Routing]

    @property
    def seconds(self) -> float:
        """Of audio."""
        return self.header.samples / self.header.sample_rate

    def hidden(self, layer: str) -> int:
        """Hidden units of the experts of ``layer``, from the element counts of what their second layer saw."""
        for expert in range(self.routing[layer].counts.shape[1]):
            for table in (self.borrowed, self.inputs):
                statistics = table.get(f"{layer}.experts.{expert}.w_2")
                if statistics is not None and statistics.seen:
                    return int(statistics.counts.sum()) // statistics.rows
        return 0

    def coverage(self, rule: CoverageRule = DEFAULT_RULE) -> list[Coverage]:
        """Of every expert, layer by layer."""
        result = []
        for layer, routing in self.routing.items():
            counts, weights, frames = routing.counts.sum(0), routing.weights.sum(0), int(routing.frames.sum())
            least = rule.rows_per_hidden * self.hidden(layer)
            for expert, (count, weight) in enumerate(zip(counts.tolist(), weights.tolist())):
                share = count / frames if frames else 0.0
                covered = count > 0 and share >= rule.share and count >= least
                result.append(
                    Coverage(layer, expert, count, share, weight / WEIGHT_ONE / frames if frames else 0.0, covered)
                )
        return result

    def uncovered(self, rule: CoverageRule = DEFAULT_RULE) -> set[str]:
        """Module paths of the experts below the rule, e.g. ``encoder.encoders.0.feed_forward.experts.3``."""
        return {f"{c.layer}.experts.{c.expert}" for c in self.coverage(rule) if not c.covered}

    def statistics(self, path: str, uncovered: set[str]) -> tuple[ActivationStats, bool]:
        """What to derive the scale of the linear layer at ``path`` from, and whether it was borrowed.

        An uncovered expert gets what it saw and what it would have seen had all frames gone to it.

        Raises:
            ProfileError: the profile knows no such layer, or it saw nothing.
        """
        own, borrow = self.inputs.get(path), path.rpartition(".")[0] in uncovered
        statistics = (
            (own or ActivationStats.empty()) + self.borrowed.get(path, ActivationStats.empty()) if borrow else own
        )
        if statistics is None or not statistics.seen:
            raise ProfileError(
                f"calibration profile: expected statistics of {path}, found none; calibrate again with more audio: "
                "u2edge calibrate CKPT --data MANIFEST -o PROFILE"
            )
        return statistics, borrow

    def check_checkpoint(self, sha256: str, name: str) -> None:
        """Raises ProfileError unless the profile was made with this checkpoint."""
        if self.header.checkpoint_sha256 != sha256:
            raise ProfileError(
                f"calibration profile: expected one of {name} ({sha256[:12]}), found one of {self.header.checkpoint} "
                f"({self.header.checkpoint_sha256[:12]}); make one: u2edge calibrate {name} --data MANIFEST -o PROFILE"
            )

    def save(self, path: Path) -> None:
        """Whole or not at all. Equal profiles give equal bytes."""
        write_bytes(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """A zip of .npy arrays and header.json, with everything in a fixed order and without dates."""
        arrays: dict[str, NDArray[Any]] = {}
        layout: dict[str, list[str]] = {}
        for kind, attribute in _TABLES.items():
            table: dict[str, ActivationStats] = getattr(self, attribute)
            layout[kind] = sorted(table)
            chosen = [table[name] for name in layout[kind]]
            arrays[f"{kind}.rows"] = np.array([s.rows for s in chosen], np.int64)
            arrays[f"{kind}.range"] = np.array([(s.low, s.high) for s in chosen], np.float64).reshape(-1, 2)
            arrays[f"{kind}.counts"] = np.array([s.counts for s in chosen], np.int64).reshape(-1, BINS)
        layout["routing"] = sorted(self.routing)
        for index, name in enumerate(layout["routing"]):
            routing = self.routing[name]
            arrays[f"routing.{index}.counts"] = routing.counts
            arrays[f"routing.{index}.weights"] = routing.weights
            arrays[f"routing.{index}.frames"] = routing.frames
        active = [self.routing[name].active for name in layout["routing"]]
        header = {**dataclasses.asdict(self.header), "layout": layout, "active": active}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, "header.json", json.dumps(header, indent=1, ensure_ascii=False).encode())
            for name, array in arrays.items():
                data = io.BytesIO()
                np.lib.format.write_array(data, array, allow_pickle=False)
                _add(archive, f"{name}.npy", data.getvalue())
        return buffer.getvalue()

    @classmethod
    def load(cls, path: Path, unfinished: bool = False) -> Profile:
        """Read and check a profile; with ``unfinished``, the state of a run that was stopped.

        Raises:
            ProfileError: not a profile, another version, damaged, or not (un)finished.
        """
        if not path.is_file():
            raise ProfileError(
                f"{path}: expected a calibration profile, found none; make one: "
                "u2edge calibrate CKPT --data MANIFEST -o PROFILE"
            )
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(info.file_size for info in archive.infolist()) > _MAX_BYTES:
                    raise ProfileError(f"{path}: expected less than {_MAX_BYTES >> 30} GB of statistics")
                if (PART_MEMBER in archive.namelist()) != unfinished:
                    raise ProfileError(
                        f"{path}: expected {'the state of a stopped run' if unfinished else 'a finished profile'}, "
                        + ("found a profile" if unfinished else "found an unfinished run; continue it: ")
                        + ("" if unfinished else "type the same u2edge calibrate command again")
                    )
                header = json.loads(archive.read("header.json"))
                arrays = {
                    info.filename.removesuffix(".npy"): np.lib.format.read_array(
                        io.BytesIO(archive.read(info)), allow_pickle=False
                    )
                    for info in archive.infolist()
                    if info.filename.endswith(".npy")
                }
        except ProfileError:
            raise
        except _DAMAGED as error:
            raise ProfileError(
                f"{path}: expected a calibration profile, found another or a damaged file ({error})"
            ) from None
        version = header.get("version") if isinstance(header, dict) else None
        if version != VERSION:
            raise ProfileError(f"{path}: expected a profile of version {VERSION}, found {version!r}; calibrate again")
        try:
            return _assemble(header, arrays)
        except _DAMAGED as error:
            raise ProfileError(f"{path}: a damaged calibration profile ({error}); calibrate again") from None


def record_command(path: Path, command: str) -> None:
    """Write the command that made the profile ``path`` beside it: not inside, where it would make equal profiles
    differ."""
    path.with_name(path.name + ".command").write_text(command + "\n", encoding="utf-8")


def recorded_command(path: Path) -> str:
    """What ``record_command`` wrote; empty when there is none."""
    beside = path.with_name(path.name + ".command")
    return beside.read_text(encoding="utf-8", errors="replace")[:4096].strip() if beside.is_file() else ""


def merge(profiles: Sequence[Profile]) -> Profile:
    """The profile of all utterances together, as if one run had seen them.

    Raises:
        ProfileError: other checkpoints or options, or an utterance in two of them.
    """
    if not profiles:
        raise ProfileError("expected at least one profile to merge, found none")
    first = profiles[0].header
    for other in (p.header for p in profiles[1:]):
        for field in ("checkpoint_sha256", "options", "sample_rate"):
            if getattr(other, field) != getattr(first, field):
                raise ProfileError(
                    f"merge: expected profiles of one checkpoint and the same options, found {field} "
                    f"{getattr(first, field)} and {getattr(other, field)}"
                )
    names = [name for p in profiles for name in p.header.utterances]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ProfileError(f"merge: expected every utterance in one profile, found {twice!r} in two")
    header = dataclasses.replace(
        first,
        utterances=tuple(sorted(names)),
        skipped=tuple(sorted({name for p in profiles for name in p.header.skipped})),
        samples=sum(p.header.samples for p in profiles),
    )
    tables = {kind: _sum([getattr(p, kind) for p in profiles]) for kind in ("inputs", "outputs", "borrowed", "routing")}
    return Profile(header, **tables)


def _sum(tables: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in sorted({name for table in tables for name in table}):
        found = [table[name] for table in tables if name in table]
        total = found[0]
        for other in found[1:]:
            total = total + other
        result[name] = total
    return result


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)  # dated 1980
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)


def _assemble(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Profile:
    layout, active = header.pop("layout"), header.pop("active")
    options = header.pop("options")
    options["chunks"] = tuple(options["chunks"])
    for key in ("utterances", "skipped"):
        header[key] = tuple(header[key])
    tables: dict[str, dict[str, ActivationStats]] = {}
    for kind, attribute in _TABLES.items():
        names, rows = layout[kind], arrays[f"{kind}.rows"]
        ranges, counts = arrays[f"{kind}.range"], arrays[f"{kind}.counts"]
        if counts.shape != (len(names), BINS) or ranges.shape != (len(names), 2) or rows.shape != (len(names),):
            raise ValueError(f"{kind}: shapes do not fit")
        tables[attribute] = {
            name: ActivationStats(int(r), float(low), float(high), c)
            for name, r, (low, high), c in zip(names, rows, ranges, counts)
        }
    routing = {}
    for index, (name, k) in enumerate(zip(layout["routing"], active, strict=True)):
        parts = [arrays[f"routing.{index}.{part}"] for part in ("counts", "weights", "frames")]
        if parts[0].ndim != 2 or parts[0].shape != parts[1].shape or parts[2].shape != parts[0].shape[:1]:
            raise ValueError(f"{name}: shapes do not fit")
        routing[name] = Routing(parts[0], parts[1], parts[2], int(k))
    return Profile(Header(**header, options=CalibrationOptions(**options)), **tables, routing=routing)

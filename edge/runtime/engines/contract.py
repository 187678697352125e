"""Names, types and shapes of a bundle's graphs, and how many threads run them: the same for every engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.runtime.errors import BackendError
from edge.runtime.manifest import Manifest

CONVERT = "convert the checkpoint again: u2edge convert CKPT -o BUNDLE"

_FLOAT, _INT, _BOOL = "tensor(float)", "tensor(int64)", "tensor(bool)"

Contract = dict[str, tuple[str, tuple[int | None, ...]]]
"""name -> (type, shape); None is a dimension that varies."""


@dataclass(frozen=True)
class Port:
    """An input or output as an engine describes it; ``kind`` in ONNX Runtime's words, None in ``shape`` varies."""

    name: str
    kind: str
    shape: tuple[int | None, ...]


def encoder_contract(manifest: Manifest) -> tuple[Contract, Contract]:
    caches, moe = manifest.caches, manifest.moe
    att = (_FLOAT, (caches.blocks, caches.heads, None, 2 * caches.head_dim))
    cnn = (_FLOAT, (caches.blocks, 1, caches.dim, caches.conv_context))
    inputs: Contract = {
        "chunk": (_FLOAT, (1, None, manifest.features.num_mel_bins)),
        "offset": (_INT, ()),
        "att_cache": att,
        "cnn_cache": cnn,
        "att_mask": (_BOOL, (1, 1, None)),
    }
    outputs: Contract = {
        "log_probs": (_FLOAT, (1, None, manifest.tokens.size)),
        "encoder_out": (_FLOAT, (1, None, caches.dim)),
        "next_att_cache": att,
        "next_cnn_cache": cnn,
    }
    if moe.layers:
        outputs["expert_counts"] = (_INT, (len(moe.layers), moe.experts))
    return inputs, outputs


def decoder_contract(manifest: Manifest) -> tuple[Contract, Contract]:
    inputs: Contract = {
        "hyps": (_INT, (None, None)),
        "hyps_lens": (_INT, (None,)),
        "encoder_out": (_FLOAT, (1, None, manifest.caches.dim)),
    }
    scores = (_FLOAT, (None, None, manifest.tokens.size))
    return inputs, {"score": scores, "r_score": scores}


NO_DECODER = "this bundle has no attention decoder (CTC only); decode with rescoring=False (--no-rescoring)"


def default_threads() -> int:
    """Physical cores this process may use, at most 4: more gain little on the small matrices of a chunk."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    cores = set()
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, min(4, len(cores)))


def check_ports(
    path: Path, contract: tuple[Contract, Contract], inputs: Sequence[Port], outputs: Sequence[Port]
) -> None:
    """Compare the graph in ``path`` with what the manifest promises: names, types and fixed dimensions.

    Raises:
        BackendError: it differs.
    """
    for what, promised, ports in (("input", contract[0], inputs), ("output", contract[1], outputs)):
        found = {port.name: port for port in ports}
        surplus = sorted(set(found) - set(promised)) if what == "input" else []
        if surplus:
            raise BackendError(f"{path}: expected inputs {', '.join(promised)}, found {surplus[0]!r} too; {CONVERT}")
        for name, (kind, shape) in promised.items():
            if name not in found:
                raise BackendError(f"{path}: expected {what} {name!r}, found {', '.join(found)}; {CONVERT}")
            port = found[name]
            same = len(port.shape) == len(shape) and all(
                want is None or have is None or have == want for want, have in zip(shape, port.shape, strict=True)
            )
            if port.kind != kind or not same:
                raise BackendError(
                    f"{path}: expected {what} {name!r} as {kind} {_shape(shape)}, found {port.kind} "
                    f"{_shape(port.shape)}; {CONVERT}"
                )


def _shape(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"

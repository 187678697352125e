"""A bundle whose graphs are no graphs: for what reads manifests and checksums only."""

from __future__ import annotations

from pathlib import Path

from edge.runtime import Manifest
from edge.runtime.manifest import (
    CacheShape,
    FeatureOptions,
    GraphInfo,
    MoeOptions,
    RescoringOptions,
    StreamOptions,
    TokenOptions,
)

MANIFEST = Manifest(
    name="test",
    features=FeatureOptions(),
    tokens=TokenOptions(size=3, blank=0, sos=2, eos=2, unk=1),
    stream=StreamOptions(subsampling=4, right_context=6, streaming=True),
    caches=CacheShape(blocks=1, heads=1, head_dim=4, dim=4, conv_context=7),
    rescoring=RescoringOptions(bidirectional=True, reverse_weight=0.3),
    moe=MoeOptions(("encoder.0",), 8, 2),
    encoder=GraphInfo("encoder.onnx"),
    decoder=GraphInfo("decoder.onnx"),
    parity={"full": 1e-5},
    calibration={"coverage": [1.0, 0.5], "nested": {"a": None}},
)


def build(folder: Path) -> Manifest:
    (folder / "encoder.onnx").write_bytes(b"graph one" * 100)
    (folder / "encoder.onnx.data").write_bytes(b"\x01\x02" * 5000)
    (folder / "decoder.onnx").write_bytes(b"graph two")
    (folder / "tokens.txt").write_text("<blank> 0\n<unk> 1\n<sos/eos> 2\n")
    return MANIFEST

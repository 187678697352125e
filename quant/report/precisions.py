"""The plan that a bundle was made with: from its manifest, and from the graphs themselves."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto

from calibration.profile import Profile
from edge.model.checkpoint import Experiment
from edge.runtime.bundle import Bundle
from quant.precision.plan import QuantizationPlan
from quant.precision.scales import DEFAULT_OBSERVER, make_plan
from quant.report.data import rule_of
from quant.schemes.registry import SCHEMES

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def plan_of(bundle: Bundle, experiment: Experiment, profile: Profile | None) -> QuantizationPlan:
    """As the manifest says; layers whose weight is a float in the graphs stay fp32.

    Raises:
        QuantizationError, ProfileError: as ``quant.precision.scales.make_plan``.
    """
    calibration = bundle.manifest.calibration
    named = calibration.get("scheme", bundle.manifest.encoder.scheme)
    scheme = named if named in SCHEMES else "static" if profile is not None else "dynamic"
    observer = calibration.get("observer", DEFAULT_OBSERVER)
    plan = make_plan(experiment, profile, scheme, str(observer), rule_of(calibration))
    for path, layer in calibration.get("fell_back", {}).items():
        plan = plan.fall_back({path}, layer["precision"], layer["why"])
    return plan.fall_back(_float_layers(bundle) & set(plan.layers), "fp32", "as in the bundle")


def _float_layers(bundle: Bundle) -> set[str]:
    found: set[str] = set()
    for path in bundle.graphs:
        model: Any = onnx.load(str(path), load_external_data=False)
        found.update(
            tensor.name.removesuffix(".weight")
            for tensor in model.graph.initializer
            if tensor.name.endswith(".weight") and tensor.data_type in _FLOATS
        )
    return found

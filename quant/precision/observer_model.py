"""A torch module for neural-compressor to observe: every layer that can be quantized, each with an input of its own.

neural-compressor 3.10 observes exported graphs. Exporting the whole model would give the experts of a layer one
observer (they read the same frames) and would need the audio again. This model holds the layers side by side, so that
every expert has its own observer, and is fed what the calibration profile remembers of each layer's input.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Collection, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from calibration.histogram import ActivationStats
from quant.precision.plan import QuantizationError, covers

OBSERVERS = {"minmax": "minmax", "mse": "kl", "kl": "kl"}
"""Name -> ``act_algo`` of neural-compressor. minmax: the extremes. mse: the range of least squared error in a histogram
(torchao's HistogramObserver). kl: what neural-compressor, and u2edge 0.1, call mse; no divergence is computed."""

VALUES = 1 << 16
"""Values replayed per layer: the observers cut off tails in steps of 1e-5 of all values."""

_OUTPUT = "output"  # of a convolution, below its path


def quantizable(model: nn.Module) -> dict[str, nn.Module]:
    """Layers that a scheme may quantize by WeNet's module path: linear layers, pointwise and subsampling convolutions;
    not router gates and depthwise convolutions."""
    found = {}
    for path, module in model.named_modules():
        pointwise = isinstance(module, nn.Conv1d) and module.groups == 1 and module.kernel_size == (1,)
        linear = isinstance(module, nn.Linear) and not path.endswith(".gate")
        if linear or pointwise or isinstance(module, nn.Conv2d):
            found[path] = module
    return found


class ObserverModel:
    """The layers of a model, exported for neural-compressor, and what is replayed to each.

    Args:
        modules: as ``quantizable`` lists them.
        inputs: statistics of each layer's input, all seen.
        outputs: of each convolution's output after its ReLU.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        inputs: dict[str, ActivationStats],
        outputs: dict[str, ActivationStats],
    ) -> None:
        self._paths: dict[str, str] = {}  # name inside this model -> module path, "output" appended
        self._inputs: list[Tensor] = []
        layers: dict[str, nn.Module] = {}
        for path, module in modules.items():
            self._add(layers, path, _plain(module), _shape(module), inputs[path])
            if path in outputs:
                probe = nn.Linear(1, 1, bias=False)  # only its input matters
                self._add(layers, f"{path}.{_OUTPUT}", probe, (VALUES, 1), outputs[path])
        self.graph = _export(_Layers(layers), self._inputs)

    def _add(
        self, layers: dict[str, nn.Module], path: str, layer: nn.Module, shape: tuple[int, ...], s: ActivationStats
    ) -> None:
        name = path.replace(".", "__")  # names with dots and digits get lost in the export
        layers[name] = layer
        self._paths[name] = path
        size = 1
        for extent in shape:
            size *= extent
        self._inputs.append(torch.from_numpy(s.sample(size)).reshape(shape))

    def config(self, observer: str, float_paths: Collection[str] = ()) -> Any:
        """neural-compressor's configuration: uint8 activations per tensor by ``observer``, int8 weights per output
        channel, nothing at and below ``float_paths``.

        Raises:
            QuantizationError: an unknown observer.
        """
        if observer not in OBSERVERS:
            raise QuantizationError(f"--observer: expected minmax or mse, found {observer!r}")
        with quiet():
            from neural_compressor.torch.quantization import StaticQuantConfig

        config = StaticQuantConfig(act_sym=False, act_algo=OBSERVERS[observer])
        paths = set(float_paths)
        for name, path in self._paths.items():
            if covers(paths, path):
                config.set_local(name, StaticQuantConfig(w_dtype="fp32", act_dtype="fp32"))
        return config

    def prepare(self, observer: str, float_paths: Collection[str] = ()) -> GraphModule:
        """A copy of the graph with observers, which have seen nothing yet."""
        config = self.config(observer, float_paths)
        with quiet():
            from neural_compressor.torch.quantization import prepare
            from neural_compressor.torch.quantization.autotune import _deepcopy_warp

            return cast(GraphModule, prepare(_deepcopy_warp(self.graph), quant_config=config))

    def feed(self, prepared: nn.Module) -> None:
        """Replay the profile to the observers of ``prepared``. Call it once: minmax is a moving average."""
        with torch.no_grad():
            prepared(self._inputs)

    def observers(self, prepared: GraphModule) -> dict[str, tuple[Any, Any]]:
        """Activation and weight observer by module path (``<path>.output`` for a convolution's output); layers that
        the configuration leaves in fp32 are absent."""
        kinds = (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default)
        found = {}
        for node in prepared.graph.nodes:
            if node.target not in kinds or any(a.op != "call_module" for a in node.args[:2]):
                continue
            name = list(node.meta["nn_module_stack"].values())[-1][0].rpartition(".")[2]
            activation, weight = (prepared.get_submodule(a.target) for a in node.args[:2])
            found[self._paths[name]] = (activation, weight)
        return found


class _Layers(nn.Module):
    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.names = list(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        return [getattr(self, name)(x) for name, x in zip(self.names, inputs)]


def _plain(module: nn.Module) -> nn.Module:
    """The layer as the graph has it: a linear layer (a pointwise convolution is one) or a convolution."""
    assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
    if isinstance(module, nn.Conv2d):
        return module
    weight = module.weight.detach().flatten(1)
    with torch.device("meta"):
        layer = nn.Linear(weight.size(1), weight.size(0), bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def _shape(module: nn.Module) -> tuple[int, ...]:
    """Of an input with about VALUES values."""
    if isinstance(module, nn.Conv2d):
        height, width = (int(k) for k in module.kernel_size)
        return (1, module.in_channels, height, max(width, VALUES // (module.in_channels * height)))
    features = int(cast(nn.Linear, module).weight.shape[1])
    return (max(2, VALUES // features), features)


def _export(layers: nn.Module, inputs: list[Tensor]) -> GraphModule:
    """As ``neural_compressor.torch.export.export`` does it, which insists on tracing Python code first: six times
    slower for some hundred layers, and of no use to a module without control flow."""
    with quiet(), torch.no_grad():
        graph = torch.export.export(layers.eval(), (inputs,), strict=False).module()
    graph._exported = True  # type: ignore[assignment]
    graph.dynamic_shapes = None  # type: ignore[assignment]
    return graph


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the log lines and warnings of neural-compressor, torchao and torch.export; errors are still shown."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

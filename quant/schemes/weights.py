"""Weights as integers: per output channel for integer kernels, per block for weight-only storage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.precision.plan import QuantizationError

Float32 = NDArray[np.float32]

BLOCK = 32
"""Weights of one output that share a scale in ``block_quantize``: 3 blocks in a row of 96, 16 in one of 512."""

_TINY = np.float32(2.0**-40)  # the scale of a channel of zeros; products with an activation scale stay normal floats
_HALF = np.finfo(np.float16)
_LARGEST = 127  # magnitude of an int8 weight; -128 is left out, so that the range is symmetric
_MOST_BIAS = 2.0**30  # leaves half of int32 to the sum of products


def channel_quantize(
    weight: Float32,
    scale: Float32 | None,
    path: str,
    bias: Float32 | None = None,
    x_scale: np.float32 | None = None,
) -> tuple[NDArray[np.int8], Float32]:
    """Symmetric int8, -127..127, one scale per output channel.

    Args:
        weight: ``(out, ...)``.
        scale: ``(out,)`` of a weight observer; None: largest magnitude / 127.
        path: of the layer, for the message.
        bias, x_scale: where the bias becomes int32 in units of x_scale * scale: the scale of a channel that is nearly
            zero grows until its bias fits. What that rounds away is below 1e-4 of the bias.

    Returns:
        int8 like ``weight`` and the float32 scales, all positive.

    Raises:
        QuantizationError: scales that are not positive and finite, one per channel.
    """
    flat = weight.reshape(len(weight), -1)
    if scale is None:
        scale = np.abs(flat).max(axis=1) / np.float32(_LARGEST)
    elif scale.shape != (len(weight),) or not (np.isfinite(scale) & (scale > 0)).all():
        raise QuantizationError(
            f"{path}: expected {len(weight)} positive weight scales, found {scale.shape} from {scale.min(initial=0)}"
        )
    least = np.full(len(weight), _TINY)
    if bias is not None and x_scale is not None:
        least = np.maximum(least, (np.abs(bias) / (np.float64(x_scale) * _MOST_BIAS)).astype(np.float32))
    scale = np.maximum(scale.astype(np.float32), least)
    q = np.clip(np.rint(flat / scale[:, None]), -_LARGEST, _LARGEST).astype(np.int8)
    return q.reshape(weight.shape), scale


def quantize_bias(bias: Float32, scale: Float32, x_scale: np.float32) -> NDArray[np.int32]:
    """``bias (out,)`` in units of ``x_scale * scale``, the product rounded to float32 as the graph rounds it."""
    return np.rint(bias.astype(np.float64) / (scale * x_scale)).astype(np.int32)


def block_quantize(weight: Float32, bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float16] | Float32]:
    """Blocks of 32 weights of one output, each with a scale; the zero point is the middle, 8 or 128.

    The weight of largest magnitude becomes the bottom of the range, the only end that is a power of two away: a
    negative scale where it is positive. (As llama.cpp's Q4_0.)

    Args:
        weight: ``(out, in)``; the last block is filled up with zeros.
        bits: 8 or 4.

    Returns:
        ``(out, blocks, 32 * bits / 8)`` uint8, two 4-bit numbers per byte with the first one low; scales
        ``(out, blocks)``, float16 unless the weights are so small that float16 would not hold them.
    """
    outputs, inputs = weight.shape
    blocks = -(-inputs // BLOCK)
    padded = np.zeros((outputs, blocks * BLOCK), np.float32)
    padded[:, :inputs] = weight
    padded = padded.reshape(outputs, blocks, BLOCK)
    extreme = np.take_along_axis(padded, np.abs(padded).argmax(axis=2)[..., None], axis=2)
    middle = 1 << (bits - 1)
    scale = extreme / np.float32(-middle)
    largest = float(np.abs(scale).max(initial=0))
    kind = np.float16 if _HALF.smallest_normal <= largest <= _HALF.max else np.float32
    least = _HALF.smallest_subnormal if kind is np.float16 else _TINY
    # Rounded before it is used, so that only the extreme of a block can be off, by half a step of the scale.
    scale = np.where(np.abs(scale) < least, least, scale).astype(kind)
    q = np.clip(np.rint(padded / scale.astype(np.float32)) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        q = q[..., 0::2] | (q[..., 1::2] << 4)
    return q, scale[..., 0]  # type: ignore[return-value]

"""Quantization to ggml's Q4_K, Q5_K and Q6_K, which the `gguf` package only reads.

Scales are plain ones (least and largest value of a group), not searched for as llama.cpp does; the bytes are laid out as in
`block_q4_K`, `block_q5_K` and `block_q6_K` of <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.
"""

import numpy

GROUP_LEN = 256


def _rounded(values, scales, lowest, highest):
    """values ÷ scales to the nearest integers within bounds; 0 where a scale is."""
    return numpy.clip(numpy.rint(values / numpy.where(scales != 0, scales, 1)), lowest, highest)


def _with_minima(values, bits):
    """Groups of 8 × 32 values as integers of `bits`, and their 16 bytes of scales and minima."""
    groups = values.reshape(-1, 8, 32)
    least = -numpy.minimum(groups.min(2), 0)
    scales = (groups.max(2) + least) / (2**bits - 1)
    steps = [(part.max(1) / 63).astype(numpy.float16) for part in (scales, least)]
    whole = [step.astype(numpy.float32)[:, None] for step in steps]
    scale, minimum = (
        _rounded(part, step, 0, 63).astype(numpy.uint8) for part, step in zip((scales, least), whole)
    )
    shifted = groups + (whole[1] * minimum)[:, :, None]
    integers = _rounded(shifted, (whole[0] * scale)[:, :, None], 0, 2**bits - 1).astype(numpy.uint8)
    packed = numpy.zeros((len(groups), 12), numpy.uint8)
    packed[:, 0:4] = scale[:, :4] | (scale[:, 4:] >> 4) << 6
    packed[:, 4:8] = minimum[:, :4] | (minimum[:, 4:] >> 4) << 6
    packed[:, 8:12] = (scale[:, 4:] & 15) | (minimum[:, 4:] & 15) << 4
    head = [step.view(numpy.uint8).reshape(-1, 2) for step in steps]
    return integers, numpy.concatenate([*head, packed], 1)


def _nibbles(integers):
    low = integers & 15
    return (low[:, 0::2] | low[:, 1::2] << 4).reshape(len(integers), 128)


def q4_k(values):
    integers, head = _with_minima(values, 4)
    return numpy.concatenate([head, _nibbles(integers)], 1)


def q5_k(values):
    integers, head = _with_minima(values, 5)
    high = sum((integers[:, run] >> 4) << run for run in range(8)).astype(numpy.uint8)
    return numpy.concatenate([head, high, _nibbles(integers)], 1)


def q6_k(values):
    groups = values.reshape(-1, 16, 16)
    farthest = numpy.take_along_axis(groups, numpy.abs(groups).argmax(2)[:, :, None], 2)[:, :, 0]
    scales = -farthest / 32
    largest = numpy.take_along_axis(scales, numpy.abs(scales).argmax(1)[:, None], 1)[:, 0]
    step = (largest / -128).astype(numpy.float16)
    whole = step.astype(numpy.float32)[:, None]
    scale = _rounded(scales, whole, -128, 127).astype(numpy.int8)
    integers = _rounded(groups, (whole * scale)[:, :, None], -32, 31) + 32
    runs = integers.astype(numpy.uint8).reshape(-1, 2, 4, 32)
    low, high = runs & 15, runs >> 4
    low = numpy.concatenate([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], 2)
    high = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    n = len(groups)
    parts = [low.reshape(n, 128), high.reshape(n, 64), scale.view(numpy.uint8), step.view(numpy.uint8).reshape(n, 2)]
    return numpy.concatenate(parts, 1)


QUANTIZERS = {"Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k}

#!/usr/bin/env python3
"""Quantized forms of a checkpoint's fp32 matrices, as the usual tools store them: for comparing sizes.

    pip install -r scripts/requirements.txt
    python scripts/make_quantized.py model.safetensors OUT
    python scripts/compare_peers.py --only sizes --quick OUT/*.safetensors

Packed: int4 as GPTQ (I32 words, F16 scales, zeros and group index), NF4 as bitsandbytes (U8, absmax of 64), MXFP4 (U8, shared
exponents of 32), int8 by row (I8, F32 scales). Floating-point again after quantization: int8 by row and by tensor, int4 by
groups of 128 and, with zero points, of 32, FP8 by blocks of 128 x 128, NVFP4 (groups of 16 with FP8 scales), a palette of 16
values, ternary. And halves of the weights pruned, two of four pruned.
"""

import argparse
import pathlib

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

MIN_ELEMENTS = 100_000
NF4 = np.array([-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0,
                0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1])
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def groups(w, size):
    """The elements in rows of `size`, what is left over dropped."""
    return w.reshape(-1)[: w.size // size * size].reshape(-1, size)


def nearest(x, values):
    """The place of the nearest of `values` for each element."""
    order = np.argsort(values)
    middles = (values[order][1:] + values[order][:-1]) / 2
    return order[np.searchsorted(middles, x)].astype(np.uint8)


def pack_nibbles(codes, n_bytes, dtype):
    """Nibbles along the first axis in words of `n_bytes`."""
    words = np.zeros((codes.shape[0] // (2 * n_bytes), *codes.shape[1:]), dtype)
    for i in range(2 * n_bytes):
        words |= codes[i :: 2 * n_bytes][: len(words)].astype(dtype) << dtype(4 * i)
    return words


def gptq(name, w, group=128):
    columns = w.shape[1] // group * group
    x = w[:, :columns].reshape(len(w), -1, group)
    scale = (x.max(-1) - x.min(-1)) / 15
    zero = np.round(-x.min(-1) / scale)
    codes = np.clip(np.round(x / scale[..., None]) + zero[..., None], 0, 15).astype(np.uint8).reshape(len(w), -1)
    return {
        f"{name}.qweight": pack_nibbles(codes.T, 4, np.uint32).view(np.int32),
        f"{name}.scales": scale.T.astype(np.float16),
        f"{name}.qzeros": pack_nibbles(zero.astype(np.uint8), 4, np.uint32).T.view(np.int32),
        f"{name}.g_idx": (np.arange(columns) // group).astype(np.int32),
    }


def nf4(name, w):
    x = groups(w, 64)
    absmax = np.abs(x).max(1, keepdims=True)
    codes = nearest(x / absmax, NF4).reshape(-1)
    return {f"{name}.weight": pack_nibbles(codes, 1, np.uint8), f"{name}.absmax": absmax.astype(np.float32)}


def mxfp4(name, w):
    x = groups(w, 32)
    exponent = np.floor(np.log2(np.abs(x).max(1, keepdims=True))) - 2
    codes = nearest(x / 2.0**exponent, FP4).reshape(-1)
    return {f"{name}.blocks": pack_nibbles(codes, 1, np.uint8), f"{name}.scales": (exponent + 127).astype(np.uint8)}


def rounded(x, most, axis):
    """Integers up to `most` and their scale."""
    scale = (np.abs(x).max(axis, keepdims=True) / most).astype(np.float32)
    return np.round(x / scale).astype(np.float32), scale


def int8_rows(name, w):
    codes, scale = rounded(w, 127, 1)
    return {name: codes.astype(np.int8), f"{name}.scale": scale}


def again_float(most, axis, dtype, size=None):
    def make(name, w):
        x = w if size is None else groups(w, size)
        codes, scale = rounded(x, most, axis)
        return {name: (codes * scale).astype(dtype)}
    return make


def int4_zero_points(name, w):
    x = groups(w, 32)
    scale = np.maximum((x.max(1, keepdims=True) - x.min(1, keepdims=True)) / 15, 1e-7).astype(np.float16).astype(np.float32)
    zero = np.round(-x.min(1, keepdims=True) / scale)
    return {name: ((np.clip(np.round(x / scale) + zero, 0, 15) - zero) * scale).astype(np.float16)}


def fp8_blocks(name, w, size=128):
    out = np.empty_like(w)
    for i in range(0, w.shape[0], size):
        for j in range(0, w.shape[1], size):
            x = w[i : i + size, j : j + size]
            scale = np.float32(np.abs(x).max() / 448)
            out[i : i + size, j : j + size] = (x / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
    return {name: out.astype(ml_dtypes.bfloat16)}


def nvfp4(name, w):
    x = groups(w, 16)
    largest = np.abs(x).max(1, keepdims=True)
    whole = np.float32(np.abs(w).max() / (6 * 448))
    scale = np.maximum((largest / 6 / whole).astype(ml_dtypes.float8_e4m3fn).astype(np.float32), 2.0**-9) * whole
    return {name: (FP4[nearest(x / scale, FP4)] * scale).astype(ml_dtypes.bfloat16)}


def palette(name, w):
    values = np.quantile(w, (np.arange(16) + 0.5) / 16)
    return {name: values[nearest(w, values)].astype(np.float32)}


def ternary(name, w):
    scale = np.abs(w).mean()
    return {name: (np.clip(np.round(w / scale), -1, 1) * scale).astype(ml_dtypes.bfloat16)}


def pruned(name, w):
    return {name: np.where(np.abs(w) < np.median(np.abs(w)), 0, w).astype(np.float32)}


def two_of_four(name, w):
    x = groups(w, 4).copy()
    np.put_along_axis(x, np.argsort(np.abs(x), 1)[:, :2], 0, 1)
    return {name: x.astype(ml_dtypes.bfloat16)}


FORMS = {
    "gptq_int4": gptq,
    "nf4": nf4,
    "mxfp4": mxfp4,
    "int8_rows": int8_rows,
    "float32_of_int8_rows": again_float(127, 1, np.float32),
    "float16_of_int8_rows": again_float(127, 1, np.float16),
    "float32_of_int8_tensors": again_float(127, None, np.float32),
    "float32_of_int4_groups": again_float(7, 1, np.float32, 128),
    "bfloat16_of_int4_groups": again_float(7, 1, ml_dtypes.bfloat16, 128),
    "bfloat16_of_int8_rows": again_float(127, 1, ml_dtypes.bfloat16),
    "float16_of_int4_zero_points": int4_zero_points,
    "bfloat16_of_fp8_blocks": fp8_blocks,
    "bfloat16_of_nvfp4": nvfp4,
    "float32_of_palette": palette,
    "bfloat16_of_ternary": ternary,
    "float32_pruned_half": pruned,
    "bfloat16_pruned_2_of_4": two_of_four,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor for name, tensor in load_file(args.checkpoint).items()
        if tensor.dtype == np.float32 and tensor.ndim == 2 and tensor.size >= MIN_ELEMENTS
    }
    for form, make in FORMS.items():
        tensors = {key: np.ascontiguousarray(array) for name, w in weights.items() for key, array in make(name, w).items()}
        save_file(tensors, args.output / f"{form}.safetensors")
        print(form, sum(array.nbytes for array in tensors.values()), "bytes")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes a large safetensors file of weight-like values, for the check of memory; seeded, streamed.

    python scripts/make_big_checkpoint.py OUT.safetensors            # 6.3 GB, one bf16 tensor of 4.3 GB
    python scripts/make_big_checkpoint.py OUT.safetensors --scale 0.01

The tensors: `embedding.weight`, bf16, 4.3 GB, so that its length needs more than 32 bits; `layer.weight`,
fp32, 1 GB; `layer.bias`, fp16, 0.5 GB; `layer.quantized`, fp8, 0.5 GB. Values are normal with a deviation that
changes from row to row, as trained weights have it. For each tensor 64 MB are drawn, then written again and
again with the rows in another order, which is as fast as the disk; no block reaches back that far.
"""

import argparse
import pathlib

import ml_dtypes
import numpy as np

import checkpoint_io

SEED = 42
ROW = 4096
TILE_BYTES = 64 << 20
TENSORS = (
    ("embedding.weight", "BF16", ml_dtypes.bfloat16, 4_300_000_000),
    ("layer.weight", "F32", np.float32, 1_000_000_000),
    ("layer.bias", "F16", np.float16, 500_000_000),
    ("layer.quantized", "F8_E4M3", ml_dtypes.float8_e4m3fn, 500_000_000),
)


def tile(rng, dtype):
    """TILE_BYTES of values, one row of them with one deviation."""
    rows = TILE_BYTES // np.dtype(dtype).itemsize // ROW
    deviations = np.exp(rng.normal(-3.5, 0.5, (rows, 1))).astype(np.float32)
    # fp8 is scaled to use its range, as quantizers do.
    deviations *= 30 if np.dtype(dtype).itemsize == 1 else 1
    return (rng.standard_normal((rows, ROW), np.float32) * deviations).astype(dtype).view(np.uint8).reshape(rows, -1)


def write_tensor(f, rng, dtype, byte_len):
    """Streams `byte_len` bytes: the tile again and again, each time with its rows in another order."""
    rows, written = tile(rng, dtype), 0
    while written < byte_len:
        piece = rows[rng.permutation(len(rows))].reshape(-1)[:byte_len - written]
        f.write(piece.data)
        written += len(piece)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--scale", type=float, default=1.0, help="size as a share of the 6.3 GB")
    args = parser.parse_args()

    entries, plan = [], []
    for name, dtype_name, dtype, byte_len in TENSORS:
        row_bytes = ROW * np.dtype(dtype).itemsize
        rows = max(1, int(byte_len * args.scale) // row_bytes)
        entries.append((name, dtype_name, [rows, ROW], rows * row_bytes))
        plan.append((dtype, rows * row_bytes))
    rng = np.random.default_rng(SEED)
    with open(args.out, "wb") as f:
        f.write(checkpoint_io.pack_header(entries, {"format": "pt"}))
        for dtype, byte_len in plan:
            write_tensor(f, rng, dtype, byte_len)
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()

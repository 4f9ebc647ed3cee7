#!/usr/bin/env python3
"""Makes a folder of at least --bytes out of real checkpoints, for file-to-file timing; deterministic.

    python scripts/checkpoint_tree.py TREE model.safetensors ... --bytes 1073741824

The files are taken in turn, and every copy is made different so that no tensor is found twice: the elements
of each tensor are rotated by a distance that grows with the copy. That keeps every statistic of the values,
so a copy codes like its original.
"""

import argparse
import pathlib

import numpy as np

import checkpoint_io

# A prime, so that a copy's rotations rarely fall on a multiple of a tensor's length.
ROTATION_ELEMENTS = 7919


def varied(data, spans, copy_idx):
    """`data` with the elements of every tensor rotated."""
    out = data.copy()
    for span in spans:
        if span.dtype is None:
            continue
        element_bytes = checkpoint_io.DTYPE_BITS.get(span.dtype, 8) // 8
        elements = data[span.start:span.end].reshape(-1, element_bytes)
        distance = copy_idx * ROTATION_ELEMENTS % len(elements)
        out[span.start:span.end] = np.roll(elements, distance, axis=0).reshape(-1)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=pathlib.Path)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=1 << 30, help="least size of the tree")
    args = parser.parse_args()

    args.tree.mkdir(parents=True)
    written, copy_idx = 0, 0
    while written < args.bytes:
        source = args.files[copy_idx % len(args.files)]
        data = np.fromfile(source, np.uint8)
        folder = args.tree / f"copy_{copy_idx // len(args.files):03}"
        folder.mkdir(exist_ok=True)
        varied(data, checkpoint_io.tensor_spans(source), copy_idx).tofile(folder / source.name)
        written += len(data)
        copy_idx += 1
    (args.tree / "config.json").write_text('{"made_by": "checkpoint_tree.py"}\n')
    print(f"{args.tree}: {copy_idx} files, {written} bytes")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Small safetensors files cut from larger ones, for compare_peers.py: tensors from a random one on, as many as fit.

    python scripts/cut_checkpoints.py OUT FILE... [--bytes 6000,14000,30000,60000,120000,250000]

Of a tensor that does not fit whole its first rows are taken. The pieces depend on the files, their order and the sizes
alone. Pieces of which half their size cannot be filled are left out.
"""

import argparse
import math
import pathlib
import random

import checkpoint_io


def pieces(path, sizes, draw):
    """(size asked for, entries, bytes) of a piece for each size."""
    header, data_offset = checkpoint_io.read_header(path)
    data = pathlib.Path(path).read_bytes()[data_offset:]
    named = [(name, info) for name, info in header.items() if name != "__metadata__"]
    tensors = [(name, info) for name, info in named if math.prod(info["shape"]) > 0 and info["shape"]]
    for size in sizes if tensors else ():
        first, entries, taken = draw.randrange(len(tensors)), [], b""
        for place in range(len(tensors)):
            if len(taken) >= size:
                break
            name, info = tensors[(first + place) % len(tensors)]
            start, end = info["data_offsets"]
            rows, row_bytes = info["shape"][0], (end - start) // info["shape"][0]
            rows = min(rows, (size - len(taken)) // row_bytes)
            if rows > 0:
                entries.append((name, info["dtype"], [rows, *info["shape"][1:]], rows * row_bytes))
                taken += data[start : start + rows * row_bytes]
        if 2 * len(taken) >= size:
            yield size, entries, taken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--bytes", default="6000,14000,30000,60000,120000,250000", help="sizes of the pieces")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    draw, n_pieces = random.Random(1), 0
    for path in args.files:
        for size, entries, taken in pieces(path, [int(size) for size in args.bytes.split(",")], draw):
            piece = args.out / f"{path.stem}_{size}.safetensors"
            piece.write_bytes(checkpoint_io.pack_header(entries) + taken)
            n_pieces += 1
    print(f"{args.out}: {n_pieces} pieces")


if __name__ == "__main__":
    main()

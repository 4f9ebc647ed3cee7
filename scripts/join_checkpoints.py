#!/usr/bin/env python3
"""Several safetensors files as one: weights beside an earlier state or a moving average of them, as training keeps them.

    python scripts/join_checkpoints.py OUT PREFIX=FILE PREFIX=FILE ... [--tensors GLOB]

Tensors keep their order and get PREFIX before their names; with --tensors only those whose names match.
"""

import argparse
import fnmatch
import pathlib

import checkpoint_io


def tensors_of(path, glob):
    """(name, dtype, shape, bytes) of the tensors of a file in its order."""
    header, data_offset = checkpoint_io.read_header(path)
    data = pathlib.Path(path).read_bytes()[data_offset:]
    named = [(name, info) for name, info in header.items() if name != "__metadata__"]
    for name, info in sorted(named, key=lambda pair: pair[1]["data_offsets"]):
        if fnmatch.fnmatch(name, glob):
            start, end = info["data_offsets"]
            yield name, info["dtype"], info["shape"], data[start:end]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("parts", nargs="+", metavar="PREFIX=FILE")
    parser.add_argument("--tensors", default="*", metavar="GLOB")
    args = parser.parse_args()
    entries, pieces = [], []
    for part in args.parts:
        prefix, _, path = part.partition("=")
        for name, dtype, shape, data in tensors_of(path, args.tensors):
            entries.append((prefix + name, dtype, shape, len(data)))
            pieces.append(data)
    args.out.write_bytes(checkpoint_io.pack_header(entries) + b"".join(pieces))
    print(f"{args.out}: {len(entries)} tensors, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Cuts tests/data/digits_resnet out of two full checkpoints of one training run.

    python scripts/make_test_data.py CHECKPOINTS/digits_resnet

Reads `params_bf16_step_0300.safetensors` (copied as it is) and `step_0300.safetensors`, of which it keeps the
parameters, first and second Adam moments of a few layers, byte for byte, in `train_state.safetensors`. Writes
config.json beside them and prints the SHA-256 lines of tests/data/README.md.
"""

import hashlib
import json
import pathlib
import shutil
import sys

import checkpoint_io

TARGET = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "digits_resnet"
# One layer of each width, so that small and large tensors, vectors and 4-d kernels are all there: 0.7 MB.
LAYERS = ("conv1.", "bn1.", "layer1.0.", "layer2.1.conv1.", "layer2.1.bn1.", "fc.")
CONFIG = {
    "architecture": "resnet20",
    "block_widths": [32, 64, 128],
    "blocks_per_width": 3,
    "classes": 10,
    "input": [1, 16, 16],
    "optimizer": "adam",
    "step": 300,
}


def kept(name):
    if name == "step":
        return True
    for prefix in ("model.", "optimizer.m.", "optimizer.v."):
        if name.startswith(prefix):
            return name.removeprefix(prefix).startswith(LAYERS)
    return False


def cut(source, target):
    """Copies the kept tensors of `source`, in file order, and its metadata."""
    header, data_offset = checkpoint_io.read_header(source)
    body = source.read_bytes()[data_offset:]
    tensors = sorted((v["data_offsets"], n) for n, v in header.items() if n != "__metadata__" and kept(n))
    entries = [(n, header[n]["dtype"], header[n]["shape"], end - start) for (start, end), n in tensors]
    pieces = [checkpoint_io.pack_header(entries, header.get("__metadata__"))]
    pieces += [body[start:end] for (start, end), _ in tensors]
    target.write_bytes(b"".join(pieces))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    source = pathlib.Path(sys.argv[1])
    TARGET.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "params_bf16_step_0300.safetensors", TARGET / "params_bf16.safetensors")
    cut(source / "step_0300.safetensors", TARGET / "train_state.safetensors")
    (TARGET / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    for path in sorted(TARGET.iterdir()):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  digits_resnet/{path.name}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Prints what rate control must know of dead zones and trellises: for normal and Laplacian values, the bits that the
entropy model predicts for plain rounding at a step, and the bits that an archive took at that step.

    scripts/rate_calibration.py ALCM

ALCM is the program. The tables of src/pipeline/lossy/method.rs are the means of the two distributions.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import checkpoint_io

GOALS = (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


def run(*command):
    """The JSON that a command prints."""
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def entropy(indices):
    """Order-0 entropy in bits."""
    counts = np.unique(indices, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def main():
    alcm = sys.argv[1]
    rng = np.random.default_rng(3)
    shape = (2048, 1024)
    draws = {"normal": rng.standard_normal(shape), "laplace": rng.laplace(size=shape)}
    print("| values | quantizer | goal | step | entropy of rounding | stored bits | relative L2, % |")
    print("|---|---|---|---|---|---|---|")
    for name, values in draws.items():
        values = values.astype(np.float32)
        for quantizer in ("uniform", "lattice", "trellis"):
            for goal in GOALS:
                with tempfile.TemporaryDirectory() as folder:
                    source, out = Path(folder, "x.safetensors"), Path(folder, "out")
                    header = checkpoint_io.pack_header([("x", "F32", shape, values.nbytes)])
                    source.write_bytes(header + values.tobytes())
                    lossy = ("--lossy", "--bits", str(goal), "--quant", quantizer, "--json", "-q")
                    report = run(alcm, "compress", str(source), "-o", str(out), *lossy)
                    archive = run(alcm, "inspect", str(out / "x.safetensors.alcm"), "--json")
                    loss = archive["archives"][0]["tensors"][0]["loss"]
                stored = report["dtypes"]["F32"]["bits_per_element"]
                rounded = entropy(np.rint(values.ravel() / loss["step"]).astype(np.int64))
                print(
                    f"| {name} | {quantizer} | {goal} | {loss['step']:.4f} | {rounded:.4f} | {stored:.4f} "
                    f"| {100 * loss['rel_l2']:.3f} |"
                )


if __name__ == "__main__":
    main()

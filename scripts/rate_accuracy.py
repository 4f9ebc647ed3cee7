#!/usr/bin/env python3
"""Prints how well rate goals are met: the mean stored bits of the lossy elements against the goal, in per cent of it.

    scripts/rate_accuracy.py [--bits 2,3,4,6,8] [--correct] ALCM FILE...

With --correct each goal is corrected once by what a whole encoding takes (--correct-rate).
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path


def deviation(alcm, file, bits, quantizer, flags):
    """Stored bits an element over `bits`, less 1, in per cent."""
    with tempfile.TemporaryDirectory() as folder:
        lossy = ("--lossy", "--bits", str(bits), "--quant", quantizer, "-q", *flags)
        subprocess.run((alcm, "compress", file, "-o", folder, "-f", *lossy), check=True)
        archive = Path(folder, file.name + ".alcm")
        found = subprocess.run((alcm, "inspect", archive, "--json"), check=True, capture_output=True, text=True)
    tensors = json.loads(found.stdout)["archives"][0]["tensors"]
    lossy = [tensor for tensor in tensors if tensor.get("loss") and not tensor["loss"]["exact"]]
    n_elements = sum(tensor["elements"] for tensor in lossy)
    stored_bits = 8 * sum(tensor["stored_bytes"] for tensor in lossy)
    return 100 * (stored_bits / n_elements / bits - 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", default="2,3,4,6,8")
    parser.add_argument("--correct", action="store_true")
    parser.add_argument("alcm")
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    goals = [float(bits) for bits in options.bits.split(",")]
    flags = ("--correct-rate",) if options.correct else ()
    print("| file | quantizer | " + " | ".join(f"{bits:g} bits" for bits in goals) + " |")
    print("|---|---|" + "---|" * len(goals))
    worst = 0.0
    for file in options.files:
        for quantizer in ("lattice", "uniform", "trellis"):
            found = [deviation(options.alcm, file, bits, quantizer, flags) for bits in goals]
            worst = max(worst, *map(abs, found))
            print(f"| {file.name} | {quantizer} | " + " | ".join(f"{off:+.2f} %" for off in found) + " |", flush=True)
    print(f"\nworst: {worst:.2f} %")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Prints how fast checkpoints are compressed with a loss, and decompressed, file to file, and what compressing takes
when rates are counted instead of predicted.

    scripts/lossy_speed.py [--rounds N] [--threads N] [--folder DIR] [--rates [BITS]] --alcm ALCM [--alcm OTHER ...] FILE...

FILE is copied to DIR (default /dev/shm) first, so that no disk takes part. Several programs take turns, round by round.
Speeds are original bytes over wall time as the program reports it, the median of the rounds, in GB/s. With --rates the
goal is that many bits an element, 4 unless told, by the shipped model and by counting, and the last column is how many
steps were looked at.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

PRESETS = [
    ("lattice, balanced", ("--preset", "balanced")),
    ("uniform, balanced", ("--preset", "balanced", "--quant", "uniform")),
    ("trellis, balanced", ("--preset", "balanced", "--quant", "trellis")),
]


def rates(bits):
    """Both ways to a rate."""
    goal = ("--bits", bits)
    return [(f"{bits} bits, predicted", goal), (f"{bits} bits, counted", (*goal, "--rate-model", "counted"))]


def run(*command):
    """The JSON that a command prints."""
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alcm", action="append", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--rates", nargs="?", const="4", metavar="BITS")
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    common = ("--json", "-q", "-f", "--threads", str(options.threads))
    print("| file | coding | program | encode GB/s | decode GB/s | bits an element | steps |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for file in options.files:
            source = Path(folder, file.name)
            shutil.copy(file, source)
            for name, flags in rates(options.rates) if options.rates else PRESETS:
                found = {alcm: ([], [], [], []) for alcm in options.alcm}
                for _ in range(options.rounds + 1):
                    for alcm, (encode, decode, bits, steps) in found.items():
                        out, back = Path(folder, "out"), Path(folder, "back")
                        there = run(alcm, "compress", source, "-o", out, "--lossy", *flags, *common)
                        again = run(alcm, "decompress", out, "-o", back, *common)
                        encode.append(there["gigabytes_per_second"])
                        decode.append(again["gigabytes_per_second"])
                        bits.append(there["total"]["bits_per_element"])
                        steps.append(there.get("rate_steps", 0))
                for alcm, rows in found.items():
                    # The first round warms up.
                    encode, decode, bits, steps = (statistics.median(row[1:]) for row in rows)
                    cells = (file.name, name, Path(alcm).name, f"{encode:.3f}", f"{decode:.3f}", f"{bits:.4f}", steps)
                    print("|", *(f"{cell} |" for cell in cells), flush=True)


if __name__ == "__main__":
    main()

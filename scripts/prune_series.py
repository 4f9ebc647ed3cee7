#!/usr/bin/env python3
"""Does the scheduler of pruning earn its place? Sizes of a series of checkpoints, compressed one after the other.

    cargo build --release
    python scripts/prune_series.py CHECKPOINTS/step_*.safetensors --rel-l2 0.05 0.15

Give the steps of one training run, at least six, in the order of the steps. Each is compressed at the same error
goals three times: without pruning, with `--prune` (the threshold of the settings for each), and with `--prune-after` the
step before (the threshold that the scheduler makes of its scores). Nothing is made up between the steps: what is no
checkpoint of the run is no part of the series.

A row shows archives' bytes, and threshold and score of the scheduler as its manifest has them; the score is bits
without pruning over bits with it, at the same error, over the tensors that may be pruned.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

from environment import ROOT, print_environment

MIN_STEPS = 6


def compress(binary, path, output, arguments):
    """(bytes of the archives, the manifest's state of pruning) of one lossy run."""
    run = [binary, "compress", path, "-o", output, "--lossy", "--quiet", *arguments]
    subprocess.run([str(a) for a in run], check=True)
    entries = json.loads((output / "alcm-manifest.json").read_text())["entries"]
    return sum(file["archive_size"] for file in entries["files"]), entries.get("pruning")


def series(options, goal, folder):
    """Prints a table for one goal, and whether the scheduler ended with a better score than the fixed threshold."""
    common = ["--rel-l2", goal, "--quant", options.quant]
    if options.lossy_config:
        common += ["--lossy-config", options.lossy_config]
    print(f"\nrel-l2 {goal}, {options.quant}\n")
    print("| step | without | fixed | scheduled | fixed: score | scheduled: threshold | score |")
    print("|---|---|---|---|---|---|---|")
    binary = options.binary.resolve()
    totals, last, before = [0, 0, 0], None, None
    for idx, path in enumerate(options.checkpoints):
        plain, _ = compress(binary, path, folder / f"plain-{idx}", common)
        fixed, fixed_state = compress(binary, path, folder / f"fixed-{idx}", [*common, "--prune"])
        scheduled_dir = folder / f"scheduled-{idx}"
        flags = ["--prune"] if before is None else ["--prune-after", before]
        scheduled, state = compress(binary, path, scheduled_dir, [*common, *flags])
        before = scheduled_dir
        totals = [total + size for total, size in zip(totals, (plain, fixed, scheduled))]
        last = fixed_state["scores_ppb"][-1] / 1e9, state["scores_ppb"][-1] / 1e9
        print(f"| {path.stem} | {plain} | {fixed} | {scheduled} | {last[0]:.6f} | "
              f"{state['threshold_ppb'] / 1e9:.6f} | {last[1]:.6f} |")
    print(f"| all | {totals[0]} | {totals[1]} | {totals[2]} | | | |")
    verdict = "better" if last[1] > last[0] else "the same" if last[1] == last[0] else "worse"
    print(f"\nThe scheduler ends with a score that is {verdict}: {last[1]:.6f}, fixed {last[0]:.6f}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=pathlib.Path, help="steps of one training run, in order")
    parser.add_argument("--rel-l2", nargs="+", default=["0.05"], help="error goals")
    parser.add_argument("--quant", default="lattice", choices=("lattice", "uniform", "trellis"))
    parser.add_argument("--lossy-config", type=pathlib.Path, help="settings in place of the built-in ones")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target" / "release" / "alcm")
    options = parser.parse_args()
    if len(options.checkpoints) < MIN_STEPS:
        parser.error(f"a series has at least {MIN_STEPS} checkpoints")
    print_environment(())
    for goal in options.rel_l2:
        with tempfile.TemporaryDirectory() as folder:
            series(options, goal, pathlib.Path(folder))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Test accuracy of a trained network after lossy compression, over its size.

    cargo build --release
    python scripts/task_quality.py CHECKPOINTS/digits_resnet/step_0300.safetensors \
        --evaluate "python CORPUS_SCRIPTS/train_resnet.py --eval {}" --bits 1.5 2 2.5 3 4

Takes the tensors below `--prefix` (`model.`, the parameters and buffers without the optimizer's state) as a file of
their own, compresses it with `alcm compress --lossy --bits B`, restores it, and runs the evaluator, a command in which
`{}` stands for the file; it must print `NAME_accuracy NUMBER`. Sizes are of whole files: the ratio is that of the
parameters' file to the archive.
"""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

import checkpoint_io
from environment import ROOT, print_environment

PACKAGES = ("numpy",)


def cut_out(source, prefix, target):
    """Writes the tensors of `source` whose names begin with `prefix` to `target`, names and bytes as they are."""
    header, data_offset = checkpoint_io.read_header(source)
    kept = {name: v for name, v in header.items() if name != "__metadata__" and name.startswith(prefix)}
    kept = dict(sorted(kept.items(), key=lambda item: item[1]["data_offsets"]))
    if not kept:
        raise SystemExit(f"{source}: no tensor's name begins with {prefix!r}")
    entries = [(n, v["dtype"], v["shape"], v["data_offsets"][1] - v["data_offsets"][0]) for n, v in kept.items()]
    with open(source, "rb") as src, open(target, "wb") as dst:
        dst.write(checkpoint_io.pack_header(entries))
        for value in kept.values():
            start, end = value["data_offsets"]
            src.seek(data_offset + start)
            dst.write(src.read(end - start))


def accuracy(evaluate, path):
    """What the evaluator says of the file."""
    run = [argument.replace("{}", str(path)) for argument in shlex.split(evaluate)]
    output = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    found = re.search(r"accuracy\s+([0-9.]+)", output)
    if not found:
        raise SystemExit(f"the evaluator printed no accuracy: {output!r}")
    return float(found[1])


def lossy(binary, params, folder, arguments):
    """(archive's bytes, restored file, relative L2 over the tensors that changed) of one lossy run."""
    archive, restored = folder / "params.alcm", folder / "restored.safetensors"
    for run in (
        ["compress", params, "-o", archive, "--lossy", *arguments, "--force", "--quiet"],
        ["decompress", archive, "-o", restored, "--force", "--quiet"],
    ):
        subprocess.run([str(binary), *map(str, run)], check=True)
    run = [str(binary), "compare", str(params), str(archive), "--json"]
    compared = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    return archive.stat().st_size, restored, compared["changed_total"].get("relative_l2", 0.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--evaluate", required=True, metavar="COMMAND", help="evaluator; {} stands for the file")
    parser.add_argument("--bits", type=float, nargs="+", default=[1.5, 2, 2.5, 3, 4, 6], metavar="B")
    parser.add_argument("--quant", nargs="*", default=["", "trellis"], help="values of --quant; '' for the default")
    parser.add_argument("--prefix", default="model.", help="tensors that are parameters and buffers")
    parser.add_argument("--alcm", type=pathlib.Path, default=ROOT / "target" / "release" / "alcm")
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers here")
    args = parser.parse_args()
    if not args.alcm.is_file():
        parser.error(f"{args.alcm} is missing: run `cargo build --release`, or give --alcm")

    print_environment(PACKAGES)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        params = folder / "params.safetensors"
        cut_out(args.checkpoint, args.prefix, params)
        original_bytes = params.stat().st_size
        before = accuracy(args.evaluate, params)
        print(f"\n{args.checkpoint.stem}: {original_bytes} bytes of parameters and buffers, accuracy {before:.4f}\n")
        print("| settings | bytes | ratio | relative L2 % | accuracy | change |")
        print("|---|---:|---:|---:|---:|---:|")
        for quant in args.quant:
            for bits in args.bits:
                arguments = ["--bits", f"{bits:g}"] + (["--quant", quant] if quant else [])
                stored, restored, error = lossy(args.alcm, params, folder, arguments)
                after = accuracy(args.evaluate, restored)
                row = {"settings": " ".join(arguments), "bytes": stored, "ratio": original_bytes / stored,
                       "relative_l2": error, "accuracy": after, "change": after - before}
                rows.append(row)
                print(f"| {row['settings']} | {stored} | {row['ratio']:.2f} | {100 * error:.3f} | {after:.4f} "
                      f"| {row['change']:+.4f} |", flush=True)
    if args.json:
        record = {"original_bytes": original_bytes, "accuracy": before, "rows": rows}
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Error over size of lossy alcm beside its peers: a table, JSON and an SVG for each file.

    pip install -r scripts/requirements.txt
    cargo build --release
    python scripts/rate_distortion.py model.safetensors other.safetensors --normal --output curves/

Of each file only the tensors that alcm takes as lossy by default count (floats of two dimensions or more, at least
4096 elements, all finite); a file of just those is made and given to every method. `--normal` adds 16 Mi numbers of
N(0,1) in fp32. Sizes are of everything on disk, errors of decoded data; see scripts/lossy_peers.py for the peers.

The peers take many minutes on large files; `--reuse curves.json` takes their curves from an earlier run's output where
name and number of elements agree.

A row stands for one archive of alcm. The peers' errors in it are interpolated to its size, in the logarithm of the
error over bits; `-` where a curve does not reach that far.
"""

import argparse
import dataclasses
import fnmatch
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import ml_dtypes
import numpy as np

import checkpoint_io
import curve_plot
import lossy_peers
from environment import ROOT, print_environment

LOSSY_DTYPES = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16),
}
MIN_ELEMENTS = 4096
NORMAL_SHAPE = (4096, 4096)
SEED = 42
QUANTIZERS = {"alcm": [], "alcm trellis": ["--quant", "trellis"]}
PACKAGES = ("pysz", "zfpy", "zstandard", "numpy")


def read_tensors(path, names="*"):
    """{name: array} of the tensors of `path` that are lossy by default and fit the pattern `names`."""
    header, data_offset = checkpoint_io.read_header(path)
    found = {}
    for name, entry in header.items():
        dtype = LOSSY_DTYPES.get(entry.get("dtype"))
        if name == "__metadata__" or dtype is None or not fnmatch.fnmatchcase(name, names):
            continue
        start, end = entry["data_offsets"]
        shape, n_elements = entry["shape"], (end - start) // dtype.itemsize
        if len(shape) < 2 or n_elements < MIN_ELEMENTS:
            continue
        array = np.fromfile(path, dtype, n_elements, offset=data_offset + start).reshape(shape)
        if np.isfinite(array.astype(np.float64)).all():
            found[name] = array
    return found


def write_tensors(path, tensors):
    """Writes a safetensors file and gives its header's bytes."""
    names = {dtype: name for name, dtype in LOSSY_DTYPES.items()}
    entries = [(name, names[a.dtype], a.shape, a.nbytes) for name, a in tensors.items()]
    header = checkpoint_io.pack_header(entries)
    with open(path, "wb") as f:
        f.write(header)
        for array in tensors.values():
            f.write(np.ascontiguousarray(array).tobytes())
    return header


def alcm_points(binary, path, tensors, arguments, targets):
    """A point for each target of bits, from the archive's size and what decompress gives."""
    points = []
    for bits in targets:
        with tempfile.TemporaryDirectory() as folder:
            archive, restored = pathlib.Path(folder, "f.alcm"), pathlib.Path(folder, "f.safetensors")
            run = [str(binary), "compress", str(path), "-o", str(archive), "--quiet", "--lossy", "--bits", f"{bits:g}"]
            subprocess.run(run + arguments, check=True)
            subprocess.run([str(binary), "decompress", str(archive), "-o", str(restored), "--quiet"], check=True)
            back = read_tensors(restored)
            decoded = list(back.values())
            if len(decoded) != len(tensors.arrays):
                raise SystemExit(f"{binary} gave back {len(decoded)} of {len(tensors.arrays)} tensors")
            error = sum(tensors.error_squared(idx, values) for idx, values in enumerate(decoded))
            point_bits = 8 * archive.stat().st_size / tensors.n_elements
            error = (error / tensors.norm_squared) ** 0.5
            points.append(lossy_peers.Point(point_bits, error, f"--bits {bits:g}"))
    return points


def error_at(points, bits):
    """Relative L2 of a curve at `bits`, or None where it does not reach."""
    points = sorted((p.bits, p.relative_l2) for p in points)
    for (low, low_error), (high, high_error) in zip(points, points[1:]):
        if low <= bits <= high and min(low_error, high_error) > 0:
            share = (bits - low) / (high - low) if high > low else 0.0
            return math.exp((1 - share) * math.log(low_error) + share * math.log(high_error))
    return None


def table(name, curves, targets, is_normal):
    """Markdown: a row for each archive, or for each target where alcm is left out."""
    ours = [method for method in QUANTIZERS if method in curves]
    peers = [method for method in curves if method not in QUANTIZERS]
    heads = ["method", "bits", "relative L2 %", *[f"{peer} %" for peer in peers], "÷ best peer"]
    heads += ["2^-bits %"] if is_normal else []
    rows = [(method, point.bits, point.relative_l2) for method in ours for point in curves[method]]
    rows = rows or [("peers only", float(bits), None) for bits in targets]
    lines = [f"\n{name}\n", "| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for method, bits, error in rows:
        at_size = [error_at(curves[peer], bits) for peer in peers]
        best = min((e for e in at_size if e is not None), default=None)
        cells = [method, f"{bits:.3f}", percent(error), *map(percent, at_size)]
        cells.append(f"{error / best:.3f}" if error is not None and best else "-")
        cells += [percent(2 ** -bits)] if is_normal else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines + integer_lines(curves, ours))


def integer_lines(curves, ours):
    """alcm at the very sizes of int8 and int4, which are points and not curves."""
    lines = []
    for point in curves.get("absmax + zstd -19", []):
        if point.setting in ("int4", "int8"):
            errors = [f"{method} {percent(error_at(curves[method], point.bits))} %" for method in ours]
            text = f"absmax {point.setting} + zstd -19: {point.bits:.3f} bits, {percent(point.relative_l2)} %"
            lines.append("- " + "; ".join([text, *errors]))
    return ["", *lines] if lines else []


def percent(error):
    return "-" if error is None else f"{100 * error:.4g}"


def measure(name, arrays, args, folder):
    """{method: points} of one file's tensors."""
    path = pathlib.Path(folder, "lossy.safetensors")
    tensors = lossy_peers.Tensors(list(arrays.values()), write_tensors(path, arrays))
    low, high = min(args.targets), max(args.targets)
    curves = {}
    if not args.peers_only:
        for method, arguments in QUANTIZERS.items():
            curves[method] = alcm_points(args.alcm, path, tensors, arguments, args.targets)
    earlier = reused_curves(args.reuse, name, tensors.n_elements)
    for method in [] if earlier else args.peers:
        curves |= lossy_peers.METHODS[method](tensors, low, high)
        print(f"{name}: {method} done", file=sys.stderr, flush=True)
    return tensors.n_elements, curves | earlier


def reused_curves(path, name, n_elements):
    """{peer: points} that an earlier run found for the same tensors; empty where there are none."""
    found = json.loads(path.read_text()).get(name, {}) if path else {}
    if found.get("elements") != n_elements:
        return {}
    peers = {method: points for method, points in found["curves"].items() if method not in QUANTIZERS}
    return {method: [lossy_peers.Point(**point) for point in points] for method, points in peers.items()}


def inputs(args):
    """(name, {tensor name: array}) of each thing to measure."""
    if args.normal:
        values = np.random.default_rng(SEED).standard_normal(NORMAL_SHAPE, np.float32)
        yield "normal", {"normal": values}
    for path in args.files:
        yield path.stem, read_tensors(path, args.tensors)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="safetensors files")
    parser.add_argument("--normal", action="store_true", help="16 Mi numbers of N(0,1) in fp32")
    parser.add_argument("--tensors", default="*", metavar="GLOB", help="only tensors of these names")
    parser.add_argument("--targets", type=float, nargs="+", default=[2, 3, 4, 5, 6, 7, 8], metavar="BITS")
    parser.add_argument("--alcm", type=pathlib.Path, default=ROOT / "target" / "release" / "alcm")
    parser.add_argument("--peers-only", action="store_true", help="leave alcm out")
    parser.add_argument("--peers", nargs="*", choices=lossy_peers.METHODS, default=list(lossy_peers.METHODS))
    parser.add_argument("--reuse", type=pathlib.Path, metavar="JSON", help="take the peers' curves from here")
    parser.add_argument("--output", type=pathlib.Path, help="folder for curves.json and an SVG for each file")
    args = parser.parse_args()
    if not args.files and not args.normal:
        parser.error("no files; name some, or pass --normal")
    if not args.peers_only and not args.alcm.is_file():
        parser.error(f"{args.alcm} is missing: run `cargo build --release`, or give --alcm")
    print_environment(PACKAGES)
    record = {}
    for name, arrays in inputs(args):
        if not arrays:
            print(f"\n{name}: no tensor is lossy by default")
            continue
        with tempfile.TemporaryDirectory() as folder:
            n_elements, curves = measure(name, arrays, args, folder)
        heading = f"{name}: {len(arrays)} tensors, {n_elements} elements"
        print(table(heading, curves, args.targets, name == "normal" and args.normal), flush=True)
        points = {method: [dataclasses.asdict(p) for p in curve] for method, curve in curves.items()}
        record[name] = {"elements": n_elements, "curves": points}
        if args.output:
            args.output.mkdir(parents=True, exist_ok=True)
            lines = {method: [(p.bits, p.relative_l2) for p in curve] for method, curve in curves.items()}
            plot = curve_plot.svg(heading, lines, min(args.targets), max(args.targets))
            (args.output / f"{name}.svg").write_text(plot)
            (args.output / "curves.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    sys.exit(main())

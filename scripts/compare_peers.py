#!/usr/bin/env python3
"""Size and speed of alcm beside its peers, as Markdown tables; one command, one interleaved run.

    pip install -r scripts/requirements.txt
    cargo build --release
    CORPUS_ROOT=corpus python scripts/compare_peers.py            # the corpus and tests/data
    python scripts/compare_peers.py model.safetensors --rounds 7  # these files only

Size is `saved %` of the file, everything on disk included: headers, indexes and, for alcm, its manifest, some 400 bytes
that also hold name, mode and time of the file; "archive" is without it, as `-o NAME.alcm` writes. Each peer may choose: the smallest of its ways to take the file (whole, per run of one dtype, per tensor) counts.
Speed is original bytes / second on one thread, RAM to RAM, the median over rounds in which all take turns; a
peer that has several ways counts with its fastest. Every result is decoded and compared with the file before
it is counted; a difference ends the run.
"""

import argparse
import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")  # torch, which ZipNN imports, warns of its own deprecations

import checkpoint_io  # noqa: E402
import peers  # noqa: E402
from environment import ROOT, print_environment  # noqa: E402

LEVELS = ("fast", "default", "high")
PACKAGES = ("zipnn", "lmzip", "openzl", "pcodec", "zstandard")


def size_codecs(path, quick):
    """{peer: [codec, ...]}: the ways each peer may take this file when size counts."""
    if path.suffix != ".safetensors":
        return size_codecs_of_other_formats(path, quick)
    spans = checkpoint_io.tensor_spans(path)
    runs = checkpoint_io.dtype_runs(spans)
    whole = checkpoint_io.Span(checkpoint_io.main_dtype(spans), 0, path.stat().st_size)
    codecs = {
        "zstd -3": [peers.Zstd(3)],
        "zstd -19": [] if quick else [peers.Zstd(19)],
        "ZipNN": [peers.ZipNN(cut) for cut in ([whole], runs, spans)] if whole.dtype in peers.ZIPNN_DTYPES else [],
        "lmz": [peers.Lmz(path, shared) for shared in (False, True)],
        "OpenZL": [peers.OpenZl(cut, search=True) for cut in (runs, spans)],
        "pcodec": [] if quick else [peers.Pco(cut) for cut in (runs, spans)],
    }
    return codecs


def size_codecs_of_other_formats(path, quick):
    """The same where no header tells the dtypes: each peer may take the whole file for elements of any."""
    file_bytes = path.stat().st_size
    cut = file_bytes // 4 * 4
    cuts = {
        dtype: [checkpoint_io.Span(dtype, 0, cut), checkpoint_io.Span(None, cut, file_bytes)]
        for dtype in ("F32", "F16", "BF16", None)
    }
    return {
        "zstd -3": [peers.Zstd(3)],
        "zstd -19": [] if quick else [peers.Zstd(19)],
        "ZipNN": [peers.ZipNN(cut) for dtype, cut in cuts.items() if dtype in peers.ZIPNN_DTYPES],
        "lmz": [peers.Lmz(path, shared) for shared in (False, True)],
        "OpenZL": [peers.OpenZl(cut, search=True) for cut in cuts.values()],
        "pcodec": [],
    }


def speed_codecs(path):
    """{peer: [codec, ...]} for the speed rounds."""
    spans = checkpoint_io.tensor_spans(path)
    runs = checkpoint_io.dtype_runs(spans)
    zipnn = runs if any(run.dtype in peers.ZIPNN_DTYPES for run in runs) else []
    return {
        "copy in memory": [peers.Copy(path.stat().st_size)],
        "zstd -3": [peers.Zstd(3)],
        "ZipNN": [peers.ZipNN(cut) for cut in (runs, spans)] if zipnn else [],
        "lmz": [peers.Lmz(path, shared_tables=False)],
        "OpenZL": [peers.OpenZl(runs, search=False)],
    }


def timed_round_trip(codec, data):
    """(stored bytes, encode seconds, decode seconds); the bytes are checked outside the timing."""
    start = time.perf_counter()
    blobs = codec.encode(data)
    encoded = time.perf_counter()
    pieces = codec.decode(blobs)
    decoded = time.perf_counter()
    if b"".join(pieces) != data:
        raise SystemExit(f"{type(codec).__name__} did not give the file back")
    return peers.stored_bytes(blobs), encoded - start, decoded - encoded


def alcm_file_bytes(binary, path, level):
    """(bytes of the archive, all bytes on disk) of `alcm compress PATH` after restoring and comparing the file."""
    with tempfile.TemporaryDirectory() as folder:
        out, restored = pathlib.Path(folder, "out"), pathlib.Path(folder, "restored")
        run = [str(binary), "compress", str(path), "-o", str(out), "--level", level, "--quiet"]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        run = [str(binary), "decompress", str(out), "-o", str(restored), "--quiet"]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        back = next(p for p in restored.rglob(path.name) if p.is_file()) if restored.is_dir() else restored
        if back.read_bytes() != path.read_bytes():
            raise SystemExit(f"alcm --level {level} did not give {path} back")
        sizes = {p.suffix: p.stat().st_size for p in out.rglob("*") if p.is_file()}
        return sizes[".alcm"], sum(sizes.values())


def alcm_speeds(path):
    """[(name, encode GB/s, decode GB/s)] of one run of the RAM-to-RAM bench on `path`."""
    run = ["cargo", "bench", "--quiet", "--bench", "ram_speed", "--", str(path), "--json"]
    lines = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    results = []
    for line in lines:
        if line.startswith("{"):
            r = json.loads(line)
            name = f"alcm {r['level']} {r['isa']}" + (f" x{r['threads']}" if r["threads"] != 1 else "")
            results.append((name, r["encode_gbps"], r["decode_gbps"]))
    return results


def measure_sizes(paths, binary, quick):
    """{path: {name: stored bytes or None}}"""
    table = {}
    for path in paths:
        data, row = path.read_bytes(), {}
        if binary:
            for level in LEVELS:
                archive, row[f"alcm {level}"] = alcm_file_bytes(binary, path, level)
                if level == "default":
                    row["archive"] = archive
        for name, codecs in size_codecs(path, quick).items():
            row[name] = min((timed_round_trip(codec, data)[0] for codec in codecs), default=None)
        table[path] = row
        print_size_row(path, row, header=len(table) == 1)
    return table


def measure_speeds(paths, with_alcm, rounds):
    """{path: {name: (encode GB/s, decode GB/s)}}, medians over `rounds` in which all take turns."""
    table = {}
    for path in paths:
        data = path.read_bytes()
        codecs = speed_codecs(path)
        samples = collections.defaultdict(list)
        for _ in range(rounds):
            if with_alcm:
                for name, encode, decode in alcm_speeds(path):
                    samples[name, 0].append((encode, decode))
            for name, ways in codecs.items():
                for way_idx, codec in enumerate(ways):
                    _, encode_s, decode_s = timed_round_trip(codec, data)
                    samples[name, way_idx].append((len(data) / encode_s / 1e9, len(data) / decode_s / 1e9))
        row = {}
        for (name, _), values in samples.items():
            medians = tuple(statistics.median(v[i] for v in values) for i in (0, 1))
            row[name] = tuple(map(max, medians, row.get(name, (0.0, 0.0))))
        table[path] = row
        print_speed_rows(path, row, header=len(table) == 1)
    return table


def print_size_row(path, row, header):
    if header:
        print("\nSaved %, everything on disk included (more is better)\n")
        print("| file | MB | " + " | ".join(row) + " |")
        print("|---|---:|" + "---:|" * len(row))
    size = path.stat().st_size
    cells = ["-" if b is None else f"{100 * (1 - b / size):.2f}" for b in row.values()]
    print(f"| {path.stem} | {size / 1e6:.1f} | " + " | ".join(cells) + " |", flush=True)


def print_speed_rows(path, row, header):
    if header:
        print("\nGB/s of original bytes, one thread unless marked, RAM to RAM, median of interleaved rounds\n")
        print("| file | coder | encode | decode | encode ÷ ZipNN | decode ÷ ZipNN | decode ÷ lmz |")
        print("|---|---|---:|---:|---:|---:|---:|")
    for name, (encode, decode) in row.items():
        ratios = [
            f"{mine / row[peer][i]:.2f}" if peer in row else "-"
            for mine, peer, i in ((encode, "ZipNN", 0), (decode, "ZipNN", 1), (decode, "lmz", 1))
        ]
        print(f"| {path.stem} | {name} | {encode:.2f} | {decode:.2f} | " + " | ".join(ratios) + " |", flush=True)


def default_files(corpus):
    folders = [ROOT / "tests" / "data"] + ([pathlib.Path(corpus)] if corpus else [])
    return sorted(p for folder in folders for p in folder.rglob("*.safetensors"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="checkpoints; default: the safetensors files of the corpus")
    parser.add_argument("--corpus", default=os.environ.get("CORPUS_ROOT"), help="folder searched for files")
    parser.add_argument("--alcm", type=pathlib.Path, default=ROOT / "target" / "release" / "alcm")
    parser.add_argument("--peers-only", action="store_true", help="leave alcm out")
    parser.add_argument("--quick", action="store_true", help="leave out zstd -19 and pcodec, which are slow")
    parser.add_argument("--only", choices=("sizes", "speeds"), help="one of the two tables")
    parser.add_argument("--rounds", type=int, default=5, help="rounds for the speeds")
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers here")
    args = parser.parse_args()

    paths = args.files or default_files(args.corpus)
    if not paths:
        parser.error("no files; name some, or set CORPUS_ROOT")
    binary = None if args.peers_only else args.alcm
    if binary and not binary.is_file():
        parser.error(f"{binary} is missing: run `cargo build --release`, or give --alcm")
    print_environment(PACKAGES)
    sizes = {} if args.only == "speeds" else measure_sizes(paths, binary, args.quick)
    speeds = {} if args.only == "sizes" else measure_speeds(paths, bool(binary), args.rounds)
    if args.json:
        record = {"sizes": {str(p): row for p, row in sizes.items()},
                  "speeds": {str(p): row for p, row in speeds.items()}}
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Makes the generated files of tests/data/bundles and writes each bundle's list of files.

    python scripts/make_bundles.py

`text_medium` is prose and source text written for this project; it is only listed. The pictures of `image_small` and
the records of `mixed_stream` come from seeded random numbers, `checkpoint_small` is cut out of the checkpoint in
tests/data. It computes with integers alone, which give the same bytes everywhere. Expectations in a `bundle.json` are
kept where its files have not changed; otherwise `alcm lab bundles record` measures new ones.
"""

import hashlib
import json
import pathlib
import random
import struct
import zlib

import checkpoint_io

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"
BUNDLES = DATA / "bundles"
DESCRIPTIONS = {
    "text_medium": "An essay, a story and a commented program, written for this project.",
    "image_small": "Three uncompressed pictures, grey PGM, colour PPM and BMP: smooth regions, edges and noise.",
    "mixed_stream": "Records of mixed text and binary: a log with packed fields, and sensor frames under text headers.",
    "checkpoint_small": "Weights of a trained network: a convolution in fp32, Adam moments in fp32, layers in bf16.",
}
FILES = {
    "text_medium": ["floats.txt", "lighthouse.txt", "tides.py"],
    "image_small": ["dunes.pgm", "harbour.ppm", "lamp.bmp"],
    "mixed_stream": ["requests.log", "sensors.dat"],
    "checkpoint_small": ["adam_moments.safetensors", "convolution.safetensors", "layers_bf16.safetensors"],
}


def clamp(value):
    return max(0, min(255, value))


def noise(rng, width):
    """Roughly bell-shaped, between -2 * width and 2 * width."""
    return sum(rng.randint(-width, width) for _ in range(4)) // 2


def dunes(width=100, height=100):
    """A sky, three ridges one behind the other, and sand whose grain grows to the front."""
    rng = random.Random(101)
    ridges = []
    for level in (38, 55, 74):
        line, at, slope = [], level * 16, 0
        for _ in range(width):
            slope = max(-14, min(14, slope + rng.randint(-3, 3)))
            at += slope + (level * 16 - at) // 40
            line.append(at // 16)
        ridges.append(line)
    pixels = bytearray()
    for y in range(height):
        for x in range(width):
            depth = sum(y >= ridge[x] for ridge in ridges)
            if depth == 0:
                value = 210 - y * 3 // 4 + noise(rng, 1)
            else:
                below = y - ridges[depth - 1][x]
                value = 175 - 38 * depth + min(below, 24) + noise(rng, 2 * depth)
            pixels.append(clamp(value))
    return b"P5\n%d %d\n255\n" % (width, height) + bytes(pixels)


def harbour(width=64, height=52):
    """Evening sky over water that mirrors it in broken lines, houses with lit windows between them."""
    rng = random.Random(102)
    horizon = height * 5 // 9
    houses, x = [], 3
    while x < width - 8:
        houses.append((x, x + rng.randint(5, 10), horizon - rng.randint(6, 17), rng.randint(30, 90)))
        x = houses[-1][1] + rng.randint(0, 3)
    rows = []
    for y in range(horizon):
        row = []
        for x in range(width):
            colour = [70 + 5 * y, 80 + 3 * y, 150 - y]
            for left, right, top, shade in houses:
                if left <= x < right and y >= top:
                    lit = (x - left) % 3 == 1 and (y - top) % 4 == 2 and rng.randint(1, 5) <= 3
                    colour = [245, 215, 130] if lit else [shade, shade * 4 // 5, shade * 3 // 4]
            row.append([c + noise(rng, 2) for c in colour])
        rows.append(row)
    for y in range(horizon, height):
        source = rows[max(0, 2 * horizon - 1 - y)]
        shift = rng.randint(-2, 2)
        row = [source[max(0, min(width - 1, x + shift))] for x in range(width)]
        rows.append([[c * 3 // 4 + 6 + noise(rng, 2) for c in colour] for colour in row])
    body = bytes(clamp(c) for row in rows for colour in row for c in colour)
    return b"P6\n%d %d\n255\n" % (width, height) + body


def lamp(width=58, height=58):
    """A disc of light with a soft edge in a dark room, bottom row first and blue before red, as BMP has it."""
    rng = random.Random(103)
    rows = bytearray()
    for y in range(height):
        row = bytearray()
        for x in range(width):
            distance = (x - 27) ** 2 + (y - 33) ** 2
            light = 236 if distance < 120 else max(0, 200 - distance // 5)
            table = 40 if y < 14 + x // 16 else 0
            wall = 24 + (8 if (x // 6 + y // 4 % 2 * 3) % 9 == 0 else 0)
            for warmth in (9, 13, 16):
                row.append(clamp(light * warmth // 17 + wall + table * warmth // 16 + noise(rng, 2)))
        rows += row + bytes(-len(row) % 4)
    header = struct.pack("<2sIHHI", b"BM", 54 + len(rows), 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(rows), 2835, 2835, 0, 0) + bytes(rows)


PATHS = ["/v1/models", "/v1/models/{}/shards", "/v1/upload/{}", "/healthz", "/v1/models/{}/tensors", "/login"]
AGENTS = ["trainer/2.4", "curl/8.5.0", "eval-loop/0.9.1 (gpu)", "browser"]


def requests_log(target=10_240):
    """One text line, its length in front, and a packed record (time, status, bytes, client, duration) behind it."""
    rng = random.Random(104)
    out, clock = bytearray(), 1_700_000_000_000
    clients = [rng.getrandbits(32) for _ in range(12)]
    while len(out) < target:
        clock += rng.randint(1, 60) * rng.randint(1, 60)
        path = rng.choice(PATHS).format(f"{rng.randint(1, 400):04x}")
        status = rng.choice([200] * 80 + [204] * 6 + [304] * 8 + [404] * 5 + [500])
        length = 0 if status in (204, 304) else rng.randint(200, 400) << min(rng.randint(0, 9), rng.randint(0, 9))
        client, duration_us = rng.choice(clients), rng.randint(400, 9000) + rng.randint(0, 160) ** 2
        at = f"{clock // 60_000 % 60:02d}:{clock // 1000 % 60:02d}.{clock % 1000:03d}"
        line = f"{at} GET {path} {status} {length} \"{rng.choice(AGENTS)}\""
        if status == 500:
            line += f" error=\"shard {rng.randint(0, 31)} timed out after {rng.randint(30, 90)} s\""
        text = line.encode()
        record = struct.pack("<QHIII", clock, status, length, client, duration_us)
        out += struct.pack("<H", len(text)) + text + record
    return bytes(out)


def sensors(target=10_240):
    """Frames: a text header, 16-bit samples of three channels that drift and swing, and a CRC-32."""
    rng = random.Random(105)
    out, number = bytearray(), 0
    level, swing = [1200, -300, 8200], [0, 40, 0]
    velocity = [9, -14, 3]
    while len(out) < target:
        number += 1
        samples = []
        for _ in range(rng.choice([48, 64, 64, 96])):
            for c in range(3):
                velocity[c] -= swing[c] // 24
                swing[c] += velocity[c]
                level[c] += rng.randint(-2, 2)
                samples.append(level[c] + swing[c] + noise(rng, 3))
        body = struct.pack(f"<{len(samples)}h", *samples)
        temperature = 180 + rng.randint(0, 9)
        header = f"FRAME {number:05d} node=bridge-{number % 3} ch=3 n={len(samples) // 3} temp={temperature}\n"
        out += header.encode() + body + struct.pack("<I", zlib.crc32(body))
    return bytes(out)


def cut(source, wanted):
    """A checkpoint of tensors of `source`, of each its first rows: {name: number of rows}."""
    header, data_offset = checkpoint_io.read_header(source)
    data = source.read_bytes()[data_offset:]
    entries, pieces = [], []
    for name, n_rows in sorted(wanted.items(), key=lambda item: header[item[0]]["data_offsets"]):
        entry = header[name]
        start, end = entry["data_offsets"]
        shape = [n_rows] + entry["shape"][1:]
        n_bytes = (end - start) // entry["shape"][0] * n_rows
        entries.append((name, entry["dtype"], shape, n_bytes))
        pieces.append(data[start:start + n_bytes])
    return checkpoint_io.pack_header(entries, None) + b"".join(pieces)


def checkpoint_files():
    digits = DATA / "digits_resnet"
    state, half = digits / "train_state.safetensors", digits / "params_bf16.safetensors"
    moments = {f"optimizer.{moment}.layer1.0.conv2.weight": 14 for moment in "mv"}
    norms = {f"model.layer1.0.bn1.{name}": 32 for name in ("bias", "running_mean", "running_var", "weight")}
    return {
        "adam_moments.safetensors": cut(state, moments),
        "convolution.safetensors": cut(state, {"model.layer1.0.conv1.weight": 32, **norms}),
        "layers_bf16.safetensors": cut(half, {"layer2.1.conv1.weight": 16, "layer1.2.conv1.weight": 10}),
    }


def list_files(name):
    """Writes bundle.json; what was measured on other bytes is dropped."""
    folder = BUNDLES / name
    files = []
    for file_name in FILES[name]:
        content = (folder / file_name).read_bytes()
        files.append({"name": file_name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    target = folder / "bundle.json"
    old = json.loads(target.read_text()) if target.exists() else {}
    bundle = {
        "name": name,
        "description": DESCRIPTIONS[name],
        "licence": "MIT OR Apache-2.0",
        "script": "scripts/make_bundles.py",
        "files": files,
        "expected": old.get("expected", []) if old.get("files") == files else [],
    }
    target.write_text(json.dumps(bundle, indent=2) + "\n")
    print(name, [file["bytes"] for file in files], "" if bundle["expected"] else "needs: alcm lab bundles record")


def main():
    made = {
        "image_small": {"dunes.pgm": dunes(), "harbour.ppm": harbour(), "lamp.bmp": lamp()},
        "mixed_stream": {"requests.log": requests_log(), "sensors.dat": sensors()},
        "checkpoint_small": checkpoint_files(),
    }
    for bundle, files in made.items():
        (BUNDLES / bundle).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (BUNDLES / bundle / name).write_bytes(content)
    for name in DESCRIPTIONS:
        list_files(name)


if __name__ == "__main__":
    main()

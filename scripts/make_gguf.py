#!/usr/bin/env python3
"""GGUF files of one checkpoint, one for each of the common types, for `compare_peers.py`.

    pip install gguf numpy
    python scripts/make_gguf.py model.safetensors OUT

Matrices of F32 are quantized, other F32 tensors kept, and those of other dtypes left out. K-quants take groups of 256, which
rows may have to be joined for. Each tensor is compared with what the `gguf` package reads of it.
"""

import argparse
import json
import pathlib
import struct

import gguf
import numpy

import k_quants

TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16", *k_quants.QUANTIZERS)
# Relative error that no type here exceeds on weights.
MAX_ERROR = 0.15
# What ggml allows.
MAX_NAME = 63


def tensors(path):
    """Name and array of each F32 tensor of a safetensors file."""
    data = path.read_bytes()
    (header_bytes,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_bytes])
    for name, info in header.items():
        if info.get("dtype") == "F32":
            start, end = (8 + header_bytes + offset for offset in info["data_offsets"])
            yield name[:MAX_NAME], numpy.frombuffer(data[start:end], numpy.float32).reshape(info["shape"])


def quantize(values, quant_type):
    """Rows of `values` as bytes of a type."""
    quantizer = k_quants.QUANTIZERS.get(quant_type.name)
    if quantizer is None:
        return gguf.quants.quantize(values, quant_type)
    coded = quantizer(values).reshape(len(values), -1)
    error = numpy.linalg.norm(gguf.quants.dequantize(coded, quant_type) - values)
    if error > MAX_ERROR * numpy.linalg.norm(values):
        raise SystemExit(f"{quant_type.name}: not what the gguf package reads")
    return coded


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for type_name in TYPES:
        quant_type = gguf.GGMLQuantizationType[type_name]
        block_len, _ = gguf.GGML_QUANT_SIZES[quant_type]
        writer = gguf.GGUFWriter(args.out / f"{args.checkpoint.stem}.{type_name}.gguf", "unknown")
        for name, values in tensors(args.checkpoint):
            if type_name in k_quants.QUANTIZERS and values.ndim == 2 and values.size % (3 * block_len) == 0:
                values = values.reshape(-1, 3 * block_len)
            if values.ndim == 2 and values.shape[-1] % block_len == 0:
                writer.add_tensor(name, quantize(values, quant_type), raw_dtype=quant_type)
            else:
                writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


if __name__ == "__main__":
    main()

"""Safetensors layout for the scripts: where each tensor lies, runs of one dtype, header writing.

A run is a stretch of neighbouring tensors of one dtype. Peers that need a dtype get one call per run or per
tensor; the header and whatever lies between tensors is a run without a dtype.
"""

import dataclasses
import json
import pathlib
import struct

DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
    "I16": 16, "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8,
}


@dataclasses.dataclass(frozen=True)
class Span:
    """Bytes [start, end) of a file that hold elements of `dtype`, or no tensor (None)."""

    dtype: str | None
    start: int
    end: int


def read_header(path):
    """(parsed header, file offset of the first tensor byte) of a safetensors file."""
    with open(path, "rb") as f:
        (header_len,) = struct.unpack("<Q", f.read(8))
        return json.loads(f.read(header_len)), 8 + header_len


def tensor_spans(path):
    """Spans that cover the whole file in order: the header, then each tensor."""
    header, data_offset = read_header(path)
    file_bytes = pathlib.Path(path).stat().st_size
    tensors = sorted(
        (v["data_offsets"][0], v["data_offsets"][1], v["dtype"])
        for name, v in header.items() if name != "__metadata__"
    )
    spans, at = [Span(None, 0, data_offset)], data_offset
    for start, end, dtype in tensors:
        if data_offset + start > at:
            spans.append(Span(None, at, data_offset + start))
        if end > start:
            spans.append(Span(dtype, data_offset + start, data_offset + end))
        at = data_offset + end
    if at < file_bytes:
        spans.append(Span(None, at, file_bytes))
    return spans


def dtype_runs(spans):
    """Neighbouring spans of one dtype joined."""
    runs = []
    for span in spans:
        if runs and runs[-1].dtype == span.dtype:
            runs[-1] = Span(span.dtype, runs[-1].start, span.end)
        else:
            runs.append(span)
    return runs


def main_dtype(spans):
    """The dtype that holds most bytes, or None for a file without tensors."""
    bytes_of = {}
    for span in spans:
        if span.dtype:
            bytes_of[span.dtype] = bytes_of.get(span.dtype, 0) + span.end - span.start
    return max(bytes_of, key=bytes_of.get, default=None)


def pack_header(entries, metadata=None):
    """Header bytes for `entries`, a list of (name, dtype, shape, byte length) in file order.

    Padded with spaces to a multiple of 8, as the safetensors library writes it.
    """
    header, at = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, dtype, shape, byte_len in entries:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + byte_len]}
        at += byte_len
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text

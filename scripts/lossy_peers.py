"""The lossy peers: each gives points (bits per element, relative L2) of a curve for the tensors of a file.

All bytes count: for every method the safetensors header as zstd -19 packs it, and 8 bytes for each blob that has to
be found again. Errors are of decoded values, cast to the tensors' own dtype, over all tensors together. Where a peer
may be run in several ways, the smallest result for each tensor or file counts.
"""

import dataclasses

import numpy as np
import zfpy
import zstandard
from pysz import sz, szAlgorithm, szConfig, szErrorBoundMode

INDEX_BYTES = 8
ZSTD_LEVEL = 19
SZ_ALGORITHMS = (szAlgorithm.NOPRED, szAlgorithm.LORENZO_REG, szAlgorithm.INTERP_LORENZO)
# Curves reach this far beyond the targets, so that every target lies between two points.
MARGIN_BITS = 0.6


@dataclasses.dataclass(frozen=True)
class Point:
    """One setting of a method."""

    bits: float
    relative_l2: float
    setting: str


class Tensors:
    """The lossy tensors of a file: values in fp32 or fp64, and what a reader would get of decoded ones."""

    def __init__(self, arrays, header):
        self.arrays = arrays
        self.values = [a if a.dtype == np.float64 else a.astype(np.float32) for a in arrays]
        self.header_bytes = len(zstd_bytes(header))
        self.n_elements = sum(a.size for a in arrays)
        self.norm_squared = sum(squared(v) for v in self.values)
        self.rms = (self.norm_squared / self.n_elements) ** 0.5

    def error_squared(self, tensor_idx, decoded):
        """Squared error of one tensor, `decoded` in any float type and shape."""
        array = self.arrays[tensor_idx]
        back = decoded.reshape(array.shape).astype(array.dtype)
        return squared(array.astype(np.float64) - back.astype(np.float64))

    def point(self, blob_bytes, error_squared, setting):
        bits = 8 * (blob_bytes + self.header_bytes) / self.n_elements
        return Point(bits, (error_squared / self.norm_squared) ** 0.5, setting)


def squared(values):
    flat = values.astype(np.float64).ravel()
    return float(flat @ flat)


def zstd_bytes(data):
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data)


def entropy_bits(counts):
    """Ideal order-0 size of symbols that occur `counts` times."""
    counts = counts[counts > 0].astype(np.float64)
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def sweep(point_at, start, factor, low_bits, high_bits):
    """Points of `point_at(start * factor**i)` from below `low_bits` to above `high_bits`; `factor` is below 1."""
    points, size = [], start
    while not points or points[-1].bits < high_bits + MARGIN_BITS:
        point = point_at(size)
        if point.bits > low_bits - MARGIN_BITS:
            points.append(point)
        size *= factor
    return points


def uniform(tensors, low_bits, high_bits):
    """One step for all tensors, rounding to nearest, ideal order-0 coding that costs no table: two curves, with the
    counts of all tensors together and with counts of each tensor."""
    pooled, apart = [], []

    def point_at(step):
        error, bits_apart, counts = 0.0, 0.0, np.zeros(0, np.int64)
        for tensor_idx, values in enumerate(tensors.values):
            indices = np.rint(values.ravel() / values.dtype.type(step)).astype(np.int64)
            decoded = indices.astype(values.dtype) * values.dtype.type(step)
            error += tensors.error_squared(tensor_idx, decoded)
            folded = np.bincount(np.where(indices < 0, -2 * indices - 1, 2 * indices))
            bits_apart += entropy_bits(folded)
            if len(folded) > len(counts):
                counts = np.pad(counts, (0, len(folded) - len(counts)))
            counts[:len(folded)] += folded
        apart.append(tensors.point(bits_apart / 8, error, f"step {step:.4g}"))
        pooled.append(tensors.point(entropy_bits(counts) / 8, error, f"step {step:.4g}"))
        return apart[-1]

    sweep(point_at, 4 * tensors.rms, 2 ** -0.25, low_bits, high_bits)
    return {"uniform, order 0": pooled, "uniform, order 0 per tensor": apart}


def absmax_tensor(values, bits):
    """(integers, fp32 scales, decoded) of one tensor, a scale for each index of the first dimension."""
    largest = 2 ** (bits - 1) - 1
    rows = values.reshape(len(values), -1).astype(np.float32)
    scales = np.abs(rows).max(axis=1, keepdims=True) / np.float32(largest)
    integers = np.rint(np.divide(rows, scales, out=np.zeros_like(rows), where=scales > 0)).astype(np.int8)
    return integers, scales, integers.astype(np.float32) * scales


def packed_nibbles(integers):
    flat = integers.ravel().astype(np.uint8) & 0x0F
    flat = np.pad(flat, (0, len(flat) % 2))
    return (flat[::2] | flat[1::2] << 4).tobytes()


def absmax(tensors, low_bits, high_bits, integer_bits=range(2, 9)):
    """Integers of 2 to 8 bits scaled by each channel's largest magnitude, then zstd -19; int8 and int4 among them."""
    points = []
    for bits in integer_bits:
        total, error = 0, 0.0
        for tensor_idx, values in enumerate(tensors.values):
            integers, scales, decoded = absmax_tensor(values, bits)
            ways = [integers.tobytes()] + ([packed_nibbles(integers)] if bits <= 4 else [])
            total += min(len(zstd_bytes(way + scales.tobytes())) for way in ways) + INDEX_BYTES
            error += tensors.error_squared(tensor_idx, decoded)
        points.append(tensors.point(total, error, f"int{bits}"))
    return {"absmax + zstd -19": points}


def sz3_blob(values, error_bound):
    """SZ3's smallest blob for an absolute bound."""
    blobs = []
    for algorithm in SZ_ALGORITHMS:
        config = szConfig()
        config.errorBoundMode = szErrorBoundMode.ABS
        config.absErrorBound = error_bound
        config.cmprAlgo = algorithm
        blobs.append(sz.compress(values, config)[0])
    return min(blobs, key=len)


def joined(tensors):
    """All tensors as one row, for the peers that might gain from it."""
    dtype = np.result_type(*(v.dtype for v in tensors.values))
    return np.concatenate([v.ravel().astype(dtype) for v in tensors.values])


def split_like(tensors, row):
    ends = np.cumsum([v.size for v in tensors.values])
    return np.split(row, ends[:-1])


def best_of_cuts(tensors, setting, encode, decode):
    """The smaller of one call for each tensor and one for all."""
    apart = [encode(values) for values in tensors.values]
    row = joined(tensors)
    together = encode(row)
    if sum(map(len, apart)) + INDEX_BYTES * len(apart) <= len(together) + INDEX_BYTES:
        decoded = [decode(blob, values) for blob, values in zip(apart, tensors.values, strict=True)]
        total = sum(map(len, apart)) + INDEX_BYTES * len(apart)
    else:
        decoded = split_like(tensors, decode(together, row))
        total = len(together) + INDEX_BYTES
    error = sum(tensors.error_squared(tensor_idx, values) for tensor_idx, values in enumerate(decoded))
    return tensors.point(total, error, setting)


def sz3(tensors, low_bits, high_bits):
    """SZ3 at absolute bounds, the best of its predictors."""
    def point_at(bound):
        return best_of_cuts(
            tensors, f"bound {bound:.4g}", lambda values: sz3_blob(values, bound),
            lambda blob, values: sz.decompress(blob, values.dtype, values.shape)[0])

    return {"SZ3": sweep(point_at, 2 * tensors.rms, 2 ** -0.5, low_bits, high_bits)}


def zfp_blob(values, tolerance):
    return zfpy.compress_numpy(values, tolerance=tolerance)


def zfp(tensors, low_bits, high_bits):
    """ZFP at tolerances, of which it knows the powers of two; more than four dimensions as a row."""
    def encode(values, tolerance):
        shaped = [values] if values.ndim <= 4 else []
        return min((zfp_blob(v, tolerance) for v in [*shaped, values.ravel()]), key=len)

    def point_at(tolerance):
        return best_of_cuts(
            tensors, f"tolerance {tolerance:.4g}", lambda values: encode(values, tolerance),
            lambda blob, values: zfpy.decompress_numpy(blob))

    start = 2.0 ** np.ceil(np.log2(16 * tensors.rms))
    return {"ZFP": sweep(point_at, start, 0.5, low_bits, high_bits)}


METHODS = {"uniform": uniform, "absmax": absmax, "sz3": sz3, "zfp": zfp}

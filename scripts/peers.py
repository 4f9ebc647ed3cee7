"""The peers: other lossless compressors, each behind the same two calls.

Every codec is one way to run a peer on one file. `encode` takes the file's bytes and gives a list of blobs;
`decode` gives pieces that, joined, must equal the file. Both run on one thread, RAM to RAM. A codec that has
to call its peer several times for a file pays 8 bytes for each blob, the least an index needs.
"""

import os
import tempfile

import lmz
import numpy as np
import openzl.ext as zl
import pcodec
import zipnn
import zstandard

INDEX_BYTES = 8
ZIPNN_DTYPES = {
    "F32": "float32", "BF16": "bfloat16", "F16": "float16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}
# pcodec knows no bf16 or fp8: their bits go in as unsigned numbers.
PCO_DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "I64": "i8", "I32": "i4", "I16": "i2", "U64": "u8",
    "U32": "u4", "U16": "u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "I8": "i1", "U8": "u1", "BOOL": "u1",
}


def stored_bytes(blobs):
    """Bytes on disk of a codec's blobs, index included."""
    return sum(map(len, blobs)) + INDEX_BYTES * (len(blobs) - 1)


class Copy:
    """No coder: a copy to memory that has been touched before, for what reading and writing alone take."""

    def __init__(self, n_bytes):
        self.rooms = [bytearray(b"\1" * n_bytes) for _ in range(2)]

    def encode(self, data):
        memoryview(self.rooms[0])[:] = data
        return self.rooms[:1]

    def decode(self, blobs):
        memoryview(self.rooms[1])[:] = blobs[0]
        return self.rooms[1:]


class Zstd:
    """The whole file as one frame."""

    def __init__(self, level):
        self.level = level

    def encode(self, data):
        return [zstandard.ZstdCompressor(level=self.level, write_checksum=True).compress(data)]

    def decode(self, blobs):
        return [zstandard.ZstdDecompressor().decompress(blobs[0])]


class ZipNN:
    """One ZipNN call for each span of a dtype it knows; spans without one are kept as they are."""

    def __init__(self, spans):
        self.spans = spans

    def _call(self, dtype):
        return zipnn.ZipNN(input_format="byte", bytearray_dtype=ZIPNN_DTYPES[dtype], threads=1)

    def encode(self, data):
        # ZipNN reorders bits in place in the buffer it is given, hence the copy; slicing makes one anyway.
        view = memoryview(data)
        return [
            self._call(s.dtype).compress(bytearray(view[s.start:s.end])) if s.dtype in ZIPNN_DTYPES
            else bytes(view[s.start:s.end])
            for s in self.spans
        ]

    def decode(self, blobs):
        return [
            self._call(s.dtype).decompress(blob) if s.dtype in ZIPNN_DTYPES else blob
            for s, blob in zip(self.spans, blobs, strict=True)
        ]


class Lmz:
    """lmz's own archive of the file, its files in a RAM-backed folder; one worker."""

    def __init__(self, path, shared_tables):
        self.path = str(path)
        self.shared_tables = shared_tables
        ram = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = tempfile.TemporaryDirectory(dir=ram)
        self.source = os.path.join(self.folder.name, os.path.basename(self.path))
        with open(self.path, "rb") as src, open(self.source, "wb") as dst:
            dst.write(src.read())
        self.archive = self.source + ".lmz"
        self.output = self.source + ".out"

    def encode(self, data):
        lmz.compress(self.source, self.archive, workers=1, shared_tables=self.shared_tables)
        with open(self.archive, "rb") as f:
            return [f.read()]

    def decode(self, blobs):
        index = lmz.ArchiveIndex(self.archive)
        payload = memoryview(blobs[0])
        try:
            # Chunk by chunk from RAM is the fastest way lmz offers: no file is written.
            return [index.decode(c, payload[c.off:c.off + c.clen]) for c in index.chunks()]
        except lmz.ArchiveIndex.NeedsSource:
            lmz.decompress(self.archive, self.output, workers=1, overwrite=True)
            with open(self.output, "rb") as f:
                return [f.read()]


class OpenZl:
    """One OpenZL frame for each span: float fields apart where it has a node for the dtype.

    `search` lets OpenZL try several graphs on each span and keep the smallest; without it the fields go to
    its entropy stage and the fractions are stored, its fastest setting for floats.
    """

    FLOAT_NODES = {
        "F32": (zl.nodes.Float32Deconstruct, np.uint32),
        "F16": (zl.nodes.Float16Deconstruct, np.uint16),
        "BF16": (zl.nodes.BFloat16Deconstruct, np.uint16),
    }

    def __init__(self, spans, search):
        self.spans = spans
        self.contexts = {s.dtype: self._context(s.dtype, search) for s in spans}

    def _context(self, dtype, search):
        compressor = zl.Compressor()
        compressor.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
        generic = zl.graphs.Compress()(compressor)
        serial = [generic, zl.graphs.Zstd()(compressor), zl.graphs.Entropy()(compressor)]
        if dtype not in self.FLOAT_NODES:
            graph = zl.graphs.BruteForce(serial)(compressor) if search else serial[2]
        else:
            node = self.FLOAT_NODES[dtype][0]
            graphs = []
            fractions = [zl.graphs.Store()(compressor), generic] if search else [zl.graphs.Store()(compressor)]
            exponents = [zl.graphs.Entropy(), zl.graphs.Fse(), zl.graphs.Compress()] if search \
                else [zl.graphs.Entropy()]
            for fraction in fractions:
                for exponent in exponents:
                    graphs.append(node()(compressor, fraction, exponent(compressor)))
            if search:
                graphs.append(generic)
            graph = zl.graphs.BruteForce(graphs)(compressor) if len(graphs) > 1 else graphs[0]
        compressor.select_starting_graph(graph)
        context = zl.CCtx()
        context.ref_compressor(compressor)
        return compressor, context

    def _input(self, data, span):
        if span.dtype in self.FLOAT_NODES:
            elements = np.frombuffer(data, self.FLOAT_NODES[span.dtype][1], offset=span.start,
                                     count=(span.end - span.start) // self.FLOAT_NODES[span.dtype][1]().itemsize)
            return zl.Input(zl.Type.Numeric, elements)
        return zl.Input(zl.Type.Serial, np.frombuffer(data, np.uint8, offset=span.start, count=span.end - span.start))

    def encode(self, data):
        blobs = []
        for span in self.spans:
            compressor, context = self.contexts[span.dtype]
            context.ref_compressor(compressor)
            context.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
            blobs.append(context.compress([self._input(data, span)]))
        return blobs

    def decode(self, blobs):
        return [zl.DCtx().decompress(blob)[0].content.as_bytes() for blob in blobs]


class Pco:
    """One pcodec file for each span of numbers; the rest is zstd -3."""

    CONFIG = pcodec.ChunkConfig(enable_8_bit=True)

    def __init__(self, spans):
        self.spans = spans

    def _dtype(self, span):
        return PCO_DTYPES.get(span.dtype)

    def encode(self, data):
        blobs = []
        for s in self.spans:
            dtype = self._dtype(s)
            if dtype is None:
                blobs.append(zstandard.ZstdCompressor(level=3).compress(memoryview(data)[s.start:s.end]))
                continue
            elements = np.frombuffer(data, np.uint8)[s.start:s.end].copy().view(dtype)
            blobs.append(pcodec.standalone.simple_compress(elements, self.CONFIG))
        return blobs

    def decode(self, blobs):
        return [
            zstandard.ZstdDecompressor().decompress(blob) if self._dtype(s) is None
            else pcodec.standalone.simple_decompress(blob).tobytes()
            for s, blob in zip(self.spans, blobs, strict=True)
        ]

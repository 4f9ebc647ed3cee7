//! Where the tensors of an ONNX file lie.
//!
//! Format: <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>, in the wire format of Protocol Buffers. Read are only
//! the messages on the way to tensors of some size: a graph's initializers, and what is in the attributes of its nodes,
//! graphs within these included. There is no magic number: a file is taken for ONNX if all of it is fields of a model.

use super::layout::row_len;
use super::number_runs::{MIN_RUN_BYTES, NumberRun};
use super::numbers::ReadAt;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::limits::Limits;

/// Graphs within graphs.
const MAX_DEPTH: u32 = 16;
/// Dimensions that are looked at.
const MAX_RANK: usize = 32;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 4 << 10;

/// The runs of numbers of an ONNX file of `len` bytes, in order; `None` where it is none.
///
/// # Errors
/// Those of `read`.
pub(super) fn onnx_runs(len: u64, read: &ReadAt<'_>, limits: &Limits) -> Result<Option<Vec<NumberRun>>> {
    let mut parser = Parser { read, len, limits, chunk: Vec::new(), chunk_start: 0, runs: Vec::new() };
    match parser.model() {
        Ok(()) => Ok(Some(parser.runs)),
        Err(Stop::Malformed) => Ok(None),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Why parsing ended early.
enum Stop {
    Malformed,
    Failed(Error),
}

type Parsed<T> = std::result::Result<T, Stop>;

/// Bytes of a message or of another field with a length.
#[derive(Debug, Clone, Copy)]
struct Span {
    at: u64,
    end: u64,
}

impl Span {
    fn len(self) -> u64 {
        self.end - self.at
    }

    /// The next `len` bytes, behind which it then begins.
    fn take(&mut self, len: u64) -> Parsed<Self> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.end).ok_or(Stop::Malformed)?;
        Ok(Self { at: std::mem::replace(&mut self.at, end), end })
    }
}

/// A field's value.
#[derive(Debug, Clone, Copy)]
enum Value {
    Number(u64),
    Bytes(Span),
    /// 4 or 8 bytes that nothing is made of.
    Fixed,
}

struct Parser<'a> {
    read: &'a ReadAt<'a>,
    len: u64,
    limits: &'a Limits,
    /// What has been read last.
    chunk: Vec<u8>,
    chunk_start: u64,
    runs: Vec<NumberRun>,
}

impl Parser<'_> {
    fn model(&mut self) -> Parsed<()> {
        let mut rest = Span { at: 0, end: self.len };
        let (mut is_first, mut has_graph) = (true, false);
        while let Some((number, value)) = self.field(&mut rest)? {
            match (number, value) {
                // The version of the format, which serializers write first.
                (1, Value::Number(1..256)) if is_first => {}
                (7, Value::Bytes(graph)) if !is_first => {
                    has_graph = true;
                    self.graph(graph, 0)?;
                }
                (1..=8 | 14 | 20 | 25, _) if !is_first => {}
                _ => return Err(Stop::Malformed),
            }
            is_first = false;
        }
        if has_graph { Ok(()) } else { Err(Stop::Malformed) }
    }

    fn graph(&mut self, mut graph: Span, depth: u32) -> Parsed<()> {
        while let Some((number, value)) = self.field(&mut graph)? {
            match (number, value) {
                (1, Value::Bytes(node)) if is_large(node) => self.node(node, depth)?,
                (5, Value::Bytes(tensor)) if is_large(tensor) => self.tensor(tensor)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, mut node: Span, depth: u32) -> Parsed<()> {
        while let Some((number, value)) = self.field(&mut node)? {
            if let (5, Value::Bytes(attribute)) = (number, value)
                && is_large(attribute)
            {
                self.attribute(attribute, depth)?;
            }
        }
        Ok(())
    }

    fn attribute(&mut self, mut attribute: Span, depth: u32) -> Parsed<()> {
        while let Some((number, value)) = self.field(&mut attribute)? {
            match (number, value) {
                (5 | 10, Value::Bytes(tensor)) if is_large(tensor) => self.tensor(tensor)?,
                (6 | 11, Value::Bytes(graph)) if is_large(graph) && depth < MAX_DEPTH => {
                    self.graph(graph, depth + 1)?;
                }
                (7, Value::Bytes(floats)) => self.push(floats, Some(Dtype::F32), 0)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn tensor(&mut self, mut tensor: Span) -> Parsed<()> {
        let mut dimensions: Vec<u64> = Vec::new();
        let (mut data_type, mut data) = (0, None);
        while let Some((number, value)) = self.field(&mut tensor)? {
            match (number, value) {
                (1, Value::Number(dimension)) if dimensions.len() < MAX_RANK => dimensions.push(dimension),
                (1, Value::Bytes(mut packed)) => {
                    while packed.at < packed.end && dimensions.len() < MAX_RANK {
                        dimensions.push(self.varint(&mut packed)?);
                    }
                }
                (2, Value::Number(number)) => data_type = number,
                (4, Value::Bytes(floats)) => data = Some((floats, Some(Dtype::F32))),
                (9, Value::Bytes(raw)) => data = Some((raw, dtype(data_type))),
                (10, Value::Bytes(doubles)) => data = Some((doubles, Some(Dtype::F64))),
                _ => {}
            }
        }
        match data {
            Some((data, dtype)) => self.push(data, dtype, row_len(dimensions.iter().rev())),
            None => Ok(()),
        }
    }

    fn push(&mut self, Span { at, end }: Span, dtype: Option<Dtype>, row_len: usize) -> Parsed<()> {
        if end - at < MIN_RUN_BYTES {
            return Ok(());
        }
        if self.runs.len() >= self.limits.tensors {
            return Err(Stop::Malformed);
        }
        self.runs.push(NumberRun { start: at, end, dtype, row_len });
        Ok(())
    }

    /// The number and the value of the next field of a message, which then begins behind it; `None` at its end.
    fn field(&mut self, message: &mut Span) -> Parsed<Option<(u64, Value)>> {
        if message.at == message.end {
            return Ok(None);
        }
        let key = self.varint(message)?;
        let value = match key & 7 {
            0 => Value::Number(self.varint(message)?),
            1 => message.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint(message)?;
                Value::Bytes(message.take(len)?)
            }
            5 => message.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Stop::Malformed),
        };
        if key >> 3 == 0 { Err(Stop::Malformed) } else { Ok(Some((key >> 3, value))) }
    }

    /// Seven bits a byte, the lowest first; the top bit says that there are more.
    fn varint(&mut self, message: &mut Span) -> Parsed<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            if message.at >= message.end {
                break;
            }
            let byte = self.byte(message.at)?;
            message.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Stop::Malformed)
    }

    /// The byte at `at`, which is in the file.
    fn byte(&mut self, at: u64) -> Parsed<u8> {
        let known = |chunk: &[u8], start: u64| {
            at.checked_sub(start).and_then(|idx| chunk.get(usize::try_from(idx).ok()?)).copied()
        };
        if let Some(byte) = known(&self.chunk, self.chunk_start) {
            return Ok(byte);
        }
        let len = usize::try_from(self.len - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        self.chunk.resize(len, 0);
        self.chunk_start = at;
        (self.read)(at, &mut self.chunk).map_err(Stop::Failed)?;
        known(&self.chunk, at).ok_or(Stop::Malformed)
    }
}

/// Whether a message may hold a run.
fn is_large(message: Span) -> bool {
    message.len() >= MIN_RUN_BYTES
}

/// The dtype of a `TensorProto.DataType`.
fn dtype(data_type: u64) -> Option<Dtype> {
    match data_type {
        1 => Some(Dtype::F32),
        2 => Some(Dtype::U8),
        3 => Some(Dtype::I8),
        4 => Some(Dtype::U16),
        5 => Some(Dtype::I16),
        6 => Some(Dtype::I32),
        7 => Some(Dtype::I64),
        9 => Some(Dtype::Bool),
        10 => Some(Dtype::F16),
        11 => Some(Dtype::F64),
        12 => Some(Dtype::U32),
        13 => Some(Dtype::U64),
        14 => Some(Dtype::C64),
        16 => Some(Dtype::Bf16),
        17 => Some(Dtype::F8E4m3),
        19 => Some(Dtype::F8E5m2),
        24 => Some(Dtype::F8E8m0),
        // Two integers of 4 bits a byte.
        21 | 22 => Some(Dtype::U8),
        23 => Some(Dtype::F4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::number_runs::assert_in_order;
    use super::super::numbers::read_from;
    use super::*;
    use proptest::prelude::*;

    fn varint(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        bytes.push(number.to_le_bytes()[0]);
        bytes
    }

    fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
        [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
    }

    /// A tensor of bytes that are all `fill`, in field `data`.
    fn tensor(dimensions: &[u64], data_type: u64, data: u64, fill: u8, n_bytes: usize) -> Vec<u8> {
        let dimensions: Vec<u8> = dimensions.iter().flat_map(|&dimension| number(1, dimension)).collect();
        [dimensions, number(2, data_type), bytes(8, b"weight"), bytes(data, &vec![fill; n_bytes])].concat()
    }

    fn model(graph: &[u8]) -> Vec<u8> {
        [number(1, 8), bytes(2, b"pytorch"), bytes(7, graph), bytes(8, &number(2, 17))].concat()
    }

    fn file() -> Vec<u8> {
        let inner = bytes(5, &tensor(&[70, 40], 10, 9, 3, 5600));
        let constant = bytes(5, &[bytes(1, b"value"), bytes(5, &tensor(&[3000], 1, 4, 2, 12_000))].concat());
        let branch = bytes(5, &[bytes(1, b"then_branch"), bytes(6, &inner)].concat());
        let floats = bytes(5, &[bytes(1, b"alphas"), bytes(7, &[5; 4400])].concat());
        let graph = [
            bytes(1, &[bytes(4, b"Constant"), constant].concat()),
            bytes(1, &[bytes(4, b"If"), branch].concat()),
            bytes(1, &[bytes(4, b"Other"), floats].concat()),
            bytes(2, b"graph"),
            bytes(5, &tensor(&[16, 1, 5, 3, 7], 1, 9, 1, 6720)),
            bytes(5, &tensor(&[10], 1, 9, 1, 40)),
            bytes(5, &tensor(&[1, 9000], 3, 9, 4, 9000)),
            bytes(5, &tensor(&[5000], 99, 9, 6, 5000)),
        ]
        .concat();
        model(&graph)
    }

    fn runs(bytes: &[u8]) -> Option<Vec<NumberRun>> {
        let runs = onnx_runs(bytes.len() as u64, &read_from(bytes), &Limits::default()).unwrap();
        assert_in_order(runs.as_deref().unwrap_or_default(), bytes.len());
        runs
    }

    #[test]
    fn tensors_are_found_wherever_they_are() {
        let file = file();
        let found: Vec<_> = runs(&file)
            .unwrap()
            .into_iter()
            .map(|run| {
                let data = &file[usize::try_from(run.start).unwrap()..usize::try_from(run.end).unwrap()];
                assert!(data.iter().all(|&byte| byte == data[0]));
                (data[0], data.len(), run.dtype, run.row_len)
            })
            .collect();
        let expected = [
            (2, 12_000, Some(Dtype::F32), 0),
            (3, 5600, Some(Dtype::F16), 40),
            (5, 4400, Some(Dtype::F32), 0),
            (1, 6720, Some(Dtype::F32), 105),
            (4, 9000, Some(Dtype::I8), 0),
            (6, 5000, None, 0),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_model_is_none() {
        let file = file();
        for end in [0, 1, 2, 3, 20, 5000, file.len() - 1] {
            assert!(runs(&file[..end]).is_none(), "{end}");
        }
        assert!(runs(&[&file[..], &[0]].concat()).is_none());
        assert!(runs(&file[2..]).is_none());
        // No graph; a field that models do not have; a length beyond the end; a group.
        assert!(runs(&number(1, 8)).is_none());
        assert!(runs(&[file.clone(), number(9, 1)].concat()).is_none());
        assert!(runs(&[number(1, 8), varint(7 << 3 | 2), varint(u64::MAX)].concat()).is_none());
        assert!(runs(&[number(1, 8), varint(7 << 3 | 3)].concat()).is_none());
        let limits = Limits { tensors: 2, ..Limits::default() };
        assert!(onnx_runs(file.len() as u64, &read_from(&file), &limits).unwrap().is_none());
    }

    #[test]
    fn graphs_within_graphs_end_somewhere() {
        let mut graph = bytes(5, &tensor(&[3000], 1, 9, 1, 12_000));
        for _ in 0..100_000 {
            graph = bytes(1, &bytes(5, &bytes(6, &graph)));
            if graph.len() > 1 << 20 {
                break;
            }
        }
        assert_eq!(runs(&model(&graph)), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn changed_files_never_panic(changes in prop::collection::vec((any::<u32>(), any::<u8>()), 1..8)) {
            let mut file = file();
            for (at, byte) in changes {
                // Mostly fields, not what is in them.
                let at = at as usize % file.len();
                let at = (at..file.len()).find(|&at| at + 1 < file.len() && file[at] != file[at + 1]).unwrap_or(at);
                file[at] = byte;
            }
            runs(&file);
        }
    }
}

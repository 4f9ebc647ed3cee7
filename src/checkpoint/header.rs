//! The safetensors header: eight bytes of length, then a JSON object of tensors.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. Everything that format forbids is refused
//! here, and a few things that serde would let pass: duplicate names, control characters in names.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;

/// Most dimensions of a tensor. Frameworks allow up to 64; bounds the memory of hostile headers.
pub const MAX_RANK: usize = 64;
/// Bytes of the length before the JSON.
const LENGTH_BYTES: usize = 8;
/// Characters of a name, or of serde's message, that an error shows.
const SHOWN_CHARS: usize = 160;

/// One tensor of a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name.
    pub name: String,
    /// Its element type, or `None` for one that this program codes as bytes.
    pub dtype: Option<Dtype>,
    /// The element type as the header names it.
    pub dtype_name: String,
    /// Elements along each dimension, slowest first.
    pub shape: Vec<u64>,
    /// Where its bytes begin in the file.
    pub start: u64,
    /// Where they end.
    pub end: u64,
}

impl TensorInfo {
    /// Size in bytes.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Number of elements; fits, because parsing has checked the product of the shape.
    #[must_use]
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().copied().fold(1, u64::saturating_mul)
    }
}

/// The parsed header of a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetensorsHeader {
    prefix_bytes: u64,
    tensors: Vec<TensorInfo>,
}

impl SafetensorsHeader {
    /// Bytes of length and header together, as the file's first eight bytes declare: what
    /// [`Self::parse`] needs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where fewer than eight bytes are given or the file is shorter than
    /// declared, [`ErrorKind::LimitExceeded`].
    pub fn prefix_len(first_bytes: &[u8], file_len: Option<u64>, limits: &Limits) -> Result<u64> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message);
        let length = first_bytes.first_chunk::<LENGTH_BYTES>().ok_or_else(|| {
            let len = first_bytes.len();
            invalid(format!(
                "file of {len} bytes is too short for safetensors, which begins with 8 of length"
            ))
        })?;
        let header_bytes = u64::from_le_bytes(*length);
        if let Some(file_len) = file_len
            && header_bytes
                .checked_add(LENGTH_BYTES as u64)
                .is_none_or(|prefix_bytes| prefix_bytes > file_len)
        {
            let message = format!(
                "safetensors header of {header_bytes} bytes in a file of {file_len}: cut short, or not safetensors"
            );
            return Err(invalid(message));
        }
        if header_bytes > limits.header_bytes {
            let message =
                format!("safetensors header of {header_bytes} bytes, the limit is {}", limits.header_bytes);
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        Ok(header_bytes + LENGTH_BYTES as u64)
    }

    /// Parses the header from `prefix`, the file's first bytes, at least [`Self::prefix_len`] of them.
    /// `file_len` is the size of the file where it is known, as it is not in a pipe.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] or [`ErrorKind::LimitExceeded`], with the tensor named.
    pub fn parse(prefix: &[u8], file_len: Option<u64>, limits: &Limits) -> Result<Self> {
        let prefix_bytes = Self::prefix_len(prefix, file_len, limits)?;
        let json = usize::try_from(prefix_bytes).ok().and_then(|end| prefix.get(LENGTH_BYTES..end));
        let json = json.ok_or_else(|| {
            let message = format!("safetensors header ends after {} of {prefix_bytes} bytes", prefix.len());
            Error::new(ErrorKind::InvalidInput, message)
        })?;
        let mut tensors = parse_json(json, limits)?;
        check_unique(&mut tensors)?;
        tensors.sort_unstable_by(|a, b| (a.start, a.end, &a.name).cmp(&(b.start, b.end, &b.name)));
        for tensor in &tensors {
            check_shape(tensor).map_err(|e| e.in_tensor(shown(&tensor.name)))?;
        }
        check_tiling(&tensors, file_len.map(|file_len| file_len - prefix_bytes))?;
        for tensor in &mut tensors {
            let moved = tensor.start.checked_add(prefix_bytes).zip(tensor.end.checked_add(prefix_bytes));
            (tensor.start, tensor.end) =
                moved.ok_or_else(|| refused("data_offsets overflow").in_tensor(shown(&tensor.name)))?;
        }
        Ok(Self { prefix_bytes, tensors })
    }

    /// Bytes before the first tensor: length and header.
    #[must_use]
    pub fn prefix_bytes(&self) -> u64 {
        self.prefix_bytes
    }

    /// The tensors in the order of their bytes, which fill the file after the prefix without a gap.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Size of the file by this header.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.tensors.last().map_or(self.prefix_bytes, |tensor| tensor.end)
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

/// A text for an error: long ones shortened.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_owned(),
    }
}

fn check_unique(tensors: &mut [TensorInfo]) -> Result<()> {
    tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    match tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(refused("name stands twice in the header").in_tensor(shown(&pair[0].name))),
        None => Ok(()),
    }
}

fn check_shape(tensor: &TensorInfo) -> Result<()> {
    let mut characters = tensor.name.chars().chain(tensor.dtype_name.chars());
    if let Some(control) = characters.find(|c| c.is_control()) {
        return Err(refused(format!("name or dtype has the control character {}", control.escape_unicode())));
    }
    let byte_len = tensor
        .end
        .checked_sub(tensor.start)
        .ok_or_else(|| refused(format!("data_offsets are reversed: {} to {}", tensor.start, tensor.end)))?;
    // Zero dimensions last, so that the others' product is checked as well.
    let nonzero = tensor.shape.iter().filter(|dimension| **dimension != 0);
    let product = nonzero.clone().try_fold(1_u64, |product, dimension| product.checked_mul(*dimension));
    let product = product.ok_or_else(|| refused("product of the shape overflows 64 bits"))?;
    let n_elements = if nonzero.count() == tensor.shape.len() { product } else { 0 };
    let Some(dtype) = tensor.dtype else { return Ok(()) };
    let bits = n_elements
        .checked_mul(dtype.element_bits() as u64)
        .ok_or_else(|| refused("size by shape and dtype overflows 64 bits"))?;
    if bits % 8 != 0 || bits / 8 != byte_len {
        let message = format!(
            "data_offsets give {byte_len} bytes, shape and dtype {} give {bits} bits ({} bytes)",
            dtype.name(),
            bits.div_ceil(8)
        );
        return Err(refused(message));
    }
    Ok(())
}

/// Checks that sorted tensors fill `data_len` bytes without gap or overlap.
fn check_tiling(tensors: &[TensorInfo], data_len: Option<u64>) -> Result<()> {
    let mut end = 0;
    for tensor in tensors {
        if tensor.start != end {
            let what = if tensor.start < end { "overlaps the tensor before" } else { "leaves a gap before" };
            let message = format!("{what}: data begins at {}, the bytes before end at {end}", tensor.start);
            return Err(refused(message).in_tensor(shown(&tensor.name)));
        }
        if let Some(data_len) = data_len
            && tensor.end > data_len
        {
            let message = format!(
                "data_offsets reach to {}, the file has {data_len} bytes of data: it was cut short",
                tensor.end
            );
            return Err(refused(message).in_tensor(shown(&tensor.name)));
        }
        end = tensor.end;
    }
    match data_len {
        Some(data_len) if data_len != end => {
            Err(refused(format!("{} bytes follow the last tensor", data_len - end)))
        }
        _ => Ok(()),
    }
}

/// The value of one tensor in the JSON. Unknown keys are left alone, duplicate ones refused by serde.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_RANK} dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dimension) = seq.next_element()? {
                    if shape.len() == MAX_RANK {
                        return Err(A::Error::custom(format!("more than {MAX_RANK} dimensions")));
                    }
                    shape.push(dimension);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}

fn parse_json(json: &[u8], limits: &Limits) -> Result<Vec<TensorInfo>> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let mut failure = None;
    let seed = Tensors { max_tensors: limits.tensors, failure: &mut failure };
    let parsed = seed.deserialize(&mut deserializer).and_then(|tensors| {
        deserializer.end()?;
        Ok(tensors)
    });
    parsed.map_err(|json_error| {
        // serde carries text only, so an error with a kind and a name comes beside it.
        failure.unwrap_or_else(|| {
            refused(format!("safetensors header is not valid: {}", shown(&json_error.to_string())))
        })
    })
}

/// Collects the tensors of the JSON object.
struct Tensors<'f> {
    max_tensors: usize,
    failure: &'f mut Option<Error>,
}

impl<'de> DeserializeSeed<'de> for Tensors<'_> {
    type Value = Vec<TensorInfo>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tensors<'_> {
    type Value = Vec<TensorInfo>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut tensors: Vec<TensorInfo> = Vec::new();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if std::mem::replace(&mut has_metadata, true) {
                    return Err(A::Error::custom("__metadata__ stands twice"));
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if tensors.len() >= self.max_tensors {
                let message = format!("more than {} tensors, the limit", self.max_tensors);
                *self.failure = Some(Error::new(ErrorKind::LimitExceeded, message));
                return Err(A::Error::custom("too many tensors"));
            }
            let entry: Entry = match map.next_value() {
                Ok(entry) => entry,
                Err(error) => {
                    let message = format!(
                        "entry in the safetensors header is not valid: {}",
                        shown(&error.to_string())
                    );
                    *self.failure = Some(refused(message).in_tensor(shown(&name)));
                    return Err(error);
                }
            };
            let [start, end] = entry.data_offsets;
            let dtype = Dtype::from_name(&entry.dtype);
            tensors.push(TensorInfo {
                name,
                dtype,
                dtype_name: entry.dtype,
                shape: entry.shape.0,
                start,
                end,
            });
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data_len: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len() + data_len, 0);
        bytes
    }

    fn parse(json: &str, data_len: usize) -> Result<SafetensorsHeader> {
        let bytes = file(json, data_len);
        SafetensorsHeader::parse(&bytes, Some(bytes.len() as u64), &Limits::default())
    }

    fn tensor(name: &str, dtype: &str, shape: &str, from: u64, to: u64) -> String {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    }

    #[test]
    fn tensors_come_in_the_order_of_their_bytes() {
        let json = format!(
            r#"{{"__metadata__":{{"format":"pt"}},{},{},{}}}  "#,
            tensor("b", "F32", "[2,3]", 4, 28),
            tensor("a", "BF16", "[2]", 0, 4),
            tensor("empty", "I8", "[0,5]", 28, 28),
        );
        let header = parse(&json, 28).unwrap();
        let names: Vec<&str> = header.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "empty"]);
        let prefix_bytes = 8 + json.len() as u64;
        assert_eq!(header.prefix_bytes(), prefix_bytes);
        assert_eq!(
            (header.tensors()[1].start, header.tensors()[1].end),
            (prefix_bytes + 4, prefix_bytes + 28)
        );
        assert_eq!(header.tensors()[1].n_elements(), 6);
        assert_eq!(header.file_len(), prefix_bytes + 28);
    }

    #[test]
    fn unknown_dtypes_and_packed_ones() {
        let header = parse(&format!("{{{}}}", tensor("x", "F6_E2M3", "[4]", 0, 3)), 3).unwrap();
        assert_eq!(header.tensors()[0].dtype, None);
        assert_eq!(header.tensors()[0].dtype_name, "F6_E2M3");
        let packed = parse(&format!("{{{}}}", tensor("x", "F4", "[6]", 0, 3)), 3).unwrap();
        assert_eq!(packed.tensors()[0].dtype, Some(Dtype::F4));
        assert!(parse(&format!("{{{}}}", tensor("x", "F4", "[5]", 0, 3)), 3).is_err());
    }

    #[test]
    fn every_broken_rule_is_named_with_its_tensor() {
        let long_shape = format!("[{}1]", "1,".repeat(MAX_RANK));
        let one = |dtype, shape: &str, from, to| format!("{{{}}}", tensor("x", dtype, shape, from, to));
        let two = |a: &str, b: &str| format!("{{{a},{b}}}");
        let first = tensor("w", "U8", "[4]", 0, 4);
        let cases = [
            (one("F32", "[2]", 0, 7), 7, "shape and dtype"),
            (one("F32", "[2]", 8, 0), 8, "reversed"),
            (one("F32", "[2]", 0, 8), 6, "cut short"),
            (one("U8", "[2]", 1, 3), 3, "gap"),
            (one("U8", "[4294967296,4294967296]", 0, 0), 0, "overflows"),
            (one("U8", "[4294967296,4294967296,0]", 0, 0), 0, "overflows"),
            (one("F64", "[4611686018427387904]", 0, 0), 0, "overflows"),
            (one("U8", &long_shape, 0, 1), 1, "more than 64 dimensions"),
            (one("U8", "[-1]", 0, 1), 1, "not valid"),
            (two(&first, &tensor("x", "U8", "[2]", 2, 4)), 4, "overlaps"),
            (two(&tensor("x", "U8", "[4]", 0, 4), &tensor("x", "U8", "[4]", 4, 8)), 8, "twice"),
            (r#"{"x":{"dtype":"U8","shape":[1]}}"#.into(), 1, "data_offsets"),
            (r#"{"x":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#.into(), 1, "duplicate"),
        ];
        for (json, data_len, words) in cases {
            let error = parse(&json, data_len).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{json}");
            assert_eq!(error.location().tensor.as_deref(), Some("x"), "{json}");
            assert!(error.to_string().contains(words), "{json}: {error}");
        }
        let error = parse(&format!("{{{}}}", tensor("x", "A\\u001b", "[1]", 0, 1)), 1).unwrap_err();
        assert!(error.to_string().contains("control character"), "{error}");
        let long = format!("{{{}}}", tensor(&"x".repeat(9000), "U8", "[2]", 0, 1));
        assert!(parse(&long, 1).unwrap_err().to_string().len() < 400);
        for name in ["a\\u0000b", "a\\nb"] {
            let error = parse(&format!("{{{}}}", tensor(name, "U8", "[1]", 0, 1)), 1).unwrap_err();
            assert!(error.to_string().contains("control character"), "{error}");
            assert!(!error.to_string().contains(['\0', '\n']), "{error}");
        }
    }

    #[test]
    fn files_that_are_not_safetensors() {
        let invalid = |bytes: &[u8]| {
            SafetensorsHeader::parse(bytes, Some(bytes.len() as u64), &Limits::default()).unwrap_err().kind()
                == ErrorKind::InvalidInput
        };
        assert!(invalid(b""));
        assert!(invalid(b"1234567"));
        assert!(invalid(b"a text that is no checkpoint"));
        assert!(invalid(&file("[]", 0)));
        assert!(invalid(&file("{}x", 0)));
        assert!(invalid(&file("{}", 5)));
        assert!(invalid(&file("{\"__metadata__\":{},\"__metadata__\":{}}", 0)));
        assert!(parse("{}", 0).unwrap().tensors().is_empty());
    }

    #[test]
    fn limits_are_found_before_anything_is_read() {
        let length = (100_u64 << 20).to_le_bytes();
        let error = SafetensorsHeader::parse(&length, Some(1 << 30), &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        let error = SafetensorsHeader::parse(&length, None, &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        let limits = Limits { tensors: 1, ..Limits::default() };
        let json = format!("{{{},{}}}", tensor("a", "U8", "[1]", 0, 1), tensor("b", "U8", "[1]", 1, 2));
        let error = SafetensorsHeader::parse(&file(&json, 2), None, &limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn damaged_headers_never_panic_and_what_passes_tiles_the_file() {
        let json = format!(
            "{{{},{}}}",
            tensor("ab", "F32", "[2,3]", 4, 28),
            tensor("c\\u00e9", "BF16", "[2]", 0, 4)
        );
        let whole = file(&json, 28);
        let mut n_accepted = 0;
        for at in 0..8 + json.len() {
            for value in (0..=255).filter(|&value| value != whole[at]) {
                let mut damaged = whole.clone();
                damaged[at] = value;
                for file_len in [Some(damaged.len() as u64), None] {
                    let Ok(header) = SafetensorsHeader::parse(&damaged, file_len, &Limits::default()) else {
                        continue;
                    };
                    n_accepted += 1;
                    let regions = crate::checkpoint::layout(&header);
                    let mut end = 0;
                    for region in &regions {
                        assert_eq!(region.offset, end);
                        end += region.len;
                    }
                    assert_eq!(end, header.file_len());
                    assert!(file_len.is_none_or(|file_len| file_len == end));
                }
            }
        }
        // Other letters in names are no damage.
        assert!(n_accepted > 200);
    }
}

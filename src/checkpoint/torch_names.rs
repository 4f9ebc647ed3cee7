//! What names of modules of PyTorch stand for, as far as they tell of numbers.

use crate::dtype::Dtype;

/// What is known by a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TorchName {
    /// A class of storages: the type of elements, and their bytes, where these are known.
    Class(Option<Dtype>, Option<u64>),
    /// A type of elements by itself.
    Dtype(Dtype),
    /// The function that makes a tensor of a storage, an offset, a size, strides, and more.
    Rebuild,
    /// The function that calls another and makes the tensor one of a subclass.
    RebuildSubclass,
}

impl TorchName {
    /// What `name` in `module` stands for; `None` where it is nothing that tells of numbers.
    pub(super) fn find(module: &[u8], name: &[u8]) -> Option<Self> {
        match (module, name) {
            (b"torch._utils", b"_rebuild_tensor" | b"_rebuild_tensor_v2" | b"_rebuild_tensor_v3") => {
                Some(Self::Rebuild)
            }
            (b"torch._tensor", b"_rebuild_from_type_v2") => Some(Self::RebuildSubclass),
            (b"torch" | b"torch.cuda" | b"torch.storage", _) => {
                storage_class(name).or_else(|| dtype(name).map(Self::Dtype))
            }
            _ => None,
        }
    }
}

/// A class of storages by its name.
fn storage_class(name: &[u8]) -> Option<TorchName> {
    let dtype = match name {
        b"DoubleStorage" => Dtype::F64,
        b"FloatStorage" => Dtype::F32,
        b"HalfStorage" => Dtype::F16,
        b"BFloat16Storage" => Dtype::Bf16,
        b"LongStorage" => Dtype::I64,
        b"IntStorage" => Dtype::I32,
        b"ShortStorage" => Dtype::I16,
        b"CharStorage" => Dtype::I8,
        b"ByteStorage" => Dtype::U8,
        b"BoolStorage" => Dtype::Bool,
        b"ComplexFloatStorage" => Dtype::C64,
        b"ComplexDoubleStorage" => return Some(TorchName::Class(None, Some(16))),
        b"QInt32Storage" => return Some(TorchName::Class(None, Some(4))),
        b"UntypedStorage" | b"_UntypedStorage" | b"QInt8Storage" | b"QUInt8Storage" => {
            return Some(TorchName::Class(None, Some(1)));
        }
        _ => return name.ends_with(b"Storage").then_some(TorchName::Class(None, None)),
    };
    Some(TorchName::Class(Some(dtype), Some(dtype.unit_bytes() as u64)))
}

/// A type of elements by its name.
fn dtype(name: &[u8]) -> Option<Dtype> {
    match name {
        b"float64" => Some(Dtype::F64),
        b"float32" => Some(Dtype::F32),
        b"float16" => Some(Dtype::F16),
        b"bfloat16" => Some(Dtype::Bf16),
        b"float8_e4m3fn" => Some(Dtype::F8E4m3),
        b"float8_e5m2" => Some(Dtype::F8E5m2),
        b"float8_e8m0fnu" => Some(Dtype::F8E8m0),
        b"int64" => Some(Dtype::I64),
        b"int32" => Some(Dtype::I32),
        b"int16" => Some(Dtype::I16),
        b"int8" => Some(Dtype::I8),
        b"uint64" => Some(Dtype::U64),
        b"uint32" => Some(Dtype::U32),
        b"uint16" => Some(Dtype::U16),
        b"uint8" => Some(Dtype::U8),
        b"bool" => Some(Dtype::Bool),
        b"complex64" => Some(Dtype::C64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let class = |dtype, n_bytes| Some(TorchName::Class(dtype, n_bytes));
        let cases: [(&str, &str, _); 9] = [
            ("torch", "FloatStorage", class(Some(Dtype::F32), Some(4))),
            ("torch.cuda", "ComplexFloatStorage", class(Some(Dtype::C64), Some(8))),
            ("torch", "ComplexDoubleStorage", class(None, Some(16))),
            ("torch.storage", "UntypedStorage", class(None, Some(1))),
            ("torch", "QUInt4x2Storage", class(None, None)),
            ("torch", "float8_e5m2", Some(TorchName::Dtype(Dtype::F8E5m2))),
            ("torch._utils", "_rebuild_tensor_v2", Some(TorchName::Rebuild)),
            ("torch._utils", "_rebuild_parameter", None),
            ("collections", "FloatStorage", None),
        ];
        for (module, name, expected) in cases {
            assert_eq!(TorchName::find(module.as_bytes(), name.as_bytes()), expected, "{module}.{name}");
        }
    }
}

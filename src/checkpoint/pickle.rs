//! What a pickle of PyTorch tells of the storages that its tensors lie in.
//!
//! Format: <https://github.com/python/cpython/blob/main/Lib/pickletools.py>, the opcodes of protocols 2 to 5 that
//! `torch.save` and TorchScript write. Nothing is imported or called: of the calls that a pickle asks for, those that
//! rebuild a tensor are noted, and all others give a value that nothing is known of.

use std::collections::BTreeMap;

use super::header::MAX_RANK;
use super::layout::row_len;
use super::torch_names::TorchName;
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::limits::Limits;

/// Longest key of a storage that is taken note of; keys are numbers in decimal.
const MAX_KEY_BYTES: usize = 64;
/// Values for each tensor that limits allow: a tensor takes about 30.
const VALUES_PER_TENSOR: usize = 16;

/// Bytes of pickles in a file that are looked at, at most: what they stand for takes up to eight times as much memory.
pub(super) fn max_bytes(limits: &Limits) -> u64 {
    limits.header_bytes / 4
}

/// A storage: the numbers of one tensor, or of several that share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage {
    /// What the numbers are, where that is known.
    pub(super) dtype: Option<Dtype>,
    /// Bytes of an element, where they are known.
    pub(super) element_bytes: Option<u64>,
    /// Elements in a row of its largest tensor, as [`super::Region::row_len`].
    pub(super) row_len: usize,
    /// Elements of that tensor.
    n_largest: u64,
}

/// What has been found in a pickle.
#[derive(Debug, Default)]
pub(super) struct Pickle<'a> {
    /// Storages by their keys.
    pub(super) storages: BTreeMap<&'a [u8], Storage>,
    /// Texts that were appended to lists, in order: all of a pickle that is one list of texts.
    pub(super) appended: Vec<&'a [u8]>,
    /// Its bytes, if it ends and was understood up to there.
    pub(super) len: Option<usize>,
}

impl<'a> Pickle<'a> {
    /// Looks through the pickle at the front of `bytes`.
    pub(super) fn parse(bytes: &'a [u8], limits: &Limits) -> Self {
        let mut machine = Machine {
            src: ByteCursor::new(bytes),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            items: Vec::new(),
            max_values: limits.tensors.saturating_mul(VALUES_PER_TENSOR),
            max_storages: limits.tensors,
            found: Self::default(),
        };
        if machine.run().is_some() {
            machine.found.len = Some(bytes.len() - machine.src.rest().len());
        }
        machine.found
    }
}

/// A value on the stack.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    /// One that nothing is known of.
    Opaque,
    Number(u64),
    Text(&'a [u8]),
    /// So many of the machine's items, from the first on.
    Tuple(usize, usize),
    /// What a module's name stands for.
    Named(TorchName),
    /// A storage by its key.
    Storage(&'a [u8]),
}

/// The state of a machine that pickles are programs of.
struct Machine<'a> {
    src: ByteCursor<'a>,
    stack: Vec<Value<'a>>,
    /// Lengths of the stack at the marks that are open.
    marks: Vec<usize>,
    memo: BTreeMap<usize, Value<'a>>,
    /// What is in tuples, each in one piece. A tuple takes its items from the stack, so there are no more than opcodes,
    /// whatever is shared, and however deep tuples lie in tuples.
    items: Vec<Value<'a>>,
    max_values: usize,
    max_storages: usize,
    found: Pickle<'a>,
}

impl<'a> Machine<'a> {
    /// Runs up to the end of the pickle; `None` where it is malformed, too large, or not understood.
    fn run(&mut self) -> Option<()> {
        loop {
            match self.src.u8()? {
                b'.' => return Some(()),
                opcode => self.step(opcode)?,
            }
            let n_values = self.stack.len() + self.marks.len() + self.memo.len() + self.items.len();
            if n_values + self.found.appended.len() > self.max_values {
                return None;
            }
        }
    }

    /// Executes one opcode.
    fn step(&mut self, opcode: u8) -> Option<()> {
        match opcode {
            // The protocol, and a frame's length.
            0x80 => self.src.take(1).map(|_| ()),
            0x95 => self.src.take(8).map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                Some(())
            }
            // Constants, empty containers, floating-point numbers.
            b'N' | 0x88 | 0x89 | b'}' | b']' | 0x8f => self.push(Value::Opaque),
            b'G' => self.src.take(8).and_then(|_| self.push(Value::Opaque)),
            // Numbers, the first two without a sign.
            b'K' => self.number(1, false),
            b'M' => self.number(2, false),
            b'J' => self.number(4, true),
            0x8a => self.length(1).and_then(|len| self.number(len, true)),
            0x8b => self.length(4).and_then(|len| self.number(len, true)),
            // Texts and bytes by the width of their lengths.
            b'U' | 0x8c => self.text(1),
            b'T' | b'X' => self.text(4),
            0x8d => self.text(8),
            b'C' => self.bytes(1).and_then(|_| self.push(Value::Opaque)),
            b'B' => self.bytes(4).and_then(|_| self.push(Value::Opaque)),
            0x8e | 0x96 => self.bytes(8).and_then(|_| self.push(Value::Opaque)),
            _ => self.combine(opcode),
        }
    }

    /// Executes an opcode that takes values from the stack or the memo.
    fn combine(&mut self, opcode: u8) -> Option<()> {
        match opcode {
            b'h' => self.recall(1),
            b'j' => self.recall(4),
            b'q' => self.length(1).and_then(|idx| self.memoize(idx)),
            b'r' => self.length(4).and_then(|idx| self.memoize(idx)),
            0x94 => self.memoize(self.memo.len()),
            b'2' => self.stack.last().copied().and_then(|value| self.push(value)),
            b'0' | b'b' => self.pop().map(|_| ()),
            b's' => self.replace(2, None),
            b'1' | b'u' | 0x90 => self.replace_to_mark(None),
            // A dictionary, a list, a set or an object of what is above the mark.
            b'd' | b'l' | b'o' | 0x91 => self.replace_to_mark(Some(Value::Opaque)),
            0x81 => self.replace(2, Some(Value::Opaque)),
            0x92 => self.replace(3, Some(Value::Opaque)),
            b'a' => self.stack.len().checked_sub(1).and_then(|start| self.append(start)),
            b'e' => self.marks.pop().and_then(|start| self.append(start)),
            b')' => self.tuple(self.stack.len()),
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(opcode - 0x84))?;
                self.tuple(start)
            }
            b't' => self.marks.pop().and_then(|start| self.tuple(start)),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_named(module, name)
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.push_named(module, name),
                _ => self.push(Value::Opaque),
            },
            b'Q' => self.pop().and_then(|id| self.persistent(id)),
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments);
                self.push(Value::Opaque)
            }
            _ => None,
        }
    }

    /// Always succeeds, so that steps end with it.
    fn push(&mut self, value: Value<'a>) -> Option<()> {
        self.stack.push(value);
        Some(())
    }

    fn push_named(&mut self, module: &[u8], name: &[u8]) -> Option<()> {
        self.push(TorchName::find(module, name).map_or(Value::Opaque, Value::Named))
    }

    /// `None` if the last open mark lies above `start`, or all of the stack below.
    fn open_from(&self, start: usize) -> Option<()> {
        let mark = self.marks.last().copied().unwrap_or(0);
        (mark..=self.stack.len()).contains(&start).then_some(())
    }

    fn pop(&mut self) -> Option<Value<'a>> {
        self.stack.len().checked_sub(1).and_then(|start| self.open_from(start))?;
        self.stack.pop()
    }

    fn replace(&mut self, n_values: usize, by: Option<Value<'a>>) -> Option<()> {
        (0..n_values).try_for_each(|_| self.pop().map(|_| ()))?;
        self.stack.extend(by);
        Some(())
    }

    fn replace_to_mark(&mut self, by: Option<Value<'a>>) -> Option<()> {
        let start = self.marks.pop()?;
        self.stack.truncate(start);
        self.stack.extend(by);
        Some(())
    }

    /// Takes the texts among the values from `start` on for a list below.
    fn append(&mut self, start: usize) -> Option<()> {
        self.open_from(start)?;
        let texts = self.stack.drain(start..).filter_map(|value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        });
        self.found.appended.extend(texts);
        Some(())
    }

    /// Makes a tuple of the values from `start` on.
    fn tuple(&mut self, start: usize) -> Option<()> {
        self.open_from(start)?;
        let first = self.items.len();
        self.items.extend(self.stack.drain(start..));
        self.push(Value::Tuple(first, self.items.len() - first))
    }

    fn recall(&mut self, index_bytes: usize) -> Option<()> {
        let idx = self.length(index_bytes)?;
        self.push(*self.memo.get(&idx)?)
    }

    fn memoize(&mut self, idx: usize) -> Option<()> {
        self.memo.insert(idx, *self.stack.last()?);
        Some(())
    }

    /// A length or an index.
    fn length(&mut self, n_bytes: usize) -> Option<usize> {
        usize::try_from(unsigned(self.src.take(n_bytes)?)?).ok()
    }

    /// Numbers below 0 or above 64 bits are none that anything is made of.
    fn number(&mut self, n_bytes: usize, is_signed: bool) -> Option<()> {
        let bytes = self.src.take(n_bytes)?;
        let is_negative = is_signed && bytes.last().is_some_and(|top| top & 0x80 != 0);
        self.push(unsigned(bytes).filter(|_| !is_negative).map_or(Value::Opaque, Value::Number))
    }

    fn text(&mut self, length_bytes: usize) -> Option<()> {
        let text = self.bytes(length_bytes)?;
        self.push(Value::Text(text))
    }

    fn bytes(&mut self, length_bytes: usize) -> Option<&'a [u8]> {
        let len = self.length(length_bytes)?;
        self.src.take(len)
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        let len = self.src.rest().iter().position(|&byte| byte == b'\n')?;
        let line = self.src.take(len)?;
        self.src.take(1).map(|_| line)
    }

    /// What is in a tuple; nothing in other values.
    fn items_of(&self, value: Value<'a>) -> &[Value<'a>] {
        let Value::Tuple(first, len) = value else { return &[] };
        first.checked_add(len).and_then(|end| self.items.get(first..end)).unwrap_or_default()
    }

    /// Pushes what a persistent id stands for: a storage, of ids that are understood.
    fn persistent(&mut self, id: Value<'a>) -> Option<()> {
        let (dtype, element_bytes, key) = match *self.items_of(id) {
            [
                Value::Text(b"storage"),
                Value::Named(TorchName::Class(dtype, n_bytes)),
                Value::Text(key),
                ..,
            ] if key.len() <= MAX_KEY_BYTES => (dtype, n_bytes, key),
            _ => return self.push(Value::Opaque),
        };
        // Whoever refers to a storage first says how its elements are counted.
        let storage = Storage { dtype, element_bytes, row_len: 0, n_largest: 0 };
        self.found.storages.entry(key).or_insert(storage);
        self.push(Value::Storage(key)).filter(|()| self.found.storages.len() <= self.max_storages)
    }

    /// Takes note of the tensor that a call makes, if it makes one.
    fn call(&mut self, function: Value<'a>, arguments: Value<'a>) {
        let (function, arguments) = match (function, self.items_of(arguments)) {
            (Value::Named(TorchName::RebuildSubclass), &[inner, _, arguments, ..]) => (inner, arguments),
            _ => (function, arguments),
        };
        let arguments = self.items_of(arguments);
        let (Value::Named(TorchName::Rebuild), &[Value::Storage(key), _, size, strides, ..]) =
            (function, arguments)
        else {
            return;
        };
        // The third version of the function has it, since storages then have none.
        let dtype = match arguments.get(6) {
            Some(&Value::Named(TorchName::Dtype(dtype))) => Some(dtype),
            _ => None,
        };
        let (Some(size), Some(strides)) = (self.numbers(size), self.numbers(strides)) else { return };
        let n_elements = size.iter().try_fold(1u64, |n, &dimension| n.checked_mul(dimension));
        let (Some(n_elements), Some(storage)) = (n_elements, self.found.storages.get_mut(key)) else {
            return;
        };
        if n_elements > storage.n_largest {
            storage.n_largest = n_elements;
            storage.dtype = dtype.or(storage.dtype);
            // Of elements that are not known nobody knows how long rows are.
            let has_rows = storage.dtype.is_some() && is_contiguous(&size, &strides);
            storage.row_len = if has_rows { row_len(size.iter().rev()) } else { 0 };
        }
    }

    /// The numbers of a tuple of no more than a tensor has dimensions.
    fn numbers(&self, value: Value<'a>) -> Option<Vec<u64>> {
        let Value::Tuple(_, ..=MAX_RANK) = value else { return None };
        let number = |item: &Value<'a>| match *item {
            Value::Number(number) => Some(number),
            _ => None,
        };
        self.items_of(value).iter().map(number).collect()
    }
}

/// Whether elements of the last dimension are neighbours, and its rows, and so on.
fn is_contiguous(size: &[u64], strides: &[u64]) -> bool {
    let mut expected = 1u64;
    size.len() == strides.len()
        && size.iter().zip(strides).rev().all(|(&dimension, &stride)| {
            let fits = dimension == 1 || stride == expected;
            expected = expected.saturating_mul(dimension);
            fits
        })
}

/// A little-endian number of 8 bytes at most.
fn unsigned(bytes: &[u8]) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(wide))
}

/// A pickle of tensors, for tests: of each the class of its storage, the storage's key, its size, its strides, all numbers
/// below 128.
#[cfg(test)]
pub(super) fn tensors_pickle(tensors: &[(&str, &str, &[u8], &[u8])]) -> Vec<u8> {
    let char_of = |number: usize| char::from(u8::try_from(number).unwrap());
    let numbers = |numbers: &[u8]| -> String {
        let items = numbers.iter().map(|&number| format!("K{}", char::from(number)));
        format!("({}t", items.collect::<String>())
    };
    let tensor = |&(class, key, size, strides): &(&str, &str, &[u8], &[u8])| {
        let storage = format!("X\x07\0\0\0storagectorch\n{class}\nX{}\0\0\0{key}", char_of(key.len()));
        let rest = format!("X\x03\0\0\0cpuM\x10\x27tq\x02QK\0{}{}N", numbers(size), numbers(strides));
        format!(
            "X\x06\0\0\0a namectorch._utils\n_rebuild_tensor_v2\nq\x01(({storage}{rest}\
             ccollections\nOrderedDict\n)Rtq\x03Rr\x04\x01\0\0"
        )
    };
    let tensors: String = tensors.iter().map(tensor).collect();
    [b"\x80\x02}q\0(", tensors.as_bytes(), b"u."].concat()
}

#[cfg(test)]
mod tests;

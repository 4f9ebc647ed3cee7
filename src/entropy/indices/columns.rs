//! Tables chosen index by index: by the class of its segment and the class of its column.
//!
//! Kernels of convolutions, Adam's moments and many matrices have rows and columns of different scale, and the scale of an
//! element is about the product of both. Classes are logarithms of scales, so that they are added; what class has which
//! table is told by bounds.

use super::{MAX_TABLES, RUN_LEN};
use crate::bits::{BitReader, BitWriter, Rice, get_rice, put_rice, rice_bits};
use crate::kernels::Isa;
use crate::kernels::index_split::count_bounds;

/// Classes of segments, and of columns.
pub(super) const N_CLASSES: u8 = 64;
/// Bits of a class.
const CLASS_BITS: u32 = 6;
/// Bits of a bound: the sum of two classes and one more.
pub(super) const BOUND_BITS: u32 = 7;
/// Bits of the period.
pub(super) const PERIOD_BITS: u32 = 24;
/// Bits of a class's difference where it is raw, as zigzag.
const RAW_BITS: u32 = 8;
/// Bits of the Rice parameter of a list, after the bit that says what is told of each class.
const PARAMETER_BITS: u32 = 3;

/// The classes of a section's segments and columns.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// Columns: index `i` lies in column `i` mod `period`.
    pub(super) period: usize,
    /// Class of each column, and then of the first ones again: the run that begins with any column is in one piece.
    of_columns: Vec<u8>,
    of_segments: Vec<u8>,
    /// Rising: the table of a class is the number of bounds that it has reached.
    bounds: Vec<u8>,
}

impl Columns {
    /// Takes classes below [`N_CLASSES`].
    pub(super) fn set(&mut self, of_columns: &[u8], of_segments: &[u8]) {
        self.period = of_columns.len();
        self.of_columns.clear();
        self.of_columns.extend_from_slice(of_columns);
        self.repeat_columns();
        self.of_segments.clear();
        self.of_segments.extend_from_slice(of_segments);
        self.bounds.clear();
    }

    /// One table for each class below `n_classes`, or what `bounds` say.
    pub(super) fn set_bounds(&mut self, bounds: impl Iterator<Item = u8>) {
        self.bounds.clear();
        self.bounds.extend(bounds);
    }

    /// The largest sum of two classes.
    pub(super) fn largest(&self) -> u8 {
        let largest = |classes: &[u8]| classes.iter().copied().max().unwrap_or(0);
        largest(&self.of_columns).saturating_add(largest(&self.of_segments))
    }

    fn repeat_columns(&mut self) {
        let len = self.period + RUN_LEN;
        self.of_columns.reserve(len.saturating_sub(self.of_columns.len()));
        while self.of_columns.len() < len {
            let missing = len - self.of_columns.len();
            self.of_columns.extend_from_within(..missing.min(self.of_columns.len()));
        }
    }

    /// For the run of at most [`RUN_LEN`] indices from `at` on: the sum of its classes, piece by piece of one segment, with
    /// the segment's class.
    fn pieces<'s>(
        &'s self,
        segment_len: usize,
        at: usize,
        ids: &'s mut [u8],
    ) -> impl Iterator<Item = (&'s mut [u8], &'s [u8], u8)> {
        let columns = self.of_columns.get(at % self.period.max(1)..).unwrap_or_default();
        let segments = self.of_segments.get(at / segment_len..).unwrap_or_default();
        let pieces = ids.chunks_mut(segment_len).zip(columns.chunks(segment_len)).zip(segments);
        pieces.map(|((ids, columns), &segment)| {
            let columns = &columns[..ids.len().min(columns.len())];
            (ids, columns, segment)
        })
    }

    /// Sets the sum of the classes of each index of the run from `at` on, which begins a segment or lies within one.
    pub(super) fn fill_classes(&self, segment_len: usize, at: usize, classes: &mut [u8]) {
        for (classes, columns, segment) in self.pieces(segment_len, at, classes) {
            classes.iter_mut().zip(columns).for_each(|(class, column)| *class = column + segment);
        }
    }

    /// As [`Self::fill_classes`], the tables' ids.
    pub(super) fn fill_ids(&self, isa: Isa, segment_len: usize, at: usize, ids: &mut [u8]) {
        let mut of_segment = [0; MAX_TABLES];
        for (ids, columns, segment) in self.pieces(segment_len, at, ids) {
            let bounds = of_segment.iter_mut().zip(&self.bounds);
            bounds.for_each(|(least, bound)| *least = bound.saturating_sub(segment));
            count_bounds(isa, columns, &of_segment[..self.bounds.len()], ids);
        }
    }

    /// Appends period, bounds and classes.
    pub(super) fn write(&self, bits: &mut BitWriter<'_>) {
        bits.put(u32::try_from(self.period).unwrap_or(0), PERIOD_BITS);
        self.bounds.iter().for_each(|&bound| bits.put(bound.into(), BOUND_BITS));
        List::of(self.columns()).write(self.columns(), bits);
        List::of(&self.of_segments).write(&self.of_segments, bits);
    }

    /// Bits of what [`Self::write`] appends, without the bounds.
    pub(super) fn bits(&self) -> u64 {
        let bits = |classes: &[u8]| List::of(classes).bits(classes);
        u64::from(PERIOD_BITS) + bits(self.columns()) + bits(&self.of_segments)
    }

    fn columns(&self) -> &[u8] {
        self.of_columns.get(..self.period).unwrap_or_default()
    }

    /// Reads what [`Self::write`] appended for `n_tables`, `n_segments` and `n` indices.
    pub(super) fn read(
        &mut self,
        bits: &mut BitReader<'_>,
        n_tables: usize,
        n_segments: usize,
        n: usize,
    ) -> Option<()> {
        self.period = usize::try_from(bits.get(PERIOD_BITS)?).ok()?;
        if !(2..=n).contains(&self.period) {
            return None;
        }
        self.bounds.clear();
        for _ in 1..n_tables {
            self.bounds.push(u8::try_from(bits.get(BOUND_BITS)?).ok()?);
        }
        if self.bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
            return None;
        }
        read_list(bits, self.period, &mut self.of_columns)?;
        self.repeat_columns();
        read_list(bits, n_segments, &mut self.of_segments)
    }
}

/// How a list of classes is written: each as its difference, a Rice code, from the one before or from the first.
#[derive(Debug, Clone, Copy)]
struct List {
    from_previous: bool,
    first: u8,
    parameter: u32,
}

impl List {
    fn of(classes: &[u8]) -> Self {
        let mut sorted = classes.to_vec();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        let with = |from_previous, first| {
            (0..1 << PARAMETER_BITS).map(move |parameter| Self { from_previous, first, parameter })
        };
        let lists = with(false, median).chain(with(true, classes.first().copied().unwrap_or(0)));
        lists.min_by_key(|list| list.bits(classes)).unwrap_or(Self {
            from_previous: false,
            first: 0,
            parameter: 0,
        })
    }

    /// The differences of `classes`, as zigzag.
    fn codes(self, classes: &[u8]) -> impl Iterator<Item = u32> {
        let mut before = i32::from(self.first);
        classes.iter().map(move |&class| {
            let difference = i32::from(class) - before;
            if self.from_previous {
                before = class.into();
            }
            (difference << 1 ^ difference >> 31).cast_unsigned()
        })
    }

    fn bits(self, classes: &[u8]) -> u64 {
        let head = u64::from(1 + PARAMETER_BITS + CLASS_BITS);
        let code_bits = |code: u32| u64::from(rice_bits(code.into(), self.parameter, RAW_BITS));
        head + self.codes(classes).map(code_bits).sum::<u64>()
    }

    fn write(self, classes: &[u8], bits: &mut BitWriter<'_>) {
        bits.put(self.from_previous.into(), 1);
        bits.put(self.parameter, PARAMETER_BITS);
        bits.put(self.first.into(), CLASS_BITS);
        for code in self.codes(classes) {
            put_rice(bits, code.into(), self.parameter, code, RAW_BITS);
        }
    }
}

/// Reads `n` classes in place of those of `classes`.
fn read_list(bits: &mut BitReader<'_>, n: usize, classes: &mut Vec<u8>) -> Option<()> {
    let from_previous = bits.get(1)? == 1;
    let parameter = bits.get(PARAMETER_BITS)?;
    let mut before = bits.get(CLASS_BITS)?.cast_signed();
    classes.clear();
    for _ in 0..n {
        let (Rice::Coded(code) | Rice::Raw(code)) = get_rice(bits, parameter, RAW_BITS)?;
        let class = before + ((code >> 1).cast_signed() ^ -(code & 1).cast_signed());
        let in_range = u8::try_from(class).ok().filter(|class| *class < N_CLASSES)?;
        classes.push(in_range);
        if from_previous {
            before = class;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_ids_are_those_of_segment_and_column_and_are_read_back() {
        let of_columns: Vec<u8> = (0..100).map(|column| column * 7 % 23).collect();
        let of_segments: Vec<u8> = (0..200u8).map(|segment| segment % 64).collect();
        let n = 200 * 64;
        let mut columns = Columns::default();
        columns.set(&of_columns, &of_segments);
        let bounds = [5u8, 20, 21, 80];
        columns.set_bounds(bounds.into_iter());
        assert_eq!(columns.largest(), 22 + 63);
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes);
        columns.write(&mut writer);
        writer.finish();
        let n_bits = columns.bits() + 4 * u64::from(BOUND_BITS);
        assert_eq!(bytes.len() as u64, n_bits.div_ceil(8));
        let mut read = Columns::default();
        assert_eq!(read.read(&mut BitReader::new(&bytes), 5, 200, n), Some(()));
        assert_eq!(read.read(&mut BitReader::new(&bytes), 5, 300, n), None);
        assert_eq!(read.read(&mut BitReader::new(&bytes), 5, 200, 99), None);
        assert_eq!(read.read(&mut BitReader::new(&bytes), 5, 200, n), Some(()));
        for (at, len) in [(0, RUN_LEN), (64, 500), (RUN_LEN, RUN_LEN), (2 * RUN_LEN, 77)] {
            let mut ids = vec![9; len];
            let mut classes = vec![9; len];
            read.fill_ids(Isa::detect(), 64, at, &mut ids);
            columns.fill_classes(64, at, &mut classes);
            for (index, (&id, &class)) in (at..).zip(ids.iter().zip(&classes)) {
                let sum = of_columns[index % 100] + of_segments[index / 64];
                assert_eq!(class, sum);
                assert_eq!(usize::from(id), bounds.iter().filter(|bound| **bound <= sum).count());
            }
        }
    }

    #[test]
    fn lists_out_of_range_and_bounds_that_do_not_rise_are_refused() {
        let mut columns = Columns::default();
        columns.set(&[0, N_CLASSES], &[1]);
        let refused = |columns: &Columns, n_tables: usize| {
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            columns.write(&mut writer);
            writer.finish();
            Columns::default().read(&mut BitReader::new(&bytes), n_tables, 1, 64).is_none()
        };
        assert!(refused(&columns, 1));
        columns.set(&[0, N_CLASSES - 1], &[1]);
        assert!(!refused(&columns, 1));
        columns.set_bounds([4, 4].into_iter());
        assert!(refused(&columns, 3));
        columns.set_bounds([4, 5].into_iter());
        assert!(!refused(&columns, 3));
    }
}

//! Coding 11, palette: which of a few values each element is. FORMAT.md section 3.11.
//!
//! Weights that were clustered, rounded to a codebook or given back their floating-point form after quantization have as
//! many different elements as the codebook has entries. What is left of them is bytes, coded as a block of their own.

use super::payload::{corrupt, scratch};
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::error::Result;

/// Most values: an index is a byte.
const MAX_VALUES: usize = 256;
/// Slots of the table in which values are looked up: full to a fourth at most.
const N_SLOTS: usize = 4 * MAX_VALUES;

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub(super) struct PaletteEncoder {
    /// Places in `values` by the hash of the value; free where it is [`FREE`].
    slots: Vec<u16>,
    values: Vec<u64>,
    indices: Vec<u8>,
}

const FREE: u16 = u16::MAX;

impl PaletteEncoder {
    /// Finds the values of `bytes`, elements of `dtype`, and says how many they are; `None` where there are too many, which
    /// mostly shows at once, or where an index is no smaller than an element.
    pub(super) fn find(&mut self, dtype: Dtype, bytes: &[u8]) -> Option<usize> {
        match dtype.unit_bytes() {
            2 => self.find_units::<2>(bytes),
            4 => self.find_units::<4>(bytes),
            8 => self.find_units::<8>(bytes),
            _ => None,
        }
    }

    fn find_units<const N: usize>(&mut self, bytes: &[u8]) -> Option<usize> {
        let (units, _) = bytes.as_chunks::<N>();
        self.slots.clear();
        self.slots.resize(N_SLOTS, FREE);
        self.values.clear();
        let places = scratch(&mut self.indices, units.len());
        // Runs of one value need no look-up.
        let mut last = (0, FREE);
        for (unit, index) in units.iter().zip(&mut *places) {
            let value = read(unit);
            if last.0 != value || last.1 == FREE {
                last = (value, place_of(value, &mut self.slots, &mut self.values)?);
            }
            *index = last.1.to_le_bytes()[0];
        }
        // By magnitude: indices of elements of one scale are neighbours then.
        let mut order: Vec<u16> = (0..).take(self.values.len()).collect();
        let values = &mut self.values;
        order.sort_by_key(|&place| by_magnitude::<N>(values[usize::from(place)]));
        let mut new_places = [0u8; MAX_VALUES];
        for (new, &place) in (0..=u8::MAX).zip(&order) {
            new_places[usize::from(place)] = new;
        }
        *values = order.iter().map(|&place| values[usize::from(place)]).collect();
        places.iter_mut().for_each(|index| *index = new_places[usize::from(*index)]);
        Some(self.values.len())
    }

    /// Appends header and values of what [`Self::find`] has found in `n_elements` of `dtype`, and gives the indices, for the
    /// caller to code and append.
    pub(super) fn write(&self, dtype: Dtype, n_elements: usize, dst: &mut Vec<u8>) -> &[u8] {
        dst.extend([0, (self.values.len() - 1).to_le_bytes()[0], 0, 0]);
        self.values.iter().for_each(|value| dst.extend(&value.to_le_bytes()[..dtype.unit_bytes()]));
        &self.indices[..n_elements]
    }

    /// Notes in the header at `start` of `dst` how the indices are coded.
    pub(super) fn set_inner_coding(dst: &mut [u8], start: usize, coding_id: u8) {
        if let Some(byte) = dst.get_mut(start) {
            *byte = coding_id;
        }
    }
}

fn read<const N: usize>(unit: &[u8; N]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(unit);
    u64::from_le_bytes(bytes)
}

/// A number that grows with the magnitude of a float of `N` bytes, the sign last.
fn by_magnitude<const N: usize>(bits: u64) -> u64 {
    let top = 8 * N - 1;
    (bits & !(1 << top)) << 1 | bits >> top
}

/// The place of `value` among `values`, where it is put if it is new; `None` where there are too many.
fn place_of(value: u64, slots: &mut [u16], values: &mut Vec<u64>) -> Option<u16> {
    // The multiplier of Fibonacci hashing (D. Knuth, The Art of Computer Programming 3, 6.4).
    let hash = value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - N_SLOTS.ilog2());
    let mut at = usize::try_from(hash).unwrap_or(0) % N_SLOTS;
    loop {
        match slots[at] {
            FREE => {
                let place =
                    u16::try_from(values.len()).ok().filter(|place| usize::from(*place) < MAX_VALUES)?;
                slots[at] = place;
                values.push(value);
                return Some(place);
            }
            place if values[usize::from(place)] == value => return Some(place),
            _ => at = (at + 1) % N_SLOTS,
        }
    }
}

/// An opened payload.
pub(super) struct Palette<'a> {
    /// Coding id of the indices.
    pub(super) coding_id: u8,
    /// Their payload.
    pub(super) payload: &'a [u8],
    values: &'a [u8],
    unit_bytes: usize,
}

impl<'a> Palette<'a> {
    /// Reads the values of a block of `block_bytes`.
    pub(super) fn open(dtype: Dtype, payload: &'a [u8], block_bytes: usize) -> Result<Self> {
        Self::read(dtype, payload, block_bytes).ok_or_else(|| corrupt("the palette breaks the format"))
    }

    fn read(dtype: Dtype, payload: &'a [u8], block_bytes: usize) -> Option<Self> {
        let unit_bytes = dtype.unit_bytes();
        let fits = matches!(unit_bytes, 2 | 4 | 8) && block_bytes.is_multiple_of(unit_bytes);
        let mut src = ByteCursor::new(payload);
        let [coding_id, last, 0, 0] = src.array::<4>()? else { return None };
        let values = src.take((usize::from(last) + 1) * unit_bytes)?;
        fits.then_some(Self { coding_id, payload: src.rest(), values, unit_bytes })
    }

    /// Elements of a block of `block_bytes`.
    pub(super) fn n_elements(&self, block_bytes: usize) -> usize {
        block_bytes / self.unit_bytes
    }

    /// Puts the value of each index into `dst`.
    pub(super) fn look_up(&self, indices: &[u8], dst: &mut [u8]) -> Result<()> {
        let last = indices.iter().fold(0, |last, &index| last.max(index));
        if usize::from(last) >= self.values.len() / self.unit_bytes {
            return Err(corrupt("an index is beyond the palette"));
        }
        match self.unit_bytes {
            2 => look_up::<2>(self.values, indices, dst),
            4 => look_up::<4>(self.values, indices, dst),
            _ => look_up::<8>(self.values, indices, dst),
        }
        Ok(())
    }
}

fn look_up<const N: usize>(values: &[u8], indices: &[u8], dst: &mut [u8]) {
    let mut table = [[0; N]; MAX_VALUES];
    table.iter_mut().zip(values.as_chunks::<N>().0).for_each(|(entry, value)| *entry = *value);
    let (units, _) = dst.as_chunks_mut::<N>();
    units.iter_mut().zip(indices).for_each(|(unit, &index)| *unit = table[usize::from(index)]);
}

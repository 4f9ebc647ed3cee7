//! Slot to entry without a 256-byte look-up.
//!
//! The 256 slots are 16 blocks of 16. The entry of a slot is that of its block's first slot and one more for each
//! entry that begins between the two. Most blocks have one or two such beginnings, found by a compare each against a row
//! that the block's number looks up. The rare values of a table, an entry for every slot or two, crowd into one block
//! or two; such a block has a row of its own, which the place in the block looks up.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::super::{FREQ_SUM, Table};
use super::{BIAS, Rows, by_row, look_up};

/// Slots of a block, and their number.
const BLOCK: usize = 16;
/// Blocks with a row of their own.
const N_CROWDED: usize = 2;
/// Beginnings within a block that are always compared; there are seldom more.
const N_BEGINNINGS: usize = 2;
/// A place that none in a block exceeds.
const NEVER: i8 = i8::MAX;

/// A table's steps from entry to entry, in rows of 16.
#[derive(Debug)]
pub(in super::super) struct Steps {
    /// [`BIAS`] and the entry of each block's first slot, or 0 for a crowded one.
    first: [u8; BLOCK],
    /// For each block the place before its 1st, 2nd, ... beginning of an entry.
    beginnings: [[i8; BLOCK]; BLOCK],
    /// How many rows of `beginnings` are in use.
    n_beginnings: usize,
    crowded: [Crowded; N_CROWDED],
}

/// The entries of one block's slots.
#[derive(Debug, Clone, Copy, Default)]
struct Crowded {
    first_slot: u8,
    entries: [u8; BLOCK],
}

impl Steps {
    /// The steps of `table`.
    pub(in super::super) fn new(table: &Table) -> Self {
        const _: () =
            assert!(FREQ_SUM == BLOCK * BLOCK, "a block's number and a place in it are four bits each");
        let (blocks, _) = table.slot_to_entry.as_chunks::<BLOCK>();
        let mut steps = Self {
            first: std::array::from_fn(|block| BIAS + blocks[block][0]),
            beginnings: [[NEVER; BLOCK]; BLOCK],
            n_beginnings: N_BEGINNINGS,
            crowded: [Crowded::default(); N_CROWDED],
        };
        // One more than the block's beginnings; 0 for a block that has been chosen.
        let mut counts: [u8; BLOCK] =
            std::array::from_fn(|block| 1 + blocks[block][BLOCK - 1] - blocks[block][0]);
        for crowded in &mut steps.crowded {
            let fullest = (1u8..).zip(&counts[1..]).fold((0, counts[0]), |most, (block, &count)| {
                if count > most.1 { (block, count) } else { most }
            });
            let block = usize::from(fullest.0);
            *crowded = Crowded { first_slot: fullest.0 << 4, entries: blocks[block] };
            steps.first[block] = BIAS;
            counts[block] = 0;
        }
        let mut n_found = [0; BLOCK];
        for &slot in &table.cum[1..table.n_entries()] {
            let (block, place) = (usize::from(slot >> 4), slot & 15);
            if place > 0 && counts[block] > 0 {
                steps.beginnings[n_found[block]][block] = (place - 1).cast_signed();
                n_found[block] += 1;
                steps.n_beginnings = steps.n_beginnings.max(n_found[block]);
            }
        }
        steps
    }
}

/// [`Steps`] in registers, each row in both halves of one.
pub(super) struct Finder<'a> {
    first: __m256i,
    beginnings: [__m256i; N_BEGINNINGS],
    more_beginnings: &'a [[i8; BLOCK]],
    crowded: [(__m256i, __m256i); N_CROWDED],
}

impl<'a> Finder<'a> {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(steps: &'a Steps) -> Self {
        let row = |bytes: [u8; BLOCK]| _mm256_broadcastsi128_si256(cast(bytes));
        let begin = |row: usize| _mm256_broadcastsi128_si256(cast(steps.beginnings[row]));
        Self {
            first: row(steps.first),
            beginnings: [begin(0), begin(1)],
            more_beginnings: &steps.beginnings[N_BEGINNINGS..steps.n_beginnings],
            crowded: steps
                .crowded
                .map(|crowded| (_mm256_set1_epi8(crowded.first_slot.cast_signed()), row(crowded.entries))),
        }
    }

    /// The entry of each slot. Lanes A and B side by side, as in all that follows: tables do not stay in 16 registers, and
    /// what is loaded serves both.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn entries(&self, slots: [__m256i; 2]) -> Entries {
        let low_four = _mm256_set1_epi8(15);
        let block = slots.map(|slots| _mm256_and_si256(_mm256_srli_epi16(slots, 4), low_four));
        let place = slots.map(|slots| _mm256_and_si256(slots, low_four));
        let reached =
            |row: __m256i| [0, 1].map(|v| _mm256_cmpgt_epi8(place[v], _mm256_shuffle_epi8(row, block[v])));
        // Summed in pairs: the entry is what all else waits for.
        let crowded = self.crowded.map(|(first_slot, entries)| {
            slots.map(|slots| {
                // Of the block's own slots the low four bits stay and bit 7 is clear; of others it is set.
                let slots = _mm256_xor_si256(slots, first_slot);
                let place = _mm256_adds_epu8(slots, _mm256_set1_epi8(BIAS.cast_signed()));
                _mm256_shuffle_epi8(entries, place)
            })
        });
        let first = block.map(|block| _mm256_shuffle_epi8(self.first, block));
        let begun = self.beginnings.map(reached);
        let mut entries = [0, 1].map(|v| {
            let entry = _mm256_add_epi8(first[v], _mm256_add_epi8(crowded[0][v], crowded[1][v]));
            _mm256_sub_epi8(entry, _mm256_add_epi8(begun[0][v], begun[1][v]))
        });
        for row in self.more_beginnings {
            let begun = reached(_mm256_broadcastsi128_si256(cast(*row)));
            entries = [0, 1].map(|v| _mm256_sub_epi8(entries[v], begun[v]));
        }
        Entries(entries)
    }
}

/// Entries of a group's symbols in two vectors, each entry with [`BIAS`] added.
#[derive(Clone, Copy)]
pub(super) struct Entries([__m256i; 2]);

impl Entries {
    /// `rows[entries]` for each byte; `N` rows are in use.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn look_up<const N: usize>(self, rows: &Rows) -> [__m256i; 2] {
        self.0.map(|entries| {
            let places = if N == 2 {
                [entries, _mm256_xor_si256(entries, _mm256_set1_epi8(i8::MIN)), entries, entries]
            } else {
                by_row::<N>(_mm256_sub_epi8(entries, _mm256_set1_epi8(BIAS.cast_signed())))
            };
            look_up::<N>(rows, &places)
        })
    }

    /// From those of lanes A and B those of symbols 0 to 15 and 32 to 47, and of 16 to 31 and 48 to 63.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn of_symbols(self) -> Self {
        let [a, b] = self.0;
        Self([_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)])
    }

    /// A bit for each symbol of [`Self::of_symbols`] that has the table's last entry, in the symbols' order.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn equal_last(self, last: u8) -> u64 {
        let last = _mm256_set1_epi8((BIAS + last).cast_signed());
        let [first, second] = self
            .0
            .map(|entries| u64::from(_mm256_movemask_epi8(_mm256_cmpeq_epi8(entries, last)).cast_unsigned()));
        let spread = |mask: u64| mask & 0xffff | (mask & 0xffff_0000) << 16;
        spread(first) | spread(second) << 16
    }
}

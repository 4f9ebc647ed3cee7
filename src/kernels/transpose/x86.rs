//! Squares of 16 by SSE2, which every x86-64 has.

use std::arch::x86_64::*;

use bytemuck::cast;

/// Side of a square.
pub(super) const SIDE: usize = 16;

/// As [`super::transpose`], for slices that hold the matrix, of [`SIDE`] rows and columns at least.
#[target_feature(enable = "sse2")]
pub(super) fn transpose(src: &[u8], n_rows: usize, row_len: usize, dst: &mut [u8]) {
    for row in starts(n_rows) {
        for col in starts(row_len) {
            let square: [__m128i; SIDE] = std::array::from_fn(|i| {
                let line = src.get((row + i) * row_len + col..).and_then(|rest| rest.first_chunk::<SIDE>());
                cast(line.copied().unwrap_or_default())
            });
            for (i, line) in turn(square).into_iter().enumerate() {
                let place = dst.get_mut((col + i) * n_rows + row..);
                if let Some(place) = place.and_then(|rest| rest.first_chunk_mut::<SIDE>()) {
                    *place = cast(line);
                }
            }
        }
    }
}

/// Where squares begin that cover `len`, at least [`SIDE`]: the last one goes over what the one before has done.
fn starts(len: usize) -> impl Iterator<Item = usize> {
    let last = len - SIDE;
    (0..last).step_by(SIDE).chain(std::iter::once(last))
}

/// Four perfect shuffles. Written out: compilers leave a loop of them in memory, which takes four times as long.
#[inline]
#[target_feature(enable = "sse2")]
fn turn(rows: [__m128i; SIDE]) -> [__m128i; SIDE] {
    shuffle(shuffle(shuffle(shuffle(rows))))
}

/// Row by row the bytes of the upper and the lower half by turns: the top bit of a row's number becomes the lowest one
/// of a column's.
#[inline]
#[target_feature(enable = "sse2")]
fn shuffle(rows: [__m128i; SIDE]) -> [__m128i; SIDE] {
    let mut pairs = [[rows[0]; 2]; SIDE / 2];
    for (i, pair) in pairs.iter_mut().enumerate() {
        let (upper, lower) = (rows[i], rows[i + SIDE / 2]);
        *pair = [_mm_unpacklo_epi8(upper, lower), _mm_unpackhi_epi8(upper, lower)];
    }
    cast(pairs)
}

//! A byte matrix with rows and columns exchanged.

#[cfg(target_arch = "x86_64")]
mod x86;

/// Side of a square that is turned within registers.
const SIDE: usize = 8;

/// Writes the `n_rows × row_len` matrix `src` (C order) to `dst` as `row_len × n_rows`.
///
/// Nothing is written unless both slices hold exactly the matrix.
#[allow(unsafe_code, reason = "calls into a function gated by a processor feature")]
pub fn transpose(src: &[u8], n_rows: usize, row_len: usize, dst: &mut [u8]) {
    if n_rows.checked_mul(row_len) != Some(src.len()) || dst.len() != src.len() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if n_rows >= x86::SIDE && row_len >= x86::SIDE {
        // SAFETY: SSE2 is part of every x86-64.
        return unsafe { x86::transpose(src, n_rows, row_len, dst) };
    }
    transpose_squares(src, n_rows, row_len, dst);
}

fn transpose_squares(src: &[u8], n_rows: usize, row_len: usize, dst: &mut [u8]) {
    let (whole_rows, whole_cols) = (n_rows / SIDE * SIDE, row_len / SIDE * SIDE);
    for row in (0..whole_rows).step_by(SIDE) {
        for col in (0..whole_cols).step_by(SIDE) {
            let square: [u64; SIDE] = std::array::from_fn(|i| {
                let at = (row + i) * row_len + col;
                src[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
            });
            for (i, line) in turn(square).into_iter().enumerate() {
                let at = (col + i) * n_rows + row;
                dst[at..at + SIDE].copy_from_slice(&line.to_le_bytes());
            }
        }
        for (row, col) in (row..row + SIDE).flat_map(|row| (whole_cols..row_len).map(move |col| (row, col))) {
            dst[col * n_rows + row] = src[row * row_len + col];
        }
    }
    for row in whole_rows..n_rows {
        for col in 0..row_len {
            dst[col * n_rows + row] = src[row * row_len + col];
        }
    }
}

/// Transposes an 8 × 8 byte matrix, one row a word: squares of 4, then 2, then 1 change places (H. S. Warren,
/// "Hacker's Delight", 2nd ed. 2012, section 7–3, for bytes in place of bits).
#[inline]
fn turn(mut rows: [u64; SIDE]) -> [u64; SIDE] {
    for (side, mask) in
        [(4, 0x0000_0000_ffff_ffff), (2, 0x0000_ffff_0000_ffff), (1, 0x00ff_00ff_00ff_00ff_u64)]
    {
        for upper in (0..SIDE).filter(|row| row & side == 0) {
            let lower = upper + side;
            let shift = 8 * side;
            let exchanged = (rows[upper] >> shift ^ rows[lower]) & mask;
            rows[lower] ^= exchanged;
            rows[upper] ^= exchanged << shift;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_changes_its_indices() {
        for (n_rows, row_len) in
            [(0, 0), (1, 1), (8, 8), (7, 9), (16, 24), (33, 70), (64, 16), (1, 100), (100, 1)]
        {
            let src: Vec<u8> =
                (0..n_rows * row_len).map(|i: usize| (i * 167 % 251).to_le_bytes()[0]).collect();
            let mut dst = vec![0; src.len()];
            transpose(&src, n_rows, row_len, &mut dst);
            for (row, col) in (0..n_rows).flat_map(|row| (0..row_len).map(move |col| (row, col))) {
                assert_eq!(dst[col * n_rows + row], src[row * row_len + col], "{n_rows} x {row_len}");
            }
            let mut back = vec![0; src.len()];
            transpose(&dst, row_len, n_rows, &mut back);
            assert_eq!(back, src);
            back.fill(0);
            transpose_squares(&dst, row_len, n_rows, &mut back);
            assert_eq!(back, src);
        }
    }
}

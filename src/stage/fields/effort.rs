//! How hard to plan the symbols' tables, and in which order to code the symbols.

use crate::entropy::plan::Effort;
use crate::kernels::Isa;
use crate::kernels::histogram::run_sums;
use crate::stage::Level;

/// Symbols that share a table.
const SEGMENT_LEN: usize = 256;
/// Tables at the level `fast` where one is clearly not enough.
const FAST_TABLES: usize = 4;

/// Effort for `symbols`, and their row length where they are better coded by column, else 0.
pub(super) fn choose(isa: Isa, level: Level, row_len: usize, symbols: &[u8]) -> (Effort, usize) {
    let mut effort = of_level(level, symbols.len());
    if effort.n_tables == 1 && level != Level::Fast {
        // With one table the order of the symbols does not matter.
        return (effort, 0);
    }
    let spreads = spreads(isa, symbols);
    let of_columns = of_columns(symbols, row_len, spreads.of_symbols);
    let by_column = of_columns > 1.5 * spreads.of_runs + spreads.of_symbols / 64.0;
    if level == Level::Fast {
        // Below that one table for all costs less than a fifteenth of a bit a symbol.
        let has_runs = spreads.of_runs * 12.0 > spreads.of_symbols;
        // Transposing halves the speed: it has to save a fifth of a bit.
        let has_columns = by_column && of_columns * 4.0 > spreads.of_symbols;
        if has_runs || has_columns {
            effort.n_tables = FAST_TABLES;
        }
        return (effort, if has_columns { row_len } else { 0 });
    }
    (effort, if by_column { row_len } else { 0 })
}

/// How hard to plan the symbols' tables.
pub(super) fn of_level(level: Level, n_symbols: usize) -> Effort {
    // A table costs about 25 bytes; those that do not save that are dropped again.
    let n_tables = match n_symbols {
        0..2048 => 1,
        2048..65_536 => 4,
        _ => 8,
    };
    let count_one_in = match n_symbols {
        0..65_536 => 1,
        65_536..131_072 => 2,
        _ => 8,
    };
    let default = Effort {
        n_tables,
        segment_len: SEGMENT_LEN,
        max_symbols: 31,
        n_rounds: 0,
        count_one_in,
        saves_bytes: false,
    };
    match level {
        Level::Fast => {
            // Some 8,000 symbols of a large block: what one table gains by more is below 0.001 bits a symbol.
            let fewer = if count_one_in < 8 { 2 } else { 4 };
            Effort { n_tables: 1, count_one_in: fewer * count_one_in, ..default }
        }
        Level::Default => default,
        Level::High => Effort {
            n_tables: 2 * n_tables,
            max_symbols: 63,
            n_rounds: 3,
            count_one_in: 1,
            saves_bytes: true,
            ..default
        },
    }
}

/// What the means of columns of `row_len` vary by beyond what chance makes of it, of a sample; 0 for too few rows.
fn of_columns(symbols: &[u8], row_len: usize, of_symbols: f64) -> f64 {
    /// Symbols in the sample of rows, and rows in it at least.
    const SAMPLE_LEN: usize = 16 << 10;
    const MIN_ROWS: usize = 32;
    let n_rows = symbols.len().checked_div(row_len).unwrap_or(0);
    if row_len < 4 || n_rows < MIN_ROWS {
        return 0.0;
    }
    let n_sampled = (SAMPLE_LEN / row_len).clamp(MIN_ROWS, n_rows);
    let mut sums = vec![0u32; row_len];
    for row in symbols.chunks_exact(row_len).step_by(n_rows / n_sampled).take(n_sampled) {
        sums.iter_mut().zip(row).for_each(|(sum, &symbol)| *sum += u32::from(symbol));
    }
    (spread(sums.iter().copied(), n_sampled) - of_symbols / n_sampled as f64).max(0.0)
}

/// Variances in a sample of symbols.
struct Spreads {
    /// Of the symbols.
    of_symbols: f64,
    /// What the means of segments vary by beyond what chance makes of it.
    of_runs: f64,
}

fn spreads(isa: Isa, symbols: &[u8]) -> Spreads {
    const MAX_RUNS: usize = 256;
    let mut sums = [0; MAX_RUNS];
    let n_runs = (symbols.len() / SEGMENT_LEN).min(MAX_RUNS);
    let stride = symbols.len() / n_runs.max(1);
    for (sum, place) in sums[..n_runs].iter_mut().zip(symbols.chunks(stride.max(1))) {
        run_sums(isa, &place[..SEGMENT_LEN], SEGMENT_LEN, std::slice::from_mut(sum));
    }
    let of_symbols = spread(symbols.iter().step_by(251).map(|&symbol| u32::from(symbol)), 1);
    let of_runs = spread(sums[..n_runs].iter().copied(), SEGMENT_LEN);
    Spreads { of_symbols, of_runs: (of_runs - of_symbols / SEGMENT_LEN as f64).max(0.0) }
}

/// Variance of `sums / n_summed`.
fn spread(sums: impl Iterator<Item = u32>, n_summed: usize) -> f64 {
    // In integers: a sum of floats waits for each of its additions. A block's bytes sum to less than 2^30.
    let (mut n, mut total, mut squares) = (0u64, 0u64, 0u64);
    for sum in sums {
        n += 1;
        total += u64::from(sum);
        squares = squares.saturating_add(u64::from(sum) * u64::from(sum));
    }
    let mean = |total: u64| total as f64 / n.max(1) as f64;
    let n_summed = n_summed as f64;
    (mean(squares) - mean(total) * mean(total)) / (n_summed * n_summed)
}

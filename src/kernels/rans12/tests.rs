use super::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Frequencies of a hump around 128 of `len` symbols.
fn hump(len: usize) -> Freqs {
    let mut freqs = [0u16; 256];
    for distance in (0..len).rev() {
        let symbol = if distance % 2 == 0 { 128 + distance / 2 } else { 127 - distance / 2 };
        freqs[symbol] = 1 + u16::try_from(1200 / (distance * distance + 1)).unwrap();
    }
    freqs[128] += 4096 - freqs.iter().sum::<u16>();
    freqs
}

struct Case {
    n_lanes: usize,
    freqs: Vec<Freqs>,
    paired: bool,
    table_ids: Vec<u8>,
    /// 1: each symbol has an id of its own.
    segment_len: usize,
    symbols: Vec<u8>,
}

impl Case {
    fn plan(&self) -> Plan<'_> {
        let (ids, segment_len) = (&self.table_ids[..], self.segment_len);
        let table_ids = if segment_len == 1 {
            TableIds::OfSymbols(ids)
        } else {
            TableIds::OfSegments { ids, segment_len }
        };
        Plan { n_lanes: self.n_lanes, paired: self.paired, table_ids }
    }
}

fn single_table() -> TableIds<'static> {
    TableIds::OfSegments { ids: &[0], segment_len: 1 << 31 }
}

fn cases() -> Vec<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let mut cases = Vec::new();
    for n in [1usize, 31, 32, 33, 500, 4096, 5001, 40_000] {
        for (n_choices, segment_len) in [(1usize, 1usize << 31), (3, 64), (16, 512), (16, 1)] {
            for (len, paired) in [(2, false), (2, true), (40, false), (40, true), (200, false), (200, true)] {
                let n_tables = if paired { 2 * n_choices } else { n_choices };
                let table_ids = (0..n.div_ceil(segment_len))
                    .map(|_| u8::try_from(rng.next_u32() as usize % n_choices).unwrap())
                    .collect();
                // Every table has the same symbols, each its own frequencies.
                let freqs = (0..n_tables)
                    .map(|idx| {
                        let mut freqs = hump(len);
                        let moved = u16::try_from(idx).unwrap().min(freqs[128] - 1);
                        freqs[128] -= moved;
                        freqs[127] += moved;
                        freqs
                    })
                    .collect();
                let owners: Vec<u8> = (0..=255u8)
                    .flat_map(|symbol| std::iter::repeat_n(symbol, hump(len)[usize::from(symbol)].into()))
                    .collect();
                let symbols = (0..n).map(|_| owners[rng.next_u32() as usize % owners.len()]).collect();
                let n_lanes = match rng.next_u32() % 4 {
                    0 => FEW_LANES,
                    1 | 2 if !paired => MANY_LANES,
                    _ => LANES,
                };
                cases.push(Case { n_lanes, freqs, paired, table_ids, segment_len, symbols });
            }
        }
    }
    cases
}

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

/// Steps of the tail, states and words.
type Coded = (usize, States, Vec<u8>);

fn encode_case(isa: Isa, case: &Case) -> Coded {
    let plan = case.plan();
    let tables: Vec<EncodeTable> = case.freqs.iter().map(encode_table).collect();
    let mut quantizers = Vec::new();
    if case.paired {
        trace_quantizers(isa, &case.symbols, &mut quantizers);
    }
    let (steps, mut states) = encode_tail(&plan, &tables, &case.symbols, &quantizers).unwrap();
    let main = &case.symbols[..(case.symbols.len().div_ceil(case.n_lanes) - steps) * case.n_lanes];
    let mut buffer = vec![0xaa; encode_buffer_len(main.len())];
    let at = encode(isa, &plan, &tables, main, &quantizers, &mut states, &mut buffer).unwrap();
    (steps, states, buffer[at..].to_vec())
}

fn decode_case(isa: Isa, case: &Case, (steps, states, words): &Coded) -> Option<Vec<u8>> {
    let plan = case.plan();
    let mut tables = vec![[0; SLOTS]; case.freqs.len()];
    case.freqs.iter().zip(&mut tables).for_each(|(freqs, slots)| fill_slots(freqs, slots).unwrap());
    let mut symbols = vec![0xcc; case.symbols.len()];
    let first = (symbols.len().div_ceil(case.n_lanes) - steps) * case.n_lanes;
    let (main, tail) = symbols.split_at_mut(first);
    let mut lanes = Lanes::new(*states);
    let words = words.as_chunks::<2>().0;
    let taken = decode(isa, &plan, &tables, words, &mut lanes, main, &case.symbols)?;
    decode_tail(&plan, &tables, &mut lanes, first, tail)?;
    (taken == words.len() && is_end(case.n_lanes, &lanes)).then_some(symbols)
}

#[test]
fn every_pairing_of_encoder_and_decoder_round_trips_and_words_are_equal() {
    for case in cases() {
        let reference = encode_case(Isa::Scalar, &case);
        for isa in isas() {
            let n = case.symbols.len();
            let coded = encode_case(isa, &case);
            assert!(coded == reference, "{isa:?} {n} symbols, pairs {}, {} lanes", case.paired, case.n_lanes);
            assert!(decode_case(isa, &case, &coded).as_ref() == Some(&case.symbols), "{isa:?} {n} symbols");
        }
    }
}

#[test]
fn quotients_are_exact_on_every_isa() {
    // A row of one symbol of every frequency: states at multiples of it, one off, and at both ends of what it takes.
    for (freq, n_lanes) in (1..4096u32).flat_map(|freq| [(freq, LANES), (freq, MANY_LANES)]) {
        let mut freqs = [0u16; 256];
        freqs[7] = u16::try_from(freq).unwrap();
        freqs[9] = u16::try_from(4096 - freq).unwrap();
        let tables = [encode_table(&freqs)];
        let plan = Plan { n_lanes, paired: false, table_ids: single_table() };
        let states: States = std::array::from_fn(|lane| {
            let top = (freq << 20).wrapping_sub(1);
            let quotient = (1 << 20) - 1 - 0x8003 * (lane as u32 / 4);
            let near = (freq * quotient).wrapping_add([0, 1, freq - 1, u32::MAX][lane % 4]);
            if lane % 32 == 31 { top } else { near.clamp(STATE_MIN, top) }
        });
        let coded = |isa| {
            let (mut states, mut buffer) = (states, vec![0; encode_buffer_len(n_lanes)]);
            let symbols = &[7; MANY_LANES][..n_lanes];
            let at = encode(isa, &plan, &tables, symbols, &[], &mut states, &mut buffer).unwrap();
            (states, buffer[at..].to_vec())
        };
        let expected = coded(Isa::Scalar);
        isas().for_each(|isa| assert!(coded(isa) == expected, "{isa:?} {freq}"));
    }
}

#[test]
fn states_that_double_for_a_whole_tail_do_not_leave_64_bits() {
    let mut freqs = [0; 256];
    (freqs[128], freqs[129]) = (2048, 2048);
    for n_lanes in [FEW_LANES, LANES, MANY_LANES] {
        for n in [64, 1000, 20_000] {
            let (freqs, table_ids, symbols) = (vec![freqs], vec![0], vec![128; n]);
            let case = Case { n_lanes, freqs, paired: false, table_ids, segment_len: 1 << 31, symbols };
            for isa in isas() {
                let decoded = decode_case(isa, &case, &encode_case(isa, &case));
                assert!(decoded.is_some_and(|decoded| decoded == case.symbols), "{n} in {n_lanes} lanes");
            }
        }
    }
}

#[test]
fn damaged_data_gives_the_same_verdict_on_every_isa() {
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let mut refused = 0;
    for case in cases().iter().filter(|case| case.symbols.len() > 4000) {
        let coded = encode_case(Isa::Scalar, case);
        for round in 0..8 {
            let (steps, mut states, mut words) = coded.clone();
            match round % 4 {
                0 => words.truncate(words.len() / 4 * 2),
                1 => words.extend([7, 7]),
                2 => states[3] ^= 1 << (16 + round),
                _ => {
                    let at = rng.next_u32() as usize % words.len();
                    words[at] ^= 1 << (round % 8);
                }
            }
            let damaged = (steps, states, words);
            let verdicts: Vec<_> = isas().map(|isa| decode_case(isa, case, &damaged)).collect();
            assert!(verdicts.windows(2).all(|pair| pair[0] == pair[1]), "round {round}");
            assert!(round % 4 > 1 || verdicts[0].is_none(), "round {round}");
            refused += u32::from(verdicts[0].is_none());
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_symbol_without_frequency_is_refused_on_every_isa() {
    let mut symbols = vec![128; 1000];
    let plan = Plan { n_lanes: LANES, paired: false, table_ids: single_table() };
    let tables = [encode_table(&hump(2))];
    let mut buffer = vec![0; encode_buffer_len(symbols.len())];
    for at in [0, 500, 999] {
        symbols[at] = 3;
        for isa in isas() {
            let mut states = [STATE_MIN; MANY_LANES];
            let coded = encode(isa, &plan, &tables, &symbols, &[], &mut states, &mut buffer);
            assert_eq!(coded, None, "{isa:?} {at}");
        }
        symbols[at] = 128;
    }
}

#[test]
fn plans_and_tables_that_do_not_fit_are_refused() {
    let mut slots = [0; SLOTS];
    assert_eq!(fill_slots(&hump(9), &mut slots), Some(()));
    let mut single = [0; 256];
    single[5] = 4096;
    assert_eq!(fill_slots(&single, &mut slots), None);
    single[5] = 4095;
    assert_eq!(fill_slots(&single, &mut slots), None);
    let mut lanes = Lanes::new([STATE_MIN; MANY_LANES]);
    for (paired, id, segment_len) in
        [(false, 1, 64), (true, 0, 64), (false, 0, 48), (false, 0, 0), (false, 0, 32)]
    {
        let table_ids = TableIds::OfSegments { ids: &[id], segment_len };
        let plan = Plan { n_lanes: LANES, paired, table_ids };
        let decoded = decode(Isa::detect(), &plan, &[slots], &[], &mut lanes, &mut [0; 64], &[]);
        assert_eq!(decoded, None, "{paired} {id} {segment_len}");
    }
    // Pairs have 32 chains; a row is part of one segment.
    for (n_lanes, paired, segment_len) in [(64, true, 64), (64, false, 96), (16, false, 64)] {
        let plan = Plan { n_lanes, paired, table_ids: TableIds::OfSegments { ids: &[0], segment_len } };
        let decoded = decode(Isa::detect(), &plan, &[slots; 2], &[], &mut lanes, &mut [0; 64], &[]);
        assert_eq!(decoded, None, "{n_lanes} {paired} {segment_len}");
    }
    for (n_tables, ids) in [(15, [0; 64].as_slice()), (16, &[0; 63]), (16, &[16; 64])] {
        let plan = Plan { n_lanes: LANES, paired: false, table_ids: TableIds::OfSymbols(ids) };
        let tables = vec![slots; n_tables];
        assert_eq!(
            decode(Isa::detect(), &plan, &tables, &[], &mut lanes, &mut [0; 64], &[]),
            None,
            "{n_tables}"
        );
    }
}

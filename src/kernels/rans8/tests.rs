use super::*;
use crate::container::{crc64, crc64_from};
use crate::kernels::fields::{self, Layout};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A table of `n` symbols from `first` on with geometric frequencies.
fn geometric_table(first: u8, n: u8, top: u8) -> Table {
    let mut pairs: Vec<(u8, u8)> = Vec::new();
    let (mut freq, mut sum) = (top, 0u32);
    for i in 0..n {
        if sum + u32::from(freq) > 255 {
            break;
        }
        pairs.push((first + i, freq));
        sum += u32::from(freq);
        freq = (freq - freq / 3).max(1);
    }
    Table::new(&pairs).unwrap()
}

/// A table of `n_entries` with the escape, its sums of frequencies anywhere: steps crowd where they like.
fn random_table(rng: &mut ChaCha8Rng, n_entries: usize) -> Table {
    let mut cums = std::collections::BTreeSet::from([0u8]);
    // Within a quarter of the slots, every other time.
    let mask = if rng.next_u32().is_multiple_of(2) { 255 } else { 63 };
    let start = rng.next_u32().to_le_bytes()[0];
    while cums.len() < n_entries {
        cums.insert(start.wrapping_add(rng.next_u32().to_le_bytes()[0] & mask));
    }
    let cums: Vec<u8> = cums.into_iter().collect();
    let pairs: Vec<(u8, u8)> =
        (100..).zip(cums.windows(2)).map(|(value, pair)| (value, pair[1] - pair[0])).collect();
    Table::new(&pairs).unwrap()
}

struct Case {
    tables: Vec<Table>,
    table_ids: Vec<u8>,
    segment_len: usize,
    groups: usize,
    symbols: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(42);
    let mut cases = Vec::new();
    for groups in [1usize, 2, 4] {
        for (n_symbols, segment_len) in [(256usize, 256usize), (1024, 256), (8192, 512), (256 * 37, 256)] {
            let shapes = [(1u8, 255u8), (1, 1), (2, 200), (9, 80), (15, 60), (30, 40), (31, 9), (63, 5)];
            let geometric = shapes.map(|(n_entries, top)| -> Vec<_> {
                (0..5).map(|i| geometric_table(100 + i, n_entries, top)).collect()
            });
            let random = [16, 32, 64]
                .map(|most| -> Vec<_> { (0..5).map(|i| random_table(&mut rng, most - 3 * i)).collect() });
            for tables in geometric.into_iter().chain(random) {
                let table_ids: Vec<u8> =
                    (0..n_symbols.div_ceil(segment_len)).map(|_| (rng.next_u32() % 5) as u8).collect();
                let symbols = (0..n_symbols)
                    .map(|i| {
                        let table = &tables[usize::from(table_ids[i / segment_len])];
                        let entry = table.slot_to_entry[(rng.next_u32() % 256) as usize];
                        match rng.next_u32() % 40 {
                            0 => (rng.next_u32() % 256) as u8,
                            _ if entry + 1 == table.n_entries => table.value[0],
                            _ => table.value[usize::from(entry)],
                        }
                    })
                    .collect();
                cases.push(Case { tables, table_ids, segment_len, groups, symbols });
            }
        }
    }
    cases
}

fn encode_case(isa: Isa, case: &Case) -> (Vec<u16>, Vec<u8>, Vec<u8>) {
    let tables: Vec<EncodeTable> = case.tables.iter().map(EncodeTable::new).collect();
    let plan = Plan {
        groups: case.groups,
        tables: &tables,
        table_ids: &case.table_ids,
        segment_len: case.segment_len,
    };
    let mut states = vec![0; case.groups * GROUP_LEN];
    let mut stream = vec![0xaa; encode_buffer_len(case.symbols.len())];
    let mut escapes = stream.clone();
    let encoded = encode(isa, &plan, &case.symbols, &mut states, &mut stream, &mut escapes).unwrap();
    let end = stream.len() - SLACK_BYTES;
    (states, stream[encoded.stream_start..end].to_vec(), escapes[encoded.escapes_start..end].to_vec())
}

fn decode_case(isa: Isa, case: &Case, states: &[u16], stream: &[u8], escapes: &[u8]) -> Option<Vec<u8>> {
    let plan = Plan {
        groups: case.groups,
        tables: &case.tables,
        table_ids: &case.table_ids,
        segment_len: case.segment_len,
    };
    let mut padded = escapes.to_vec();
    padded.resize(escapes.len() + SLACK_BYTES, 0x55);
    let mut symbols = vec![0xcc; case.symbols.len()];
    let mut decoder = Decoder::new(isa, plan, states, stream, &padded, escapes.len(), symbols.len())?;
    // Runs of several lengths, across segments.
    let step = case.groups * GROUP_LEN;
    let mut rest = &mut symbols[..];
    for run in [1, 3, 7, 2].into_iter().cycle() {
        let run = (run * step).min(rest.len());
        decoder.next(rest.split_off_mut(..run).unwrap())?;
        if rest.is_empty() {
            break;
        }
    }
    decoder.finish()?;
    Some(symbols)
}

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

#[test]
fn every_pairing_of_encoder_and_decoder_round_trips_and_streams_are_equal() {
    for case in cases() {
        let reference = encode_case(Isa::Scalar, &case);
        for isa in isas() {
            let coded = encode_case(isa, &case);
            assert!(
                coded == reference,
                "{isa:?} groups {} entries {}",
                case.groups,
                case.tables[0].n_entries
            );
            let decoded = decode_case(isa, &case, &coded.0, &coded.1, &coded.2);
            assert!(decoded.as_deref() == Some(&case.symbols[..]), "{isa:?} groups {}", case.groups);
        }
    }
}

#[test]
fn damaged_data_gives_the_same_verdict_on_every_isa() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for case in cases().iter().step_by(5) {
        let (states, stream, escapes) = encode_case(Isa::Scalar, case);
        for round in 0..20 {
            let (mut states, mut stream, mut escapes) = (states.clone(), stream.clone(), escapes.clone());
            match round % 5 {
                0 | 4 if stream.is_empty() => continue,
                0 => stream.truncate(stream.len() / 2),
                1 => stream.push(7),
                2 => escapes.push(9),
                3 => states[3] ^= 1 << (round % 16),
                _ => {
                    let at = rng.next_u32() as usize % stream.len();
                    stream[at] ^= 1 << (round % 8);
                }
            }
            let verdicts: Vec<_> =
                isas().map(|isa| decode_case(isa, case, &states, &stream, &escapes)).collect();
            assert!(verdicts.windows(2).all(|pair| pair[0] == pair[1]));
            if round % 5 < 3 {
                assert_eq!(verdicts[0], None, "round {round}");
            }
        }
    }
}

#[test]
fn divisions_are_exact_or_one_short_for_every_frequency_and_state() {
    for freq in 1..=255u8 {
        let table = EncodeTable::new(&Table::new(&[(0, freq)]).unwrap());
        let factor = u16::from_le_bytes([table.factor[0][0], table.factor[1][0]]);
        for x in 0..256 * u32::from(freq) {
            let quotient = x / u32::from(freq);
            let by_factor = (x * u32::from(factor)) >> 16;
            assert!(by_factor == quotient || by_factor + 1 == quotient, "freq {freq} x {x}");
            let by_reciprocal = (u64::from(x) * u64::from(table.reciprocal[0])) >> 24;
            assert_eq!(by_reciprocal, u64::from(quotient), "freq {freq} x {x}");
        }
    }
}

#[test]
fn tables_refuse_what_breaks_the_contract() {
    assert!(Table::new(&[]).is_none());
    assert!(Table::new(&[(1, 0)]).is_none());
    assert!(Table::new(&[(1, 200), (2, 56)]).is_none());
    assert!(Table::new(&[(0, 1); 64]).is_none());
    assert!(Table::new(&[(1, 200), (2, 55)]).is_some());
}

/// A layout of every shape that is joined while decoding, and some that are not.
fn layouts() -> Vec<Layout> {
    let layout = |element_bits, symbol_bits, has_sign| Layout {
        element_bits,
        symbol_bits,
        has_sign,
        shared_sign: None,
        low_zero_bits: 0,
        symbol_base: if symbol_bits > 8 { 77 } else { 0 },
    };
    let mut layouts = vec![
        layout(8, 5, true),
        layout(8, 4, true),
        layout(8, 5, false),
        layout(16, 9, true),
        layout(16, 10, true),
        layout(16, 8, true),
        layout(16, 6, true),
        layout(16, 5, true),
        layout(32, 9, true),
        layout(32, 8, true),
        layout(8, 8, false),
        layout(64, 11, true),
    ];
    layouts.push(Layout { shared_sign: Some(true), ..layouts[3] });
    layouts.push(Layout { low_zero_bits: 3, ..layouts[8] });
    layouts
}

#[test]
fn decoding_and_joining_at_once_is_decoding_then_joining() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut n_joined = [0; Isa::ALL.len()];
    for mut case in cases() {
        let (states, stream, escapes) = encode_case(Isa::Scalar, &case);
        let mut padded = escapes.clone();
        padded.resize(escapes.len() + SLACK_BYTES, 0x55);
        for layout in layouts() {
            case.tables.iter_mut().for_each(|table| table.place_values(|value| layout.placed(value)));
            let placed = [0, 1].map(|which| -> Vec<u8> {
                padded.iter().map(|&value| layout.placed(value).to_be_bytes()[which]).collect()
            });
            let n = case.symbols.len();
            let mut planes = vec![0; fields::planes_len(&layout, n)];
            planes.iter_mut().for_each(|byte| *byte = rng.next_u32().to_le_bytes()[1]);
            let (bytes, packed) = planes.split_at(n * layout.n_byte_planes());
            let byte_planes: Vec<&[u8]> = bytes.chunks_exact(n).collect();
            let element_bytes = layout.element_bits as usize / 8;
            let mut reference = vec![0; n * element_bytes];
            fields::join(Isa::Scalar, &layout, &case.symbols, &byte_planes, packed, &mut reference).unwrap();
            for (which, isa) in isas().enumerate() {
                let plan = Plan {
                    groups: case.groups,
                    tables: &case.tables,
                    table_ids: &case.table_ids,
                    segment_len: case.segment_len,
                };
                let mut decoder =
                    Decoder::new(isa, plan, &states, &stream, &padded, escapes.len(), n).unwrap();
                let escapes = [&placed[0][..], &placed[1][..]];
                let residual = Residual { layout, byte_planes: &byte_planes, packed, escapes };
                let mut joined = vec![0xcc; reference.len()];
                let Joined { n_elements: n_done, folded } = decoder.next_joined(&residual, &mut joined);
                let n_done_bytes = n_done * element_bytes;
                assert!(joined[..n_done_bytes] == reference[..n_done_bytes], "{isa:?} {layout:?}");
                assert_eq!(folded.n_bytes(), if isa == Isa::Avx512 { n_done_bytes } else { 0 });
                assert_eq!(crc64_from(&folded, &reference), crc64(&reference), "{isa:?} {layout:?}");
                let mut rest = vec![0; n - n_done];
                decoder.next(&mut rest).unwrap();
                assert!(rest == case.symbols[n_done..] && decoder.finish().is_some());
                n_joined[which] += n_done;
            }
        }
    }
    assert!(isas().zip(n_joined).all(|(isa, n_joined)| (n_joined > 0) == (isa != Isa::Scalar)));
}

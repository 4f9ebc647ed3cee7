use super::*;
use crate::kernels::Isa;
use proptest::prelude::*;

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

const DEPENDENCES: [Dependence; 3] = [Dependence::None, Dependence::Chains, Dependence::EvenSums];

fn any_dependence() -> impl Strategy<Value = Dependence> {
    prop::sample::select(&DEPENDENCES[..])
}

/// `indices`, some changed by one so that they have this dependence.
fn suited(indices: &[i32], dependence: Dependence) -> Vec<i32> {
    let mut indices = indices.to_vec();
    if dependence == Dependence::EvenSums {
        for sheet in indices.as_chunks_mut::<SHEET_LEN>().0 {
            for column in 0..ROW_LEN {
                let places = (column..SHEET_LEN).step_by(ROW_LEN);
                let is_odd = places.clone().fold(0, |sum, place| sum ^ sheet[place]) & 1 == 1;
                if is_odd && let Some(place) = places.into_iter().find(|place| sheet[*place] != ESCAPE) {
                    sheet[place] ^= 1;
                }
            }
        }
    }
    indices
}

fn section_of(isa: Isa, indices: &[i32], dependence: Dependence) -> Vec<u8> {
    section_of_rows(isa, indices, dependence, &[24, 64])
}

fn section_of_rows(isa: Isa, indices: &[i32], dependence: Dependence, row_lens: &[usize]) -> Vec<u8> {
    let mut section = Vec::new();
    IndexEncoder::default().encode(isa, indices, dependence, row_lens, &mut section);
    section
}

fn decoded(isa: Isa, section: &[u8], dependence: Dependence, n: usize) -> Option<Vec<i32>> {
    let mut indices = vec![-7; n];
    IndexDecoder::default().decode(isa, section, dependence, &mut indices)?;
    Some(indices)
}

/// Indices of several kinds: one hump of any width, humps that change from segment to segment, few values, anything.
fn any_indices() -> impl Strategy<Value = Vec<i32>> {
    let hump = |scale: i32, n: usize| {
        prop::collection::vec((-scale..=scale, -scale..=scale, -scale..=scale), n)
            .prop_map(|v| v.into_iter().map(|(a, b, c)| (a + b + c) / 2).collect::<Vec<_>>())
    };
    prop_oneof![
        (0u32..24, 1usize..6000).prop_flat_map(move |(scale, n)| hump(1 << scale, n)),
        (1usize..3000, 1usize..3000)
            .prop_flat_map(move |(a, b)| (hump(3, a), hump(90, b)).prop_map(|(a, b)| [a, b].concat())),
        prop::collection::vec(prop_oneof![Just(0), Just(1), Just(ESCAPE), Just(i32::MAX)], 1..3000),
        prop::collection::vec(prop_oneof![9 => -3..4i32, 1 => any::<i32>()], 1..3000),
        prop::collection::vec(Just(-300), 1..200),
        prop::collection::vec(any::<i32>(), 0..400),
        // Columns of different scale.
        (0u32..8, 600usize..9000).prop_flat_map(move |(scale, n)| hump(1 << scale, n)).prop_map(|mut v| {
            v.iter_mut().enumerate().for_each(|(idx, x)| *x *= if idx % 24 < 3 { 30 } else { 1 });
            v
        }),
    ]
}

proptest! {
    #[test]
    fn any_indices_round_trip(
        indices in any_indices(),
        dependence in any_dependence(),
        flip in any::<prop::sample::Index>(),
        bit in 0u32..8,
        cut in any::<prop::sample::Index>(),
    ) {
        let indices = suited(&indices, dependence);
        let section = section_of(Isa::Scalar, &indices, dependence);
        let section_bits = 8.0 * section.len() as f64;
        for isa in isas() {
            // States are not told to the bit, and words are whole.
            let planned = IndexEncoder::default().planned(isa, &indices, dependence, &[24, 64]);
            prop_assert!((planned - section_bits).abs() < 600.0 + 0.002 * section_bits, "{planned} {section_bits}");
            prop_assert!(section_of(isa, &indices, dependence) == section, "{isa:?}");
            prop_assert!(decoded(isa, &section, dependence, indices.len()).as_deref() == Some(&indices[..]), "{isa:?}");
        }
        if section.is_empty() {
            return Ok(());
        }
        let mut damaged = section.clone();
        damaged[flip.index(section.len())] ^= 1 << bit;
        let verdicts: Vec<_> = isas().map(|isa| decoded(isa, &damaged, dependence, indices.len())).collect();
        prop_assert!(verdicts.windows(2).all(|pair| pair[0] == pair[1]));
        let cut = cut.index(section.len());
        for isa in isas() {
            prop_assert_eq!(decoded(isa, &section[..cut], dependence, indices.len()), None);
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        head in 0u8..2,
        dependence in any_dependence(),
        n in 0usize..5000,
    ) {
        let mut section = bytes;
        if let Some(first) = section.first_mut() {
            *first = *first & 0x7f & if head == 0 { HAS_ESCAPES } else { 0xff };
        }
        let verdicts: Vec<_> = isas().map(|isa| decoded(isa, &section, dependence, n)).collect();
        prop_assert!(verdicts.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// Long sections have more lanes, unless tables come in pairs.
#[test]
fn long_sections_round_trip_and_stay_as_they_are() {
    /// An index of its place and a random number.
    type Index = dyn Fn((usize, u64)) -> i32;
    // Scales that differ by segment, by column, or not at all; a tail that ends within a row.
    let scaled = |scale: fn(usize) -> u64| {
        move |(idx, state): (usize, u64)| {
            let span = 2 * scale(idx) + 1;
            i32::try_from((state >> 33) % span).unwrap() - i32::try_from(scale(idx)).unwrap()
        }
    };
    let indices = |n: usize, index: &Index| -> Vec<i32> {
        let states = std::iter::successors(Some(7u64), |state| {
            Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
        });
        (0..n).zip(states).map(index).collect()
    };
    let few = |(_, state): (usize, u64)| {
        i32::from(state >> 58 == 0) * if state >> 57 & 1 == 0 { 1 } else { -70_000 }
    };
    let cases: [(usize, &Index); 5] = [
        (LEAST_LEN_OF_MANY_LANES - 1, &scaled(|_| 9)),
        (LEAST_LEN_OF_MANY_LANES, &scaled(|idx| 3 << (idx >> 12 & 3))),
        (LEAST_LEN_OF_MANY_LANES + 33, &scaled(|idx| if idx % 64 < 9 { 300 } else { 5 })),
        (LEAST_LEN_OF_MANY_LANES + 100, &few),
        (200_001, &scaled(|_| 40)),
    ];
    let mut hashers = [blake3::Hasher::new(), blake3::Hasher::new()];
    for (n, index) in cases {
        let indices = indices(n, index);
        for dependence in DEPENDENCES {
            let indices = suited(&indices, dependence);
            let section = section_of(Isa::Scalar, &indices, dependence);
            hashers[usize::from(dependence == Dependence::EvenSums)].update(&section);
            let mut damaged = section.clone();
            let at = section.len() / 3 + n % 64;
            damaged[at] ^= 0x10;
            let verdict = decoded(Isa::Scalar, &damaged, dependence, n);
            for isa in isas() {
                assert!(section_of(isa, &indices, dependence) == section, "{isa:?} {n} {dependence:?}");
                assert!(
                    decoded(isa, &section, dependence, n).as_ref() == Some(&indices),
                    "{isa:?} {n} {dependence:?}"
                );
                assert!(decoded(isa, &damaged, dependence, n) == verdict, "{isa:?} {n} {dependence:?}");
                assert_eq!(decoded(isa, &section[..section.len() - 2], dependence, n), None);
            }
        }
    }
    assert_eq!(
        hashers.map(|hasher| hasher.finalize().to_hex().to_string()),
        [
            "c987e4c7c9c7ad53206848790c0440202ddec9e7b8897bd7b31f0150225c1805",
            "93a79a9ab9f07abc0b746204a792346bb3767f1e3f21240c676ef75c7fd28839"
        ]
    );
}

/// Standard normal numbers, by the polar method from a fixed generator.
fn gaussian(n: usize, seed: u64) -> Vec<f64> {
    let mut x = seed | 1;
    let mut uniform = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    };
    let mut numbers = Vec::with_capacity(n + 1);
    while numbers.len() < n {
        let (u, v) = (uniform(), uniform());
        let s: f64 = u * u + v * v;
        if s > 0.0 && s < 1.0 {
            let scale = (-2.0 * s.ln() / s).sqrt();
            numbers.extend([u * scale, v * scale]);
        }
    }
    numbers.truncate(n);
    numbers
}

/// Indices of about `bits` bits each, and their order-0 entropy.
fn gaussian_indices(n: usize, bits: f64) -> (Vec<i32>, f64) {
    let step = 2f64.powf(2.047 - bits);
    let indices: Vec<i32> = gaussian(n, 99).iter().map(|x| (x / step).round() as i32).collect();
    let mut counts = std::collections::BTreeMap::new();
    indices.iter().for_each(|&index| *counts.entry(index).or_insert(0u32) += 1);
    let entropy = counts.values().map(|&c| f64::from(c) / n as f64).map(|p| -p * p.log2()).sum();
    (indices, entropy)
}

#[test]
fn gaussian_indices_take_little_more_than_their_entropy() {
    for (n, bits, overhead) in [(1 << 20, 4.0, 0.004), (10_000, 4.0, 0.02), (10_000, 6.0, 0.02)] {
        let (indices, entropy) = gaussian_indices(n, bits);
        let section = section_of(Isa::detect(), &indices, Dependence::None);
        let stored = 8.0 * section.len() as f64 / n as f64;
        assert!(stored < entropy * (1.0 + overhead), "{n} {bits}: {stored} bits, entropy {entropy}");
    }
}

/// One bit of eight indices follows from the others; at the rates where all of an index has a symbol, and where it has not.
#[test]
fn even_sums_save_an_eighth_of_a_bit() {
    let n = 1 << 20;
    for bits in [1.5, 2.0, 3.0, 4.0, 6.0, 9.0] {
        let (indices, _) = gaussian_indices(n, bits);
        let indices = suited(&indices, Dependence::EvenSums);
        let lens = [Dependence::None, Dependence::EvenSums]
            .map(|dependence| section_of(Isa::detect(), &indices, dependence).len());
        let saved = 8.0 * (lens[0] as f64 - lens[1] as f64) / n as f64;
        assert!((0.11..0.126).contains(&saved), "{bits}: {saved} bits, {lens:?} bytes");
    }
}

#[test]
#[ignore = "prints a table"]
fn overhead_table() {
    for n in [1 << 20, 10_000] {
        for bits in [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0] {
            let (indices, entropy) = gaussian_indices(n, bits);
            for dependence in DEPENDENCES {
                let section = section_of(Isa::detect(), &suited(&indices, dependence), dependence);
                let stored = 8.0 * section.len() as f64 / n as f64;
                println!(
                    "n {n} bits {bits} dependence {dependence:?}: {} bytes, {stored:.5} bits, entropy {entropy:.5}, over {:.5} bits = {:.1} bytes, r {}",
                    section.len(),
                    stored - entropy,
                    (stored - entropy) * n as f64 / 8.0,
                    section[0] & 31
                );
            }
        }
    }
}

#[test]
fn estimates_are_those_of_the_counts() {
    assert_eq!(bits_per_symbol(&[8, 4, 4]), [1.0, 2.0, 2.0]);
    assert_eq!(bits_per_symbol(&[1, 0]), [0.0, 1.0]);
    assert_eq!(bits_per_symbol(&[0, 0]), [0.0, 0.0]);
    assert!((bits_per_symbol(&[u32::MAX, 0])[1] - 33.0).abs() < 1e-3);
}

#[test]
fn columns_of_different_scale_cost_as_much_as_if_they_were_apart() {
    for (period, n) in [(24, 1 << 15), (64, 1 << 18), (576, 1 << 18)] {
        let values = gaussian(n, 5);
        let scale = |idx: usize| if (idx % period) * 5 < period { 25.0 } else { 2.0 };
        let indices: Vec<i32> = values.iter().enumerate().map(|(idx, x)| (x * scale(idx)) as i32).collect();
        let (loud, quiet): (Vec<_>, Vec<_>) = (0..n).partition(|idx| scale(*idx) > 2.0);
        for dependence in DEPENDENCES {
            let indices = suited(&indices, dependence);
            let apart: usize = [loud.clone(), quiet.clone()]
                .map(|part| part.into_iter().map(|idx| indices[idx]).collect::<Vec<_>>())
                .map(|part| suited(&part, dependence))
                .map(|part| section_of_rows(Isa::detect(), &part, dependence, &[]).len())
                .iter()
                .sum();
            let section = section_of_rows(Isa::detect(), &indices, dependence, &[period]);
            let without = section_of_rows(Isa::detect(), &indices, dependence, &[]).len();
            assert!(section.len() * 100 < apart * 102, "{period}: {} bytes, {apart} apart", section.len());
            assert!(
                section.len() * 100 < without * 99,
                "{period}: {} bytes, {without} without",
                section.len()
            );
            for isa in isas() {
                assert!(decoded(isa, &section, dependence, n).as_deref() == Some(&indices[..]), "{isa:?}");
            }
        }
    }
}

#[test]
fn what_long_blocks_hold_rarely_comes_back_too() {
    let n = 5 << 18;
    let mut indices: Vec<i32> = gaussian(n, 7).iter().map(|x| (x * 3.0) as i32).collect();
    // A few indices of any size, some of them in segments of which nothing is counted.
    for (at, index) in (0..n).step_by(n / 60 + 1).zip([90, -91, 4000, -4001, ESCAPE].into_iter().cycle()) {
        indices[at] = index;
    }
    for dependence in DEPENDENCES {
        for row_lens in [&[][..], &[96]] {
            let mut scaled = indices.clone();
            if !row_lens.is_empty() {
                scaled.iter_mut().step_by(96).for_each(|index| *index = index.saturating_mul(9));
            }
            let scaled = suited(&scaled, dependence);
            let section = section_of_rows(Isa::detect(), &scaled, dependence, row_lens);
            assert!(decoded(Isa::detect(), &section, dependence, n).as_deref() == Some(&scaled[..]));
        }
    }
}

#[test]
fn low_bits_of_all_are_not_paid_for_a_few() {
    // Of ten indices nine are 0; the tenth would fit a symbol without 12 low bits.
    let (wide, _) = gaussian_indices(20_000, 19.0);
    let indices: Vec<i32> = wide.iter().flat_map(|&index| [0, 0, 0, 0, index, 0, 0, 0, 0, 0]).collect();
    let section = section_of(Isa::Scalar, &indices, Dependence::None);
    // 0.47 bits tell which is which.
    let least = 0.47 + 19.0 / 10.0;
    let found = 8.0 * section.len() as f64 / indices.len() as f64;
    assert!(found < least + 0.3, "{found} bits, {least} at least");
    assert!(decoded(Isa::Scalar, &section, Dependence::None, indices.len()).unwrap() == indices);
}

#[test]
fn segments_are_as_short_as_scales_change() {
    let values = gaussian(1 << 17, 3);
    let section_len = |run_len: usize, dependence: Dependence| {
        let scale = |idx: usize| if (idx / run_len).is_multiple_of(2) { 1.0 } else { 20.0 };
        let indices: Vec<i32> = values.iter().enumerate().map(|(idx, x)| (x * scale(idx)) as i32).collect();
        section_of(Isa::detect(), &suited(&indices, dependence), dependence).len()
    };
    for dependence in DEPENDENCES {
        let (short, long) = (section_len(64, dependence), section_len(4096, dependence));
        assert!(short * 100 < long * 102, "{short} bytes by 64, {long} by 4096");
    }
}

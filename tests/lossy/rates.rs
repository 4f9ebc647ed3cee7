//! Rate goals: what is stored is what was asked for, floors hold, and what cannot be met is said.

use std::fs;
use std::path::Path;

use alcm::Dtype;
use serde_json::Value;
use tempfile::tempdir;

use super::common::alcm;
use super::common::fixtures::Random;
use super::tensors::{Goal, Kind, QUANTIZERS, Tensor, check, file_of};

/// Checks that goals of bits and of a ratio are met within 2 %, all bytes of the archive counted.
fn check_rates(tensors: &[Tensor]) {
    let dir = tempdir().unwrap();
    let n_elements: usize = tensors.iter().map(|tensor| tensor.bytes.len() / 4).sum();
    for quantizer in QUANTIZERS {
        for bits in [2.0, 3.0, 4.0, 6.0, 8.0] {
            let archive = check(dir.path(), tensors, Goal::Bits(bits), quantizer);
            let achieved = 8.0 * archive.len() as f64 / n_elements as f64;
            assert!((achieved / bits - 1.0).abs() < 0.02, "{achieved:.3} bits for {bits} {quantizer}");
        }
        let archive = check(dir.path(), tensors, Goal::Unbounded("--ratio 6.5"), quantizer);
        let ratio = file_of(tensors).len() as f64 / archive.len() as f64;
        assert!((ratio / 6.5 - 1.0).abs() < 0.02, "ratio {ratio:.3} {quantizer}");
    }
}

#[test]
fn a_rate_is_met_within_two_percent() {
    check_rates(&[Tensor::new(Dtype::F32, Kind::Bell, &[512, 700], 1)]);
}

/// Stored bits of an element of `tensors`, compressed with `arguments`, and what the report says of the rate.
fn stored_rate(dir: &Path, tensors: &[Tensor], arguments: &str) -> (f64, Value) {
    fs::write(dir.join("f.safetensors"), file_of(tensors)).unwrap();
    let command = format!("compress f.safetensors -o f.alcm -f --json --lossy {arguments}");
    let report = alcm(dir, &command).assert().code(0).get_output().stdout.clone();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let found = alcm(dir, "inspect f.alcm --json").assert().code(0).get_output().stdout.clone();
    let found: Value = serde_json::from_slice(&found).unwrap();
    let rows = found["archives"][0]["tensors"].as_array().unwrap();
    let sum = |key: &str| rows.iter().map(|row| row[key].as_f64().unwrap()).sum::<f64>();
    (8.0 * sum("stored_bytes") / sum("elements"), report["rates"][0].clone())
}

#[test]
fn rates_of_tensors_that_are_hard_to_foretell_are_met() {
    let dir = tempdir().unwrap();
    let mut checkpoints: Vec<Vec<Tensor>> = [
        // Escapes are cheaper than low bits of all, which a few elements, or half of them, would need.
        Kind::Sparse,
        Kind::HeavyTail,
        Kind::Outlier,
        Kind::RowScales,
        Kind::ZeroRows,
        Kind::Positive,
    ]
    .map(|kind| vec![Tensor::new(Dtype::F32, kind, &[300, 400], 5)])
    .into();
    // Samples at even distances find no large row, or nothing else.
    checkpoints.push(vec![Tensor::new(Dtype::F32, Kind::PeriodicRows, &[1536, 1024], 6)]);
    // Units of as many rows of zeros as chance has it, in several blocks.
    let mut rows_of_zeros = Tensor::new(Dtype::F32, Kind::Bell, &[40_000, 128], 7);
    let mut random = Random::new(3);
    for row in rows_of_zeros.bytes.chunks_mut(4 * 128) {
        if !random.word().is_multiple_of(3) {
            row.fill(0);
        }
    }
    checkpoints.push(vec![rows_of_zeros]);
    // Small tensors, of which what is around indices is a large part.
    checkpoints.push((0..4).map(|seed| Tensor::new(Dtype::Bf16, Kind::Bell, &[64, 70], seed)).collect());
    for tensors in &checkpoints {
        for quantizer in QUANTIZERS {
            for bits in [2.0, 3.0, 4.0] {
                for (flag, tolerance) in [("", 0.02), ("--correct-rate", 0.005)] {
                    let arguments = format!("--bits {bits} {quantizer} {flag}");
                    let (stored, rate) = stored_rate(dir.path(), tensors, &arguments);
                    // What takes fewer bits as it is has no rate: at 4 bits that is what is mostly zeros.
                    let is_exact = rate.is_null() && stored < bits;
                    let is_met = is_exact || (stored / bits - 1.0).abs() < tolerance;
                    assert!(is_met, "{}: {stored:.3} bits, {arguments}", tensors[0].name);
                }
            }
        }
    }
}

#[test]
fn counting_meets_rates_of_tensors_of_any_scale() {
    let dir = tempdir().unwrap();
    let bell = |scale: f32, seed| {
        let mut tensor = Tensor::new(Dtype::F32, Kind::Bell, &[256, 300], seed);
        tensor.name = format!("bell{seed}");
        for bytes in tensor.bytes.as_chunks_mut().0 {
            *bytes = (f32::from_le_bytes(*bytes) * scale).to_le_bytes();
        }
        tensor
    };
    // At 8 bits the indices of the last are beyond any table, and few are those of the first.
    let tensors = [bell(1e-9, 1), bell(1.0, 2), bell(1e6, 3)];
    for bits in [2.0, 8.0] {
        let (stored, rate) =
            stored_rate(dir.path(), &tensors, &format!("--bits {bits} --rate-model counted"));
        assert!((stored / bits - 1.0).abs() < 0.005, "{stored:.3} bits for {bits}: {rate}");
    }
}

#[test]
fn every_channel_gets_its_floor_of_bits_whichever_model_is_asked() {
    const ROW: usize = 1024;
    let dir = tempdir().unwrap();
    // More rows, each of a unit, than a model is asked about.
    let mut tensor = Tensor::new(Dtype::F32, Kind::Bell, &[3072, ROW], 1);
    let is_small = |row_idx: usize| (500..520).contains(&row_idx);
    for (row_idx, row) in tensor.bytes.chunks_mut(4 * ROW).enumerate().filter(|row| is_small(row.0)) {
        let scale = 1e-6 * (row_idx as f32);
        row.as_chunks_mut()
            .0
            .iter_mut()
            .for_each(|bytes| *bytes = (f32::from_le_bytes(*bytes) * scale).to_le_bytes());
    }
    fs::write(dir.path().join("none.yaml"), "version: 1\nmin_bits: 0\n").unwrap();
    for (flags, has_floor) in [
        ("", true),
        ("--quant trellis", true),
        ("--rate-model gaussian", true),
        ("--rate-model counted", true),
        ("--entropy-config none.yaml", false),
        ("--rate-model counted --entropy-config none.yaml", false),
    ] {
        let (stored, _) =
            stored_rate(dir.path(), std::slice::from_ref(&tensor), &format!("--bits 4 {flags}"));
        assert!((stored / 4.0 - 1.0).abs() < 0.02, "{stored:.3} bits {flags}");
        alcm(dir.path(), "decompress f.alcm -o back.safetensors -q -f").assert().code(0);
        let back = fs::read(dir.path().join("back.safetensors")).unwrap();
        let values = &back[back.len() - tensor.bytes.len()..];
        for (row_idx, row) in values.chunks(4 * ROW).enumerate().filter(|row| is_small(row.0)) {
            let kept =
                row.as_chunks::<4>().0.iter().filter(|bytes| f32::from_le_bytes(**bytes) != 0.0).count();
            // A fifth of 4 bits: at the least one element in eight is not zero.
            assert!(if has_floor { kept > ROW / 8 } else { kept == 0 }, "row {row_idx}: {kept} {flags}");
        }
    }
}

#[test]
fn a_rate_that_no_step_leads_to_is_reported() {
    let dir = tempdir().unwrap();
    // Two values: a bit an element, or as many as low bits more.
    let mut tensor = Tensor::new(Dtype::F32, Kind::Bell, &[300, 400], 8);
    tensor.bytes.chunks_exact_mut(4).for_each(|bytes| {
        bytes.copy_from_slice(&[0, 0, 0x80, 0x3d | bytes[3] & 0x80]);
    });
    let tensors = [tensor];
    let (stored, rate) = stored_rate(dir.path(), &tensors, "--bits 2.5");
    assert!((stored / 2.5 - 1.0).abs() > 0.02, "{stored:.3} bits");
    assert!(rate["met"] == false && (rate["reached"].as_f64().unwrap() - stored).abs() < 1e-6, "{rate}");
    let quiet =
        alcm(dir.path(), "compress f.safetensors -o f.alcm -f -q --lossy --bits 2.5").assert().code(0);
    let text = String::from_utf8(quiet.get_output().stderr.clone()).unwrap();
    assert!(text.contains("warning: bits 2.5: ") && text.contains(&format!("{stored:.3} reached")), "{text}");
    let (_, rate) =
        stored_rate(dir.path(), &[Tensor::new(Dtype::F32, Kind::Bell, &[300, 400], 8)], "--bits 2.5");
    assert!(rate["met"] == true, "{rate}");
}

//! Files of formats other than safetensors through the command.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{alcm, random_bytes};
use tempfile::tempdir;

/// A GGUF file of one tensor of `n_groups` groups of type Q8_0: a scale in half precision and 32 bytes.
fn gguf_file(n_groups: u64) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    [1, 0, 1].iter().for_each(|n: &u64| file.extend(n.to_le_bytes()));
    file.push(b'w');
    file.extend(1u32.to_le_bytes());
    file.extend((32 * n_groups).to_le_bytes());
    file.extend(8u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.resize(file.len().next_multiple_of(32), 0);
    let noise = random_bytes(5, 34 * usize::try_from(n_groups).unwrap());
    let byte = |(idx, &noise): (usize, &u8)| match idx % 34 {
        0 => noise,
        1 => 0x20 + noise % 4,
        _ => (noise % 24).wrapping_sub(12),
    };
    file.extend(noise.iter().enumerate().map(byte));
    file
}

#[test]
fn gguf_files_are_cut_by_their_tensors_in_files_and_in_pipes() {
    let dir = tempdir().unwrap();
    let file = gguf_file(4000);
    fs::write(dir.path().join("model.gguf"), &file).unwrap();
    alcm(dir.path(), "compress model.gguf -o model.alcm -q").assert().code(0);
    let archive = fs::read(dir.path().join("model.alcm")).unwrap();
    // Values take 4.6 of their 8 bits.
    assert!(archive.len() < file.len() * 5 / 8, "{}", archive.len());
    alcm(dir.path(), "decompress model.alcm -o back -q").assert().code(0);
    assert!(fs::read(dir.path().join("back")).unwrap() == file);
    let piped = alcm(dir.path(), "compress - -o - -q").write_stdin(file.clone()).assert().code(0);
    assert_eq!(piped.get_output().stdout.len(), archive.len());
    // Cut off within the header and within the tensor, and with more behind it than the header tells of.
    for bytes in [&file[..60], &file[..90_001], &[&file[..], &random_bytes(6, 5000)].concat()] {
        let packed = alcm(dir.path(), "compress - -o - -q").write_stdin(bytes).assert().code(0);
        let packed = packed.get_output().stdout.clone();
        let back = alcm(dir.path(), "decompress - -o - -q").write_stdin(packed).assert().code(0);
        assert!(back.get_output().stdout == bytes);
    }
}

/// A field of a Protocol Buffers message that holds `bytes`.
fn message_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 0x80 {
        field.push((len & 0x7f | 0x80).to_le_bytes()[0]);
        len >>= 7;
    }
    field.push(len.to_le_bytes()[0]);
    [field, bytes.to_vec()].concat()
}

#[test]
fn onnx_files_are_cut_by_their_tensors() {
    let dir = tempdir().unwrap();
    // Half-precision numbers times a scale for each row of 512, found only where rows begin.
    let weights: Vec<u8> = random_bytes(7, 2 * 512 * 300)
        .chunks_exact(2)
        .enumerate()
        .flat_map(|(idx, noise)| {
            let half = f32::from(i16::from_le_bytes([noise[0], noise[1]]) >> 5);
            let scale = (1.0 + (idx / 512) as f32).sqrt() * 1e-3;
            (half * scale).to_le_bytes()
        })
        .collect();
    let dimensions = [[8, 0xac, 2], [8, 0x80, 4]].concat();
    let tensor = [dimensions, vec![16, 1], message_field(8, b"weight"), message_field(9, &weights)].concat();
    let graph = [message_field(2, b"graph"), message_field(5, &tensor)].concat();
    let file = [vec![8, 8], message_field(2, b"producer"), message_field(7, &graph)].concat();
    let cut_at_odds = [&[0u8][..], &file].concat();
    fs::write(dir.path().join("model.onnx"), &file).unwrap();
    fs::write(dir.path().join("other.bin"), &cut_at_odds).unwrap();
    alcm(dir.path(), "compress model.onnx other.bin -o out -q").assert().code(0);
    let size = |name: &str| fs::read(dir.path().join("out").join(name)).unwrap().len();
    assert!(size("model.onnx.alcm") < file.len() * 2 / 5, "{}", size("model.onnx.alcm"));
    assert!(size("other.bin.alcm") > size("model.onnx.alcm"), "{}", size("other.bin.alcm"));
    alcm(dir.path(), "decompress out -o back -q").assert().code(0);
    assert!(fs::read(dir.path().join("back/model.onnx")).unwrap() == file);
    assert!(fs::read(dir.path().join("back/other.bin")).unwrap() == cut_at_odds);
}

#[test]
fn files_of_pytorch_and_numpy_come_back() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/other_file");
    let dir = tempdir().unwrap();
    for name in ["seed-torch", "seed-torch-legacy", "seed-npz"] {
        let file = fs::read(seeds.join(name)).unwrap();
        fs::write(dir.path().join("file"), &file).unwrap();
        alcm(dir.path(), "compress file -o file.alcm -q --force").assert().code(0);
        alcm(dir.path(), "decompress file.alcm -o back -q --force").assert().code(0);
        assert!(fs::read(dir.path().join("back")).unwrap() == file, "{name}");
    }
}

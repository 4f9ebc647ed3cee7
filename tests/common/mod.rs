//! Small trees, checkpoints and blocks made by seed, readers of whole archives, and the binary under test.
#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "test support"
)]

pub(crate) mod coarse;
pub(crate) mod delta;
pub(crate) mod fixtures;
pub(crate) mod golden;
pub(crate) mod nested;
pub(crate) mod quantized;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::Command;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// `len` bytes that depend on `seed` alone.
pub(crate) fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Weight-like bf16: random signs and mantissas, few exponents.
pub(crate) fn weights(seed: u64, n_elements: usize) -> Vec<u8> {
    let noise = random_bytes(seed, 2 * n_elements);
    noise
        .chunks_exact(2)
        .flat_map(|pair| {
            let exponent = 118 + u16::from(pair[1] & 0x0f).count_ones() as u16;
            let sign = u16::from(pair[1] >> 7) << 15;
            (sign | exponent << 7 | u16::from(pair[0] & 0x7f)).to_le_bytes()
        })
        .collect()
}

/// A safetensors file of bf16 tensors of one dimension.
pub(crate) fn checkpoint(tensors: &[(&str, &[u8])]) -> Vec<u8> {
    let typed: Vec<_> =
        tensors.iter().map(|(name, bytes)| (*name, "BF16", vec![bytes.len() / 2], *bytes)).collect();
    typed_checkpoint(&typed)
}

/// A safetensors file of tensors given by name, dtype, shape and bytes.
pub(crate) fn typed_checkpoint(tensors: &[(&str, &str, Vec<usize>, &[u8])]) -> Vec<u8> {
    let mut json = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
    let mut end = 0;
    for (name, dtype, shape, bytes) in tensors {
        let start = end;
        end += bytes.len();
        json += &format!(
            ",\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        );
    }
    json.push('}');
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    tensors.iter().for_each(|(.., bytes)| file.extend_from_slice(bytes));
    file
}

/// A tree with checkpoints, one of several blocks; equal tensors and files; empty and odd things.
pub(crate) fn make_tree(root: &Path) {
    for dir in ["model/empty", "model/deep/er"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let (tied, other, large) = (weights(1, 60_000), weights(2, 50_000), weights(3, 1_500_001));
    let files: [(&str, Vec<u8>); 8] = [
        ("model/a.safetensors", checkpoint(&[("x", &tied), ("small", &other[..64]), ("y", &tied)])),
        ("model/b.safetensors", checkpoint(&[("big", &large), ("tied", &tied), ("own", &other)])),
        ("model/deep/a-copy.safetensors", checkpoint(&[("x", &tied), ("small", &other[..64]), ("y", &tied)])),
        ("model/config.json", b"{\"hidden\":384}\n".repeat(20)),
        ("model/deep/er/noise.bin", random_bytes(4, 1_300_000)),
        ("model/empty.safetensors", checkpoint(&[])),
        ("model/nothing", Vec::new()),
        ("model/n\u{e4}me with spaces", random_bytes(5, 777)),
    ];
    for (path, bytes) in files {
        fs::write(root.join(path), bytes).unwrap();
    }
}

/// Kind, permission bits, modification time and contents.
pub(crate) type Entry = (String, u32, i64, i64, Vec<u8>);

/// What a tree holds: for each path its kind, permission bits, modification time and contents.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<String, Entry> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.mode() & 0o777;
            let (kind, bytes) = if metadata.is_dir() {
                pending.push(path.clone());
                ("dir".to_owned(), Vec::new())
            } else if metadata.is_symlink() {
                // A link's own time cannot be set by the standard library.
                found.insert(
                    name,
                    (format!("-> {}", fs::read_link(&path).unwrap().display()), 0, 0, 0, Vec::new()),
                );
                continue;
            } else {
                ("file".to_owned(), fs::read(&path).unwrap())
            };
            found.insert(name, (kind, mode, metadata.mtime(), metadata.mtime_nsec(), bytes));
        }
    }
    found
}

/// The binary, run in `dir`, split at white space.
pub(crate) fn alcm(dir: &Path, args: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("alcm"));
    command.current_dir(dir).args(args.split_whitespace());
    command
}

/// Names left by unfinished outputs below `root`; files may vanish meanwhile.
pub(crate) fn partials(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with("alcm-partial") {
                found.push(name);
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    found
}

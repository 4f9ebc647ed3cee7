//! What may go wrong around the program: kills, full disks, sources that change, hostile headers and manifests. A
//! clear error each time, the source untouched, nothing outside the output, memory bounded.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alcm::kernels::Isa;
use alcm::pipeline::compress::{compress_file, compress_tree};
use alcm::pipeline::context::Context;
use alcm::pipeline::lossy::settings::{Goal, LayerGoal, LossySettings};
use alcm::pipeline::progress::Progress;
use alcm::pipeline::settings::CompressOptions;
use alcm::{ErrorKind, Limits};
use common::fixtures::Random;
use common::{
    Entry, alcm, checkpoint, make_tree, partials, random_bytes, snapshot, typed_checkpoint, weights,
};
use tempfile::tempdir;

/// Most anonymous memory that a run on hostile input may ask the system for, in KiB: enforced, not measured.
const BOUND_KIB: u64 = 300 << 10;

/// Runs the binary under [`BOUND_KIB`] of writable private memory; beyond it an allocation fails and aborts.
fn within_bound(dir: &Path, args: &str) -> Output {
    let binary = assert_cmd::cargo::cargo_bin!("alcm");
    let script = format!("ulimit -d {BOUND_KIB}; exec '{}' {args} --threads 2", binary.display());
    Command::new("sh").args(["-c", &script]).current_dir(dir).output().unwrap()
}

/// Checks that a run failed with a plain message that holds `words`.
fn assert_clear(output: &Output, words: &str) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}: {stderr}");
    assert!(stderr.lines().all(|line| line.starts_with("alcm: error: ")), "{words}: {stderr}");
    assert!(stderr.contains(words), "{words}: {stderr}");
    assert!(stderr.len() < 2000, "{words}: {} bytes of message", stderr.len());
}

/// A safetensors file of this JSON and `data_len` zeros.
fn safetensors(json: &str, data_len: usize) -> Vec<u8> {
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    file.resize(file.len() + data_len, 0);
    file
}

/// A header's entry of `name`: bytes from `from` to `to`.
fn entry(name: &str, from: u64, to: u64) -> String {
    let len = to.saturating_sub(from);
    format!("\"{name}\":{{\"dtype\":\"U8\",\"shape\":[{len}],\"data_offsets\":[{from},{to}]}}")
}

/// Contents of a tree's archives.
fn archives(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let found = snapshot(out).into_iter();
    found.filter(|(name, _)| name.ends_with(".alcm")).map(|(name, entry)| (name, entry.4)).collect()
}

fn start(dir: &Path, args: &str) -> std::process::Child {
    Command::new(assert_cmd::cargo::cargo_bin!("alcm"))
        .args(args.split_whitespace())
        .current_dir(dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn kills_at_random_moments_lose_nothing() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    for idx in 0..4 {
        let bytes = checkpoint(&[("t", &weights(100 + idx, 1_500_000))]);
        fs::write(dir.path().join(format!("model/shard{idx}.safetensors")), bytes).unwrap();
    }
    let source = snapshot(&dir.path().join("model"));
    let begin = Instant::now();
    alcm(dir.path(), "compress model -o whole -q --verify").assert().code(0);
    let whole_micros = begin.elapsed().as_micros() as usize;
    let whole = archives(&dir.path().join("whole"));
    let mut random = Random::new(31);
    for round in 0..20 {
        // Every fourth round starts from nothing.
        if round % 4 == 0 {
            let _ = fs::remove_dir_all(dir.path().join("out"));
        }
        let mut child = start(dir.path(), "compress model -o out -q --verify --resume");
        std::thread::sleep(Duration::from_micros(random.below(whole_micros * 5 / 4) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        if dir.path().join("out").exists() {
            for (name, bytes) in archives(&dir.path().join("out")) {
                assert!(bytes == whole[&name], "round {round}: {name} has its name, but is not whole");
            }
        }
        if dir.path().join("out/alcm-manifest.json").exists() {
            alcm(dir.path(), "verify out -q").assert().code(0);
        }
    }
    alcm(dir.path(), "compress model -o out -q --resume").assert().code(0);
    assert!(archives(&dir.path().join("out")) == whole);
    assert!(partials(dir.path()).is_empty());
    assert!(snapshot(&dir.path().join("model")) == source);
}

#[test]
fn killed_restores_and_removals_leave_no_half_file() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    for idx in 0..4 {
        let bytes = checkpoint(&[("t", &weights(200 + idx, 1_500_000))]);
        fs::write(dir.path().join(format!("model/shard{idx}.safetensors")), bytes).unwrap();
    }
    let contents = |tree: &BTreeMap<String, Entry>| -> BTreeMap<String, Vec<u8>> {
        let files = tree.iter().filter(|(name, entry)| entry.0 == "file" && !name.ends_with("alcm-partial"));
        files.map(|(name, entry)| (name.clone(), entry.4.clone())).collect()
    };
    let source = contents(&snapshot(&dir.path().join("model")));
    alcm(dir.path(), "compress model -o out -q").assert().code(0);
    let mut random = Random::new(32);
    for round in 0..10 {
        let mut child = start(dir.path(), "decompress out -o back -q --force");
        std::thread::sleep(Duration::from_micros(random.below(60_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        if dir.path().join("back/model").exists() {
            for (name, bytes) in contents(&snapshot(&dir.path().join("back/model"))) {
                assert!(bytes == source[&name], "round {round}: {name} is not whole");
            }
        }
    }
    alcm(dir.path(), "decompress out -o back -q --force").assert().code(0);
    assert!(contents(&snapshot(&dir.path().join("back/model"))) == source);
    assert!(
        partials(&dir.path().join("back")).is_empty(),
        "the last run removes what those killed have left"
    );
    // A run that removes its sources may be killed at any time: what is gone can be had back.
    for round in 0..6 {
        let _ = fs::remove_dir_all(dir.path().join("out2"));
        alcm(dir.path(), "decompress out -o again -q --force").assert().code(0);
        let mut child = start(dir.path(), "compress again/model -o out2 -q --remove-source");
        std::thread::sleep(Duration::from_micros(random.below(400_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let left = contents(&snapshot(&dir.path().join("again/model")));
        assert!(left.iter().all(|(name, bytes)| *bytes == source[name]), "round {round}");
        if left.len() < source.len() {
            alcm(dir.path(), "decompress out2 -o kept -q --force").assert().code(0);
            assert!(contents(&snapshot(&dir.path().join("kept/model"))) == source, "round {round}");
        }
    }
}

/// A file system of `kib`, where the test may mount one; it is unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(place: &'a Path, kib: u32) -> Option<Self> {
        fs::create_dir_all(place).unwrap();
        let size = format!("size={kib}k");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(place).output();
        output.is_ok_and(|output| output.status.success()).then_some(Self(place))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).output();
    }
}

#[test]
fn full_disk_is_a_clear_error_and_leaves_nothing() {
    let dir = tempdir().unwrap();
    let disk_path = dir.path().join("disk");
    fs::create_dir(dir.path().join("model")).unwrap();
    fs::write(dir.path().join("model/small.bin"), random_bytes(2, 1000)).unwrap();
    fs::write(dir.path().join("model/large.bin"), random_bytes(1, 6 << 20)).unwrap();
    alcm(dir.path(), "compress model -o sound -q").assert().code(0);
    let Some(_disk) = SmallDisk::mount(&disk_path, 3000) else {
        // tests/tree.rs has a limit on file sizes in the place of a full disk.
        eprintln!("skipped: no right to mount a file system");
        return;
    };
    let failed = |args: &str| {
        let output = alcm(dir.path(), args).output().unwrap();
        assert_clear(&output, "large.bin");
        assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{args}");
        assert!(partials(&disk_path).is_empty(), "{args}");
    };
    failed("compress model -o disk/out -q");
    assert!(archives(&disk_path.join("out")).keys().eq(["model/small.bin.alcm"]));
    alcm(dir.path(), "verify disk/out -q").assert().code(0);
    failed("decompress sound -o disk/back -q");
    let back = snapshot(&disk_path.join("back/model"));
    assert!(back.keys().eq(["small.bin"]));
    assert!(back["small.bin"].4 == random_bytes(2, 1000));
    failed("compress model/large.bin -o disk/large.bin.alcm -q");
    failed("decompress sound/model/large.bin.alcm -o disk/large.bin -q");
}

#[test]
fn read_only_folder_is_a_clear_error() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let locked = dir.path().join("locked");
    let Some(_disk) = SmallDisk::mount(&locked, 1000) else {
        // tests/tree.rs tries permission bits, which bind everyone but the superuser.
        eprintln!("skipped: no right to mount a file system");
        return;
    };
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&locked).status().unwrap();
    assert!(remounted.success());
    let before = snapshot(&dir.path().join("model"));
    for out in ["locked", "locked/out"] {
        let output = alcm(dir.path(), &format!("compress model -o {out} -q")).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("locked") && stderr.contains("Read-only file system"), "{stderr}");
    }
    assert!(snapshot(&locked).is_empty());
    assert!(snapshot(&dir.path().join("model")) == before);
}

/// Does something to the source once its first blocks are coded.
struct Meddle<F: Fn() + Sync>(F, AtomicBool);

impl<F: Fn() + Sync> Progress for Meddle<F> {
    fn begin(&self, _total_bytes: u64) {}
    fn file_started(&self, _file_idx: usize, _path: &str, _bytes: u64) {}
    fn advanced(&self, _file_idx: usize, _bytes: u64) {
        if !self.1.swap(true, Ordering::Relaxed) {
            (self.0)();
        }
    }
    fn file_finished(&self, _file_idx: usize) {}
}

#[test]
fn source_that_changes_while_it_is_read_is_an_error() {
    alcm::storage::guard::install().unwrap();
    let dir = tempdir().unwrap();
    let (source, out) = (dir.path().join("f.bin"), dir.path().join("out"));
    let overwrite = || {
        let mut file = fs::File::options().write(true).open(&source).unwrap();
        file.seek(SeekFrom::Start(30 << 20)).unwrap();
        file.write_all(b"meanwhile").unwrap();
    };
    let append = || fs::File::options().append(true).open(&source).unwrap().write_all(b"more").unwrap();
    let cut = || fs::File::options().write(true).open(&source).unwrap().set_len(1000).unwrap();
    let empty = || drop(fs::File::create(&source).unwrap());
    let cases: [(&str, &(dyn Fn() + Sync)); 4] =
        [("overwrite", &overwrite), ("append", &append), ("cut", &cut), ("empty", &empty)];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for (what, change) in cases {
        for remove_source in [false, true] {
            fs::write(&source, random_bytes(1, 40 << 20)).unwrap();
            // An old time, so that a change shows whatever the clock's grain.
            let file = fs::File::options().append(true).open(&source).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
            let progress = Meddle(change, AtomicBool::new(false));
            let ctx =
                Context { pool: &pool, progress: &progress, isa: Isa::detect(), limits: Limits::default() };
            let options = CompressOptions { force: true, remove_source, ..CompressOptions::default() };
            let report = compress_tree(&ctx, std::slice::from_ref(&source), &out, &options).unwrap();
            assert_eq!(report.failures[0].error.kind(), ErrorKind::InvalidInput, "{what}");
            assert!(report.failures[0].error.to_string().contains("changed"), "{what}");
            assert!(source.exists(), "{what}");
            assert!(!out.join("f.bin.alcm").exists(), "{what}");
            let progress = Meddle(change, AtomicBool::new(false));
            let ctx = Context { progress: &progress, ..ctx };
            fs::write(&source, random_bytes(1, 40 << 20)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
            let single = dir.path().join("single.alcm");
            let report = compress_file(&ctx, &source, &single, &options).unwrap();
            assert_eq!(report.failures.len(), 1, "{what}");
            assert!(source.exists() && !single.exists(), "{what}");
            assert!(partials(dir.path()).is_empty(), "{what}");
        }
    }
}

/// Does something to the source once it is planned, before it is opened to be coded.
struct MeddleBefore<F: Fn() + Sync>(F);

impl<F: Fn() + Sync> Progress for MeddleBefore<F> {
    fn begin(&self, _total_bytes: u64) {}
    fn file_started(&self, _file_idx: usize, _path: &str, _bytes: u64) {
        (self.0)();
    }
    fn advanced(&self, _file_idx: usize, _bytes: u64) {}
    fn file_finished(&self, _file_idx: usize) {}
}

#[test]
fn source_that_changes_after_it_was_planned_is_an_error() {
    let dir = tempdir().unwrap();
    let (source, out) = (dir.path().join("m.safetensors"), dir.path().join("m.alcm"));
    let model = |seed| typed_checkpoint(&[("w", "BF16", vec![128, 128], &weights(seed, 128 * 128)[..])]);
    let replace = || {
        let other = dir.path().join("other");
        fs::write(&other, model(2)).unwrap();
        fs::rename(&other, &source).unwrap();
    };
    let overwrite = || fs::write(&source, model(3)).unwrap();
    let cases: [(&str, &(dyn Fn() + Sync)); 2] = [("replaced", &replace), ("overwritten", &overwrite)];
    let layers = [LayerGoal::Bits(4.0), LayerGoal::Exact];
    let settings = [LossySettings::new(Goal::RelL2(0.1)), LossySettings::layered(&layers).unwrap()];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for ((what, change), lossy) in
        cases.iter().flat_map(|case| settings.iter().map(move |lossy| (case, lossy)))
    {
        fs::write(&source, model(1)).unwrap();
        let file = fs::File::options().append(true).open(&source).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        let progress = MeddleBefore(change);
        let ctx = Context { pool: &pool, progress: &progress, isa: Isa::detect(), limits: Limits::default() };
        let options = CompressOptions { lossy: Some(lossy.clone()), ..CompressOptions::default() };
        let report = compress_file(&ctx, &source, &out, &options).unwrap();
        assert!(report.failures[0].error.to_string().contains("changed"), "{what}");
        assert!(source.exists() && !out.exists(), "{what}");
    }
}

#[test]
fn malformed_checkpoints_are_clear_errors_within_bounded_memory() {
    let dir = tempdir().unwrap();
    let claim = |len: u64| [&len.to_le_bytes()[..], b"{}"].concat();
    let one = |text: &str, len| safetensors(text, len);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("overlaps", one(&format!("{{{},{}}}", entry("a", 0, 8), entry("b", 4, 12)), 12)),
        ("gap", one(&format!("{{{},{}}}", entry("a", 0, 4), entry("b", 8, 12)), 12)),
        ("twice", one(&format!("{{{},{}}}", entry("a", 0, 8), entry("a", 8, 16)), 16)),
        ("cut short", one(&format!("{{{}}}", entry("a", 0, 1 << 40)), 16)),
        ("overflows", one(&format!("{{{}}}", entry("a", 0, u64::MAX - 7)), 16)),
        ("cut short", one(&format!("{{{}}}", entry("a", 0, 1 << 59)), 16)),
        ("reversed", one("{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[8,0]}}", 8)),
        (
            "not valid",
            one("{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,18446744073709551616]}}", 8),
        ),
        ("control character", one(&format!("{{{}}}", entry("a\\u0000b", 0, 8)), 8)),
        ("control character", one(&format!("{{{}}}", entry("a\\nb", 0, 8)), 8)),
        ("not valid", one(&"[".repeat(100_000), 0)),
        ("header", claim(100 << 20)),
        ("header", claim(u64::MAX)),
        ("header", claim(1 << 63)),
    ];
    for (words, file) in cases {
        fs::write(dir.path().join("m.safetensors"), &file).unwrap();
        let output = within_bound(dir.path(), "compress m.safetensors -o out.alcm -q");
        assert_clear(&output, words);
        assert!(String::from_utf8_lossy(&output.stderr).contains("m.safetensors"), "{words}");
        assert!(fs::read(dir.path().join("m.safetensors")).unwrap() == file, "{words}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{words}: something was left");
        // A pipe cannot be refused by its header: it is kept as plain bytes.
        let packed = alcm(dir.path(), "compress - -o - -q").write_stdin(file.clone()).assert().code(0);
        let packed = packed.get_output().stdout.clone();
        let back = alcm(dir.path(), "decompress - -o - -q").write_stdin(packed).assert().code(0);
        assert!(back.get_output().stdout == file, "{words}");
    }
}

#[test]
fn hundred_megabytes_of_header_are_refused_and_kept_as_bytes() {
    let dir = tempdir().unwrap();
    let mut json = String::from("{");
    for idx in 0..1_200_000 {
        let comma = if idx == 0 { "" } else { "," };
        json += &format!("{comma}{}", entry(&format!("layers.{idx:07}.a.rather.long.name"), idx, idx + 1));
    }
    json.push('}');
    assert!(json.len() > 100 << 20);
    let file = safetensors(&json, 1_200_000);
    fs::write(dir.path().join("m.safetensors"), &file).unwrap();
    assert_clear(&within_bound(dir.path(), "compress m.safetensors -o out.alcm -q"), "header");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let kept = within_bound(dir.path(), "compress m.safetensors -o out.alcm -q --as-bytes --level fast");
    assert_eq!(kept.status.code(), Some(0), "{}", String::from_utf8_lossy(&kept.stderr));
    let back = within_bound(dir.path(), "decompress out.alcm -o back -q");
    assert_eq!(back.status.code(), Some(0), "{}", String::from_utf8_lossy(&back.stderr));
    assert!(fs::read(dir.path().join("back")).unwrap() == file);
}

/// Names of tensors are labels, not paths: whatever they say, only `-o` is written.
#[test]
fn tensors_named_like_paths_write_nothing_there() {
    let dir = tempdir().unwrap();
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    let absolute = dir.path().join("absolute").to_str().unwrap().to_owned();
    let names = ["../outside", "/outside", "a/../../outside", "..", absolute.as_str()];
    let tensors: Vec<(&str, Vec<u8>)> =
        (0..).zip(names).map(|(seed, name)| (name, weights(seed, 100))).collect();
    let borrowed: Vec<(&str, &[u8])> = tensors.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    fs::write(work.join("m.safetensors"), checkpoint(&borrowed)).unwrap();
    alcm(&work, "compress m.safetensors -o m.alcm -q").assert().code(0);
    alcm(&work, "inspect m.alcm").assert().code(0);
    for (name, bytes) in &tensors {
        alcm(&work, &format!("extract m.alcm --tensor {name} -o t.bin -q --force")).assert().code(0);
        assert!(fs::read(work.join("t.bin")).unwrap() == *bytes, "{name}");
    }
    assert!(snapshot(dir.path()).keys().eq(["work", "work/m.alcm", "work/m.safetensors", "work/t.bin"]));
}

/// An archive's bytes with one number of its footer replaced, its CRC put right.
fn with_footer_number(archive: &[u8], at: usize, number: u64) -> Vec<u8> {
    let mut bytes = archive.to_vec();
    let footer = bytes.len() - 128;
    bytes[footer + at..footer + at + 8].copy_from_slice(&number.to_le_bytes());
    let crc = alcm::container::crc64(&bytes[footer..footer + 120]);
    bytes[footer + 120..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn hostile_claims_of_archives_cost_no_memory() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("f.safetensors"), checkpoint(&[("t", &weights(1, 70_000))])).unwrap();
    alcm(dir.path(), "compress f.safetensors -o f.alcm -q").assert().code(0);
    let sound = fs::read(dir.path().join("f.alcm")).unwrap();
    let mut hostile = Vec::new();
    for at in (8..48).step_by(8) {
        for number in [0, 1, 1 << 26, (1 << 26) + 1, 1 << 32, 1 << 62, u64::MAX] {
            hostile.push(with_footer_number(&sound, at, number));
        }
    }
    // Block sizes of a record, which a stream meets first.
    for (at, size) in [(8, 4 << 20), (8, u32::MAX), (12, 4 << 20), (12, u32::MAX)] {
        let mut bytes = sound.clone();
        bytes[32 + at..32 + at + 4].copy_from_slice(&size.to_le_bytes());
        hostile.push(bytes);
    }
    for bytes in hostile.iter().filter(|bytes| **bytes != sound) {
        fs::write(dir.path().join("h.alcm"), bytes).unwrap();
        for args in ["verify h.alcm", "decompress h.alcm -o back", "decompress - -o - <h.alcm >/dev/null"] {
            let output = within_bound(dir.path(), args);
            assert_clear(&output, "");
            assert!(!dir.path().join("back").exists());
        }
    }
}

/// A manifest that claims files of exabytes must not be believed before their archives agree.
#[test]
fn hostile_claims_of_manifests_cost_no_memory() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    alcm(dir.path(), "compress model -o out -q").assert().code(0);
    let before = snapshot(&dir.path().join("model"));
    let text = fs::read_to_string(dir.path().join("out/alcm-manifest.json")).unwrap();
    let entries = text.split_once("\"entries\":").unwrap().1.strip_suffix('}').unwrap();
    let size = entries.split_once("\"size\":").unwrap().1.split_once(',').unwrap().0;
    let write = |entries: &str| {
        let digest = blake3::hash(entries.as_bytes()).to_hex();
        let text = format!("{{\"alcm_manifest\":1,\"blake3\":\"{digest}\",\"entries\":{entries}}}");
        fs::write(dir.path().join("out/alcm-manifest.json"), text).unwrap();
    };
    for claim in [0, 1 << 40, u64::MAX] {
        write(&entries.replacen(&format!("\"size\":{size}"), &format!("\"size\":{claim}"), 1));
        for args in ["verify out -q", "decompress out -o back -q"] {
            assert_clear(&within_bound(dir.path(), args), "");
        }
        let _ = fs::remove_dir_all(dir.path().join("back"));
    }
    // Nested as deep as the parser may be led, and larger than the limit.
    write(&format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20)));
    assert_clear(&within_bound(dir.path(), "verify out -q"), "manifest");
    fs::write(dir.path().join("out/alcm-manifest.json"), vec![b' '; (64 << 20) + 1]).unwrap();
    assert_clear(&within_bound(dir.path(), "verify out -q"), "manifest has more than");
    assert!(snapshot(&dir.path().join("model")) == before);
}

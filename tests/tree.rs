//! Trees come back byte for byte; what cannot is refused; nothing is lost to kills, bad files or hostile manifests.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use alcm::kernels::Isa;
use alcm::pipeline::compress::compress_tree;
use alcm::pipeline::context::Context;
use alcm::pipeline::progress::Progress;
use alcm::pipeline::settings::CompressOptions;
use alcm::{ErrorKind, Limits};
use common::{alcm, checkpoint, make_tree, partials, random_bytes, snapshot, weights};
use tempfile::tempdir;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Modes, times and links on top of [`make_tree`].
fn make_odd_tree(root: &Path) {
    make_tree(root);
    let model = root.join("model");
    symlink("a.safetensors", model.join("link")).unwrap();
    symlink("../config.json", model.join("deep/up")).unwrap();
    symlink("not/there", model.join("dangling")).unwrap();
    set_mode(&model.join("config.json"), 0o640);
    set_mode(&model.join("nothing"), 0o444);
    for (name, nanos) in [("config.json", 1_000_000_007_u64), ("deep/er/noise.bin", 987_654_321_123_456_789)]
    {
        let file = fs::File::options().append(true).open(model.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_nanos(nanos)).unwrap();
    }
    set_mode(&model.join("empty"), 0o555);
    for dir in ["deep", ""] {
        fs::File::open(model.join(dir)).unwrap().set_modified(UNIX_EPOCH + Duration::new(77, 5)).unwrap();
    }
}

#[test]
fn tree_comes_back_byte_for_byte() {
    let dir = tempdir().unwrap();
    let source = dir.path().join("src");
    fs::create_dir(&source).unwrap();
    make_odd_tree(&source);
    let before = snapshot(&source);
    alcm(dir.path(), "compress src/model -o out -q --verify --sha256").assert().code(0);
    alcm(dir.path(), "verify out -q").assert().code(0);
    alcm(dir.path(), "decompress out -o back -q").assert().code(0);
    assert_eq!(
        snapshot(&dir.path().join("back")).keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    assert!(snapshot(&dir.path().join("back")) == before);
    assert!(snapshot(&source) == before, "the source is untouched");
    assert!(partials(dir.path()).is_empty());
    // A second time over what is there, links included.
    alcm(dir.path(), "decompress out -o back -q --force").assert().code(0);
    assert!(snapshot(&dir.path().join("back")) == before);
}

#[test]
fn output_does_not_depend_on_threads_or_isa() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let outputs: Vec<_> = ["--threads 1", "--threads 2", "--threads 8", "--deterministic", "--isa scalar"]
        .into_iter()
        .enumerate()
        .map(|(idx, flags)| {
            alcm(dir.path(), &format!("compress model -o out{idx} -q {flags}")).assert().code(0);
            let contents = snapshot(&dir.path().join(format!("out{idx}")));
            contents.into_iter().map(|(name, entry)| (name, entry.4)).collect::<Vec<_>>()
        })
        .collect();
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
    for threads in [1, 2, 8] {
        alcm(dir.path(), &format!("decompress out0 -o back{threads} -q --threads {threads}"))
            .assert()
            .code(0);
        let back = dir.path().join(format!("back{threads}/model"));
        assert!(snapshot(&back) == snapshot(&dir.path().join("model")));
    }
}

#[test]
fn numbers_in_files_of_other_formats_are_coded_as_such() {
    let dir = tempdir().unwrap();
    let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len() as f64;
    // Numbers that begin at an odd offset, and some more of them elsewhere behind text.
    let text = b"PK\x03\x04 archive/data.pkl: ".repeat(9000);
    let bytes = [&text[..701], &weights(31, 600_000), &text, &weights(32, 900_000), &text[..777]].concat();
    for name in ["model.pt", "model.safetensors.index", "MODEL"] {
        fs::write(dir.path().join(name), &bytes).unwrap();
        alcm(dir.path(), &format!("compress {name} -o out.alcm -q --force --verify")).assert().code(0);
        let numbers = size("out.alcm");
        alcm(dir.path(), "decompress out.alcm -o back -q --force").assert().code(0);
        assert!(fs::read(dir.path().join("back")).unwrap() == bytes, "{name}");
        for flags in ["--threads 1", "--deterministic", "--isa scalar"] {
            alcm(dir.path(), &format!("compress {name} -o again.alcm -q --force {flags}")).assert().code(0);
            let again = fs::read(dir.path().join("again.alcm")).unwrap();
            assert!(again == fs::read(dir.path().join("out.alcm")).unwrap(), "{name} {flags}");
        }
        alcm(dir.path(), &format!("compress {name} -o plain.alcm -q --force --as-bytes=all"))
            .assert()
            .code(0);
        alcm(dir.path(), "decompress plain.alcm -o back -q --force").assert().code(0);
        assert!(fs::read(dir.path().join("back")).unwrap() == bytes, "{name}");
        assert!(numbers < 0.9 * size("plain.alcm"), "{name}: {numbers} of {}", size("plain.alcm"));
        let packed = alcm(dir.path(), "compress - -o - -q").write_stdin(bytes.clone()).assert().code(0);
        let packed = packed.get_output().stdout.clone();
        assert!(packed.len() as f64 <= 1.05 * numbers, "{name}: {} of {numbers}", packed.len());
        let back = alcm(dir.path(), "decompress - -o - -q").write_stdin(packed).assert().code(0);
        assert!(back.get_output().stdout == bytes, "{name}");
    }
}

#[test]
fn what_cannot_be_kept_fails_alone() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let model = dir.path().join("model");
    symlink("../../etc/passwd", model.join("escape")).unwrap();
    symlink("/etc/passwd", model.join("absolute")).unwrap();
    fs::write(model.join("new\nline"), b"x").unwrap();
    fs::write(model.join("broken.safetensors"), b"garbage that is no header").unwrap();
    let mut cut = checkpoint(&[("t", &weights(9, 5000))]);
    cut.truncate(cut.len() - 1);
    fs::write(model.join("cut.safetensors"), cut).unwrap();
    let assert = alcm(dir.path(), "compress model -o out -q").assert().code(1);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_eq!(stderr.lines().count(), 5, "{stderr}");
    assert!(stderr.contains("--as-bytes"), "{stderr}");
    assert!(stderr.contains("new\\nline"), "{stderr}");

    let assert = alcm(dir.path(), "decompress out -o back").assert().code(0);
    let table = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    assert!(table.contains("5 of the source never compressed"), "{table}");
    let back = snapshot(&dir.path().join("back/model"));
    let mut expected = snapshot(&model);
    for name in ["escape", "absolute", "new\nline", "broken.safetensors", "cut.safetensors"] {
        expected.remove(name).unwrap();
    }
    assert!(back == expected);

    for name in ["escape", "absolute", "new\nline"] {
        fs::remove_file(model.join(name)).unwrap();
    }
    alcm(dir.path(), "compress model -o out2 -q --as-bytes").assert().code(0);
    alcm(dir.path(), "decompress out2 -o back2 -q").assert().code(0);
    let bytes = fs::read(dir.path().join("back2/model/cut.safetensors")).unwrap();
    assert!(bytes == fs::read(model.join("cut.safetensors")).unwrap());
}

#[test]
fn damaged_archives_fail_alone() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    alcm(dir.path(), "compress model -o out -q").assert().code(0);
    let archive = dir.path().join("out/model/deep/er/noise.bin.alcm");
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, &bytes).unwrap();
    fs::remove_file(dir.path().join("out/model/config.json.alcm")).unwrap();
    let assert = alcm(dir.path(), "verify out -q").assert().code(1);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    alcm(dir.path(), "decompress out -o back -q").assert().code(1);
    let mut expected = snapshot(&dir.path().join("model"));
    expected.remove("deep/er/noise.bin").unwrap();
    expected.remove("config.json").unwrap();
    assert!(snapshot(&dir.path().join("back/model")) == expected);
    assert!(partials(dir.path()).is_empty());
}

/// A manifest around `entries` with the right hash.
fn write_manifest(out: &Path, entries: &str) {
    let digest = blake3::hash(entries.as_bytes()).to_hex();
    let text = format!("{{\"alcm_manifest\":1,\"blake3\":\"{digest}\",\"entries\":{entries}}}");
    fs::write(out.join("alcm-manifest.json"), text).unwrap();
}

#[test]
fn hostile_manifests_write_nothing_outside() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("f.txt"), b"hello").unwrap();
    alcm(dir.path(), "compress f.txt -o out -q").assert().code(0);
    let out = dir.path().join("out");
    let text = fs::read_to_string(out.join("alcm-manifest.json")).unwrap();
    let entries = text.split_once("\"entries\":").unwrap().1.strip_suffix('}').unwrap();
    write_manifest(&out, entries);
    alcm(dir.path(), "verify out -q").assert().code(0);
    let before = snapshot(dir.path());
    let absolute = dir.path().join("evil");
    let paths = [
        "../evil",
        "a/../../evil",
        absolute.to_str().unwrap(),
        "a/./b",
        "a\\u0000b",
        "a\\nb",
        "..",
        "",
        "a\\\\b",
    ];
    for path in paths {
        write_manifest(&out, &entries.replace("\"path\":\"f.txt\"", &format!("\"path\":\"{path}\"")));
        alcm(dir.path(), "decompress out -o back -q").assert().code(1);
    }
    let link = "\"links\":[{\"path\":\"r/l\",\"target\":\"../..\"}]";
    write_manifest(&out, &entries.replace("\"links\":[]", link));
    alcm(dir.path(), "decompress out -o back -q").assert().code(1);
    let below_link = entries
        .replace("\"links\":[]", "\"links\":[{\"path\":\"r/l\",\"target\":\"d\"}]")
        .replace("\"path\":\"f.txt\"", "\"path\":\"r/l/f.txt\"");
    write_manifest(&out, &below_link);
    alcm(dir.path(), "decompress out -o back -q").assert().code(1);
    write_manifest(&out, &entries.replace("\"size\":5", "\"size\":6"));
    alcm(dir.path(), "decompress out -o sized -q").assert().code(1);
    assert!(!dir.path().join("sized/f.txt").exists());
    fs::remove_dir(dir.path().join("sized")).unwrap();
    write_manifest(&out, entries);
    let mut after = snapshot(dir.path());
    let mut before = before;
    for name in ["out/alcm-manifest.json", "out"] {
        before.remove(name);
        after.remove(name);
    }
    assert!(after == before);
}

#[test]
fn planted_links_are_not_written_through() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    alcm(dir.path(), "compress model -o out -q").assert().code(0);
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir_all(dir.path().join("back/model")).unwrap();
    fs::write(elsewhere.join("target"), b"precious").unwrap();
    symlink(&elsewhere, dir.path().join("back/model/deep")).unwrap();
    symlink(elsewhere.join("target"), dir.path().join("back/model/config.json")).unwrap();
    alcm(dir.path(), "decompress out -o back -q --force").assert().code(1);
    assert_eq!(snapshot(&elsewhere).len(), 1);
    assert_eq!(fs::read(elsewhere.join("target")).unwrap(), b"precious");
    fs::create_dir(dir.path().join("out2")).unwrap();
    symlink(&elsewhere, dir.path().join("out2/model")).unwrap();
    alcm(dir.path(), "compress model -o out2 -q --force").assert().code(1);
    assert_eq!(snapshot(&elsewhere).len(), 1);
}

#[test]
fn killed_runs_resume() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    for idx in 0..6 {
        let bytes = checkpoint(&[("t", &weights(100 + idx, 1_000_000))]);
        fs::write(dir.path().join(format!("model/shard{idx}.safetensors")), bytes).unwrap();
    }
    alcm(dir.path(), "compress model -o whole -q").assert().code(0);
    let contents = |out: &str| -> Vec<_> {
        let found = snapshot(&dir.path().join(out));
        found
            .into_iter()
            .filter(|(name, _)| !name.ends_with(".json"))
            .map(|(name, entry)| (name, entry.4))
            .collect()
    };
    for millis in [0, 3, 8, 15, 25, 40, 80] {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("alcm"))
            .args(["compress", "model", "-o", "out", "-q", "--resume"])
            .current_dir(dir.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever has its final name is whole.
        if dir.path().join("out").exists() {
            for name in snapshot(&dir.path().join("out")).into_keys().filter(|name| name.ends_with(".alcm")) {
                assert!(
                    fs::read(dir.path().join("out").join(&name)).unwrap()
                        == fs::read(dir.path().join("whole").join(&name)).unwrap()
                );
            }
        }
    }
    alcm(dir.path(), "compress model -o out -q --resume").assert().code(0);
    assert!(contents("out") == contents("whole"));
    assert!(partials(dir.path()).is_empty());
    let assert = alcm(dir.path(), "compress model -o out --resume --json").assert().code(0);
    let report: serde_json::Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(report["resumed_files"], 13);
}

#[test]
fn resume_trusts_nothing_by_name() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    alcm(dir.path(), "compress model -o out -q").assert().code(0);
    let resumed = |flags: &str| {
        let assert =
            alcm(dir.path(), &format!("compress model -o out --resume --json {flags}")).assert().code(0);
        let report: serde_json::Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
        report["resumed_files"].as_u64().unwrap()
    };
    assert_eq!(resumed(""), 7);
    fs::write(dir.path().join("model/config.json"), b"{\"hidden\":385}\n".repeat(20)).unwrap();
    assert_eq!(resumed(""), 6, "changed source");
    let archive = dir.path().join("out/model/deep/er/noise.bin.alcm");
    let mut bytes = fs::read(&archive).unwrap();
    bytes[100_000] ^= 4;
    fs::write(&archive, &bytes).unwrap();
    assert_eq!(resumed(""), 6, "damaged archive");
    assert_eq!(resumed("--level fast"), 0, "other settings");
    assert_eq!(resumed("--level fast --sha256"), 0, "other hashes");
    assert!(resumed("--level fast --sha256 --no-dedup") < 7, "other references");
    alcm(dir.path(), "verify out -q").assert().code(0);
}

#[test]
fn sources_are_removed_only_after_a_whole_run() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let before = snapshot(&dir.path().join("model"));
    fs::write(dir.path().join("model/broken.safetensors"), b"garbage that is no header").unwrap();
    alcm(dir.path(), "compress model -o out -q --remove-source").assert().code(1);
    assert!(dir.path().join("model/config.json").exists());
    fs::remove_file(dir.path().join("model/broken.safetensors")).unwrap();
    alcm(dir.path(), "compress model -o out -q --remove-source --force").assert().code(0);
    assert!(
        snapshot(dir.path()).iter().all(|(name, entry)| !name.starts_with("model/") || entry.0 != "file")
    );
    alcm(dir.path(), "decompress out -o back -q").assert().code(0);
    let contents = |tree: &std::collections::BTreeMap<String, common::Entry>| {
        tree.iter().map(|(name, entry)| (name.clone(), entry.4.clone())).collect::<Vec<_>>()
    };
    assert!(contents(&snapshot(&dir.path().join("back/model"))) == contents(&before));
}

#[test]
fn unwritable_output_is_a_clear_error() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    // A file where a folder is needed refuses even the superuser, whom permission bits do not.
    fs::write(dir.path().join("out"), b"in the way").unwrap();
    let assert = alcm(dir.path(), "compress model -o out -q").assert().code(1);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(stderr.starts_with("alcm: error: out"), "{stderr}");
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    set_mode(&locked, 0o555);
    if fs::write(locked.join("probe"), b"").is_err() {
        alcm(dir.path(), "compress model -o locked -q").assert().code(1);
        assert!(snapshot(&locked).is_empty());
    }
    set_mode(&locked, 0o755);
}

/// A limit on file sizes stands for a full disk: the write fails midway.
#[test]
fn failed_writes_leave_nothing() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("f.bin"), random_bytes(1, 8 << 20)).unwrap();
    fs::write(dir.path().join("small.bin"), random_bytes(2, 1000)).unwrap();
    let binary = assert_cmd::cargo::cargo_bin!("alcm");
    let script =
        format!("trap '' XFSZ; ulimit -f 1024; exec {} compress f.bin small.bin -o out -q", binary.display());
    let output = Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("out/f.bin.alcm"), "{stderr}");
    assert!(!dir.path().join("out/f.bin.alcm").exists());
    assert!(partials(dir.path()).is_empty());
    alcm(dir.path(), "verify out -q").assert().code(0);
    alcm(dir.path(), "compress f.bin small.bin -o out -q --resume").assert().code(0);
    alcm(dir.path(), "verify out -q").assert().code(0);
}

/// Cuts the source short as soon as its first blocks are written.
struct Shrink<'a>(&'a Path);

impl Progress for Shrink<'_> {
    fn begin(&self, _total_bytes: u64) {}
    fn file_started(&self, _file_idx: usize, _path: &str, _bytes: u64) {}
    fn advanced(&self, _file_idx: usize, _bytes: u64) {
        fs::File::options().write(true).open(self.0).unwrap().set_len(1000).unwrap();
    }
    fn file_finished(&self, _file_idx: usize) {}
}

#[test]
fn source_that_shrinks_while_it_is_read_is_an_error() {
    alcm::storage::guard::install().unwrap();
    let dir = tempdir().unwrap();
    let (source, out) = (dir.path().join("f.bin"), dir.path().join("out"));
    for threads in [1, 2] {
        fs::write(&source, random_bytes(1, 40 << 20)).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let progress = Shrink(&source);
        let ctx = Context { pool: &pool, progress: &progress, isa: Isa::detect(), limits: Limits::default() };
        let options = CompressOptions { force: true, ..CompressOptions::default() };
        let report = compress_tree(&ctx, std::slice::from_ref(&source), &out, &options).unwrap();
        assert_eq!(report.failures.len(), 1);
        let error = &report.failures[0].error;
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("changed while it was read"), "{error}");
        assert!(!out.join("f.bin.alcm").exists());
        assert!(partials(dir.path()).is_empty());
    }
}

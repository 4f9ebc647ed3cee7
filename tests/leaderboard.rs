//! The leaderboard: what holds is entered, what does not is refused with its reason, and an entry that was changed is
//! found. Submissions are strangers' data: their paths, sizes and words do no harm.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use alcm::lab::synthetic::gradients;
use base64::Engine as _;
use common::alcm;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};

const FILES: [&str; 2] = ["requests.log", "sensors.dat"];
const DATE: &str = "2026-11-23";

fn bundles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bundles")
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A folder with a good submission of mixed_stream, one file beside it and one within.
fn folder() -> (TempDir, Value) {
    let dir = tempdir().unwrap();
    let originals = FILES.map(|name| fs::read(bundles().join("mixed_stream").join(name)).unwrap());
    let made = originals.each_ref().map(|bytes| zstd::bulk::compress(bytes, 19).unwrap());
    fs::write(dir.path().join("requests.zst"), &made[0]).unwrap();
    let ratio = (0..2).map(|idx| originals[idx].len() as f64 / made[idx].len() as f64).sum::<f64>() / 2.0;
    let run = json!({"ratio": ratio, "cpu_seconds": 0.25, "energy_joules": 2.0});
    let submission = json!({
        "submitter": "Jané Doe, Institute of X", "date": DATE, "dataset": "mixed_stream",
        "codec": "zstd -19", "version": "1.5.7", "ratio": ratio, "cpu_seconds": 0.25, "runs": [run, run, run],
        "variance": 0.0, "caq": ratio / 1.25, "energy_joules": 2.0, "notes": "none",
        "device_info": {"cpu_model": "a cpu", "cores": 2, "threads": 4, "base_freq_mhz": 2450.5},
        "files": [
            {"name": "requests.log", "decoder": "zstd", "path": "requests.zst"},
            {"name": "sensors.dat", "decoder": "zstd", "base64": base64(&made[1])},
        ],
    });
    (dir, submission)
}

fn run(dir: &TempDir, command: &str, code: i32) -> String {
    let words = format!("lab leaderboard {command} --board board");
    let mut words = alcm(dir.path(), &words);
    if !command.starts_with("render") {
        words.arg("--dir").arg(bundles());
    }
    let output = words.assert().code(code).get_output().clone();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn submit(dir: &TempDir, submission: &Value, code: i32) -> String {
    fs::write(dir.path().join("s.json"), submission.to_string()).unwrap();
    run(dir, "submit s.json", code)
}

fn entries(dir: &TempDir) -> Vec<PathBuf> {
    let Ok(items) = fs::read_dir(dir.path().join("board")) else { return Vec::new() };
    let paths = items.map(|item| item.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

#[test]
fn what_holds_is_entered_once_with_computed_numbers() {
    let (dir, mut submission) = folder();
    // Within the tolerance, and not what is entered.
    let ratio = submission["ratio"].as_f64().unwrap();
    submission["ratio"] = json!(ratio * 1.01);
    submit(&dir, &submission, 0);
    let paths = entries(&dir);
    assert_eq!(paths.len(), 1);
    let entry: Value = serde_json::from_slice(&fs::read(&paths[0]).unwrap()).unwrap();
    assert!((entry["ratio"].as_f64().unwrap() - ratio).abs() < 1e-8);
    assert!((entry["caq"].as_f64().unwrap() - ratio / 1.25).abs() < 1e-8);
    assert_eq!(entry["is_exact"], true);
    assert_eq!(entry["is_baseline"], false);
    assert_eq!(entry["device_info"]["base_freq_mhz"], 2450.5);
    let error = submit(&dir, &submission, 1);
    assert!(error.contains("a duplicate"), "{error}");
    // Neither another submitter nor another number makes it a new one.
    submission["submitter"] = json!("another");
    assert!(submit(&dir, &submission, 1).contains("a duplicate"));
    assert_eq!(entries(&dir).len(), 1);
}

#[test]
fn what_does_not_hold_is_refused_with_its_reason() {
    type Edit = fn(&mut Value);
    let cases: &[(&str, Edit)] = &[
        ("the ratio 5.63 is stated", |s| s["ratio"] = json!(5.63)),
        ("a run's ratio", |s| (0..3).for_each(|run| s["runs"][run]["ratio"] = json!(5.63))),
        ("caq 4.85 is stated", |s| s["caq"] = json!(4.85)),
        ("cpu_seconds 0.005 is stated", |s| s["cpu_seconds"] = json!(0.005)),
        ("energy_joules 3 is stated", |s| s["energy_joules"] = json!(3.0)),
        ("the runs have 4.0", |s| {
            let ratio = s["ratio"].as_f64().unwrap();
            s["runs"][0]["ratio"] = json!(ratio * 0.98);
            s["runs"][1]["ratio"] = json!(ratio * 1.02);
        }),
        ("\"variance\" breaks the rule \"maximum\"", |s| s["variance"] = json!(4.37)),
        ("variance 1.2 % is stated, the runs have 0.0", |s| s["variance"] = json!(1.2)),
        ("\"dataset\" breaks the rule \"enum\"", |s| s["dataset"] = json!("imagenet")),
        ("minItems", |s| drop(s["runs"].as_array_mut().unwrap().pop())),
        ("is no date", |s| s["date"] = json!("2026-02-29")),
        ("is no date", |s| s["date"] = json!("23/11/2026")),
        ("has no \"version\"", |s| drop(s.as_object_mut().unwrap().remove("version"))),
        ("unknown property \"command\"", |s| s["command"] = json!("rm -r /")),
        ("unknown property \"caq_e\"", |s| s["runs"][0]["caq_e"] = json!(1)),
        ("is not one line of words", |s| s["submitter"] = json!("<script>alert(1)</script>")),
        ("is not one line of words", |s| s["submitter"] = json!("a\u{1b}[31mred")),
        ("is not one line of words", |s| s["codec"] = json!("zstd | 9.9")),
        ("is not one line of words", |s| s["version"] = json!("\u{202e}1")),
        ("is not one line of words", |s| s["notes"] = json!("[x](http://y)")),
        ("is not one line of words", |s| s["device_info"]["cpu_model"] = json!("\"")),
        ("stands for this program", |s| s["submitter"] = json!("Baseline")),
        ("is no plain file name", |s| s["files"][0]["path"] = json!("../requests.zst")),
        ("is no plain file name", |s| s["files"][0]["path"] = json!("/etc/hostname")),
        ("not a regular file", |s| s["files"][0]["path"] = json!("link")),
        ("cannot read", |s| s["files"][0]["path"] = json!("absent")),
        ("oneOf", |s| s["files"][0]["base64"] = json!("AAAA")),
        ("1 files for the 2", |s| drop(s["files"].as_array_mut().unwrap().pop())),
        ("is not there once", |s| s["files"][1]["name"] = json!("requests.log")),
        ("does not decode as gzip", |s| s["files"][0]["decoder"] = json!("gzip")),
        ("does not decode as alcm", |s| s["files"][0]["decoder"] = json!("alcm")),
        ("does not decode as alcm-tensor", |s| s["files"][0]["decoder"] = json!("alcm-tensor")),
        ("does not decode as npz", |s| s["files"][0]["decoder"] = json!("npz")),
        ("does not decode as xz", |s| s["files"][0]["decoder"] = json!("xz")),
        ("does not decode as bzip2", |s| s["files"][0]["decoder"] = json!("bzip2")),
        ("decodes to other bytes", |s| s["files"][0]["decoder"] = json!("uncompressed")),
        ("\"decoder\" breaks", |s| s["files"][0]["decoder"] = json!("sh")),
        ("is no base64", |s| s["files"][1]["base64"] = json!("####")),
        ("loss is allowed on", |s| s["relative_l2"] = json!(0.1)),
    ];
    let (dir, good) = folder();
    std::os::unix::fs::symlink("requests.zst", dir.path().join("link")).unwrap();
    for (message, edit) in cases {
        let mut submission = good.clone();
        edit(&mut submission);
        let error = submit(&dir, &submission, 1);
        assert!(error.contains(message) && error.contains("s.json"), "{message:?} is not in {error}");
        assert!(!error.contains('\u{1b}') && !error.contains('\u{202e}'));
    }
    let twice = good.to_string().replacen("\"caq\":", "\"caq\":9,\"caq\":", 1);
    fs::write(dir.path().join("s.json"), twice).unwrap();
    assert!(run(&dir, "submit s.json", 1).contains("duplicate field"));
    assert!(entries(&dir).is_empty());
    submit(&dir, &good, 0);
}

#[test]
fn sizes_have_limits() {
    let (dir, good) = folder();
    let with = |decoder: &str, bytes: &[u8]| {
        fs::write(dir.path().join("bomb"), bytes).unwrap();
        let mut submission = good.clone();
        submission["files"][0] = json!({"name": "requests.log", "decoder": decoder, "path": "bomb"});
        submission
    };
    // 64 MiB of zeros each.
    let zeros = vec![0; 64 << 20];
    let gzip = || {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&zeros).unwrap();
        encoder.finish().unwrap()
    };
    fs::write(dir.path().join("zeros"), &zeros).unwrap();
    alcm(dir.path(), "compress zeros -o zeros.alcm -q").assert().code(0);
    let archive = fs::read(dir.path().join("zeros.alcm")).unwrap();
    for (decoder, bytes) in
        [("gzip", gzip()), ("zstd", zstd::bulk::compress(&zeros, 3).unwrap()), ("alcm", archive)]
    {
        assert!(bytes.len() < 80_000, "{decoder}: {} bytes are refused as too many", bytes.len());
        let error = submit(&dir, &with(decoder, &bytes), 1);
        assert!(error.contains("requests.log: "), "{error}");
        assert!(error.contains("decode"), "{error}");
    }
    let error = submit(&dir, &with("gzip", &zeros[..200_000]), 1);
    assert!(error.contains("which is the limit"), "{error}");
    let mut submission = good.clone();
    submission["files"][0] =
        json!({"name": "requests.log", "decoder": "gzip", "base64": "A".repeat(200_000)});
    assert!(submit(&dir, &submission, 1).contains("which is the limit"));
    fs::write(dir.path().join("s.json"), " ".repeat(5 << 20)).unwrap();
    assert!(run(&dir, "submit s.json", 1).contains("which is the limit"));
    fs::write(dir.path().join("s.json"), "[".repeat(100_000)).unwrap();
    assert!(run(&dir, "submit s.json", 1).contains("no JSON"));
    assert!(entries(&dir).is_empty());
}

#[test]
fn lossy_entries_state_an_error_and_meet_it() {
    let dir = tempdir().unwrap();
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (mut files, mut ratio) = (Vec::new(), 0.0);
    for epoch in 1..=10 {
        // Sixteen bits of each element are cut off: an error of about 2 in 1000.
        let cut = |x: f32| (x.to_bits() & 0xffff_0000).to_le_bytes();
        let made = gzip(&gradients(epoch).into_iter().flat_map(cut).collect::<Vec<u8>>());
        ratio += 40_000.0 / made.len() as f64 / 10.0;
        files.push(json!({"name": format!("epoch_{epoch:02}"), "decoder": "gzip", "base64": base64(&made)}));
    }
    let run_of = json!({"ratio": ratio, "cpu_seconds": 0.001});
    let mut submission = json!({
        "submitter": "s", "date": DATE, "dataset": "synthetic_gradients", "codec": "cut", "version": "1",
        "ratio": ratio, "cpu_seconds": 0.001, "runs": [run_of, run_of, run_of], "variance": 0, "caq": ratio / 1.001,
        "files": files,
    });
    assert!(submit(&dir, &submission, 1).contains("decodes to other bytes"), "no error is stated");
    submission["relative_l2"] = json!(1e-4);
    assert!(submit(&dir, &submission, 1).contains("its relative L2 error is"));
    submission["relative_l2"] = json!(0.01);
    submit(&dir, &submission, 0);
    let text = run(&dir, "render", 0);
    let adaptive = text.split_once("Adaptive").unwrap().1;
    assert!(adaptive.contains("cut") && !text.split_once("Adaptive").unwrap().0.contains("cut"), "{text}");
}

#[test]
fn an_entry_that_was_changed_is_named() {
    let (dir, submission) = folder();
    submit(&dir, &submission, 0);
    let path = entries(&dir).remove(0);
    let text = fs::read_to_string(&path).unwrap();
    let entry: Value = serde_json::from_str(&text).unwrap();
    // Another layout is the same entry.
    fs::write(&path, entry.to_string()).unwrap();
    run(&dir, "render", 0);
    for field in ["ratio", "caq", "compressed_bytes"] {
        let mut changed = entry.clone();
        changed[field] = json!(9);
        fs::write(&path, changed.to_string()).unwrap();
        let error = run(&dir, "render", 1);
        assert!(error.contains("was changed") && error.contains("mixed_stream-"), "{error}");
        assert!(
            run(&dir, "submit s.json", 1).contains("was changed"),
            "no entry goes beside one that is wrong"
        );
    }
    // Whoever signs anew still gets no markup in.
    let resigned = |field: &str, value: Value| {
        let mut changed = entry.clone();
        changed[field] = value;
        changed.as_object_mut().unwrap().remove("signature");
        let sum: Vec<String> =
            Sha256::digest(changed.to_string()).iter().map(|byte| format!("{byte:02x}")).collect();
        changed["signature"] = json!(sum.concat());
        fs::write(&path, changed.to_string()).unwrap();
    };
    resigned("submitter", json!("honest"));
    run(&dir, "render", 0);
    for (field, value) in
        [("submitter", "<img src=x>"), ("date", "soon"), ("dataset", "../x"), ("codec", "a\nb")]
    {
        resigned(field, json!(value));
        assert!(run(&dir, "render", 1).contains("mixed_stream-"), "{field}");
    }
}

#[test]
fn tables_do_not_depend_on_the_order_of_files() {
    let (dir, mut submission) = folder();
    run(&dir, "baselines --runs 3", 0);
    // The same score thrice: the earlier date goes first, then the name.
    for (submitter, codec, date) in
        [("b", "zstd x", DATE), ("a", "zstd y", DATE), ("c_d", "zstd z", "2026-01-31")]
    {
        submission["submitter"] = json!(submitter);
        submission["codec"] = json!(codec);
        submission["date"] = json!(date);
        submit(&dir, &submission, 0);
    }
    let n_entries = entries(&dir).len();
    assert_eq!(n_entries, 4 * 10 + 10 + 3, "ten codecs on each of five datasets");
    assert!(run(&dir, "baselines --runs 3", 0).contains("50 were there already"));
    assert_eq!(entries(&dir).len(), n_entries);
    run(&dir, "render", 0);
    let read = |name: &str| fs::read_to_string(dir.path().join("board").join(name)).unwrap();
    let (markdown, html) = (read("leaderboard.md"), read("leaderboard.html"));
    for (idx, path) in entries(&dir).into_iter().enumerate() {
        fs::rename(&path, path.with_file_name(format!("{:03}.json", 999 - idx))).unwrap();
    }
    run(&dir, "render", 0);
    assert_eq!((read("leaderboard.md"), read("leaderboard.html")), (markdown.clone(), html.clone()));
    let place = |text: &str| markdown.find(text).unwrap();
    assert!(place("| c\\_d |") < place("| a |") && place("| a |") < place("| b |"), "{markdown}");
    assert!(markdown.contains("| npz |") && markdown.contains("| +0.00 |"));
    assert!(html.contains("alcm lossy") && !html.contains("<script") && !html.contains("<link"));
}

//! The laboratory's page in a browser, and its record: what `lab report` and `lab reproduce` write.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use assert_cmd::Command;

const CHECKPOINT: &str = "tests/data/digits_resnet/params_bf16.safetensors";

fn alcm(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("alcm").unwrap();
    command.args(args);
    command
}

/// A browser that runs without a window: `CHROMIUM` in the environment, or one of the usual names in `PATH`.
fn browser() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let found = std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|candidate| candidate.is_file());
    named.or(found)
}

fn load(browser: &Path, dir: &Path, page: &Path, args: &[&str]) -> Vec<u8> {
    let output = Process::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .args(args)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn the_page_holds_every_section_and_loads_in_a_browser() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.html");
    let page_arg = page.to_str().unwrap();
    alcm(&["lab", "report", "-q", "--runs", "1", CHECKPOINT, "-o", page_arg]).assert().success();
    // Not twice over the same file, unless told to.
    alcm(&["lab", "report", "-q", "--runs", "1", CHECKPOINT, "-o", page_arg]).assert().code(2);
    let html = fs::read_to_string(&page).unwrap();
    let ids: Vec<&str> =
        html.split("<section id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    for command in
        ["synthetic", "variance", "compare", "curves", "ablation", "robust", "bundles-run", "impact"]
    {
        assert!(ids.contains(&command), "{command} is not among {ids:?}");
    }
    let Some(browser) = browser() else {
        println!("no Chromium found: the page was not loaded in one");
        return;
    };
    let dom = String::from_utf8(load(&browser, dir.path(), &page, &["--dump-dom"])).unwrap();
    for tag in ["<section", "<svg", "<tbody", "<figure"] {
        assert_eq!(dom.matches(tag).count(), html.matches(tag).count(), "{tag} after parsing");
    }
    let mut sizes = Vec::new();
    for width in ["1280", "400"] {
        let picture = dir.path().join(format!("{width}.png"));
        let screenshot = format!("--screenshot={}", picture.display());
        load(&browser, dir.path(), &page, &[&screenshot, &format!("--window-size={width},2000")]);
        sizes.push(fs::metadata(&picture).unwrap().len());
    }
    // A blank page of these sizes is a few kilobytes.
    assert!(sizes.iter().all(|size| *size > 30_000), "{sizes:?}");
}

#[test]
fn a_record_is_reproduced_and_a_tampered_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.json");
    let record_arg = record.to_str().unwrap();
    alcm(&["lab", "reproduce", "-q", CHECKPOINT, "-o", record_arg]).assert().success();
    // Other threads and kernels would give the same; --deterministic is what the command itself asks for.
    alcm(&["lab", "reproduce", CHECKPOINT, "--check", record_arg]).assert().success();
    let text = fs::read_to_string(&record).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let size = &mut value["results"]["synthetic"]["outputs"]["npz"][3]["bytes"];
    *size = (size.as_u64().unwrap() + 1).into();
    fs::write(&record, value.to_string()).unwrap();
    let output = alcm(&["lab", "reproduce", CHECKPOINT, "--check", record_arg]).assert().code(1);
    let stdout = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    assert!(stdout.contains("results.synthetic.outputs.npz[3].bytes"), "{stdout}");
    fs::write(&record, "{}").unwrap();
    alcm(&["lab", "reproduce", CHECKPOINT, "--check", record_arg]).assert().code(1);
}

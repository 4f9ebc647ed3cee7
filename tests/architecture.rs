//! Holds the source to the architecture: modules use only the layers below them, unsafe code stays where it
//! is reviewed, every unsafe block says why it is sound, and long files say why they are long.
//!
//! The check reads the text of `src`, comments and strings blanked out. It knows paths that begin with `crate`
//! or climb to the crate root by `super`, and leaves out `#[cfg(test)]` code, which may look anywhere.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the crate by layer, top first. Each may use those of the layers after its own.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["lab"],
    &["pipeline"],
    &["checkpoint", "container", "storage"],
    &["stage"],
    &["entropy", "quantize"],
    &["kernels"],
    &["bits", "dtype"],
    &["limits", "error"],
];

/// Uses within one layer that are allowed: (user, used).
const BESIDE: &[(&str, &str)] = &[("checkpoint", "storage"), ("bits", "dtype"), ("limits", "error")];

/// Uses of a lower layer that are forbidden all the same: a kernel reports by value, not by error.
const NEVER: &[(&str, &str)] = &[("kernels", "error")];

/// Paths that a module must not name, by the modules concerned.
const FORBIDDEN_PATHS: &[(&[&str], &[&str])] = &[
    (&["kernels"], &["std::fs", "std::time", "std::io", "std::env", "std::thread"]),
    (&["stage", "entropy", "quantize", "bits", "dtype", "limits"], &["std::fs", "std::time", "std::env"]),
    (&["container"], &["std::env", "std::time"]),
];

/// Paths that no module may name: a compressor of local files opens no connection.
const SOCKET_PATHS: &[&str] =
    &["std::net", "core::net", "std::os::unix::net", "libc::socket", "libc::connect"];

/// Only the command line writes to the terminal.
const TERMINAL_MACROS: &[&str] = &["println!", "eprintln!", "print!", "eprint!", "dbg!"];

/// Files besides `kernels/*/mod.rs` that may hold unsafe code.
const UNSAFE_FILES: &[&str] = &["storage/mmap.rs", "storage/guard.rs"];

/// Longer files must say why, in a comment on top that contains [`LENGTH_REASON`].
const MAX_LINES: usize = 500;
const LENGTH_REASON: &str = "over 500 lines";

#[test]
fn modules_use_only_the_layers_below() {
    let exports = root_exports(&read(&src().join("lib.rs")));
    assert!(exports.contains_key("Error"), "lib.rs re-exports were not understood: {exports:?}");
    let mut found = Vec::new();
    let mut uses_seen = 0;
    for file in rust_files(&src()) {
        let Some(module) = module_of(&file) else { continue };
        let code = production_code(&read(&file));
        for (line, used) in crate_uses(&code, &file) {
            uses_seen += 1;
            if let Some(problem) = layer_problem(module_name(&module), &used, &exports) {
                found.push(at(&file, line, &problem));
            }
        }
    }
    assert!(uses_seen > 0, "no use of the crate's own modules was seen");
    assert_none(&found);
}

#[test]
fn modules_keep_off_network_files_clock_and_terminal() {
    let mut found = Vec::new();
    for file in rust_files(&src()) {
        let Some(module) = module_of(&file) else { continue };
        let module = module_name(&module);
        let code = production_code(&read(&file));
        for (line_idx, line) in code.lines().enumerate() {
            let own =
                FORBIDDEN_PATHS.iter().filter(|(of, _)| of.contains(&module)).flat_map(|(_, paths)| *paths);
            for path in own.chain(SOCKET_PATHS) {
                if names_path(line, path) {
                    found.push(at(&file, line_idx + 1, &format!("`{module}` must not use {path}")));
                }
            }
            if let Some(name) =
                TERMINAL_MACROS.iter().find(|m| module != "cli" && word_positions(line, m).next().is_some())
            {
                found.push(at(
                    &file,
                    line_idx + 1,
                    &format!("only `cli` may write to the terminal ({name})"),
                ));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn the_binary_uses_only_the_command_line_module() {
    let main = production_code(&read(&src().join("main.rs")));
    assert!(main.lines().count() < 40, "main.rs parses, runs and exits: under 40 lines");
    let mut found = Vec::new();
    for (line_idx, line) in main.lines().enumerate() {
        for position in word_positions(line, "alcm::") {
            let used = identifier(&line[position + "alcm::".len()..]);
            if used != "cli" {
                found.push(at(
                    &src().join("main.rs"),
                    line_idx + 1,
                    &format!("main.rs may use `cli` only, not `{used}`"),
                ));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn unsafe_code_stays_in_its_files_and_says_why_it_is_sound() {
    let mut found = Vec::new();
    for file in rust_files(&src()) {
        let text = read(&file);
        found.extend(
            unsafe_problems(&relative(&file), &text).into_iter().map(|(line, p)| at(&file, line, &p)),
        );
    }
    assert_none(&found);
}

#[test]
fn long_files_say_why() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for file in ["src", "tests", "benches"].iter().flat_map(|folder| rust_files(&root.join(folder))) {
        let text = read(&file);
        if let Some(problem) = length_problem(&text) {
            found.push(at(&file, text.lines().count(), &problem));
        }
    }
    assert_none(&found);
}

#[test]
fn planted_violations_are_found() {
    let exports = BTreeMap::from([("Error".to_owned(), "error".to_owned())]);
    let problem = |module, used: &str| layer_problem(module, used, &exports);
    assert!(problem("kernels", "stage").is_some(), "upwards");
    assert!(problem("kernels", "Error").is_some(), "forbidden, through a re-export");
    assert!(problem("container", "checkpoint").is_some(), "beside");
    assert!(problem("stage", "nowhere").is_some(), "unknown");
    assert!(problem("checkpoint", "storage").is_none() && problem("stage", "Error").is_none());

    let file = src().join("kernels").join("x").join("scalar.rs");
    let text = "// crate::cli\nuse crate::{error::Error, bits::{a, b}, stage};\nlet s = \"crate::cli\";\n\
                #[cfg(test)]\nmod tests {\n    use crate::cli;\n}\nuse super::super::super::pipeline::x;\n";
    let uses: Vec<_> = crate_uses(&production_code(text), &file);
    let expected = [(2, "error"), (2, "bits"), (2, "stage"), (8, "pipeline")];
    assert_eq!(uses, expected.map(|(line, used)| (line, used.to_owned())));

    assert!(
        names_path("use std::{fs, net};", "std::net")
            && names_path("std::net::TcpStream::connect(a)", "std::net")
    );
    assert!(!names_path("use std::network;", "std::net"));

    let sound = "// SAFETY: checked above\nunsafe { f() };\n";
    assert_eq!(unsafe_problems("storage/mmap.rs", sound).len(), 0);
    assert_eq!(
        unsafe_problems("kernels/rans/mod.rs", &format!("{sound}unsafe {{ g() }}\n")),
        [(3, "unsafe code without a SAFETY comment".to_owned())]
    );
    assert_eq!(unsafe_problems("kernels/rans/x86.rs", sound).len(), 1);
    assert_eq!(unsafe_problems("stage/mod.rs", "#![deny(unsafe_code)] // unsafe\n").len(), 0);
    assert_eq!(unsafe_problems("stage/mod.rs", "unsafe fn f() {}\n").len(), 1);

    assert!(length_problem(&"x\n".repeat(MAX_LINES + 1)).is_some());
    let reason = format!("// This file is {LENGTH_REASON}: one table.\n");
    assert!(length_problem(&(reason + &"x\n".repeat(MAX_LINES + 1))).is_none());
}

/// What is wrong with `module` using the crate's item `used`, a module or a name that lib.rs re-exports.
fn layer_problem(module: &str, used: &str, exports: &BTreeMap<String, String>) -> Option<String> {
    let used_module = exports.get(used).map_or(used, String::as_str);
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let Some(own_layer) = layer(module) else {
        return Some(format!("module `{module}` has no layer; add it to LAYERS"));
    };
    let Some(used_layer) = layer(used_module) else {
        return Some(format!("`crate::{used}` belongs to no layer; name its module"));
    };
    let allowed = used_module == module
        || (used_layer > own_layer && !NEVER.contains(&(module, used_module)))
        || BESIDE.contains(&(module, used_module));
    (!allowed).then(|| format!("`{module}` must not use `{used_module}`"))
}

/// (line, first path segment) of every path into the crate's root, in order.
fn crate_uses(code: &str, file: &Path) -> Vec<(usize, String)> {
    let module_depth = module_of(file).map_or(0, |module| module.len());
    let mut uses = Vec::new();
    for position in word_positions(code, "crate::") {
        let line = line_of(code, position);
        let rest = &code[position + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => uses.extend(
                group_heads(group)
                    .into_iter()
                    .map(|(at, head)| (line + group[..at].matches('\n').count(), head)),
            ),
            None => uses.push((line, identifier(rest).to_owned())),
        }
    }
    for position in word_positions(code, "super::") {
        if code[..position].ends_with("super::") {
            continue; // counted from the chain's start
        }
        let mut rest = &code[position..];
        let mut climbed = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            (rest, climbed) = (after, climbed + 1);
        }
        let head = identifier(rest);
        if climbed >= module_depth && LAYERS.iter().any(|layer| layer.contains(&head)) {
            uses.push((line_of(code, position), head.to_owned()));
        }
    }
    uses
}

/// (offset, identifier) of each first segment in `a::{b, c}, d}…`, the text after a group's opening brace.
fn group_heads(group: &str) -> Vec<(usize, String)> {
    let mut heads = Vec::new();
    let (mut depth, mut wants_head) = (0_usize, true);
    for (offset, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => wants_head = true,
            c if wants_head && !c.is_whitespace() => {
                heads.push((offset, identifier(&group[offset..]).to_owned()));
                wants_head = false;
            }
            _ => {}
        }
    }
    heads
}

/// (line, problem) of each use of `unsafe` in `text`, the file at `path` below src.
fn unsafe_problems(path: &str, text: &str) -> Vec<(usize, String)> {
    let code = blank_comments_and_strings(text);
    let is_dispatch = path.strip_prefix("kernels/").and_then(|p| p.strip_suffix("/mod.rs")).is_some();
    let allowed = is_dispatch || UNSAFE_FILES.contains(&path);
    let lines: Vec<&str> = text.lines().collect();
    let code_lines: Vec<&str> = code.lines().collect();
    let is_unsafe = |line_idx: usize| word_positions(code_lines[line_idx], "unsafe").next().is_some();
    let mut problems = Vec::new();
    for line_idx in (0..code_lines.len()).filter(|&idx| is_unsafe(idx)) {
        // The note stands above, in the same paragraph, and serves one unsafe block only.
        let explained = (0..line_idx)
            .rev()
            .take_while(|&idx| !lines[idx].trim().is_empty() && !is_unsafe(idx))
            .any(|idx| lines[idx].contains("// SAFETY:") || lines[idx].contains("# Safety"));
        if !allowed {
            problems.push((line_idx + 1, "unsafe code outside the files that may hold it".to_owned()));
        } else if !explained && !code_lines[line_idx].contains("unsafe fn ") {
            // An unsafe fn asks of its callers; what it does itself stands in blocks of its own.
            problems.push((line_idx + 1, "unsafe code without a SAFETY comment".to_owned()));
        }
    }
    problems
}

/// What is wrong with the length of a file.
fn length_problem(text: &str) -> Option<String> {
    let line_count = text.lines().count();
    let top = text.lines().take_while(|line| line.is_empty() || line.starts_with("//"));
    let excused = top.map(str::to_lowercase).any(|line| line.contains(LENGTH_REASON));
    (line_count > MAX_LINES && !excused)
        .then(|| format!("{line_count} lines: split it, or say on top why it is {LENGTH_REASON}"))
}

/// Names that lib.rs re-exports, with the module each comes from.
fn root_exports(lib: &str) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for statement in blank_comments_and_strings(lib).split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else { continue };
        let Some((module, names)) = path.trim().split_once("::") else { continue };
        for name in names.trim_matches(['{', '}']).split(',').map(|name| identifier(name.trim())) {
            exports.insert(name.to_owned(), module.trim().to_owned());
        }
    }
    exports
}

/// The text without comments, strings and `#[cfg(test)]` items, its lines kept.
fn production_code(text: &str) -> String {
    let mut code = blank_comments_and_strings(text).into_bytes();
    while let Some(start) = find(&code, b"#[cfg(test)]") {
        let Some(len) = code[start..].iter().position(|&c| c == b'{' || c == b';') else { break };
        let mut end = start + len;
        let mut depth = usize::from(code[end] == b'{');
        while depth > 0 && end + 1 < code.len() {
            end += 1;
            match code[end] {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
        }
        code[start..=end].iter_mut().filter(|c| **c != b'\n').for_each(|c| *c = b' ');
    }
    String::from_utf8(code).unwrap()
}

/// The text with every comment, string and character literal turned into spaces, its lines kept.
fn blank_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let len = literal_or_comment_len(&bytes[at..], at > 0 && is_identifier(bytes[at - 1]));
        code[at..at + len].iter_mut().filter(|c| **c != b'\n').for_each(|c| *c = b' ');
        at += len.max(1);
    }
    // Outside of comments and strings Rust source is ASCII here; blanked bytes are spaces.
    String::from_utf8(code).unwrap()
}

/// Length of the comment or literal at the start of `rest`, or 0.
fn literal_or_comment_len(rest: &[u8], after_identifier: bool) -> usize {
    let until =
        |from: usize, end: &[u8]| find(&rest[from..], end).map_or(rest.len(), |p| from + p + end.len());
    match rest {
        [b'/', b'/', ..] => find(rest, b"\n").unwrap_or(rest.len()),
        [b'/', b'*', ..] => {
            let (mut depth, mut at) = (1, 2);
            while depth > 0 && at < rest.len() {
                let step = match &rest[at..] {
                    [b'/', b'*', ..] => 1,
                    [b'*', b'/', ..] => -1,
                    _ => 0,
                };
                depth += step;
                at += if step == 0 { 1 } else { 2 };
            }
            at
        }
        [b'r', b'"' | b'#', ..] if !after_identifier => {
            let hashes = rest[1..].iter().take_while(|&&c| c == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return 0; // a raw identifier
            }
            until(2 + hashes, &[b"\"", "#".repeat(hashes).as_bytes()].concat())
        }
        [b'"', ..] => quoted_len(rest, b'"'),
        [b'\'', b'\\', ..] => quoted_len(rest, b'\''),
        [b'\'', ..] => {
            // A character has its closing quote one UTF-8 character on; a lifetime has none there.
            let char_len = match rest.get(1) {
                Some(0xC0..=0xDF) => 2,
                Some(0xE0..=0xEF) => 3,
                Some(0xF0..) => 4,
                _ => 1,
            };
            if rest.get(1 + char_len) == Some(&b'\'') { 2 + char_len } else { 0 }
        }
        _ => 0,
    }
}

/// Length of a quoted literal with backslash escapes.
fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Modules from the crate root down to the file's own; `None` for lib.rs, main.rs and files of tests.
fn module_of(file: &Path) -> Option<Vec<String>> {
    let path = relative(file);
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|part| part == "mod") {
        parts.pop();
    }
    (!matches!(path.as_str(), "lib.rs" | "main.rs") && !parts.iter().any(|part| part == "tests"))
        .then_some(parts)
}

fn module_name(module: &[String]) -> &str {
    &module[0]
}

/// Whether `line` names `path` or, for `std::x`, imports `x` from a group.
fn names_path(line: &str, path: &str) -> bool {
    let grouped = path.split_once("::").is_some_and(|(root, item)| {
        line.split_once(&format!("{root}::{{"))
            .is_some_and(|(_, group)| group_heads(group).iter().any(|(_, head)| head == item))
    });
    grouped
        || word_positions(line, path)
            .any(|p| !line[p + path.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Offsets of `word` in `text` that do not continue an identifier, and, for a plain word, do not run into one.
fn word_positions<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let plain = word.bytes().all(is_identifier);
    text.match_indices(word).map(|(position, _)| position).filter(move |&position| {
        let before = text[..position].bytes().next_back();
        let after = text[position + word.len()..].bytes().next();
        !(before.is_some_and(is_identifier) || plain && after.is_some_and(is_identifier))
    })
}

fn identifier(text: &str) -> &str {
    &text[..text.bytes().position(|c| !is_identifier(c)).unwrap_or(text.len())]
}

fn is_identifier(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_'
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn line_of(text: &str, position: usize) -> usize {
    text[..position].matches('\n').count() + 1
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn relative(file: &Path) -> String {
    file.strip_prefix(src()).unwrap_or(file).to_string_lossy().replace('\\', "/")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Every `.rs` file below `folder`, in order of path; none where there is no such folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn at(file: &Path, line: usize, problem: &str) -> String {
    let text = read_line(file, line);
    let shown = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(file);
    format!("{}:{line}: {problem}\n    {text}", shown.display())
}

fn read_line(file: &Path, line: usize) -> String {
    read(file).lines().nth(line - 1).unwrap_or_default().trim().to_owned()
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{} against the architecture:\n{}", found.len(), found.join("\n"));
}

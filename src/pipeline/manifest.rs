//! The manifest of a directory run, `alcm-manifest.json`.
//!
//! One JSON object without white space outside strings, `{"alcm_manifest":1,"blake3":"…","entries":{…}}`.
//! `blake3` is over the exact bytes of the value of `entries`, which holds:
//!
//! | key | value |
//! |---|---|
//! | `tool` | name and version of the writer, a note |
//! | `files` | array, sorted by path: `path`, `size` in bytes, `mode` (permission bits, 0 to 511), `mtime` (`[seconds since 1970, nanoseconds]`), `blake3`, `source_blake3` (only of a lossy archive: of the original, which `blake3` is then not), `sha256` (optional), `archive` (path of the archive from the manifest's directory), `archive_size` in bytes, `same_as` (optional: path of the earlier file whose archive this is) |
//! | `dirs` | array, sorted: `path`, `mode`, `mtime` |
//! | `links` | array, sorted: `path`, `target` |
//! | `failed` | array, sorted: `path`, `kind`, `message` of entries that are not in the archives |
//! | `pruning` | optional, of a lossy run with tensors that could be pruned: `threshold_ppb` (share of a tensor's nonzero elements that pruning began with, in billionths, at most 10⁹), `is_rising` (whether the threshold is on its way up), `scores_ppb` (array of 1 to 5: bits without pruning ÷ bits with it, in billionths, of the checkpoints since the direction last turned, this run's last); for a run that continues the series, decoders need none of it |
//!
//! Unknown keys are rejected. Paths are relative, `/`-separated, without `.`, `..`, empty components, control
//! characters and backslashes, of at most 4095 bytes and 128 components; no path stands twice; nothing lies below a file or a link; links stay inside the
//! tree that the first component names.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::digest::Digest;
use super::lossy::series::PruneSeries;
use super::paths::{check_link_target, check_relative};
use super::tree::Mtime;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;

/// The manifest's name in the output directory.
pub const MANIFEST_NAME: &str = "alcm-manifest.json";

/// Version of the schema.
const SCHEMA: u32 = 1;

/// A file that was compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path within the tree.
    pub path: String,
    /// Size of the original, in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// BLAKE3 of what decompressing gives: the original, or of a lossy archive its reconstruction.
    pub blake3: Digest,
    /// BLAKE3 of the original of a lossy archive, which cannot be had back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_blake3: Option<Digest>,
    /// SHA-256 of the original.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<Digest>,
    /// Path of the archive, from the manifest's directory.
    pub archive: String,
    /// Size of the archive, in bytes.
    pub archive_size: u64,
    /// The earlier file with the same bytes, whose archive serves both.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub same_as: Option<String>,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirEntry {
    /// Path within the tree.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Modification time.
    pub mtime: Mtime,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkEntry {
    /// Path within the tree.
    pub path: String,
    /// What it points to.
    pub target: String,
}

/// An entry that could not be compressed; for people only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedEntry {
    /// Path within the tree, as far as it can be written.
    pub path: String,
    /// [`ErrorKind::as_str`].
    pub kind: String,
    /// The message.
    pub message: String,
}

/// What `entries` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Writer's name and version.
    pub tool: String,
    /// Files, sorted by path.
    pub files: Vec<FileEntry>,
    /// Directories, sorted by path.
    pub dirs: Vec<DirEntry>,
    /// Symbolic links, sorted by path.
    pub links: Vec<LinkEntry>,
    /// Entries that are not in the archives, sorted by path.
    pub failed: Vec<FailedEntry>,
    /// Where the series of pruned checkpoints stands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pruning: Option<PruneSeries>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    alcm_manifest: u32,
    blake3: Digest,
    #[serde(borrow)]
    entries: &'a RawValue,
}

/// What a path stands for, to find one thing below another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occupant {
    Dir,
    Leaf,
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}

impl Manifest {
    /// The manifest's text.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where it cannot be written as JSON.
    pub fn to_text(&self) -> Result<String> {
        let entries = serde_json::to_string(self)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write the manifest: {e}")))?;
        let digest = Digest(*blake3::hash(entries.as_bytes()).as_bytes());
        Ok(format!("{{\"alcm_manifest\":{SCHEMA},\"blake3\":\"{digest}\",\"entries\":{entries}}}"))
    }

    /// Reads a manifest's text and checks every rule of the schema.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], [`ErrorKind::ChecksumMismatch`] or [`ErrorKind::UnsupportedVersion`].
    pub fn from_text(text: &str) -> Result<Self> {
        let not_json = |e: serde_json::Error| {
            corrupt(format!("manifest does not follow its schema: {}", e.to_string().escape_debug()))
        };
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(not_json)?;
        if envelope.alcm_manifest != SCHEMA {
            return Err(Error::new(
                ErrorKind::UnsupportedVersion,
                format!("manifest has version {}, this program reads {SCHEMA}", envelope.alcm_manifest),
            ));
        }
        let entries = envelope.entries.get();
        if blake3::hash(entries.as_bytes()).as_bytes() != &envelope.blake3.0 {
            return Err(Error::new(ErrorKind::ChecksumMismatch, "manifest's entries differ from their hash"));
        }
        let manifest: Self = serde_json::from_str(entries).map_err(not_json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads the manifest of the directory `dir`.
    ///
    /// # Errors
    /// As [`Self::from_text`]; also [`ErrorKind::Io`] and [`ErrorKind::LimitExceeded`].
    pub fn read(dir: &Path, limits: &Limits) -> Result<Self> {
        let path = dir.join(MANIFEST_NAME);
        let read = || {
            let file = File::open(&path).map_err(|e| Error::io("cannot open manifest", e))?;
            let mut text = String::new();
            let read = file
                .take(limits.manifest_bytes.saturating_add(1))
                .read_to_string(&mut text)
                .map_err(|e| Error::io("cannot read manifest", e))?;
            if read as u64 > limits.manifest_bytes {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    format!("manifest has more than {} bytes", limits.manifest_bytes),
                ));
            }
            Self::from_text(&text)
        };
        read().map_err(|e| e.in_file(&path))
    }

    fn check(&self) -> Result<()> {
        let mut occupants: HashMap<&str, Occupant> = HashMap::new();
        let dirs = self.dirs.iter().map(|dir| (dir.path.as_str(), Occupant::Dir));
        let files = self.files.iter().map(|file| (file.path.as_str(), Occupant::Leaf));
        let links = self.links.iter().map(|link| (link.path.as_str(), Occupant::Leaf));
        for (path, occupant) in dirs.chain(files).chain(links) {
            check_relative(path, ErrorKind::Corrupt)?;
            if occupants.insert(path, occupant).is_some() {
                return Err(corrupt(format!("manifest lists \"{path}\" twice")));
            }
        }
        for path in occupants.keys() {
            let ancestors = path.match_indices('/').map(|(end, _)| &path[..end]);
            if let Some(leaf) = ancestors.into_iter().find(|dir| occupants.get(dir) == Some(&Occupant::Leaf))
            {
                return Err(corrupt(format!(
                    "manifest lists \"{path}\" below \"{leaf}\", which is no directory"
                )));
            }
        }
        for link in &self.links {
            check_link_target(&link.path, &link.target, ErrorKind::Corrupt)?;
        }
        let attributes = self.dirs.iter().map(|dir| (&dir.path, dir.mode, dir.mtime));
        for (path, mode, mtime) in attributes.chain(self.files.iter().map(|f| (&f.path, f.mode, f.mtime))) {
            if mode > 0o777 || mtime.1 >= 1_000_000_000 {
                return Err(corrupt(format!("manifest has a mode or time out of range for \"{path}\"")));
            }
        }
        self.pruning.as_ref().map_or(Ok(()), PruneSeries::check)?;
        self.check_archives()
    }

    fn check_archives(&self) -> Result<()> {
        let mut by_path: HashMap<&str, &FileEntry> = HashMap::new();
        let mut by_archive: HashMap<&str, &str> = HashMap::new();
        for file in &self.files {
            check_relative(&file.archive, ErrorKind::Corrupt)?;
            match &file.same_as {
                None => {
                    if let Some(other) = by_archive.insert(&file.archive, &file.path) {
                        return Err(corrupt(format!(
                            "manifest has one archive for \"{other}\" and \"{}\"",
                            file.path
                        )));
                    }
                }
                Some(base) => {
                    let agrees = by_path.get(base.as_str()).is_some_and(|base| {
                        base.same_as.is_none()
                            && (&base.archive, base.archive_size, base.size, base.blake3)
                                == (&file.archive, file.archive_size, file.size, file.blake3)
                    });
                    if !agrees {
                        return Err(corrupt(format!(
                            "manifest has \"{}\" as the same as \"{}\", which is no earlier file like it",
                            file.path,
                            base.escape_debug()
                        )));
                    }
                }
            }
            by_path.insert(&file.path, file);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> FileEntry {
        FileEntry {
            source_blake3: None,
            path: path.into(),
            size: 3,
            mode: 0o644,
            mtime: (-5, 7),
            blake3: Digest([1; 32]),
            sha256: None,
            archive: format!("{path}.alcm"),
            archive_size: 99,
            same_as: None,
        }
    }

    fn manifest(files: Vec<FileEntry>) -> Manifest {
        Manifest { tool: "alcm".into(), files, ..Manifest::default() }
    }

    fn reread(manifest: &Manifest) -> Result<Manifest> {
        Manifest::from_text(&manifest.to_text().unwrap())
    }

    #[test]
    fn text_round_trips() {
        let mut m = manifest(vec![file("r/a"), file("r/b")]);
        m.files[0].sha256 = Some(Digest([2; 32]));
        m.files[1].same_as = Some("r/a".into());
        m.files[1].archive = "r/a.alcm".into();
        m.dirs.push(DirEntry { path: "r".into(), mode: 0o755, mtime: (1, 2) });
        m.links.push(LinkEntry { path: "r/l".into(), target: "a".into() });
        m.failed.push(FailedEntry { path: "x\ny".into(), kind: "io".into(), message: "m".into() });
        assert_eq!(reread(&m).unwrap(), m);
        assert!(!m.to_text().unwrap().contains("pruning"));
        let series = PruneSeries { threshold_ppb: 9_500_000, is_rising: true, scores_ppb: vec![1, 2] };
        m.pruning = Some(series);
        assert_eq!(reread(&m).unwrap(), m);
    }

    #[test]
    fn changed_text_is_a_checksum_mismatch_and_unknown_keys_are_refused() {
        let text = manifest(vec![file("r/a")]).to_text().unwrap();
        let kind = |text: &str| Manifest::from_text(text).unwrap_err().kind();
        assert_eq!(kind(&text.replace("\"size\":3", "\"size\":4")), ErrorKind::ChecksumMismatch);
        assert_eq!(kind(&text.replace("\"size\":3", "\"size\": 3")), ErrorKind::ChecksumMismatch);
        assert_eq!(
            kind(&text.replace("\"alcm_manifest\":1", "\"alcm_manifest\":2")),
            ErrorKind::UnsupportedVersion
        );
        assert_eq!(
            kind(&text.replace("{\"alcm_manifest", "{\"more\":1,\"alcm_manifest")),
            ErrorKind::Corrupt
        );
        assert_eq!(kind(&text[..text.len() - 1]), ErrorKind::Corrupt);
        let entries = "{\"tool\":\"\",\"files\":[],\"dirs\":[],\"links\":[],\"failed\":[],\"more\":1}";
        let digest = Digest(*blake3::hash(entries.as_bytes()).as_bytes());
        let text = format!("{{\"alcm_manifest\":1,\"blake3\":\"{digest}\",\"entries\":{entries}}}");
        assert_eq!(kind(&text), ErrorKind::Corrupt);
    }

    #[test]
    fn hostile_entries_are_refused() {
        let refused = |m: &Manifest| assert_eq!(reread(m).unwrap_err().kind(), ErrorKind::Corrupt);
        for path in ["../x", "/etc/x", "a/../../x", "a\nb", "a\\..\\b", ""] {
            refused(&manifest(vec![file(path)]));
            let mut m = manifest(vec![file("a")]);
            m.files[0].archive = path.into();
            refused(&m);
        }
        refused(&manifest(vec![file("a"), file("a")]));
        refused(&manifest(vec![file("a"), file("a/b")]));
        let mut below_link = manifest(vec![file("r/l/x")]);
        below_link.links.push(LinkEntry { path: "r/l".into(), target: "y".into() });
        refused(&below_link);
        let mut escaping = manifest(vec![]);
        escaping.links.push(LinkEntry { path: "r/l".into(), target: "../../etc".into() });
        refused(&escaping);
        let mut later_base = manifest(vec![file("a"), file("b")]);
        later_base.files[0].same_as = Some("b".into());
        refused(&later_base);
        let mut one_archive = manifest(vec![file("a"), file("b")]);
        one_archive.files[1].archive = "a.alcm".into();
        refused(&one_archive);
        let mut setuid = manifest(vec![file("a")]);
        setuid.files[0].mode = 0o4755;
        refused(&setuid);
        let mut no_share = manifest(vec![]);
        no_share.pruning =
            Some(PruneSeries { threshold_ppb: u64::MAX, is_rising: false, scores_ppb: vec![1] });
        refused(&no_share);
    }
}

//! The crate's error: what was found, what was allowed, where, and whose fault it is.

use std::fmt;
use std::path::PathBuf;

/// Result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Whose fault an [`Error`] is; stable, for callers and tests to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused an operation on a file.
    Io,
    /// The checkpoint given to compress is not what its name or header claims.
    InvalidInput,
    /// A setting or argument is wrong, or settings contradict each other.
    InvalidConfig,
    /// An archive's bytes break a rule of the format.
    Corrupt,
    /// An archive ends before it is complete.
    Truncated,
    /// A stored checksum or content hash differs from the one computed.
    ChecksumMismatch,
    /// The archive needs a newer reader.
    UnsupportedVersion,
    /// Something claims to be larger than [`crate::Limits`] allow.
    LimitExceeded,
    /// Data that an archive refers to by content hash is absent or different.
    BaseMismatch,
    /// A bug of this program.
    Internal,
}

impl ErrorKind {
    /// The kind as one lower-case word, as printed with `--json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::InvalidInput => "invalid_input",
            Self::InvalidConfig => "invalid_config",
            Self::Corrupt => "corrupt",
            Self::Truncated => "truncated",
            Self::ChecksumMismatch => "checksum_mismatch",
            Self::UnsupportedVersion => "unsupported_version",
            Self::LimitExceeded => "limit_exceeded",
            Self::BaseMismatch => "base_mismatch",
            Self::Internal => "internal",
        }
    }
}

/// Where an error was found; each part is filled in by the layer that knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    /// The file: a shard, an archive or a manifest.
    pub file: Option<PathBuf>,
    /// The tensor's name.
    pub tensor: Option<String>,
    /// The block's position in its archive, from 0.
    pub block_idx: Option<u64>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(file) = &self.file {
            write!(f, "{}", file.display().to_string().escape_debug())?;
            separator = ", ";
        }
        if let Some(tensor) = &self.tensor {
            write!(f, "{separator}tensor {}", tensor.escape_debug())?;
            separator = ", ";
        }
        if let Some(block_idx) = self.block_idx {
            write!(f, "{separator}block {block_idx}")?;
        }
        Ok(())
    }
}

/// An error of this crate: a kind, a message, a location, and the cause if there is one.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    location: Location,
    source: Option<std::io::Error>,
}

impl Error {
    /// An error of `kind`; `message` is lower case and says what was found and what was allowed.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), location: Location::default(), source: None }
    }

    /// An [`ErrorKind::Io`] error: `action` is what was tried, such as `cannot open`.
    pub fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        Self { source: Some(source), ..Self::new(ErrorKind::Io, action) }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Where it was found.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The operating system's error behind an [`ErrorKind::Io`] error.
    #[must_use]
    pub fn io_source(&self) -> Option<&std::io::Error> {
        self.source.as_ref()
    }

    /// The same error with the file named, unless a lower layer has named it already.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.location.file.get_or_insert_with(|| file.into());
        self
    }

    /// The same error with the tensor named, unless a lower layer has named it already.
    #[must_use]
    pub fn in_tensor(mut self, tensor: impl Into<String>) -> Self {
        self.location.tensor.get_or_insert_with(|| tensor.into());
        self
    }

    /// The same error with the block named, unless a lower layer has named it already.
    #[must_use]
    pub fn in_block(mut self, block_idx: u64) -> Self {
        self.location.block_idx.get_or_insert(block_idx);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.location != Location::default() {
            write!(f, "{}: ", self.location)?;
        }
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

//! The file that trained networks are kept in.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `ALCMNETS` |
//! | 2 | version, 1 |
//! | 2 | number of networks, 2: the moments network, then the profile network |
//! | per network: 2 + 2 | inputs, hidden units (1 to 1024) |
//! | per network: 4 each | parameters, f32: hidden weights `[inputs, hidden]`, hidden biases, output weights, output bias |
//! | 32 | BLAKE3 of all before |
//!
//! Numbers are little-endian; every parameter is finite; nothing follows.

use std::sync::OnceLock;

use super::mlp::{MAX_HIDDEN, Mlp};
use super::{MomentsNet, ProfileNet};
use crate::bits::ByteCursor;
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"ALCMNETS";
const VERSION: u16 = 1;
const HASH_BYTES: usize = 32;

/// The networks' file within this program, made by
/// `alcm train TRAINING… --held-out HELD_OUT… -o shipped.nets` as the README says.
pub const SHIPPED_BYTES: &[u8] = include_bytes!("shipped.nets");

/// Trained networks.
#[derive(Debug, Clone, PartialEq)]
pub struct Networks {
    /// The network on six moments.
    pub moments: MomentsNet,
    /// The network on moments and octaves: the one to use.
    pub profile: ProfileNet,
}

impl Networks {
    /// Those within this program.
    #[must_use]
    pub fn shipped() -> &'static Self {
        static SHIPPED: OnceLock<Networks> = OnceLock::new();
        #[expect(clippy::expect_used, reason = "the bytes are this program's own, and a test reads them")]
        SHIPPED.get_or_init(|| Self::from_bytes(SHIPPED_BYTES).expect("the shipped networks are whole"))
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(2u16.to_le_bytes());
        for network in [&self.moments.0, &self.profile.0] {
            for len in [network.n_inputs(), network.n_hidden()] {
                bytes.extend(u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
            }
            network.parameters().for_each(|parameter| bytes.extend(parameter.to_le_bytes()));
        }
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    /// The networks of a file.
    ///
    /// # Errors
    /// [`ErrorKind::ChecksumMismatch`], [`ErrorKind::UnsupportedVersion`], [`ErrorKind::Corrupt`] where the bytes
    /// break the format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "not a file of trained networks, or a broken one");
        if !bytes.starts_with(MAGIC) {
            return Err(corrupt());
        }
        let (body, hash) = bytes
            .len()
            .checked_sub(HASH_BYTES)
            .and_then(|end| bytes.split_at_checked(end))
            .ok_or_else(corrupt)?;
        if blake3::hash(body).as_bytes() != hash {
            return Err(Error::new(ErrorKind::ChecksumMismatch, "trained networks differ from their BLAKE3"));
        }
        let mut cursor = ByteCursor::new(&body[MAGIC.len()..]);
        let version = cursor.u16().ok_or_else(corrupt)?;
        if version != VERSION {
            let message = format!("trained networks have version {version}, this program reads {VERSION}");
            return Err(Error::new(ErrorKind::UnsupportedVersion, message));
        }
        let count = cursor.u16();
        let moments = network(&mut cursor, MomentsNet::N_INPUTS).map(MomentsNet);
        let profile = network(&mut cursor, ProfileNet::N_INPUTS).map(ProfileNet);
        match (count, moments, profile, cursor.rest().is_empty()) {
            (Some(2), Some(moments), Some(profile), true) => Ok(Self { moments, profile }),
            _ => Err(corrupt()),
        }
    }
}

fn network(cursor: &mut ByteCursor<'_>, n_inputs: usize) -> Option<Mlp> {
    let (inputs, n_hidden) = (usize::from(cursor.u16()?), usize::from(cursor.u16()?));
    if inputs != n_inputs || !(1..=MAX_HIDDEN).contains(&n_hidden) {
        return None;
    }
    let mut mlp = Mlp::zeros(n_inputs, n_hidden);
    for parameter in mlp.parameters_mut() {
        *parameter = f32::from_bits(cursor.u32()?);
        if !parameter.is_finite() {
            return None;
        }
    }
    Some(mlp)
}

//! CRC-64/NVME (NVM Express NVM Command Set 1.0), the checksum of every record.

use crate::kernels::crc64::Folded;
pub use crate::kernels::crc64::RunningCrc;

/// The CRC of `bytes`.
#[must_use]
pub fn crc64(bytes: &[u8]) -> u64 {
    crc64_joined(bytes, &[])
}

/// The CRC of `bytes`, the first of which are `folded`.
#[must_use]
pub fn crc64_from(folded: &Folded, bytes: &[u8]) -> u64 {
    let mut crc = RunningCrc::from_folded(folded);
    crc.update(bytes.get(folded.n_bytes()..).unwrap_or_default());
    crc.value()
}

/// The CRC of `head` followed by `tail`, without joining them.
#[must_use]
pub fn crc64_joined(head: &[u8], tail: &[u8]) -> u64 {
    let mut crc = RunningCrc::new();
    crc.update(head);
    crc.update(tail);
    crc.value()
}

#[cfg(test)]
mod tests {
    use crc_fast::CrcAlgorithm;

    use super::*;

    #[test]
    fn check_value_and_joins() {
        assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
        assert_eq!(crc64(b""), 0);
        let bytes: Vec<u8> = (0..5000_u32).map(|i| (i * 7 % 251) as u8).collect();
        for cut in [0, 1, 24, 255, 256, 1024, 4999, 5000] {
            assert_eq!(crc64_joined(&bytes[..cut], &bytes[cut..]), crc64(&bytes));
            assert_eq!(crc64_from(&Folded::new(), &bytes[..cut]), crc64(&bytes[..cut]));
            let mut running = RunningCrc::new();
            running.update(&bytes[..cut]);
            assert_eq!(crc64_from(&running.folded(), &bytes), crc64(&bytes));
            // Folded or not, by a way of its own.
            assert_eq!(crc64(&bytes[..cut]), crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes[..cut]));
        }
    }
}

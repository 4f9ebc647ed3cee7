//! What compressing a checkpoint saves: bytes kept and sent, seconds on the way, and when it stops paying.
//!
//! Two models of a transfer. **One after another**: encode all, send all, decode all;
//! `t = S/E + 8S/(rB) + S/D`. **Overlapped**: the three run at the same time on the parts that are ready, and the
//! slowest sets the pace; `t = max(S/E, 8S/(rB), S/D)`, the first and last part neglected. Uncompressed,
//! `t = 8S/B`. S is the checkpoint in bytes, r the ratio, E and D the speeds in original bytes per second, B the
//! bandwidth in bits per second. Encoder and decoder are taken to stand on two machines, neither of which does anything
//! else, and the network to be without latency.

/// How fast a checkpoint becomes small, and how small.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coding {
    /// Original bytes ÷ stored bytes.
    pub ratio: f64,
    /// Original bytes encoded in a second on the wall.
    pub encode_bytes_s: f64,
    /// Original bytes decoded in a second on the wall.
    pub decode_bytes_s: f64,
}

/// How encoding, sending and decoding follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each begins when the one before has ended.
    OneAfterAnother,
    /// All three at the same time, on different parts.
    Overlapped,
}

/// Bits in a byte.
const BITS: f64 = 8.0;

/// Seconds that `bytes` take at `bits_s` bits per second, as they are.
#[must_use]
pub fn plain_seconds(bytes: f64, bits_s: f64) -> f64 {
    BITS * bytes / bits_s
}

impl Coding {
    /// Seconds from the first byte of the original to the last one decoded elsewhere.
    #[must_use]
    pub fn seconds(&self, bytes: f64, bits_s: f64, order: Order) -> f64 {
        let parts = [
            bytes / self.encode_bytes_s,
            plain_seconds(bytes / self.ratio, bits_s),
            bytes / self.decode_bytes_s,
        ];
        match order {
            Order::OneAfterAnother => parts.iter().sum(),
            Order::Overlapped => parts.into_iter().fold(0.0, f64::max),
        }
    }

    /// The bandwidth, in bits per second, at which compressing takes as long as sending the original: below it pays,
    /// above it does not. One after another `B = 8(1 − 1/r) ÷ (1/E + 1/D)`, overlapped `B = 8 min(E, D)`; `None` where
    /// nothing is saved, so that it never pays.
    #[must_use]
    pub fn break_even_bits_s(&self, order: Order) -> Option<f64> {
        (self.ratio > 1.0).then(|| match order {
            Order::OneAfterAnother => {
                BITS * (1.0 - 1.0 / self.ratio) / (1.0 / self.encode_bytes_s + 1.0 / self.decode_bytes_s)
            }
            Order::Overlapped => BITS * self.encode_bytes_s.min(self.decode_bytes_s),
        })
    }

    /// Bytes that compressing takes off `bytes`; negative where it adds some.
    #[must_use]
    pub fn saved_bytes(&self, bytes: f64) -> f64 {
        bytes * (1.0 - 1.0 / self.ratio)
    }
}

/// Who writes checkpoints, how often, and how long they are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Nodes, each of which writes a checkpoint of its own.
    pub nodes: u32,
    /// Checkpoints of each node in an hour.
    pub per_hour: f64,
    /// Hours that each checkpoint is kept.
    pub retention_hours: f64,
}

impl Schedule {
    /// Bytes that all nodes write in `hours`, at `bytes` a checkpoint.
    #[must_use]
    pub fn written_bytes(&self, bytes: f64, hours: f64) -> f64 {
        f64::from(self.nodes) * self.per_hour * hours * bytes
    }

    /// Bytes kept once the oldest are being dropped, at `bytes` a checkpoint.
    #[must_use]
    pub fn kept_bytes(&self, bytes: f64) -> f64 {
        self.written_bytes(bytes, self.retention_hours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 GB at ratio 2, encoded at 0.5 GB/s and decoded at 1 GB/s.
    const CODING: Coding = Coding { ratio: 2.0, encode_bytes_s: 0.5e9, decode_bytes_s: 1e9 };

    fn close(a: f64, b: f64) -> bool {
        (a / b - 1.0).abs() < 1e-12
    }

    #[test]
    fn transfers_take_what_they_take_by_hand() {
        // 8 Gbit at 1 Gbit/s.
        assert!(close(plain_seconds(1e9, 1e9), 8.0));
        // 2 s to encode, 4 s to send half, 1 s to decode.
        assert!(close(CODING.seconds(1e9, 1e9, Order::OneAfterAnother), 7.0));
        assert!(close(CODING.seconds(1e9, 1e9, Order::Overlapped), 4.0));
        // At 10 Gbit/s the network takes 0.4 s and the encoder is the slowest.
        assert!(close(CODING.seconds(1e9, 1e10, Order::OneAfterAnother), 3.4));
        assert!(close(CODING.seconds(1e9, 1e10, Order::Overlapped), 2.0));
    }

    #[test]
    fn at_the_break_even_bandwidth_both_ways_take_equally_long() {
        // 8 × 0.5 ÷ (2 + 1) Gbit/s; 8 × 0.5 Gbit/s.
        assert!(close(CODING.break_even_bits_s(Order::OneAfterAnother).unwrap(), 4e9 / 3.0));
        assert!(close(CODING.break_even_bits_s(Order::Overlapped).unwrap(), 4e9));
        for order in [Order::OneAfterAnother, Order::Overlapped] {
            let bits_s = CODING.break_even_bits_s(order).unwrap();
            assert!(close(CODING.seconds(1e9, bits_s, order), plain_seconds(1e9, bits_s)));
            assert!(CODING.seconds(1e9, bits_s * 0.9, order) < plain_seconds(1e9, bits_s * 0.9));
            assert!(CODING.seconds(1e9, bits_s * 1.1, order) > plain_seconds(1e9, bits_s * 1.1));
            let grown = Coding { ratio: 0.99, ..CODING };
            assert_eq!((grown.break_even_bits_s(order), grown.saved_bytes(99.0) < 0.0), (None, true));
        }
    }

    #[test]
    fn schedules_multiply() {
        let schedule = Schedule { nodes: 8, per_hour: 0.5, retention_hours: 48.0 };
        // 8 nodes × 24 checkpoints of 1 GB in two days.
        assert!(close(schedule.kept_bytes(1e9), 192e9));
        assert!(close(schedule.written_bytes(CODING.saved_bytes(1e9), 24.0), 48e9));
    }
}

//! BLAKE3 of a whole file from pieces that were hashed apart, on any thread and in any order.
//!
//! BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2020, section 2.1) hashes chunks of 1024 bytes and joins
//! them in a binary tree whose left subtrees are complete. A piece is cut into the largest complete subtrees
//! that lie in it, which need no knowledge of the rest; the ragged bytes at its two ends are kept as they
//! are. The only node that knows its place is the root, so the hasher must never hold the whole file as one
//! finished node: the subtree at offset 0 is kept as two halves, chunk 0 as bytes, and two equal
//! neighbours are joined only when more follows.

use blake3::CHUNK_LEN;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::container::footer::ContentHash;
use crate::error::{Error, ErrorKind, Result};

/// A complete subtree: its chaining value and the number of its chunks, a power of two.
#[derive(Debug, Clone, Copy)]
struct Subtree {
    n_chunks: u64,
    value: ChainingValue,
}

/// The hash of one run of a file's bytes, to be given to a [`ContentHasher`] in the file's order. Holds at
/// most 4 KiB of bytes and 32 bytes for each of up to 120 subtrees.
#[derive(Debug, Clone)]
pub struct Piece {
    offset: u64,
    len: u64,
    head: Vec<u8>,
    subtrees: Vec<Subtree>,
    tail: Vec<u8>,
}

impl Piece {
    /// Hashes `bytes`, which stand at `offset` in the file. Fastest where both ends are multiples of a large
    /// power of two.
    #[must_use]
    pub fn hash(offset: u64, bytes: &[u8]) -> Self {
        let head_len = match offset % CHUNK_LEN as u64 {
            // Chunk 0 alone may be the root.
            0 if offset == 0 && bytes.len() < 2 * CHUNK_LEN => bytes.len(),
            0 => 0,
            // A remainder below 1024 fits.
            past => CHUNK_LEN - usize::try_from(past).unwrap_or(0),
        };
        let (head, rest) = bytes.split_at(head_len.min(bytes.len()));
        let (chunks, tail) = rest.split_at(rest.len() - rest.len() % CHUNK_LEN);
        let mut piece = Self {
            offset,
            len: bytes.len() as u64,
            head: head.to_vec(),
            subtrees: Vec::new(),
            tail: tail.to_vec(),
        };
        piece.add_subtrees(offset.wrapping_add(head.len() as u64), chunks);
        piece
    }

    /// Adds a piece that follows this one, which ends where a chunk of the file does.
    pub fn append(&mut self, next: Self) {
        debug_assert!(self.tail.is_empty() && next.offset == self.offset + self.len, "pieces fit together");
        self.len += next.len;
        self.head.extend(next.head);
        self.subtrees.extend(next.subtrees);
        self.tail = next.tail;
    }

    fn add_subtrees(&mut self, mut offset: u64, mut chunks: &[u8]) {
        while !chunks.is_empty() {
            let most_chunks = 1_usize << (chunks.len() / CHUNK_LEN).ilog2();
            let n_chunks = match offset / CHUNK_LEN as u64 {
                // `most_chunks` is at least 2 here; half of it, so that the root stays open.
                0 => most_chunks.div_ceil(2),
                chunk_idx => most_chunks.min(1 << chunk_idx.trailing_zeros().min(usize::BITS - 1)),
            };
            let (subtree, rest) = chunks.split_at(n_chunks * CHUNK_LEN);
            self.subtrees.push(Subtree { n_chunks: n_chunks as u64, value: chaining_value(offset, subtree) });
            offset = offset.wrapping_add(subtree.len() as u64);
            chunks = rest;
        }
    }
}

/// The chaining value of the subtree over `bytes` at `offset`, a multiple of the chunk size.
fn chaining_value(offset: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset).update(bytes);
    hasher.finalize_non_root()
}

/// Joins pieces into the hash of the whole; memory grows with the logarithm of the file's size.
#[derive(Debug, Clone, Default)]
pub struct ContentHasher {
    len: u64,
    /// Complete subtrees from the left; sizes fall, but for the last two, which may be equal.
    stack: Vec<Subtree>,
    /// The last chunk, of up to 1024 bytes, kept until it is known whether more follows.
    chunk: Vec<u8>,
}

impl ContentHasher {
    /// A hasher of an empty file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the file so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no byte has been added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the piece that follows.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the piece is from another place.
    pub fn push(&mut self, piece: &Piece) -> Result<()> {
        let end = self.len.checked_add(piece.len).filter(|_| piece.offset == self.len);
        let Some(end) = end else {
            let message = format!("piece at offset {} hashed after {} bytes", piece.offset, self.len);
            return Err(Error::new(ErrorKind::Internal, message));
        };
        self.push_bytes(&piece.head);
        if !piece.subtrees.is_empty() {
            self.close_chunk();
        }
        for subtree in &piece.subtrees {
            self.push_subtree(*subtree);
        }
        self.push_bytes(&piece.tail);
        self.len = end;
        Ok(())
    }

    fn push_bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.chunk.len() == CHUNK_LEN {
                self.close_chunk();
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(CHUNK_LEN - self.chunk.len()));
            self.chunk.extend_from_slice(taken);
            bytes = rest;
        }
    }

    /// Hashes the last chunk, if there is one, as a node with others beside it.
    fn close_chunk(&mut self) {
        if !self.chunk.is_empty() {
            let value = chaining_value(self.closed_bytes(), &self.chunk);
            self.chunk.clear();
            self.push_subtree(Subtree { n_chunks: 1, value });
        }
    }

    fn closed_bytes(&self) -> u64 {
        self.stack.iter().map(|subtree| subtree.n_chunks * CHUNK_LEN as u64).sum()
    }

    fn push_subtree(&mut self, subtree: Subtree) {
        while let [.., left, right] = self.stack.as_slice()
            && left.n_chunks == right.n_chunks
        {
            let value = merge_subtrees_non_root(&left.value, &right.value, Mode::Hash);
            let n_chunks = 2 * left.n_chunks;
            self.stack.pop();
            self.stack.pop();
            self.stack.push(Subtree { n_chunks, value });
        }
        self.stack.push(subtree);
    }

    /// The BLAKE3 hash of all bytes added.
    #[must_use]
    pub fn finalize(mut self) -> ContentHash {
        if self.stack.is_empty() {
            return blake3::hash(&self.chunk).into();
        }
        self.close_chunk();
        // At least two subtrees stand here: chunk 0 is only closed when another follows it.
        let mut right = self.stack.pop().map(|subtree| subtree.value).unwrap_or_default();
        while let Some(left) = self.stack.pop() {
            if self.stack.is_empty() {
                return merge_subtrees_root(&left.value, &right, Mode::Hash).into();
            }
            right = merge_subtrees_non_root(&left.value, &right, Mode::Hash);
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded_bytes(len: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[0]
            })
            .collect()
    }

    fn hash_in_pieces(bytes: &[u8], cuts: &[usize]) -> ContentHash {
        let mut hasher = ContentHasher::new();
        let mut from = 0;
        for &to in cuts.iter().chain([&bytes.len()]) {
            hasher.push(&Piece::hash(from as u64, &bytes[from..to])).unwrap();
            from = to;
        }
        assert_eq!(hasher.len(), bytes.len() as u64);
        hasher.finalize()
    }

    #[test]
    fn every_length_and_cut_around_chunk_boundaries() {
        let edges: Vec<usize> =
            (0..=8).flat_map(|n| [n * 1024_usize, n * 1024 + 1, (n * 1024).saturating_sub(1)]).collect();
        let bytes = seeded_bytes(9 * 1024);
        for &len in &edges {
            let whole: ContentHash = blake3::hash(&bytes[..len]).into();
            assert_eq!(hash_in_pieces(&bytes[..len], &[]), whole, "length {len}");
            for &first in edges.iter().filter(|&&first| first <= len) {
                for &second in edges.iter().filter(|&&second| second >= first && second <= len) {
                    assert_eq!(
                        hash_in_pieces(&bytes[..len], &[first, second]),
                        whole,
                        "{first} {second} {len}"
                    );
                }
            }
        }
    }

    #[test]
    fn random_cuts_of_megabytes() {
        let bytes = seeded_bytes(3 << 20);
        let random = seeded_bytes(4000);
        let mut numbers = random.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap()) as usize);
        for round in 0..60 {
            let len =
                if round % 4 == 0 { 1 << (10 + round % 12) } else { numbers.next().unwrap() % bytes.len() };
            let n_cuts = numbers.next().unwrap() % 12;
            let mut cuts: Vec<usize> = (0..n_cuts).map(|_| numbers.next().unwrap() % (len + 1)).collect();
            cuts.sort_unstable();
            let whole: ContentHash = blake3::hash(&bytes[..len]).into();
            assert_eq!(hash_in_pieces(&bytes[..len], &cuts), whole, "length {len}, cuts {cuts:?}");
        }
        let block_cuts: Vec<usize> = (0..6).map(|n| 4711 + n * (512 << 10)).collect();
        assert_eq!(hash_in_pieces(&bytes, &block_cuts), ContentHash::from(blake3::hash(&bytes)));
    }

    #[test]
    fn single_bytes() {
        let bytes = seeded_bytes(3000);
        let cuts: Vec<usize> = (0..3000).collect();
        assert_eq!(hash_in_pieces(&bytes, &cuts), ContentHash::from(blake3::hash(&bytes)));
    }

    #[test]
    fn pieces_out_of_order_are_refused() {
        let mut hasher = ContentHasher::new();
        let error = hasher.push(&Piece::hash(5, b"abc")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

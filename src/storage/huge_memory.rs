//! Memory for what is put aside once and fetched once, in pages as large as the system has: where it takes 4 KiB at a
//! time, memory that was never touched costs more than coding what is put there.

use std::ops::Range;

use memmap2::MmapMut;

/// Anonymous memory of a fixed size that is filled from its beginning on. It exists as far as it has been filled.
#[derive(Debug)]
pub struct HugeMemory {
    /// `None` before the first use, or where the system has none to give.
    map: Option<MmapMut>,
    max_bytes: usize,
    used_bytes: usize,
}

impl HugeMemory {
    /// Memory for `max_bytes`, which is asked for at the first use.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { map: None, max_bytes, used_bytes: 0 }
    }

    /// Bytes that are left.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.max_bytes - self.used_bytes
    }

    /// Copies `bytes` behind what is there, and says where they are; `None` where there is no room.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Range<usize>> {
        if bytes.len() > self.free_bytes() {
            return None;
        }
        if self.map.is_none() {
            let map = MmapMut::map_anon(self.max_bytes).ok()?;
            // Small pages do as well, only slower.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            self.map = Some(map);
        }
        let range = self.used_bytes..self.used_bytes + bytes.len();
        self.map.as_mut()?.get_mut(range.clone())?.copy_from_slice(bytes);
        self.used_bytes = range.end;
        Some(range)
    }

    /// What stands at `range`, which [`Self::push`] gave.
    #[must_use]
    pub fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        self.map.as_ref()?.get(range)
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.used_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_aside_is_found_and_room_is_bounded() {
        let mut memory = HugeMemory::new(10);
        assert_eq!(memory.get(0..0), None);
        let (first, second) = (memory.push(b"abcd").unwrap(), memory.push(b"efghij").unwrap());
        assert_eq!((memory.get(first), memory.get(second)), (Some(&b"abcd"[..]), Some(&b"efghij"[..])));
        assert_eq!((memory.push(b"k"), memory.push(b"")), (None, Some(10..10)));
        memory.clear();
        assert_eq!((memory.free_bytes(), memory.push(b"kl")), (10, Some(0..2)));
        assert_eq!((memory.get(0..4), memory.get(9..11)), (Some(&b"klcd"[..]), None));
    }
}

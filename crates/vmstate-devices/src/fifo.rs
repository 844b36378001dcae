//! A queue of bytes.

use vmstate_derive::VmState;
use vmstate_desc::Reason;

/// A ring of `CAPACITY` bytes. The capacity does not travel.
#[derive(Debug, Clone, PartialEq, Eq, VmState)]
#[vmstate(name = "Fifo8", version = 1, minimum_version = 1, post_load = Self::check)]
pub struct Fifo8<const CAPACITY: usize> {
    /// The ring.
    #[vmstate(buffer, since = 1)]
    pub data: [u8; CAPACITY],
    /// Position of the oldest byte.
    pub head: u32,
    /// Bytes in the queue.
    #[vmstate(name = "num")]
    pub len: u32,
}

impl<const CAPACITY: usize> Default for Fifo8<CAPACITY> {
    fn default() -> Self {
        Self {
            data: [0; CAPACITY],
            head: 0,
            len: 0,
        }
    }
}

impl<const CAPACITY: usize> Fifo8<CAPACITY> {
    /// The bytes in the queue, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        let (head, len) = (self.head as usize, self.len as usize);
        self.data
            .iter()
            .cycle()
            .skip(head % CAPACITY.max(1))
            .take(len.min(CAPACITY))
            .copied()
    }

    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        if self.head as usize >= CAPACITY || self.len as usize > CAPACITY {
            return Err(format!(
                "{} bytes from {} do not fit a queue of {CAPACITY}",
                self.len, self.head
            )
            .into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_wraps() {
        let fifo = Fifo8 {
            data: *b"lohel",
            head: 2,
            len: 5,
        };
        assert_eq!(fifo.iter().collect::<Vec<_>>(), b"hello");
        assert_eq!(Fifo8::<0>::default().iter().count(), 0);
    }
}

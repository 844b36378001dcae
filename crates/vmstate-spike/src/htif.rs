//! HTIF: a console to write to, and an end.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crate::board::HTIF_DEFAULT;

/// Where the two registers are. They lie over memory, from the lower one to 8 bytes past the higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HtifAddresses {
    /// Commands of the guest.
    pub tohost: u64,
    /// Answers.
    pub fromhost: u64,
}

impl Default for HtifAddresses {
    /// As for a guest without symbols.
    fn default() -> Self {
        Self {
            tohost: HTIF_DEFAULT,
            fromhost: HTIF_DEFAULT + 8,
        }
    }
}

impl HtifAddresses {
    pub(crate) fn start(self) -> u64 {
        self.tohost.min(self.fromhost)
    }

    pub(crate) fn len(self) -> u64 {
        self.tohost.abs_diff(self.fromhost).saturating_add(8)
    }
}

/// What a command asks for beyond printing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Nothing,
    /// End with this status.
    Exit(u64),
    /// A system call or a device that there is not.
    Unsupported(u64),
}

pub(crate) struct Htif {
    addresses: HtifAddresses,
    inner: Mutex<Inner>,
}

struct Inner {
    tohost: u64,
    fromhost: u64,
    /// The lower half of `tohost` was written while the register was free.
    accepted: bool,
    console: Box<dyn Write + Send>,
}

impl fmt::Debug for Htif {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Htif")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Htif {
    pub(crate) fn new(addresses: HtifAddresses, console: Box<dyn Write + Send>) -> Self {
        Self {
            addresses,
            inner: Mutex::new(Inner {
                tohost: 0,
                fromhost: 0,
                accepted: false,
                console,
            }),
        }
    }

    pub(crate) fn addresses(&self) -> HtifAddresses {
        self.addresses
    }

    /// Reads up to 8 bytes; what lies between the registers is 0.
    pub(crate) fn read(&self, address: u64, size: u64) -> u64 {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |base: u64| address.checked_sub(base).filter(|at| *at < 8);
        let (value, shift) = if let Some(at) = at(self.addresses.tohost) {
            (inner.tohost, at)
        } else if let Some(at) = at(self.addresses.fromhost) {
            (inner.fromhost, at)
        } else {
            return 0;
        };
        let value = value >> (8 * shift);
        if size >= 8 {
            value
        } else {
            value & ((1 << (8 * size)) - 1)
        }
    }

    /// Writes 4 or 8 bytes. A command is complete with its upper half; others are ignored until the guest has seen that
    /// the register is free again.
    pub(crate) fn write(&self, address: u64, size: u64, value: u64) -> Request {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let HtifAddresses { tohost, fromhost } = self.addresses;
        let low = value & 0xffff_ffff;
        let mut request = Request::Nothing;
        if address == tohost {
            inner.accepted = inner.tohost == 0;
            if inner.accepted {
                inner.tohost = low;
            }
            if size == 8 {
                request = inner.high(value >> 32);
            }
        } else if address == tohost.wrapping_add(4) {
            request = inner.high(low);
        } else if address == fromhost {
            inner.fromhost = if size == 8 { value } else { low };
        } else if address == fromhost.wrapping_add(4) {
            inner.fromhost = inner.fromhost & 0xffff_ffff | low << 32;
        }
        request
    }
}

/// Device of a command: its top byte.
const SYSTEM: u64 = 0;
const CONSOLE: u64 = 1;
/// What the console does: the next byte.
const READ: u64 = 0;
const PRINT: u64 = 1;

impl Inner {
    fn high(&mut self, high: u64) -> Request {
        if !self.accepted {
            return Request::Nothing;
        }
        self.tohost |= high << 32;
        let command = self.tohost;
        let payload = command & 0xffff_ffff_ffff;
        match (command >> 56, command >> 48 & 0xff) {
            (SYSTEM, 0) if payload & 1 == 1 => Request::Exit(payload >> 1),
            (CONSOLE, PRINT) => {
                // Nobody listens: the guest cannot help it.
                let byte = [payload.to_le_bytes()[0]];
                _ = self
                    .console
                    .write_all(&byte)
                    .and_then(|()| self.console.flush());
                self.answer(command, 0x100 | u64::from(byte[0]));
                Request::Nothing
            }
            (CONSOLE, READ) => {
                // Input never comes.
                self.tohost = 0;
                Request::Nothing
            }
            _ => Request::Unsupported(command),
        }
    }

    fn answer(&mut self, command: u64, payload: u64) {
        self.fromhost = command >> 48 << 48 | payload;
        self.tohost = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Printed(Arc<Mutex<Vec<u8>>>);

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn htif() -> (Htif, Printed) {
        let printed = Printed::default();
        let addresses = HtifAddresses {
            tohost: 0x8000_2000,
            fromhost: 0x8000_2010,
        };
        (Htif::new(addresses, Box::new(printed.clone())), printed)
    }

    #[test]
    fn prints_by_whole_and_half_words() {
        let (htif, printed) = htif();
        assert_eq!(
            (htif.addresses().start(), htif.addresses().len()),
            (0x8000_2000, 24)
        );
        assert_eq!(
            htif.write(0x8000_2000, 8, 0x0101_0000_0000_0041),
            Request::Nothing
        );
        assert_eq!(htif.read(0x8000_2000, 8), 0);
        assert_eq!(htif.read(0x8000_2010, 8), 0x0101_0000_0000_0141);
        assert_eq!(htif.read(0x8000_2014, 4), 0x0101_0000);
        htif.write(0x8000_2000, 4, 0x42);
        assert_eq!(htif.read(0x8000_2000, 4), 0x42);
        htif.write(0x8000_2004, 4, 0x0101_0000);
        assert_eq!(*printed.0.lock().unwrap(), b"AB");
        assert_eq!(htif.read(0x8000_2008, 8), 0);
    }

    #[test]
    fn ends_and_refuses() {
        let (htif, printed) = htif();
        assert_eq!(htif.write(0x8000_2000, 8, 7), Request::Exit(3));
        // The command stays, so nothing more is accepted.
        assert_eq!(
            htif.write(0x8000_2000, 8, 0x0101_0000_0000_0041),
            Request::Nothing
        );
        assert!(printed.0.lock().unwrap().is_empty());
        let (htif, _) = self::htif();
        let call = 0x8000_0100;
        assert_eq!(htif.write(0x8000_2000, 8, call), Request::Unsupported(call));
    }
}

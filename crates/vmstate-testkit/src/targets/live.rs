//! Loading into a machine.

use vmstate_ber::der::header;
use vmstate_ber::stream::MAGIC;
use vmstate_engine::{LoadError, Settings};
use vmstate_wire::stream::Dialect;

use super::postcopy::{arrives_alike, chunk, with_postcopy};
use super::settings;
use crate::guest::{Form, Guest};

/// A machine takes the same from a whole stream as from one in pieces, or refuses both for the same reason.
///
/// First byte: dialect, size of the pieces.
///
/// # Panics
/// If it does not.
pub fn incoming(data: &[u8]) {
    let (byte, data) = settings(data);
    let settings = Settings {
        dialect: match byte & 3 {
            0 => Dialect::QEMU_11_1,
            1 => Dialect::QEMU_7_2,
            2 => Dialect::of_machine_version(2, 2),
            _ => Dialect {
                send_configuration: false,
                ..Dialect::QEMU_11_1
            },
        },
        ..Settings::default()
    };
    alike(
        data.len(),
        1 + usize::from(byte >> 2) * 29,
        |guest, piece| guest.load(&settings, data, piece),
    );
}

/// The same of VM state over BER, with what a destination reads live: pages go to where they belong before their frame has ended.
///
/// First byte: size of the pieces; with 0x80, the checksums are put right, so that what they protect is looked at. With 0x40, the machine
/// may run before its memory, and what follows are the three parts of the target `postcopy`.
///
/// # Panics
/// If it does not.
pub fn incoming_ber(data: &[u8]) {
    let (byte, data) = settings(data);
    let sealed = |bytes: &[u8]| {
        let mut stream = bytes.to_vec();
        if byte & 0x80 != 0 {
            seal(&mut stream);
        }
        stream
    };
    let piece = 1 + usize::from(byte & 0x3f) * 29;
    if byte & 0x40 != 0 {
        let (preempt, data) = chunk(data);
        let (first, data) = chunk(data);
        let (second, _) = chunk(data);
        let [preempt, first, second] = [preempt, first, second].map(sealed);
        let settings = with_postcopy(!preempt.is_empty());
        return arrives_alike(Form::Ber, &settings, [&first, &second], &preempt, piece);
    }
    let stream = sealed(data);
    let settings = Settings::default();
    alike(stream.len(), piece, |guest, piece| {
        guest.load_ber(&settings, &stream, piece)
    });
}

/// Puts the checksums of all frames right, as far as there are frames.
fn seal(stream: &mut [u8]) {
    let mut at = MAGIC.len();
    while let Some(Ok(Some(head))) = stream.get(at..).map(header) {
        let (start, end) = (
            at + head.size,
            at.saturating_add(head.size).saturating_add(head.length),
        );
        let Some(content) = stream.get_mut(start..end) else {
            return;
        };
        if let Some(([covered @ .., 0x8f, 4], sum)) = content.split_last_chunk_mut::<4>() {
            *sum = crc32fast::hash(covered).to_be_bytes();
        }
        at = end;
    }
}

/// A machine loads a stream of so many bytes as a whole and in pieces, with the same result.
fn alike(whole: usize, piece: usize, load: impl Fn(&mut Guest, usize) -> Result<(), LoadError>) {
    let load = |piece| {
        let mut guest = Guest::new();
        let result = load(&mut guest, piece);
        let devices = guest.devices.map(|device| format!("{device:?}"));
        let result = result.map_err(|error| error.to_string());
        (result, devices, guest.memory.content())
    };
    let whole = load(whole);
    let pieces = load(piece);
    assert_eq!(
        whole.0.is_ok(),
        pieces.0.is_ok(),
        "{:?} {:?}",
        whole.0,
        pieces.0
    );
    if whole.0.is_ok() {
        assert_eq!(whole.1, pieces.1);
        assert!(whole.2 == pieces.2, "other memory");
    }
}

#[cfg(test)]
mod tests {
    use vmstate_engine::GuestMemory as _;
    use vmstate_ram::BlockId;

    use super::*;

    #[test]
    fn the_machine_loads_what_it_writes() {
        let settings = Settings::default();
        let mut guest = Guest::new();
        guest
            .memory
            .copy_in(BlockId(0), 8000, &[7; 500])
            .expect("in the block");
        let stream = guest.save(&settings).expect("a good stream");
        let mut other = Guest::new();
        other.load(&settings, &stream, 9).expect("a good stream");
        assert!(guest.memory.content() == other.memory.content());
        assert!(other.load(&settings, &stream[1..], 9).is_err());
    }

    #[test]
    fn the_machine_loads_what_it_writes_over_ber() {
        let settings = Settings::default();
        let mut guest = Guest::new();
        guest
            .memory
            .copy_in(BlockId(0), 8000, &[7; 500])
            .expect("in the block");
        let mut stream = guest.save_ber(&settings).expect("a good stream");
        let mut other = Guest::new();
        other
            .load_ber(&settings, &stream, 9)
            .expect("a good stream");
        assert!(guest.memory.content() == other.memory.content());
        // Sealing changes nothing that was right, and puts right what was not.
        let good = stream.clone();
        seal(&mut stream);
        assert!(stream == good);
        let at = stream.windows(5).position(|bytes| bytes == b"plain");
        let sum = stream.windows(2).rposition(|bytes| bytes == [0x8f, 4]);
        assert!(at.is_some());
        stream[sum.expect("a checksum") + 2] ^= 1;
        assert!(Guest::new().load_ber(&settings, &stream, 9).is_err());
        seal(&mut stream);
        assert!(stream == good);
    }
}

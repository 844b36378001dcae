//! Loading into a machine.

use vmstate_engine::Settings;
use vmstate_wire::stream::Dialect;

use super::settings;
use crate::guest::Guest;

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
    let load = |piece| {
        let mut guest = Guest::new();
        let result = guest.load(&settings, data, piece);
        let devices = guest.devices.map(|device| format!("{device:?}"));
        let result = result.map_err(|error| error.to_string());
        (result, devices, guest.memory.content())
    };
    let whole = load(data.len());
    let pieces = load(1 + usize::from(byte >> 2) * 29);
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
}

//! PL011, as older and newer releases describe it.

use vmstate_devices::pl011::Pl011;

use crate::common::Capture;

#[test]
fn every_generation() {
    for (name, has_read_buffer, has_clock) in [
        ("arm-7.2-pl011-no-clock", true, false),
        ("arm-7.2-pl011", true, true),
        ("arm-10.0-pl011-no-clock", false, false),
        ("arm-10.0-pl011", false, true),
        ("arm-11.1-pl011", false, true),
    ] {
        let capture = Capture::read(name);
        let fresh = Pl011 {
            has_read_buffer,
            ..Pl011::default()
        };
        let uart = capture.check(&fresh);
        // Independent of the fields: a word of the payload.
        let word = |at: usize| u32::from_be_bytes(capture.payload[at..][..4].try_into().unwrap());
        assert_eq!(uart.flags, word(4));
        assert_eq!(uart.flags & 0x90, 0x90, "both queues are empty");
        assert_eq!(uart.control, word(16));
        assert_eq!(uart.interrupt_levels, word(4 * (1 + 7 + 16 + 3)));
        assert_eq!(uart.interrupt_levels, 0x12, "half full, both");
        assert_eq!(uart.receive_trigger, 1);
        assert_eq!(uart.receive_count, 0);
        assert_eq!(uart.clock.is_some(), has_clock, "{name}");
        if let Some(clock) = &uart.clock {
            // 20.83 ns.
            assert_eq!(clock.input.period, 0x14_d560_0005);
            assert_eq!(clock.input.hertz(), 47_999_625);
            assert_eq!(clock.input.ratio, None);
        }
    }
}

#[test]
fn generations_load_each_other() {
    let old = Capture::read("arm-7.2-pl011");
    let new = Capture::read("arm-11.1-pl011");
    let uart = old.load(Pl011::default());
    // It is written as a newer release writes it: the same size, nothing in the first four bytes.
    let (payload, entry) = new.describe(&uart);
    assert_eq!(payload.len(), old.payload.len());
    assert_eq!(payload[4..], old.payload[4..]);
    assert_eq!(entry, new.entry);
}

#[test]
fn hostile() {
    let capture = Capture::read("arm-11.1-pl011");
    let refusal = |at: usize, word: i32| {
        let mut payload = capture.payload.clone();
        payload[at..at + 4].copy_from_slice(&word.to_be_bytes());
        let e = capture.try_load(&mut Pl011::default(), &payload);
        e.unwrap_err().to_string()
    };
    let position = 4 * (1 + 7 + 16 + 4);
    assert!(refusal(position, 16).starts_with("pl011: post_load refused: read_pos 16 is outside"));
    assert!(refusal(position, -1).starts_with("pl011: post_load refused: read_pos -1 is outside"));
    assert!(refusal(position + 4, 17).contains("read_count 17 is more than the queue"));
}

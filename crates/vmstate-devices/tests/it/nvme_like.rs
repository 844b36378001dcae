//! Queues that may be absent: both forms, hostile streams, and nothing left of what the target had.

use std::cell::Cell;

use vmstate_derive::VmState;
use vmstate_desc::{Error, Limits, VmState};
use vmstate_devices::nvme_like::{Controller, LEGACY_SLOTS, LegacyController, Queue};
use vmstate_wire::codec::{decode, encode};
use vmstate_wire::vmdesc::VmdescDialect;

use crate::common::describe;

fn queue(id: u16) -> Option<Box<Queue>> {
    Some(Box::new(Queue {
        head: 1,
        tail: 2,
        ..Queue::new(id, 64)
    }))
}

fn controller() -> Controller {
    Controller {
        enabled: true,
        admin_submission: Queue::new(0, 32),
        admin_completion: Queue::new(0, 32),
        submission_count: 4,
        submission: vec![None, queue(1), None, queue(3)],
        completion_count: 2,
        completion: vec![queue(0), None],
    }
}

fn save<T: VmState>(state: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(state, &mut bytes).unwrap();
    bytes
}

fn load<T: VmState>(state: &mut T, bytes: &[u8]) -> Result<usize, Error> {
    decode(state, 1, bytes, Limits::default())
}

const QUEUE: usize = 2 + 4 + 4 + 4 + 8;
/// Where the first marker stands: behind the flag, two queues and the count.
const FIRST: usize = 1 + 2 * QUEUE + 4;

#[test]
fn a_marker_before_every_slot() {
    let bytes = save(&controller());
    assert_eq!(bytes[FIRST - 4..FIRST], [0, 0, 0, 4], "count in 32 bits");
    let markers = [0, 1, 2 + QUEUE, 3 + QUEUE].map(|at| bytes[FIRST + at]);
    assert_eq!(&markers, b"0101");
    let second = FIRST + 4 + 2 * QUEUE;
    assert_eq!(bytes[second], 2, "count in 8 bits");
    assert_eq!((bytes[second + 1], bytes[second + 2 + QUEUE]), (b'1', b'0'));
    assert_eq!(bytes.len(), second + 3 + QUEUE);
    let queue_1 = &bytes[FIRST + 2..][..QUEUE];
    assert_eq!(
        queue_1,
        b"\0\x01\0\0\0\x01\0\0\0\x02\0\0\0\x40\0\0\0\0\0\0\0\0"
    );

    let mut target = Controller::default();
    assert_eq!(load(&mut target, &bytes).unwrap(), bytes.len());
    assert_eq!(target, controller());
    assert!(<Controller>::DESCRIPTION.check().is_ok());
}

#[test]
fn the_trailer_has_an_entry_per_marker() {
    let (_, entry) = describe(&controller(), VmdescDialect::V11_1, "nvme-like", 0);
    let queue = r#""type": "struct", "struct": {"vmsd_name": "nvme-like-queue", "version": 1, "fields": [{"name": "id", "type": "uint16", "size": 2}, {"name": "head", "type": "uint32", "size": 4}, {"name": "tail", "type": "uint32", "size": 4}, {"name": "size", "type": "uint32", "size": 4}, {"name": "base", "type": "uint64", "size": 8}]}, "size": 22}"#;
    let marker = |name| format!(r#"{{"name": "{name}", "type": "ptr-marker", "size": 1}}"#);
    let slot = |name, present: bool| {
        if present {
            format!("{}, {{\"name\": \"{name}\", {queue}", marker(name))
        } else {
            marker(name)
        }
    };
    let expected = format!(
        r#"{{"name": "submission_count", "type": "uint32", "size": 4}}, {}, {}, {}, {}, {{"name": "completion_count", "type": "uint8", "size": 1}}, {}, {}]}}"#,
        slot("sq", false),
        slot("sq", true),
        slot("sq", false),
        slot("sq", true),
        slot("cq", true),
        slot("cq", false),
    );
    assert!(entry.ends_with(&expected), "{entry}\n{expected}");
}

#[test]
fn hostile() {
    let bytes = save(&controller());
    let refusal = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        load(&mut Controller::<Queue>::default(), &bytes).unwrap_err()
    };
    let e = refusal(FIRST + 1, b"2");
    assert_eq!(
        e.to_string(),
        "nvme-like/sq[1]: marker 0x32 is neither 0x30 (absent) nor 0x31 (present) (byte 0x32)"
    );
    assert_eq!(e.offset(), Some(FIRST as u64 + 1));
    assert_eq!(
        refusal(FIRST - 4, &1025_u32.to_be_bytes()).to_string(),
        "nvme-like/sq: count 1025 is outside of 0..=1024 (byte 0x31)"
    );
    assert_eq!(
        refusal(FIRST - 4, &u32::MAX.to_be_bytes()).to_string(),
        "nvme-like/sq: count 4294967295 is outside of 0..=1024 (byte 0x31)"
    );
    let second = FIRST + 4 + 2 * QUEUE;
    assert_eq!(
        refusal(second, &[65]).to_string(),
        "nvme-like/cq: count 65 is outside of 0..=64 (byte 0x62)"
    );
    // Queue 3's head.
    assert_eq!(
        refusal(FIRST + 4 + QUEUE + 2, &64_u32.to_be_bytes()).to_string(),
        "nvme-like/sq[3]: post_load refused: head 64 is outside of 64 entries (byte 0x61)"
    );
    // One more slot than there are: its marker is the other count.
    assert_eq!(
        refusal(FIRST - 4, &5_u32.to_be_bytes()).to_string(),
        "nvme-like/sq[4]: marker 0x02 is neither 0x30 (absent) nor 0x31 (present) (byte 0x61)"
    );
    // As many slots as the bound allows, all empty, in a stream that has only two.
    let mut huge = bytes[..FIRST - 4].to_vec();
    huge.extend(1024_u32.to_be_bytes());
    huge.extend(b"00");
    assert_eq!(
        load(&mut Controller::<Queue>::default(), &huge)
            .unwrap_err()
            .to_string(),
        "nvme-like/sq[2]: stream ends inside struct: 1 bytes needed, 0 left (byte 0x33)"
    );
    for len in 0..bytes.len() {
        let e = load(&mut Controller::<Queue>::default(), &bytes[..len]).unwrap_err();
        assert!(e.offset().is_some_and(|at| at <= len as u64), "{len}: {e}");
        assert!(!e.path().is_empty());
    }
}

#[test]
fn more_slots_than_the_count_says() {
    let mut source = controller();
    source.submission_count = 3;
    let mut bytes = Vec::new();
    assert_eq!(
        encode(&source, &mut bytes).unwrap_err().to_string(),
        "nvme-like/sq: has 4 elements, but submission_count says 3"
    );
}

#[test]
fn the_older_form() {
    let holes = |present: [bool; LEGACY_SLOTS]| LegacyController {
        enabled: true,
        submission: [0, 1, 2, 3].map(|i| {
            if present[usize::from(i)] {
                queue(i)
            } else {
                None
            }
        }),
    };
    let source = holes([true, false, true, false]);
    let bytes = save(&source);
    // Present ones have no marker.
    assert_eq!(bytes.len(), 1 + 2 * QUEUE + 2);
    assert_eq!((bytes[1 + QUEUE], bytes[2 + 2 * QUEUE]), (b'0', b'0'));
    let mut target = holes([true, false, true, false]);
    target.submission[2] = Some(Box::new(Queue::new(9, 8)));
    load(&mut target, &bytes).unwrap();
    assert_eq!(target, source);

    // A hole here, a queue there: the first byte of the queue is no marker.
    let mut target = holes([false, false, true, false]);
    assert_eq!(
        load(&mut target, &bytes).unwrap_err().to_string(),
        "nvme-like-legacy/sq[0]: marker 0x00 is neither 0x30 (absent, as in the destination) (byte 0x1)"
    );
    // A queue here, a hole there: what follows is taken for the queue, until something does not fit.
    let mut target = holes([true, true, true, false]);
    let e = load(&mut target, &bytes).unwrap_err();
    assert_eq!(e.path().to_string(), "nvme-like-legacy/sq[1]");
    // A byte '1' for a hole makes QEMU 11.1 stop; here it is an error like any other.
    let mut bytes = bytes;
    bytes[1 + QUEUE] = b'1';
    let mut target = holes([true, false, true, false]);
    assert_eq!(
        load(&mut target, &bytes).unwrap_err().to_string(),
        "nvme-like-legacy/sq[1]: marker 0x31 is neither 0x30 (absent, as in the destination) (byte 0x17)"
    );
}

thread_local! {
    static ALIVE: Cell<i32> = const { Cell::new(0) };
    static MADE: Cell<i32> = const { Cell::new(0) };
}

/// Counts itself.
#[derive(Debug)]
struct Witness;

impl Default for Witness {
    fn default() -> Self {
        ALIVE.set(ALIVE.get() + 1);
        MADE.set(MADE.get() + 1);
        Self
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
    }
}

#[derive(Debug, Default, VmState)]
#[vmstate(name = "nvme-like-queue", version = 1)]
struct Watched {
    id: u16,
    head: u32,
    tail: u32,
    size: u32,
    base: u64,
    #[vmstate(skip = "counts")]
    _witness: Witness,
}

fn watched(id: u16) -> Option<Box<Watched>> {
    Some(Box::new(Watched {
        id,
        ..Watched::default()
    }))
}

#[test]
fn nothing_leaks_and_nothing_is_left() {
    let bytes = save(&controller());
    {
        let mut target = Controller::<Watched> {
            submission_count: 6,
            submission: (10..16).map(watched).collect(),
            completion_count: 2,
            completion: vec![watched(20), watched(21)],
            ..Controller::default()
        };
        assert_eq!(ALIVE.get(), 2 + 6 + 2);
        load(&mut target, &bytes).unwrap();
        // The two admin queues, and the three that came.
        assert_eq!(ALIVE.get(), 2 + 3);
        let ids = |queues: &[Option<Box<Watched>>]| -> Vec<Option<u16>> {
            queues.iter().map(|q| q.as_ref().map(|q| q.id)).collect()
        };
        assert_eq!(ids(&target.submission), [None, Some(1), None, Some(3)]);
        assert_eq!(ids(&target.completion), [Some(0), None]);
        // Again, over what is there: new queues take the place of old ones.
        let made = MADE.get();
        load(&mut target, &bytes).unwrap();
        assert_eq!((ALIVE.get(), MADE.get() - made), (5, 3));
        // Refused half-way: the queues that came are there, those before are not.
        for len in 0..bytes.len() {
            load(&mut target, &bytes[..len]).unwrap_err();
            assert!((2..=5).contains(&ALIVE.get()), "{len}: {}", ALIVE.get());
        }
        // A length above what the stream holds makes no queues.
        let mut long = bytes.clone();
        long[FIRST - 4..FIRST].copy_from_slice(&1000_u32.to_be_bytes());
        let made = MADE.get();
        load(&mut target, &long).unwrap_err();
        assert!(MADE.get() - made <= 3);
    }
    assert_eq!(ALIVE.get(), 0);

    let mut legacy = LegacyController::<Watched> {
        enabled: false,
        submission: [watched(0), None, watched(2), None],
    };
    let made = MADE.get();
    let source = LegacyController {
        enabled: true,
        submission: [queue(5), None, queue(6), None],
    };
    load(&mut legacy, &save(&source)).unwrap();
    assert_eq!(MADE.get(), made, "the older form loads in place");
    let ids = legacy
        .submission
        .each_ref()
        .map(|q| q.as_ref().map(|q| q.id));
    assert_eq!(ids, [Some(5), None, Some(6), None]);
    drop(legacy);
    assert_eq!(ALIVE.get(), 0);
}

//! Clock, timer and interrupt controllers of a PC.

use vmstate_desc::{Timer, VmState as _};
use vmstate_devices::pic::Pic;
use vmstate_devices::pit::{FREQUENCY, Pit};
use vmstate_devices::rtc::{Reinjection, Rtc};

use crate::common::Capture;

const RELEASES: [&str; 3] = ["7.2", "10.0", "11.1"];

#[test]
fn rtc() {
    for release in RELEASES {
        let capture = Capture::read(&format!("pc-{release}-rtc"));
        let rtc = capture.check(&Rtc::default());
        // The year's digits are the tenth byte, the century's the fifty-first: 26 and 20.
        assert_eq!((capture.payload[9], capture.payload[0x32]), (0x26, 0x20));
        let now = rtc.date_time().unwrap();
        assert_eq!((now.year, now.month, now.day), (2026, 11, 21));
        // The seconds since 1970 say the same to the second, give or take what has passed since the last update.
        let days = rtc.base_seconds / 86_400;
        assert_eq!(days, 20_778, "2026-11-21");
        let of_day =
            u64::from(now.hour) * 3600 + u64::from(now.minute) * 60 + u64::from(now.second);
        assert!(of_day.abs_diff(rtc.base_seconds % 86_400) <= 3);
        // The guest asked for 1024 interrupts per second.
        assert_eq!(rtc.period, 32);
        assert_eq!(rtc.cmos[0x0a] & 0x7f, 0x26);
        assert_eq!(rtc.cmos[0x0b], 0x42);
        assert_eq!(rtc.index, 0x0b);
        assert!(matches!(rtc.periodic_timer, Timer(Some(at)) if at == rtc.next_periodic_time));
        assert_eq!(rtc.reinjection, None);
    }
}

#[test]
fn old_rtc_versions() {
    let capture = Capture::read("pc-11.1-rtc");
    let bytes = &capture.payload[..128 + 1 + 28 + 8 + 8 + 24];
    let mut rtc = Rtc {
        reinjection: Some(Reinjection::default()),
        ..Rtc::default()
    };
    let used =
        vmstate_wire::codec::decode(&mut rtc, 1, bytes, vmstate_desc::Limits::default()).unwrap();
    assert_eq!((used, rtc.period, rtc.base_seconds), (bytes.len(), 0, 0));
    assert_eq!(rtc.reinjection, None);
    let e = vmstate_wire::codec::decode(&mut rtc, 4, bytes, vmstate_desc::Limits::default());
    assert_eq!(
        e.unwrap_err().to_string(),
        "mc146818rtc: version 4 of mc146818rtc is not loadable: this end knows 1..=3 (byte 0x0)"
    );
}

#[test]
fn rtc_subsection() {
    let capture = Capture::read("pc-11.1-rtc");
    let mut rtc = capture.load(Rtc::default());
    rtc.reinjection = Some(Reinjection { count: 0x102 });
    let (payload, entry) = capture.describe(&rtc);
    let name = b"mc146818rtc/irq_reinject_on_ack_count";
    assert_eq!(payload[capture.payload.len()..][..2], [5, 37]);
    assert!(payload.ends_with(&[name.as_slice(), &[0, 0, 0, 1, 1, 2]].concat()));
    assert!(entry.ends_with(
        "\"subsections\": [{\"vmsd_name\": \"mc146818rtc/irq_reinject_on_ack_count\", \"version\": 1, \"fields\": \
         [{\"name\": \"irq_reinject_on_ack_count\", \"type\": \"uint16\", \"size\": 2}]}]}"
    ));
    let mut again = Rtc::default();
    capture.try_load(&mut again, &payload).unwrap();
    assert_eq!(again, rtc);
}

#[test]
fn pit() {
    for release in RELEASES {
        let capture = Capture::read(&format!("pc-{release}-pit"));
        let pit = capture.check(&Pit::default());
        let [interrupt, refresh, speaker] = &pit.channels;
        // The guest's words: mode 2 and 0x2e9c for the interrupt, mode 3 and 0x0533 for the speaker.
        assert_eq!((interrupt.mode, interrupt.count), (2, 0x2e9c));
        assert_eq!((speaker.mode, speaker.count), (3, 0x0533));
        assert_eq!(
            (refresh.count, refresh.mode),
            (0x1_0000, 3),
            "as after reset"
        );
        assert_eq!((interrupt.access, speaker.gate), (3, 1));
        assert_eq!(
            interrupt.round_ns(),
            0x2e9c * 1_000_000_000 / u64::from(FREQUENCY)
        );
        assert!(interrupt.count_load_time > 0);
        // Both places say when the interrupt is due.
        assert_eq!(pit.next_interrupt, interrupt.next_transition_time);
        let at = capture.payload.len() - 8;
        let last = i64::from_be_bytes(capture.payload[at..].try_into().unwrap());
        assert_eq!(pit.next_interrupt, last);
        assert!(pit.next_interrupt > interrupt.count_load_time);
    }
}

#[test]
fn pit_version_2() {
    let capture = Capture::read("pc-7.2-pit");
    let mut pit = Pit {
        interrupt_disabled: 1,
        ..Pit::default()
    };
    let bytes = &capture.payload[4..];
    let used =
        vmstate_wire::codec::decode(&mut pit, 2, bytes, vmstate_desc::Limits::default()).unwrap();
    assert_eq!((used, pit.interrupt_disabled), (bytes.len(), 0));
    assert_eq!(pit.channels[0].count, 0x2e9c);
}

#[test]
fn pic() {
    for release in RELEASES {
        let master = Capture::read(&format!("pc-{release}-pic-master")).check(&Pic::default());
        let slave = Capture::read(&format!("pc-{release}-pic-slave")).check(&Pic::default());
        // What the guest wrote: masks, vectors, and level-triggered inputs 5, 10 and 11.
        assert_eq!((master.masked, slave.masked), (0xb8, 0x8e));
        assert_eq!((master.vector_base, slave.vector_base), (0x08, 0x70));
        assert_eq!(
            (master.level_triggered, slave.level_triggered),
            (0x20, 0x0c)
        );
        assert!(slave.is_level_triggered(3) && !slave.is_level_triggered(4));
        assert_eq!((master.init_state, master.in_service), (0, 0));
        // Since 10.0 the mode in which all inputs are level-triggered is kept.
        let bit = master.all_level_triggered.as_ref().map(|l| l.bit);
        assert_eq!(bit, (release != "7.2").then_some(8));
        assert_eq!(master.is_level_triggered(0), release != "7.2");
        assert_eq!(slave.all_level_triggered, None);
    }
    assert!(Pic::DESCRIPTION.check().is_ok());
}

#[test]
fn a_cut_subsection_is_not_a_subsection() {
    // As QEMU sees it: a header that is not complete belongs to whoever comes next.
    let capture = Capture::read("pc-11.1-pic-master");
    let mut pic = Pic::default();
    assert_eq!(
        capture.try_load(&mut pic, &capture.payload[..20]).unwrap(),
        16
    );
    // With the name complete it is one, and its content is missing.
    let e = capture
        .try_load(&mut pic, &capture.payload[..32])
        .unwrap_err();
    assert_eq!(
        e.to_string(),
        "i8259/i8259/ltim/ltim: stream ends inside uint8: 1 bytes needed, 0 left (byte 0x20)"
    );
}

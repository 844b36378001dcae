//! A compiled device and one that is described at run time make the same calls.

use vmstate_desc::trace::{Nothing, Tee, Trace};
use vmstate_desc::{DynState, SaveState, VmState, load, save};
use vmstate_devices::pic::Pic;
use vmstate_devices::pit::Pit;
use vmstate_devices::rtc::Rtc;
use vmstate_devices::serial::IsaSerial;
use vmstate_wire::codec::{QemuIn, QemuOut};

use crate::common::Capture;

/// The bytes and the calls of one walk.
fn walked(state: &dyn SaveState) -> (Vec<u8>, String) {
    let (mut bytes, mut text) = (Vec::new(), String::new());
    let mut out = QemuOut::new(&mut bytes);
    save(
        state,
        &mut Tee(&mut out, &mut Trace::new(&mut Nothing, &mut text)),
    )
    .unwrap();
    (bytes, text)
}

fn same_calls<T: VmState>(name: &str, fresh: T) {
    let capture = Capture::read(name);
    let compiled = capture.load(fresh);
    let mut described = DynState::new(T::DESCRIPTION);
    let (mut input, mut loading) = (QemuIn::new(&capture.payload), String::new());
    load(
        &mut described,
        capture.version_id,
        &mut Trace::new(&mut input, &mut loading),
        vmstate_desc::Limits::default(),
    )
    .unwrap();
    let (bytes, text) = walked(&compiled);
    assert_eq!(bytes, capture.payload, "{name}");
    assert_eq!(walked(&described), (bytes, text.clone()), "{name}");
    // What is loaded is what is saved, but for runs of elements, of which loading tells the number.
    let first = text.lines().next().unwrap();
    assert_eq!(loading.lines().next().unwrap(), first);
    assert!(
        first.starts_with(&*T::DESCRIPTION.name) && text.lines().count() > 5,
        "{text}"
    );
}

#[test]
fn compiled_or_described_a_device_makes_the_same_calls() {
    for release in ["7.2", "10.0", "11.1"] {
        same_calls(&format!("pc-{release}-pic-master"), Pic::default());
        same_calls(&format!("pc-{release}-pit"), Pit::default());
        same_calls(&format!("pc-{release}-serial"), IsaSerial::default());
    }
    same_calls("pc-11.1-rtc", Rtc::default());
}

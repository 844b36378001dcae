//! Guests that go before their memory, with a channel of its own for requested pages, in QEMU's form: every place where either breaks.

use vmstate_engine::{Capabilities, Capability, Settings};

use crate::late::{End, run_with, settings};
use crate::support::Break;

fn preempt(early: bool) -> Settings {
    let mut settings = settings();
    let all = [
        Capability::PostcopyRam,
        Capability::PostcopyPreempt,
        Capability::ReturnPath,
    ];
    settings.capabilities = Capabilities::of(&all);
    settings.dialect.preempt_pre_7_2 = early;
    settings
}

/// Requested pages have a channel of their own: when the guest goes, or from the beginning, with a mark at its end.
#[test]
fn a_cut_at_every_record_boundary_of_requested_pages() {
    for early in [false, true] {
        let (end, whole) = run_with(preempt(early), Break::Never);
        assert_eq!((end, whole.marked), (End::There, early));
        let boundaries = whole.urgent_boundaries.len();
        assert!(boundaries > 40, "{boundaries}");
        let mut seen = [0; 4];
        for noticed in [true, false] {
            for cut in &whole.urgent_boundaries {
                // The boundary itself, inside the record that begins there, and in the middle of a page.
                for bytes in [*cut, *cut + 1, *cut + 5, *cut + 2000] {
                    let fault = Break::Urgent { bytes, noticed };
                    let (end, pair) = run_with(preempt(early), fault);
                    seen[end as usize] += 1;
                    assert!(pair.recoveries <= 1);
                }
            }
        }
        let [here, doubt, there, recovered] = seen;
        // They are asked for when the guest runs there.
        assert_eq!((here, doubt), (0, 0), "{seen:?}");
        assert!(
            recovered > 100 && there + recovered == boundaries * 8,
            "{seen:?}"
        );
    }
}

/// Set where there is time for all of them: the automatic checks of a change set it.
const ALL: &str = "VMSTATE_ALL_CUTS";

/// The main channel at every record, with the other one beside it; at every seventh if there is little time.
#[test]
fn a_cut_at_every_record_boundary_beside_requested_pages() {
    let step = if std::env::var_os(ALL).is_some() {
        1
    } else {
        7
    };
    for early in [false, true] {
        let (_, whole) = run_with(preempt(early), Break::Never);
        let mut seen = [0; 4];
        for noticed in [true, false] {
            for cut in whole.boundaries.iter().rev().step_by(step) {
                for bytes in [*cut, *cut + 1] {
                    let fault = Break::There { bytes, noticed };
                    let (end, pair) = run_with(preempt(early), fault);
                    seen[end as usize] += 1;
                    assert!(pair.recoveries <= 1);
                }
            }
        }
        let [here, doubt, there, recovered] = seen;
        assert!(here > 0 && there > 0 && recovered > 0, "{seen:?}");
        // A sample may leave out the few records between the destination's last answer and its arrival.
        assert!(doubt > 0 || step > 1, "{seen:?}");
    }
}

//! Commands that overtake one that is not answered.

use super::*;

/// A destination whose loop waits for a page answers nothing but what is run beside it, and that page comes with the next connection.
#[test]
fn a_destination_that_waits_for_a_page_itself_is_recovered() {
    let source = Running::new(source(&[
        status("postcopy-active"),
        status("postcopy-paused"),
        status("postcopy-recover"),
        completed(),
    ]));
    let other = Running::new(Script {
        then: Some("running".to_owned()),
        hangs: true,
        ..destination(&[
            status("postcopy-active"),
            status("postcopy-paused"),
            status("completed"),
        ])
    });
    let report = run(&source, Some(&other), &quick("unix:/m")).unwrap();
    assert!(report.is_success(), "{report:?}");
    assert_eq!(report.recoveries, 1);
    assert_eq!(
        other.told(),
        ["incoming unix:/m false", "pause", "recover unix:/m"]
    );
    assert_eq!(source.told(), ["migrate unix:/m", "migrate unix:/m again"]);
}

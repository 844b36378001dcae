//! Panics in the threads of a migration.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does `what`. A panic, which has been printed, is a failure as any other: without its thread, nobody would end the migration.
///
/// What it leaves half done is judged by the engine's machines, which are in no lock meanwhile: work that has failed may have been
/// done, so behind the last byte the guest is in doubt.
pub(super) fn caught<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|panic| {
        let text = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text,
            (_, Some(text)) => *text,
            _ => "without a reason",
        };
        format!("a thread of the migration has panicked: {text}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_with_its_reason() {
        assert_eq!(caught(|| 1), Ok(1));
        let number = 2;
        for (result, reason) in [
            (caught(|| panic!("plain")), "panicked: plain"),
            (caught(|| panic!("number {number}")), "panicked: number 2"),
            (
                caught(|| std::panic::panic_any(1_u8)),
                "panicked: without a reason",
            ),
        ] {
            let result: Result<(), String> = result;
            assert!(result.unwrap_err().ends_with(reason), "{reason}");
        }
    }
}

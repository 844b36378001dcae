//! A device in forty lines: described, saved, loaded, and refused when it comes broken.

use vmstate::{Error, Limits, Reason, VmState, decode, encode};

/// A watchdog that barks when the guest does not feed it.
#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "watchdog", version = 2, minimum_version = 1, post_load = Self::check)]
struct Watchdog {
    enabled: bool,
    /// Seconds between two feedings.
    #[vmstate(name = "timeout_s", since = 2, default = 60)]
    timeout: u32,
    bark_count: u8,
    #[vmstate(count = bark_count, max = 16)]
    barks: Vec<u64>,
    #[vmstate(skip = "opened again by the destination")]
    log: Option<std::path::PathBuf>,
}

impl Watchdog {
    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        match (self.enabled, self.timeout) {
            (true, 0) => Err("enabled without a timeout".into()),
            _ => Ok(()),
        }
    }
}

fn main() -> Result<(), Error> {
    let mut source = Watchdog::default();
    (source.timeout, source.bark_count, source.barks) = (30, 1, vec![7]);
    let mut bytes = Vec::new();
    encode(&source, &mut bytes)?;
    let mut target = Watchdog::default();
    decode(&mut target, 2, &bytes, Limits::default())?;
    assert_eq!(target, source);
    bytes[5] = 17; // that many barks
    println!("{:?}", decode(&mut target, 2, &bytes, Limits::default()));
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}

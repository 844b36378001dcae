//! Loads the clock out of a stream that QEMU 7.2 wrote, into Rust fields, and says what time it is for the guest.

use std::error::Error;
use std::path::Path;

use vmstate::{Limits, decode};
use vmstate_devices::rtc::Rtc;
use vmstate_io::SliceInput;
use vmstate_io::inspect::{Keep, Options, analyze};

fn main() -> Result<(), Box<dyn Error>> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams");
    let file = std::fs::File::open(vectors.join("pc-7.2-default.main.bin.zst"))?;
    let stream = zstd::decode_all(file)?;

    // Where is it? The walk goes over RAM and all devices with the help of the stream's own trailer.
    let options = Options {
        keep: Keep::None,
        ..Options::default()
    };
    let analysis = analyze(&mut SliceInput::new(&stream), &mut [], &options);
    let section = analysis
        .report
        .sections
        .iter()
        .find(|section| section.idstr == "mc146818rtc")
        .ok_or("the machine has no clock")?;
    let payload = stream
        .get(usize::try_from(section.payload_offset)?..)
        .and_then(|rest| rest.get(..usize::try_from(section.length).ok()?))
        .ok_or("the section is not in the stream")?;

    let mut rtc = Rtc::default();
    decode(&mut rtc, section.version_id, payload, Limits::default()).map_err(|e| {
        e.offset_by(section.payload_offset)
            .in_section(&*section.idstr)
    })?;
    let now = rtc.date_time().ok_or("the clock is not set")?;
    println!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        now.year, now.month, now.day, now.hour, now.minute, now.second
    );
    println!("{} s since 1970 at the last update", rtc.base_seconds);
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}

//! A device that is not known when the program is compiled: its description is made at run time, its values go by name.

use std::borrow::Cow;
use std::sync::Arc;

use vmstate::wire::vmdesc::{Vmdesc, VmdescDialect};
use vmstate::{Codec, Count, Description, DynState, Field, Limits, Repeat, Scalar, decode};

/// In a real program: from a file, or from a stream's trailer.
fn description() -> Description {
    let mut sensor = Description::new("sensor", 1, 1);
    let samples = Field::value("samples", Codec::Int16);
    sensor.fields = Cow::Owned(vec![
        Field::value("enabled", Codec::Bool),
        Field::value("sample_count", Codec::Uint8),
        samples.repeat(Repeat::Counted(Count::of_field("sample_count", 64))),
    ]);
    sensor
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sensor = description();
    // What the compiler checks for a derived device is checked here at run time.
    sensor.check()?;

    let mut state = DynState::new(Arc::new(sensor));
    let payload = [0x01, 0x03, 0x00, 0x15, 0x00, 0x16, 0xff, 0xfe];
    decode(&mut state, 1, &payload, Limits::default())?;
    println!("enabled: {:?}", state.get("enabled"));
    println!("samples: {:?}", state.get("samples"));

    // Changed by name, saved, and described as QEMU 11.1 would.
    state.set("enabled", Scalar::Bool(false));
    let mut bytes = Vec::new();
    let mut vmdesc = Vmdesc::new(VmdescDialect::V11_1, 4096);
    vmdesc.device("sensor", 0, &state, &mut bytes)?;
    println!("{}", vmdesc.finish());
    assert_eq!(bytes.first(), Some(&0));

    // A fourth sample is announced, but does not come.
    let broken = [0x01, 0x04, 0x00, 0x15, 0x00, 0x16, 0xff, 0xfe];
    let refusal = decode(&mut state, 1, &broken, Limits::default());
    println!("{}", refusal.err().ok_or("accepted")?);
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}

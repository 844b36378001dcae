//! Values that are changed in a stream are what QEMU then has.

use std::fs;

use vmstate_desc::{DynState, Scalar, Scalars, Value};
use vmstate_interop::{Generation, Result};
use vmstate_io::inspect::{Analysis, Content, Section};
use vmstate_wire::codec::encode;

use crate::board::PC;
use crate::check::{analyzed, analyzed_file, write};

/// A byte of the RTC's memory that no firmware uses.
const CMOS_BYTE: usize = 0x6d;
const CMOS_VALUE: u8 = 0xa5;
/// Mask of the first interrupt controller: everything but timer and keyboard.
const MASK: u8 = 0xfc;
/// A word of the network card's EEPROM.
const EEPROM_WORD: usize = 0x21;
const EEPROM_VALUE: u16 = 0xbeef;

fn section<'a>(analysis: &'a Analysis, idstr: &str) -> Result<(&'a Section, &'a DynState)> {
    let sections = &analysis.report.sections;
    let found = sections
        .iter()
        .find(|s| s.instance_id == 0 && s.idstr.ends_with(idstr));
    match found {
        Some(section) => match &section.content {
            Content::Described(state) => Ok((section, state)),
            other => Err(format!("{idstr}: {other:?}").into()),
        },
        None => Err(format!("no section {idstr}").into()),
    }
}

fn field(state: &DynState, name: &str) -> Value {
    state.get(name).cloned().unwrap_or_default()
}

/// Encodes `state` into the place of the section's payload, which keeps its length.
fn replace(stream: &mut [u8], section: &Section, state: &DynState) -> Result<()> {
    let mut payload = Vec::new();
    encode(state, &mut payload)?;
    assert_eq!(payload.len() as u64, section.length, "{}", section.idstr);
    // Type, section id, counted name, instance id, version.
    let start = usize::try_from(section.offset)? + 1 + 4 + 1 + section.idstr.len() + 4 + 4;
    let place = stream.get_mut(start..start + payload.len());
    let place = place.ok_or("section behind the end")?;
    let changed = place.iter().zip(&payload).filter(|(a, b)| a != b).count();
    assert!(
        (1..=2).contains(&changed),
        "{changed} bytes of {} change",
        section.idstr
    );
    place.copy_from_slice(&payload);
    Ok(())
}

/// What the tests change: CMOS byte, interrupt mask, EEPROM word.
fn changed(analysis: &Analysis) -> Result<(u8, u8, u16)> {
    let rtc = field(section(analysis, "mc146818rtc")?.1, "cmos_data");
    let pic = field(section(analysis, "i8259")?.1, "imr");
    let nic = field(section(analysis, "/e1000")?.1, "eeprom_data");
    match (rtc, pic, nic) {
        (
            Value::Scalars(Scalars::U8(cmos)),
            Value::Scalar(Scalar::U8(mask)),
            Value::Scalars(Scalars::U16(eeprom)),
        ) => Ok((cmos[CMOS_BYTE], mask, eeprom[EEPROM_WORD])),
        other => Err(format!("other types: {other:?}").into()),
    }
}

fn check(generation: Generation) -> Result<()> {
    let Some(program) = PC.find(generation) else {
        return Ok(());
    };
    let mut source = PC.start(&program)?;
    let path = source.migrate_to_file("stream")?;
    let saved = analyzed_file(&path)?;
    let mut stream = fs::read(path)?;
    let wanted = (CMOS_VALUE, MASK, EEPROM_VALUE);
    let before = changed(&saved)?;
    assert!(
        before.0 != wanted.0 && before.1 != wanted.1 && before.2 != wanted.2,
        "{before:x?}"
    );

    let (at, rtc) = section(&saved, "mc146818rtc")?;
    let mut rtc = rtc.clone();
    if let Value::Scalars(Scalars::U8(mut cmos)) = field(&rtc, "cmos_data") {
        cmos[CMOS_BYTE] = CMOS_VALUE;
        rtc.set("cmos_data", Value::Scalars(Scalars::U8(cmos)));
    }
    replace(&mut stream, at, &rtc)?;
    let (at, pic) = section(&saved, "i8259")?;
    let mut pic = pic.clone();
    pic.set("imr", Scalar::U8(MASK));
    replace(&mut stream, at, &pic)?;
    let (at, nic) = section(&saved, "/e1000")?;
    let mut nic = nic.clone();
    if let Value::Scalars(Scalars::U16(mut words)) = field(&nic, "eeprom_data") {
        words[EEPROM_WORD] = EEPROM_VALUE;
        nic.set("eeprom_data", Value::Scalars(Scalars::U16(words)));
    }
    replace(&mut stream, at, &nic)?;

    let mut destination = PC.waiting(&program)?;
    let path = write(&destination, "stream", &stream)?;
    destination.load(&path)?;
    let path = destination.migrate_to_file("again")?;
    let again = analyzed(&fs::read(path)?, &[])?;
    assert_eq!(changed(&again)?, wanted);

    // The device itself answers, too: its index port, then its data port.
    destination.human(&format!("o/b 0x70 {CMOS_BYTE:#x}"))?;
    let answer = destination.human("i/b 0x71")?;
    assert!(answer.ends_with(&format!("{CMOS_VALUE:#04x}")), "{answer}");
    let answer = destination.human("info pic")?;
    assert!(answer.contains(&format!("imr={MASK:02x}")), "{answer}");
    Ok(())
}

#[test]
fn changed_values_arrive_in_7_2() -> Result<()> {
    check(Generation::V7_2)
}

#[test]
fn changed_values_arrive_in_10_0() -> Result<()> {
    check(Generation::V10_0)
}

#[test]
fn changed_values_arrive_in_11_1() -> Result<()> {
    check(Generation::V11_1)
}

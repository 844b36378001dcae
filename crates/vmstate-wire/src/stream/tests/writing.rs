//! The writers against the worked examples of the format.

use super::super::write::*;
use super::super::*;

pub(super) fn header(kind: SectionKind, id: u32, idstr: &str, version: u32) -> SectionHeader {
    SectionHeader {
        kind,
        section_id: SectionId(id),
        idstr: IdStr::new(idstr).unwrap(),
        instance_id: InstanceId(0),
        version_id: VersionId(version),
    }
}

pub(super) fn block(name: &str) -> BlockName {
    BlockName::new(name).unwrap()
}

#[track_caller]
fn check(write: impl FnOnce(&mut Vec<u8>), expected: &[&[u8]]) {
    let mut out = b"before".to_vec();
    write(&mut out);
    assert_eq!(out, [&b"before"[..], &expected.concat()].concat());
}

#[test]
fn header_configuration_and_sections() {
    check(put_header, &[b"QEVM\0\0\0\x03"]);
    let machine = MachineName::new("virt").unwrap();
    check(
        |out| put_configuration(out, &Configuration::new(machine.clone())),
        &[b"\x07\0\0\0\x04virt"],
    );
    let full = Configuration {
        machine,
        subsections: vec![
            ConfigurationSubsection::TargetPageBits(12),
            ConfigurationSubsection::Capabilities(vec![
                Capability::new("x-ignore-shared").unwrap(),
                Capability::new("mapped-ram").unwrap(),
            ]),
            ConfigurationSubsection::Uuid([0xab; 16]),
        ],
    };
    check(
        |out| put_configuration(out, &full),
        &[
            b"\x07\0\0\0\x04virt",
            b"\x05\x1econfiguration/target-page-bits\0\0\0\x01\0\0\0\x0c",
            b"\x05\x1aconfiguration/capabilities\0\0\0\x01\0\0\0\x02",
            b"\x0fx-ignore-shared\x0amapped-ram",
            b"\x05\x12configuration/uuid\0\0\0\x01",
            &[0xab; 16],
        ],
    );
    check(
        |out| put_section_header(out, &header(SectionKind::Start, 1, "ram", 4)),
        &[b"\x01\0\0\0\x01\x03ram\0\0\0\0\0\0\0\x04"],
    );
    check(
        |out| put_section_header(out, &header(SectionKind::Part, 1, "ram", 4)),
        &[b"\x02\0\0\0\x01"],
    );
    check(|out| put_footer(out, SectionId(1)), &[b"\x7e\0\0\0\x01"]);
    check(put_eof, &[b"\0"]);
    check(
        |out| put_trailer(out, b"{}").unwrap(),
        &[b"\x06\0\0\0\x02{}"],
    );
}

#[track_caller]
fn check_command(command: &Command, expected: &[&[u8]]) {
    check(|out| put_command(out, command).unwrap(), expected);
    let bytes = expected.concat();
    let id = CommandId(u16::from_be_bytes([bytes[1], bytes[2]]));
    assert_eq!(id, command.id());
    assert_eq!(Command::decode(id, &bytes[5..]).as_ref(), Ok(command));
}

#[test]
fn commands() {
    check_command(&Command::OpenReturnPath, &[b"\x08\0\x01\0\0"]);
    check_command(&Command::Ping(0x42), &[b"\x08\0\x02\0\x04\0\0\0\x42"]);
    check_command(&Command::PostcopyAdvise(None), &[b"\x08\0\x03\0\0"]);
    check_command(
        &Command::PostcopyAdvise(Some(PostcopyAdvise {
            page_sizes: 0x20_1000,
            target_page_size: 0x1000,
        })),
        &[b"\x08\0\x03\0\x10\0\0\0\0\0\x20\x10\0\0\0\0\0\0\0\x10\0"],
    );
    check_command(&Command::PostcopyListen, &[b"\x08\0\x04\0\0"]);
    check_command(&Command::PostcopyRun, &[b"\x08\0\x05\0\0"]);
    check_command(
        &Command::RamDiscard {
            block: block("pc.ram"),
            ranges: vec![DiscardRange {
                start: 0x1000,
                length: 0x2000,
            }],
        },
        &[
            b"\x08\0\x06\0\x19\0\x06pc.ram\0",
            b"\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x20\0",
        ],
    );
    check_command(
        &Command::Packaged { length: 0x1234 },
        &[b"\x08\0\x07\0\x04\0\0\x12\x34"],
    );
    check_command(&Command::EnableColo, &[b"\x08\0\x08\0\0"]);
    check_command(&Command::PostcopyResume, &[b"\x08\0\x09\0\0"]);
    check_command(
        &Command::RecvBitmap {
            block: block("pc.ram"),
        },
        &[b"\x08\0\x0a\0\x07\x06pc.ram"],
    );
    check_command(&Command::SwitchoverStart, &[b"\x08\0\x0b\0\0"]);
    check_command(&Command::Upgrade, &[b"\x08\x56\x42\0\0"]);
    check(
        |out| put_packaged(out, b"abc").unwrap(),
        &[b"\x08\0\x07\0\x04\0\0\0\x03abc"],
    );
}

#[test]
fn a_command_that_is_too_long_is_not_written() {
    let range = DiscardRange {
        start: 0,
        length: 1,
    };
    let discard = |count| Command::RamDiscard {
        block: block("pc.ram"),
        ranges: vec![range; count],
    };
    let mut out = Vec::new();
    put_command(&mut out, &discard(4095)).unwrap();
    out.clear();
    let error = put_command(&mut out, &discard(4096)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "payload of a command has 65545 bytes, its length field allows 65535"
    );
    assert!(out.is_empty());
}

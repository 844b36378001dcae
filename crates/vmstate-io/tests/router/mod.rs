//! A device of which parts are tagged unions, and its streams.

use vmstate_ber::AnyValue;
use vmstate_ber::frame::{Frame, Hello, Note, Phase, PhaseName, Status};
use vmstate_ber::stream::{Section, Writer};
use vmstate_derive::VmState;
use vmstate_wire::stream::write::{put_eof, put_footer, put_header, put_trailer};
use vmstate_wire::vmdesc::{Vmdesc, VmdescDialect};

#[derive(Debug, Clone, Default, PartialEq, VmState)]
#[vmstate(name = "line", version = 1)]
pub(crate) struct Line {
    pub(crate) level: bool,
}

#[derive(Debug, Clone, Default, PartialEq, VmState)]
#[vmstate(name = "message", version = 2)]
#[vmstate(subsection(name = "message/mask", version = 1, needed = |m: &Self| m.mask != 0, fields(mask)))]
pub(crate) struct Message {
    pub(crate) address: u64,
    pub(crate) data: u32,
    #[vmstate(default = 0)]
    pub(crate) mask: u32,
}

/// Where an interrupt goes.
#[derive(Debug, Clone, PartialEq, VmState)]
pub(crate) enum Target {
    #[vmstate(case = 0)]
    None,
    #[vmstate(case = 1)]
    Line(Line),
    #[vmstate(case = 2)]
    Message(Box<Message>),
}

#[derive(Debug, Clone, PartialEq, VmState)]
#[vmstate(name = "route", version = 1)]
pub(crate) struct Route {
    pub(crate) kind: u8,
    #[vmstate(variant = kind)]
    pub(crate) target: Target,
}

impl Default for Route {
    fn default() -> Self {
        Self::none()
    }
}

impl Route {
    pub(crate) const fn none() -> Self {
        Self {
            kind: 0,
            target: Target::None,
        }
    }

    pub(crate) const fn line(level: bool) -> Self {
        Self {
            kind: 1,
            target: Target::Line(Line { level }),
        }
    }

    pub(crate) fn message(data: u32, mask: u32) -> Self {
        let address = 0xfee0_0000;
        Self {
            kind: 2,
            target: Target::Message(Box::new(Message {
                address,
                data,
                mask,
            })),
        }
    }
}

/// The device: a table, a list and one alone.
#[derive(Debug, Clone, Default, PartialEq, VmState)]
#[vmstate(name = "router", version = 3)]
pub(crate) struct Router {
    pub(crate) table: [Route; 4],
    #[vmstate(qtailq, since = 1)]
    pub(crate) list: Vec<Route>,
    pub(crate) last: Route,
    pub(crate) pending: u32,
}

impl Router {
    pub(crate) fn new() -> Self {
        Self {
            table: [
                Route::line(true),
                Route::message(0x41, 0xff),
                Route::none(),
                Route::line(false),
            ],
            list: vec![Route::message(0x42, 0), Route::line(true), Route::none()],
            last: Route::message(0x43, 3),
            pending: 0x1234_5678,
        }
    }
}

/// QEMU's stream with this device and a trailer.
pub(crate) fn in_qemu(router: &Router, dialect: VmdescDialect) -> Vec<u8> {
    let mut out = Vec::new();
    put_header(&mut out);
    out.extend([0x04, 0, 0, 0, 1, 6]);
    out.extend(b"router");
    out.extend([0, 0, 0, 0, 0, 0, 0, 3]);
    let mut vmdesc = Vmdesc::new(dialect, 4096);
    vmdesc.device("router", 0, router, &mut out).unwrap();
    put_footer(&mut out, vmstate_wire::stream::SectionId(1));
    put_eof(&mut out);
    put_trailer(&mut out, vmdesc.finish().as_bytes()).unwrap();
    out
}

/// A file of VM state over BER with this device, by its own description.
pub(crate) fn in_ber(router: &Router) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&Hello::of_file("router", Vec::new()), &mut out);
    writer.frame(&Frame::Phase(Phase::new(PhaseName::Setup)), &mut out);
    // QEMU's stream of it has a trailer.
    for (name, value) in [
        ("qemu.vmdesc", AnyValue::text("11.1")),
        ("qemu.page-size", AnyValue::int(4096)),
    ] {
        let name = name.to_owned();
        writer.frame(&Frame::Note(Note { name, value }), &mut out);
    }
    let section = Section {
        section_id: 1,
        idstr: "router",
        instance: 0,
        version: 3,
        early: false,
    };
    writer.device(&section, router, &mut out).unwrap();
    writer.frame(&Frame::Phase(Phase::new(PhaseName::Complete)), &mut out);
    writer.checkpoint(&mut out);
    writer.end(Status::Complete, &mut out);
    out
}

//! Streams as JSON: devices as values, with their types; everything between them as hex digits.
//!
//! ```json
//! {"format":"vmstate-stream/1","elements":[
//! {"bytes":"5145564d00000003…"},
//! {"section":"timer","instance":0,"version":2,"type":0,"state":{"cpu_ticks_offset":"0",…}},
//! {"bytes":"7e00000000…"}
//! ],"schema":{"format":"vmstate-schema/1",…}}
//! ```
//!
//! A device whose value does not give its bytes again is carried in hex digits like the rest.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use vmstate_desc::{DynState, Limits, SaveState};
use vmstate_ram::{BlockTable, PageSize};
use vmstate_schema::value::{from_json, hex, parse_hex, to_json};
use vmstate_schema::{Origin, Schema, TypeId, parse_json};
use vmstate_wire::codec::encode;
use vmstate_wire::stream::{Event, SectionHeader};
use vmstate_wire::vmdesc::{Device, Trailer, VmdescDialect};

use super::report::{Carried, ConvertError, Summary};
use super::to_qemu::QemuSink;
use crate::input::Input;
use crate::inspect::{InspectError, Sink};

/// The name of the form.
const FORMAT: &str = "vmstate-stream/1";
/// Bytes that one element carries at most.
const PIECE: usize = 32 << 10;
/// Most bytes of a text: 1 GiB.
const MAX_TEXT: usize = 1 << 30;

/// Where the bytes of a QEMU stream go until they are an element.
#[derive(Clone, Default)]
struct Pending(Rc<RefCell<Vec<u8>>>);

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes the elements of a stream as JSON.
pub(super) struct JsonSink<'w> {
    out: &'w mut dyn Write,
    /// What would be written for QEMU.
    qemu: QemuSink<'w>,
    pending: Pending,
    schema: Schema,
    summary: Summary,
    memory: u64,
    any: bool,
}

impl<'w> JsonSink<'w> {
    pub(super) fn new(out: &'w mut dyn Write, memory: u64) -> Result<Self, ConvertError> {
        let pending = Pending::default();
        let mut sink = Self {
            out,
            qemu: QemuSink::new(pending.clone()),
            pending,
            schema: Schema::new(Origin::Trailer, None),
            summary: Summary::default(),
            memory,
            any: false,
        };
        sink.put(&format!("{{\"format\":\"{FORMAT}\",\"elements\":["))?;
        Ok(sink)
    }

    fn put(&mut self, text: &str) -> std::io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.summary.written += text.len() as u64;
        Ok(())
    }

    fn element(&mut self, text: &str) -> Result<(), InspectError> {
        let comma = if self.any { ",\n" } else { "\n" };
        self.any = true;
        let put = self.put(comma).and_then(|()| self.put(text));
        put.map_err(InspectError::Write)
    }

    /// Writes what is pending, if it is enough for an element, or all of it.
    fn flush(&mut self, all: bool) -> Result<(), InspectError> {
        let waiting = self.pending.0.borrow().len();
        if waiting == 0 || (!all && waiting < PIECE) {
            return Ok(());
        }
        let bytes = std::mem::take(&mut *self.pending.0.borrow_mut());
        for piece in bytes.chunks(PIECE) {
            self.element(&format!("{{\"bytes\":\"{}\"}}", hex(piece)))?;
        }
        Ok(())
    }

    /// The type and the value of a device, if they give its bytes again.
    fn value(
        &mut self,
        header: &SectionHeader,
        state: &DynState,
        bytes: &[u8],
    ) -> Result<(TypeId, u32, Value), String> {
        let version = SaveState::description(state).version_id;
        let idstr = header.idstr.to_string();
        let text = |e: vmstate_desc::Error| e.to_string();
        let ty = self
            .schema
            .add_state(&idstr, header.instance_id.0, version, state);
        let ty = ty.map_err(text)?;
        let json = to_json(state).map_err(text)?;
        let again = bytes_of(&self.schema, ty, version, &json, self.memory).map_err(text)?;
        if again == bytes {
            Ok((ty, version, json))
        } else {
            Err("its value gives other bytes".to_owned())
        }
    }

    pub(super) fn finish(mut self) -> Result<Summary, ConvertError> {
        self.flush(true)?;
        let schema = self.schema.to_document();
        self.put(&format!("\n],\"schema\":{schema}}}\n"))?;
        self.out.flush()?;
        Ok(self.summary)
    }
}

/// The bytes of a value.
fn bytes_of(
    schema: &Schema,
    ty: TypeId,
    version: u32,
    json: &Value,
    memory: u64,
) -> Result<Vec<u8>, vmstate_desc::Error> {
    let description = schema.description(ty)?;
    let mut state = DynState::new(description);
    let limits = Limits {
        memory,
        ..Limits::default()
    };
    from_json(&mut state, version, json, limits)?;
    let mut bytes = Vec::new();
    encode(&state, &mut bytes)?;
    Ok(bytes)
}

impl Sink for JsonSink<'_> {
    fn describes(&mut self, dialect: VmdescDialect, page_size: u32) {
        self.qemu.describes(dialect, page_size);
    }

    fn configuration(&mut self, state: &DynState, event: &Event<'_>) -> Result<(), InspectError> {
        self.qemu.configuration(state, event)?;
        self.flush(false)
    }

    fn event(
        &mut self,
        event: &Event<'_>,
        trailer: Option<&Trailer<'_>>,
    ) -> Result<(), InspectError> {
        self.qemu.event(event, trailer)?;
        self.flush(false)
    }

    fn device(
        &mut self,
        header: &SectionHeader,
        state: &DynState,
        payload: &[u8],
        entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError> {
        self.flush(true)?;
        self.qemu.device(header, state, payload, entry)?;
        let bytes = std::mem::take(&mut *self.pending.0.borrow_mut());
        match self.value(header, state, &bytes) {
            Ok((ty, version, value)) => {
                self.summary.devices += 1;
                let element = json!({
                    "section": header.idstr.to_string(),
                    "instance": header.instance_id.0,
                    "version": version,
                    "type": ty.0,
                    "state": value,
                });
                self.element(&element.to_string())
            }
            Err(reason) => {
                self.summary.carried.push(Carried {
                    section: header.name().to_string(),
                    length: bytes.len() as u64,
                    reason,
                });
                *self.pending.0.borrow_mut() = bytes;
                self.flush(true)
            }
        }
    }

    fn opaque(
        &mut self,
        header: &SectionHeader,
        bytes: &[u8],
        entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError> {
        self.qemu.opaque(header, bytes, entry)?;
        self.flush(false)
    }

    fn bytes(&mut self, header: &SectionHeader, bytes: &[u8]) -> Result<(), InspectError> {
        self.qemu.bytes(header, bytes)?;
        self.flush(false)
    }

    fn ram(
        &mut self,
        event: &vmstate_ram::Event<'_>,
        blocks: &Arc<BlockTable>,
        page_size: PageSize,
    ) -> Result<(), InspectError> {
        self.qemu.ram(event, blocks, page_size)?;
        self.flush(false)
    }

    fn ram_gap(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.qemu.ram_gap(bytes)?;
        self.flush(false)
    }

    fn verbatim(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.qemu.verbatim(bytes)?;
        self.flush(false)
    }
}

/// Whether a text can be one of ours.
pub(super) fn is_json(start: &[u8]) -> bool {
    start.trim_ascii_start().starts_with(b"{")
}

fn wrong(element: Option<usize>, what: impl Into<String>) -> ConvertError {
    ConvertError::Json {
        element,
        what: what.into(),
    }
}

/// Writes the QEMU stream that a text stands for. Returns how many devices it has.
pub(super) fn to_qemu(
    input: &mut dyn Input,
    out: &mut dyn Write,
    memory: u64,
) -> Result<u64, ConvertError> {
    let text = text_of(input)?;
    // A hex digit takes its byte and a copy; all else is device state.
    let room = usize::try_from(memory).unwrap_or(usize::MAX);
    let room = room.saturating_add(text.len().saturating_mul(3));
    let mut json = parse_json(&text, room).map_err(|e| wrong(None, e.to_string()))?;
    drop(text);
    if json.get("format").and_then(Value::as_str) != Some(FORMAT) {
        return Err(wrong(None, format!("the format is not {FORMAT:?}")));
    }
    let schema = json.get_mut("schema").map(Value::take).unwrap_or_default();
    let schema = Schema::from_document(schema).map_err(|e| wrong(None, e.to_string()))?;
    let elements = json.get("elements").and_then(Value::as_array);
    let elements = elements.ok_or_else(|| wrong(None, "there are no elements"))?;
    let mut devices = 0;
    for (number, element) in elements.iter().enumerate() {
        let number = |member: &str| {
            let found = element.get(member).and_then(Value::as_u64);
            let found = found.and_then(|n| u32::try_from(n).ok());
            found.ok_or_else(|| wrong(Some(number), format!("no member {member:?}")))
        };
        let at = |what: String| wrong(Some(index_of(elements, element)), what);
        let bytes = match (element.get("bytes"), element.get("state")) {
            (Some(bytes), None) => bytes
                .as_str()
                .and_then(parse_hex)
                .ok_or_else(|| at("\"bytes\" are no hex digits".to_owned()))?,
            (None, Some(state)) => {
                devices += 1;
                let ty = TypeId(number("type")?);
                bytes_of(&schema, ty, number("version")?, state, memory)
                    .map_err(|e| at(e.to_string()))?
            }
            _ => return Err(at("neither \"bytes\" nor \"state\"".to_owned())),
        };
        out.write_all(&bytes)?;
    }
    Ok(devices)
}

fn index_of(elements: &[Value], element: &Value) -> usize {
    let same = |other: &Value| std::ptr::eq(other, element);
    elements.iter().position(same).unwrap_or(0)
}

fn text_of(input: &mut dyn Input) -> Result<Vec<u8>, ConvertError> {
    let mut text = Vec::new();
    loop {
        let bytes = input.peek(PIECE)?;
        if bytes.is_empty() {
            return Ok(text);
        }
        let count = bytes.len().min(4 * PIECE);
        text.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if text.len() > MAX_TEXT {
            return Err(wrong(None, format!("longer than {MAX_TEXT} bytes")));
        }
        input.consume(count as u64)?;
    }
}

//! Where the elements of a stream go as they are read: the seam between formats.

use std::sync::Arc;

use vmstate_desc::DynState;
use vmstate_ram::{BlockTable, PageRef, PageSize, Record};
use vmstate_wire::stream::{Event, SectionHeader};
use vmstate_wire::vmdesc::{Device, Trailer, VmdescDialect};

use super::report::InspectError;

/// Takes the elements of a stream in their order, whatever format they came in.
///
/// A section is [`Event::Section`], its body by one of the other methods, perhaps in pieces, and [`Event::SectionClosed`].
pub(crate) trait Sink {
    /// A frame comes, for formats that have frames: where it begins in the stream, and its length in bytes.
    fn frame(&mut self, offset: u64, length: u64) {
        let _ = (offset, length);
    }

    /// Something about the stream that whoever reads its contents should know.
    fn warn(&mut self, text: String) {
        let _ = text;
    }

    /// The descriptions of devices come from the trailer of a stream, so that they tell what that stream holds and no more.
    fn inferred_types(&mut self) {}

    /// The values that come give the trailing description too, in this form: before everything else. Where another text comes with
    /// [`Event::TrailerChunk`], that holds.
    fn describes(&mut self, dialect: VmdescDialect, page_size: u32) {
        let _ = (dialect, page_size);
    }

    /// The configuration section, whose values are known too.
    fn configuration(&mut self, state: &DynState, event: &Event<'_>) -> Result<(), InspectError> {
        let _ = state;
        self.event(event, None)
    }

    /// Anything but the body of a section. `trailer`: the stream's, where it was found beforehand.
    fn event(
        &mut self,
        event: &Event<'_>,
        trailer: Option<&Trailer<'_>>,
    ) -> Result<(), InspectError>;

    /// A device: description and values. `payload` are its bytes, `entry` is what the trailer says about it, where these are
    /// known.
    fn device(
        &mut self,
        header: &SectionHeader,
        state: &DynState,
        payload: &[u8],
        entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError>;

    /// The body of a section that nothing describes. `entry`: what the trailer says, if that does not fit.
    fn opaque(
        &mut self,
        header: &SectionHeader,
        bytes: &[u8],
        entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError>;

    /// A piece of a body that is understood, but goes on as bytes.
    fn bytes(&mut self, header: &SectionHeader, bytes: &[u8]) -> Result<(), InspectError>;

    /// A record of guest RAM.
    fn ram(
        &mut self,
        event: &vmstate_ram::Event<'_>,
        blocks: &Arc<BlockTable>,
        page_size: PageSize,
    ) -> Result<(), InspectError>;

    /// `count` adjacent pages of guest RAM that are filled with one byte: as many records. All are inside of their block.
    fn ram_filled(
        &mut self,
        first: PageRef,
        count: u64,
        fill: u8,
        blocks: &Arc<BlockTable>,
        page_size: PageSize,
    ) -> Result<(), InspectError> {
        for number in 0..count {
            let distance = number.saturating_mul(page_size.bytes());
            let page = PageRef {
                offset: first.offset.saturating_add(distance),
                named: first.named && number == 0,
                ..first
            };
            let record = vmstate_ram::Event::Record(Record::Zero { page, fill });
            self.ram(&record, blocks, page_size)?;
        }
        Ok(())
    }

    /// Bitmap, padding and pages of a block in a mapped-ram file, perhaps in pieces.
    fn ram_gap(&mut self, bytes: &[u8]) -> Result<(), InspectError>;

    /// Bytes that stand here in a QEMU stream, and that are nothing else.
    fn verbatim(&mut self, bytes: &[u8]) -> Result<(), InspectError>;
}

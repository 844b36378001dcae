//! The seam between what a stream says and how it says it.
//!
//! [`Outgoing`](super::Outgoing) and [`Incoming`](super::Incoming) know which handlers and devices speak when; an encoder and a
//! decoder know the bytes. QEMU's stream is one format, written and read in this crate; others come from elsewhere.

use std::fmt;

use vmstate_desc::{DescriptionRef, DynState, Limits, LoadState, SaveState};
use vmstate_wire::stream::{Command, Configuration, SectionHeader, StreamOffset};

use super::error::{LoadError, SaveError};
use crate::channel::{ChannelWriter, SectionReader, SectionWriter};
use crate::handlers::HandlerError;

/// What a stream says of its machine before anything else.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The configuration section.
    pub configuration: Configuration,
    /// The same as described state.
    pub state: DynState,
}

/// Writes what a handler has to say about its section.
pub type SectionBody<'a> = dyn FnMut(&mut dyn SectionWriter) -> Result<(), HandlerError> + 'a;

/// Reads a section with its handler.
pub type SectionLoad<'a> = dyn FnMut(&mut dyn SectionReader) -> Result<(), HandlerError> + 'a;

/// A format of streams, on the source's side. Methods append to a buffer, which is then written and emptied.
pub trait StreamEncoder: fmt::Debug + Send {
    /// What stands in front of all; without an opening if the dialect has none.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    fn begin(&mut self, opening: Option<&Opening>, out: &mut Vec<u8>) -> Result<(), SaveError>;

    /// Whether devices are carried in the form that [`DescribedDevice::structured`](crate::DescribedDevice::structured) describes.
    fn is_structured(&self) -> bool {
        false
    }

    /// What the devices look like that will come. The guest still runs.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    fn describe(&mut self, devices: &[DescriptionRef], out: &mut Vec<u8>) -> Result<(), SaveError> {
        let _ = (devices, out);
        Ok(())
    }

    /// A command.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    fn command(&mut self, command: &Command, out: &mut Vec<u8>) -> Result<(), SaveError>;

    /// A section around what its handler writes.
    ///
    /// # Errors
    ///
    /// The handler's, and what the channel and the format give.
    fn section(
        &mut self,
        header: &SectionHeader,
        body: &mut SectionBody<'_>,
        out: &mut dyn ChannelWriter,
    ) -> Result<(), HandlerError>;

    /// A described device's section. `early`: the guest still runs.
    ///
    /// # Errors
    ///
    /// What the device refuses, and what the format cannot say. The buffer is then of no use.
    fn device(
        &mut self,
        header: &SectionHeader,
        early: bool,
        state: &dyn SaveState,
        out: &mut Vec<u8>,
    ) -> Result<(), vmstate_desc::Error>;

    /// What follows the last section, but for what [`commit`](Self::commit) appends.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    fn complete(&mut self, out: &mut Vec<u8>) -> Result<(), SaveError> {
        let _ = out;
        Ok(())
    }

    /// The one byte with which the stream is complete, so that the destination may run the guest.
    fn commit(&mut self, out: &mut Vec<u8>);

    /// What follows when the guest has gone.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    fn trailer(&mut self, out: &mut Vec<u8>) -> Result<(), SaveError> {
        let _ = out;
        Ok(())
    }

    /// Sections and commands in one piece, for a guest that goes before its memory; no trailer follows. `content` is what this encoder
    /// has appended for them; the last byte of what is appended here makes the package whole.
    ///
    /// # Errors
    ///
    /// [`SaveError::Order`] if the format has no such thing.
    fn package(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), SaveError> {
        let _ = (content, out);
        Err(SaveError::Order("a package"))
    }

    /// The connection has broken in postcopy: what stands in front of all on the one that replaces it.
    fn interrupted(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }
}

/// An element of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Element {
    /// The beginning.
    Header,
    /// What the source says of its machine.
    Configuration(Configuration),
    /// A section begins: [`StreamDecoder::section`] says which.
    Section,
    /// A command.
    Command(Command),
    /// Elements in one piece, of so many bytes; see [`StreamDecoder::package`].
    Package {
        /// Bytes.
        length: u32,
    },
    /// The end: the source will not run the guest any more.
    Eof,
    /// Something that matters to nobody here.
    Other,
}

/// A format of streams, on the destination's side.
pub trait StreamDecoder: fmt::Debug + Send {
    /// The next element; `None` when the stream is complete, with all that may follow its end.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    fn next(&mut self, input: &mut dyn SectionReader) -> Result<Option<Element>, LoadError>;

    /// Where the next element begins.
    fn offset(&self) -> StreamOffset;

    /// The section that has begun, until it is closed.
    fn section(&self) -> Option<&SectionHeader>;

    /// The name of the description that the source has sent for the section that has begun.
    fn described_as(&self) -> Option<&str> {
        None
    }

    /// The oldest version of its description that may load the section that has begun, if the source says so: a newer source then
    /// need not be refused.
    fn readable_from(&self) -> Option<u32> {
        None
    }

    /// Has a handler read the section that has begun.
    ///
    /// # Errors
    ///
    /// The handler's, and what the channel and the format give.
    fn handler(
        &mut self,
        limits: Limits,
        load: &mut SectionLoad<'_>,
        input: &mut dyn SectionReader,
    ) -> Result<(), HandlerError>;

    /// Reads the section that has begun into a described device. An error of the channel is left in `broken`.
    ///
    /// # Errors
    ///
    /// What the device refuses, and bytes that are not its state.
    fn device(
        &mut self,
        state: &mut dyn LoadState,
        limits: Limits,
        input: &mut dyn SectionReader,
        broken: &mut Option<HandlerError>,
    ) -> Result<(), vmstate_desc::Error>;

    /// Reads the end of the section that has begun.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    fn close(&mut self, input: &mut dyn SectionReader) -> Result<(), LoadError>;

    /// The decoder of the elements in the package that [`Element::Package`] has announced, and whose bytes have been read: `content`.
    /// This one goes on behind it.
    ///
    /// # Errors
    ///
    /// [`LoadError::Order`] if there is none, and a package that cannot be one.
    fn package(&mut self, content: &[u8]) -> Result<Box<dyn StreamDecoder>, LoadError> {
        let _ = content;
        Err(LoadError::Order("a package"))
    }

    /// The connection has broken in postcopy: what comes next is read from another one.
    fn interrupted(&mut self) {}
}

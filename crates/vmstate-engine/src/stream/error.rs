//! What goes wrong with a stream.

use vmstate_wire::stream::write::WriteError;
use vmstate_wire::stream::{StreamError, StreamOffset};

use crate::channel::ChannelError;
use crate::handlers::HandlerError;
use crate::postcopy::PostcopyError;
use crate::registry::LookupError;

/// A stream could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The channel broke between sections.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A handler or device refused or failed, or the channel broke inside its section.
    #[error("saving {section}: {source}")]
    Section {
        /// The section's name and instance id.
        section: String,
        /// Why.
        source: HandlerError,
    },
    /// Something is longer than the format can say.
    #[error(transparent)]
    Length(#[from] WriteError),
    /// The machine type's name has no byte, or a name in the configuration is too long.
    #[error("machine name {0:?} cannot be sent")]
    MachineName(String),
    /// A description of the configuration section.
    #[error("configuration: {0}")]
    Configuration(vmstate_desc::Error),
    /// Something that the format cannot say.
    #[error(transparent)]
    Format(Box<dyn std::error::Error + Send + Sync>),
    /// The driver's mistake: this does not come now.
    #[error("{0} is written twice, or too early")]
    Order(&'static str),
}

/// A stream could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The channel broke.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Bytes that are not framed as a stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Bytes that are no stream of another format than QEMU's.
    #[error(transparent)]
    Format(Box<dyn std::error::Error + Send + Sync>),
    /// A section that this machine does not have.
    #[error("{source} (stream offset {offset})")]
    Lookup {
        /// What is wrong with it.
        source: LookupError,
        /// Where its body begins.
        offset: StreamOffset,
    },
    /// A handler or device refused its section, or its bytes are wrong.
    #[error("loading {section}: {source} (section at stream offset {offset})")]
    Section {
        /// The section's name and instance id.
        section: String,
        /// Where its body begins.
        offset: StreamOffset,
        /// Why.
        source: HandlerError,
    },
    /// A handler refused outside of a section.
    #[error("{section}: {source}")]
    Handler {
        /// The section's name and instance id.
        section: String,
        /// Why.
        source: HandlerError,
    },
    /// The stream is another machine's.
    #[error("Machine type received is '{found}' and local is '{local}'")]
    MachineName {
        /// The name that came.
        found: String,
        /// The name of this machine.
        local: String,
    },
    /// Another target page size.
    #[error("the source's target page has {found} bits, this machine's has {local}")]
    PageBits {
        /// What came.
        found: u32,
        /// What this machine has.
        local: u32,
    },
    /// Another UUID.
    #[error("UUID received is {found:02x?} and local is {local:02x?}")]
    Uuid {
        /// What came.
        found: [u8; 16],
        /// What this machine has.
        local: [u8; 16],
    },
    /// A capability that changes the stream is on at one side only.
    #[error("Capability {name} is {}, but received capability is {}", on(*.local), on(!*.local))]
    Capability {
        /// Its name.
        name: String,
        /// Whether it is on here.
        local: bool,
    },
    /// A command that does not come in this kind of migration.
    #[error("command {command} is not expected here (stream offset {offset})")]
    Command {
        /// Its name.
        command: String,
        /// Where it stands.
        offset: StreamOffset,
    },
    /// What the source wants of postcopy cannot be.
    #[error(transparent)]
    Postcopy(#[from] PostcopyError),
    /// The driver's mistake: this does not come now.
    #[error("{0} comes too early")]
    Order(&'static str),
}

fn on(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

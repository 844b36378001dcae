//! The return path: messages from the destination back to the source.

mod message;
mod parser;
#[cfg(test)]
mod tests;

pub use message::{
    BITMAP_END, MAX_MESSAGE, ReturnMessage, ReturnMessageId, put_bitmap, put_message,
};
pub use parser::{
    ReturnEvent, ReturnPathError, ReturnPathErrorKind, ReturnPathParser, ReturnPlace, ReturnStep,
};

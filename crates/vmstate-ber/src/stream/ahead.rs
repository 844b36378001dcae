//! Looking ahead: for readers that want the content of pages where it belongs, and not in a buffer before.

use super::parser::{Parser, State};
use super::{END_OF_CONTENTS, MAGIC};
use crate::error::BerError;
use crate::frame::{RamPages, frame_tag};

/// Bytes of a frame in front of the content of its pages, at most: identifiers, lengths, integers and a bitmap of 512 octets.
const FRONT: usize = 600;

/// What stands at the front of the input.
#[derive(Debug)]
pub enum Ahead<'a> {
    /// Nothing can be said before there are at least `min` bytes of input. The stream has that many, if it is whole.
    NeedMore {
        /// Bytes needed, in all.
        min: usize,
    },
    /// Something for [`Parser::next`], which needs all of it.
    Whole {
        /// Its length in bytes, within the limits.
        length: usize,
    },
    /// A frame of raw pages, without their content, which follows and is the last member.
    Pages {
        /// How many bytes were read.
        consumed: usize,
        /// Where the frame begins in the stream.
        offset: u64,
        /// What it says; [`RamPages::data`] is empty.
        pages: RamPages<'a>,
        /// Bytes of content.
        length: u64,
    },
    /// The stream is complete.
    End,
}

impl Parser {
    /// Looks at what comes, and reads a frame of pages up to its content if no digest is computed. The content counts as read then,
    /// and must be taken before the next call.
    ///
    /// # Errors
    /// As [`Parser::next`], as far as the first octets tell.
    pub fn look<'a>(&mut self, input: &'a [u8]) -> Result<Ahead<'a>, BerError> {
        let length = match self.state {
            State::Magic => MAGIC.len(),
            State::EndOfContents => END_OF_CONTENTS.len(),
            State::End => return Ok(Ahead::End),
            State::Hello | State::Frames => {
                let Some(head) = self.head(input)? else {
                    let min = input.len().saturating_add(1).max(2);
                    return Ok(Ahead::NeedMore { min });
                };
                let end = head.size.saturating_add(head.length);
                if head.tag == frame_tag::RAM_PAGES && !self.has_digest() {
                    let front = end.min(FRONT);
                    let Some(members) = input.get(head.size..front) else {
                        return Ok(Ahead::NeedMore { min: front });
                    };
                    let offset = self.offset();
                    let at = offset.saturating_add(head.size as u64);
                    if let Some((pages, used, length)) =
                        RamPages::decode_open(members, head.length, at)
                    {
                        self.pass(end as u64);
                        return Ok(Ahead::Pages {
                            consumed: head.size.saturating_add(used),
                            offset,
                            pages,
                            length: length as u64,
                        });
                    }
                }
                end
            }
        };
        Ok(Ahead::Whole { length })
    }
}

//! Building the tree of a whole text.
//!
//! This walks the text itself, with the reader's words and strings but without its events: trees of
//! large trailers are on the hot path of inspection.

use std::borrow::Cow;

use super::Json;
use super::reader::{JsonError, JsonErrorKind, JsonEvent, JsonReader};

/// Memory for the arrays and objects of a tree.
struct Budget {
    left: usize,
    limit: usize,
}

impl Budget {
    /// Pushes a value; pays for the room that it takes beforehand.
    fn push<T>(
        &mut self,
        items: &mut Vec<T>,
        item: T,
        reader: &JsonReader<'_>,
    ) -> Result<(), JsonError> {
        if items.len() == items.capacity() {
            let more = items.capacity().max(4);
            self.left = self
                .left
                .checked_sub(more.saturating_mul(size_of::<T>()))
                .ok_or_else(|| reader.error(JsonErrorKind::TooLarge { limit: self.limit }))?;
            items.reserve_exact(more);
        }
        items.push(item);
        Ok(())
    }
}

/// Parses a text of one value into a tree of at most `memory` bytes. Returns the bytes that it takes, too.
pub(super) fn parse(
    text: &[u8],
    max_depth: usize,
    memory: usize,
) -> Result<(Json<'_>, usize), JsonError> {
    let mut reader = JsonReader::new(text, max_depth);
    let first = reader.skip_space();
    let depth = reader.max_depth;
    let mut budget = Budget {
        left: memory,
        limit: memory,
    };
    let value = value(&mut reader, first, depth, &mut budget)?;
    match reader.skip_space() {
        None => Ok((value, memory.saturating_sub(budget.left))),
        found => Err(reader.unexpected("the end of the text", found)),
    }
}

/// Reads the value that begins with `first`, the next byte. Recursion is bounded by `depth`, the
/// number of containers that may still be opened.
fn value<'a>(
    reader: &mut JsonReader<'a>,
    first: Option<u8>,
    depth: usize,
    budget: &mut Budget,
) -> Result<Json<'a>, JsonError> {
    let event = match first {
        Some(b'"') => return reader.string().map(Json::String),
        Some(b'{') => {
            let depth = inner(reader, depth)?;
            return object(reader, depth, budget).map(Json::Object);
        }
        Some(b'[') => {
            let depth = inner(reader, depth)?;
            return array(reader, depth, budget).map(Json::Array);
        }
        Some(b'-' | b'0'..=b'9') => reader.number()?,
        Some(b't') => reader.word(b"true", "'true'", JsonEvent::Bool(true))?,
        Some(b'f') => reader.word(b"false", "'false'", JsonEvent::Bool(false))?,
        Some(b'n') => reader.word(b"null", "'null'", JsonEvent::Null)?,
        other => return Err(reader.unexpected("a value", other)),
    };
    Ok(match event {
        JsonEvent::Number(value) => Json::Number(value),
        JsonEvent::Unsigned(value) => Json::Unsigned(value),
        JsonEvent::Bool(value) => Json::Bool(value),
        _ => Json::Null,
    })
}

/// The depth left inside of a container.
fn inner(reader: &JsonReader<'_>, depth: usize) -> Result<usize, JsonError> {
    depth.checked_sub(1).ok_or_else(|| {
        reader.error(JsonErrorKind::TooDeep {
            limit: reader.max_depth,
        })
    })
}

type Members<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

fn object<'a>(
    reader: &mut JsonReader<'a>,
    depth: usize,
    budget: &mut Budget,
) -> Result<Members<'a>, JsonError> {
    let mut members = Vec::new();
    reader.advance();
    let mut first = reader.skip_space();
    if first == Some(b'}') {
        reader.advance();
        return Ok(members);
    }
    loop {
        if first != Some(b'"') {
            return Err(reader.unexpected("a key", first));
        }
        let key = reader.string()?;
        match reader.skip_space() {
            Some(b':') => reader.advance(),
            other => return Err(reader.unexpected("':'", other)),
        }
        let first_of_value = reader.skip_space();
        let value = value(reader, first_of_value, depth, budget)?;
        budget.push(&mut members, (key, value), reader)?;
        match reader.skip_space() {
            Some(b',') => reader.advance(),
            Some(b'}') => {
                reader.advance();
                return Ok(members);
            }
            other => return Err(reader.unexpected("',' or '}'", other)),
        }
        first = reader.skip_space();
    }
}

fn array<'a>(
    reader: &mut JsonReader<'a>,
    depth: usize,
    budget: &mut Budget,
) -> Result<Vec<Json<'a>>, JsonError> {
    let mut items = Vec::new();
    reader.advance();
    let mut first = reader.skip_space();
    if first == Some(b']') {
        reader.advance();
        return Ok(items);
    }
    loop {
        let item = value(reader, first, depth, budget)?;
        budget.push(&mut items, item, reader)?;
        match reader.skip_space() {
            Some(b',') => reader.advance(),
            Some(b']') => {
                reader.advance();
                return Ok(items);
            }
            other => return Err(reader.unexpected("',' or ']'", other)),
        }
        first = reader.skip_space();
    }
}

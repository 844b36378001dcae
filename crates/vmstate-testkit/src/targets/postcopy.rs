//! Postcopy: what comes to a machine that runs before its memory, and what it asks for.

use vmstate_engine::{Capabilities, Capability, PageRequests, Settings};
use vmstate_ram::BlockName;
use vmstate_wire::stream::{ReturnEvent, ReturnMessage, ReturnPathParser, ReturnStep};

use super::settings;
use crate::guest::Guest;

fn with_postcopy(preempt: bool) -> Settings {
    let list = [Capability::PostcopyRam, Capability::PostcopyPreempt];
    Settings {
        capabilities: Capabilities::of(&list[..1 + usize::from(preempt)]),
        ..Settings::default()
    }
}

/// Takes a number of two bytes and as many bytes as it says, or all that are left.
fn chunk(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else {
        return (&[], &[]);
    };
    rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()))
}

/// A machine that may run before its memory takes the same in pieces as in one, or refuses both; what is there is not written over; and it
/// knows what is missing.
///
/// First byte: size of the pieces, and whether there is a preempt channel. Then three times a number of two bytes and as many bytes: the
/// preempt channel, the main one, and the one that replaces it.
///
/// # Panics
/// If that does not hold.
pub fn postcopy(data: &[u8]) {
    let (byte, data) = settings(data);
    let settings = with_postcopy(byte & 1 != 0);
    let (preempt, data) = chunk(data);
    let (first, data) = chunk(data);
    let (second, _) = chunk(data);
    let load = |piece| {
        let mut guest = Guest::new();
        let result = guest.arrive(&settings, [first, second], preempt, piece);
        let devices = guest.devices.map(|device| format!("{device:?}"));
        (
            result.map_err(|error| error.to_string()),
            devices,
            guest.memory.content(),
        )
    };
    let whole = load(data.len().max(first.len()).max(1));
    let pieces = load(1 + usize::from(byte >> 1) * 29);
    match (&whole.0, &pieces.0) {
        (Ok(missing), Ok(same)) => {
            assert_eq!(missing, same);
            assert_eq!(whole.1, pieces.1);
            assert!(missing.is_none() || whole.2 == pieces.2, "other memory");
        }
        (whole, pieces) => assert_eq!(whole.is_ok(), pieces.is_ok(), "{whole:?} {pieces:?}"),
    }
}

/// A source whose guest has gone hears anything: it refuses what is outside of its memory, and sends every page once all the same, and
/// then no more; so what it has sent loads.
///
/// The input is a return path.
///
/// # Panics
/// If that does not hold.
pub fn page_requests(data: &[u8]) {
    let settings = with_postcopy(false);
    let mut guest = Guest::new();
    let departed = guest.depart(&settings, |requests| hear(data, requests));
    let departed = departed.expect("a good machine");
    let mut other = Guest::new();
    let stream = [departed.stream, departed.rest].concat();
    let missing = other.arrive(&settings, [&stream, &[]], &[], stream.len());
    assert!(matches!(missing, Ok(Some(0))), "{missing:?}");
    assert!(guest.memory.content() == other.memory.content());
}

/// Hands on the requests of a return path up to what is wrong with it.
fn hear(data: &[u8], requests: &PageRequests) {
    let mut parser = ReturnPathParser::new();
    let mut at = 0;
    while let Ok(ReturnStep::Event { consumed, event }) =
        parser.next(data.get(at..).unwrap_or_default())
    {
        at += consumed;
        let pushed = match event {
            ReturnEvent::Message(ReturnMessage::ReqPagesId {
                start,
                length,
                block,
            }) => match BlockName::new(block.as_bytes()) {
                Ok(name) => requests.push(Some(&name), start, length.into()),
                Err(_) => return,
            },
            ReturnEvent::Message(ReturnMessage::ReqPages { start, length }) => {
                requests.push(None, start, length.into())
            }
            _ => Ok(()),
        };
        if pushed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_arrives_before_its_memory() {
        let settings = with_postcopy(false);
        let mut guest = Guest::new();
        let departed = guest.depart(&settings, |_| {}).expect("a good machine");
        let arrive = |rest: &[u8]| {
            let stream = [&departed.stream, rest].concat();
            let mut other = Guest::new();
            let arrived = other.arrive(&settings, [&stream, &[]], &[], 100);
            arrived.expect("a good stream")
        };
        assert_eq!(arrive(&departed.rest), Some(0));
        assert_eq!(arrive(&departed.rest[..departed.rest.len() / 2]), None);
        let mut other = Guest::new();
        assert!(
            other
                .arrive(&settings, [&departed.stream[..60], &[]], &[], 7)
                .is_err()
        );
    }
}

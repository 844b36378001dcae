//! Postcopy: what comes to a machine that runs before its memory, and what it asks for.

use vmstate_engine::{Capabilities, Capability, PageRequests, Settings};
use vmstate_ram::BlockName;
use vmstate_wire::stream::{ReturnEvent, ReturnMessage, ReturnPathParser, ReturnStep};

use super::settings;
use crate::guest::{Form, Guest};

pub(super) fn with_postcopy(preempt: bool) -> Settings {
    let list = [Capability::PostcopyRam, Capability::PostcopyPreempt];
    Settings {
        capabilities: Capabilities::of(&list[..1 + usize::from(preempt)]),
        ..Settings::default()
    }
}

/// Takes a number of two bytes and as many bytes as it says, or all that are left.
pub(super) fn chunk(data: &[u8]) -> (&[u8], &[u8]) {
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
    let piece = 1 + usize::from(byte >> 1) * 29;
    arrives_alike(Form::Qemu, &settings, [first, second], preempt, piece);
}

/// A machine that may run before its memory takes these connections the same in pieces as in one.
pub(super) fn arrives_alike(
    form: Form,
    settings: &Settings,
    [first, second]: [&[u8]; 2],
    preempt: &[u8],
    piece: usize,
) {
    let load = |piece| {
        let mut guest = Guest::new();
        let result = guest.arrive_in(form, settings, [first, second], preempt, piece);
        let devices = guest.devices.map(|device| format!("{device:?}"));
        (
            result.map_err(|error| error.to_string()),
            devices,
            guest.memory.content(),
        )
    };
    let longest = first.len().max(second.len()).max(preempt.len());
    let whole = load(longest.max(1));
    let pieces = load(piece);
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
    for form in [Form::Qemu, Form::Ber] {
        let departed = guest.depart(form, &settings, |requests| hear(data, requests));
        let departed = departed.expect("a good machine");
        let mut other = Guest::new();
        let stream = [departed.stream, departed.rest].concat();
        let missing = other.arrive_in(form, &settings, [&stream, &[]], &[], stream.len());
        assert!(matches!(missing, Ok(Some(0))), "{form:?} {missing:?}");
        assert!(guest.memory.content() == other.memory.content());
    }
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
    use vmstate_ber::der::header;
    use vmstate_ber::frame::{Coding, Command, Frame, Mark, RamMark, RamPages, Select};
    use vmstate_ber::stream::MAGIC;
    use vmstate_engine::GuestMemory as _;
    use vmstate_ram::BlockId;
    use vmstate_wire::stream::CommandId;

    use super::*;

    #[test]
    fn the_machine_arrives_before_its_memory() {
        let settings = with_postcopy(false);
        for form in [Form::Qemu, Form::Ber] {
            let mut guest = Guest::new();
            let content = [7; 5000];
            let written = guest.memory.copy_in(BlockId(0), 3 * 4096, &content);
            written.expect("in the block");
            let departed = guest.depart(form, &settings, |_| {});
            let departed = departed.expect("a good machine");
            let arrive = |rest: &[u8], again: &[u8]| {
                let stream = [&departed.stream, rest].concat();
                let mut other = Guest::new();
                let arrived = other.arrive_in(form, &settings, [&stream, again], &[], 100);
                let alike = guest.memory.content() == other.memory.content();
                (arrived.map_err(|error| error.to_string()), alike)
            };
            let half = &departed.rest[..departed.rest.len() / 2];
            assert_eq!(arrive(&departed.rest, &[]), (Ok(Some(0)), true));
            assert_eq!(arrive(half, &[]).0, Ok(None));
            // How far the first was read is a matter of its pieces; what is there in the end is not.
            assert_eq!(arrive(half, &departed.again), (Ok(None), true));
            let cut = &departed.again[..departed.again.len() - 1];
            assert!(arrive(half, cut).0.is_err());
            // Not a byte less than the package, behind which there is a PING.
            let ping = match form {
                Form::Qemu => 9,
                Form::Ber => 17,
            };
            for length in [60, departed.stream.len() - ping - 1] {
                let cut = &departed.stream[..length];
                let arrived = Guest::new().arrive_in(form, &settings, [cut, &[]], &[], 7);
                assert!(arrived.is_err(), "{form:?} {length}");
            }
        }
    }

    /// Whoever goes on says of which migration, in frames of the same form.
    #[test]
    fn another_connection_is_of_the_same_migration() {
        let settings = with_postcopy(false);
        let depart = |form| {
            let departed = Guest::new().depart(form, &settings, |_| {});
            departed.expect("a good machine")
        };
        let (ber, qemu) = (depart(Form::Ber), depart(Form::Qemu));
        let refused = |again: &[u8]| {
            let mut guest = Guest::new();
            let connections = [&ber.stream[..], again];
            let arrived = guest.arrive_in(Form::Ber, &settings, connections, &[], 100);
            arrived.expect_err("another migration").to_string()
        };
        refused(&qemu.again);
        let at = ber.again.windows(16).position(|w| w == b"a small machine.");
        let mut other = ber.again.clone();
        other[at.expect("a session")] ^= 1;
        let why = refused(&other);
        assert!(why.contains("a channel of another migration"), "{why}");
        // The first connection again is not one that goes on.
        let why = refused(&ber.stream);
        assert!(why.contains("a channel of another migration"), "{why}");
    }

    /// Pages outside of the blocks, and what is no page: nothing of it is placed.
    #[test]
    fn pages_from_nowhere_are_refused_in_frames() {
        let settings = with_postcopy(false);
        let departed = Guest::new().depart(Form::Ber, &settings, |_| {});
        let departed = departed.expect("a good machine");
        let part = departed.rest.windows(4).position(|w| w == [0x67, 6, 2, 1]);
        let section_id = departed.rest[part.expect("a part") + 4].into();
        let mark = |mark| Frame::RamMark(RamMark { section_id, mark });
        let pages = |block, first, count, data| {
            Frame::RamPages(RamPages {
                block,
                first,
                select: Select::Count(count),
                coding: if data == 0 { Coding::Zero } else { Coding::Raw },
                data: (data > 0).then(|| &[9; 8192][..data]),
                zeros: None,
                named: false,
                checksum: false,
            })
        };
        for (frame, text) in [
            (pages(0, 5, 1, 4096), "block"),
            (pages(0, 4, 2, 8192), "block"),
            (pages(0, u64::MAX >> 12, 1, 0), "block"),
            (pages(0, 1 << 60, 1, 0), "beyond all memory"),
            (pages(7, 0, 1, 4096), "7"),
            (pages(0, 0, 1, 8192), "another length"),
        ] {
            let mut bytes = Vec::new();
            for frame in [mark(Mark::Part), frame, mark(Mark::Close)] {
                frame.encode(&mut bytes);
            }
            let hello = header(&departed.again[MAGIC.len()..]);
            let hello = hello.ok().flatten().expect("Hello");
            let (begin, _) = departed
                .again
                .split_at(MAGIC.len() + hello.size + hello.length);
            let mut guest = Guest::new();
            let again = [begin, &resume()[..], &bytes].concat();
            let connections = [&departed.stream[..], &again];
            let arrived = guest.arrive_in(Form::Ber, &settings, connections, &[], 5000);
            let why = arrived.expect_err("no such page").to_string();
            assert!(why.contains(text), "{why}");
            let touched = guest.memory.content().concat().contains(&9);
            assert!(!touched, "{why}");
        }
    }

    fn resume() -> Vec<u8> {
        let mut bytes = Vec::new();
        let command = Command {
            command: CommandId::POSTCOPY_RESUME.0,
            data: &[],
            checksum: true,
        };
        Frame::Command(command).encode(&mut bytes);
        bytes
    }
}

//! Hand-written save and load functions beside QEMU's bytes.

use vmstate_desc::imperative::{Recorder, Replayer};
use vmstate_desc::{Error, ErrorKind, ListKind};
use vmstate_wire::codec::{QemuIn, encode};

const LOOP: ListKind = ListKind::Marked {
    more: 42,
    stop: 0,
    lenient: true,
};

#[derive(Debug, Clone, PartialEq)]
struct Network {
    sockets: Vec<(u32, Vec<u8>)>,
    table: Vec<u16>,
    mac: [u8; 6],
    speed: f64,
}

fn network() -> Network {
    Network {
        sockets: vec![(0x10, b"abcd".to_vec()), (0xffff_ffff, vec![])],
        table: vec![1, 0xfffe],
        mac: *b"macmac",
        speed: -1.5,
    }
}

fn save(network: &Network) -> Recorder {
    let mut out = Recorder::new();
    out.list("sockets", LOOP, &network.sockets, |out, (urgent, data)| {
        out.put("urgent", *urgent);
        out.put_byte_array("data", data);
    });
    out.part("link", |out| {
        out.list("table", ListKind::Prefixed(2), &network.table, |out, x| {
            out.put("entry", *x);
        });
        out.put_buffer("mac", &network.mac);
    });
    out.put("speed", network.speed);
    out
}

fn load(input: &mut Replayer<'_>) -> Result<Network, Error> {
    let mut sockets = Vec::new();
    input.list("sockets", LOOP, 8, |input| {
        sockets.push((input.get("urgent")?, input.get_byte_array("data", 16)?));
        Ok(())
    })?;
    let (table, mac) = input.part("link", |input| {
        let (mut table, mut mac) = (Vec::new(), [0; 6]);
        input.list("table", ListKind::Prefixed(2), 8, |input| {
            table.push(input.get("entry")?);
            Ok(())
        })?;
        input.get_buffer("mac", &mut mac)?;
        Ok((table, mac))
    })?;
    Ok(Network {
        sockets,
        table,
        mac,
        speed: input.get("speed")?,
    })
}

/// What the same function in C writes, byte for byte.
fn by_hand(network: &Network) -> Vec<u8> {
    let mut out = Vec::new();
    for (urgent, data) in &network.sockets {
        out.push(42);
        out.extend(urgent.to_be_bytes());
        out.extend(&(data.len() as u64).to_be_bytes()[4..]);
        out.extend(data);
    }
    out.push(0);
    out.extend(&(network.table.len() as u64).to_be_bytes()[6..]);
    for entry in &network.table {
        out.extend(entry.to_be_bytes());
    }
    out.extend(network.mac);
    out.extend(network.speed.to_bits().to_be_bytes());
    out
}

#[test]
fn recorded_code_has_the_bytes_of_the_code() {
    let network = network();
    let state = save(&network).finish("network", 4).unwrap();
    let mut bytes = Vec::new();
    encode(&state, &mut bytes).unwrap();
    assert_eq!(bytes, by_hand(&network));
    assert_eq!(load(&mut Replayer::of_state(&state)).unwrap(), network);
}

#[test]
fn the_same_calls_read_the_bytes() {
    let network = network();
    let bytes = by_hand(&network);
    let mut input = QemuIn::new(&bytes);
    assert_eq!(load(&mut Replayer::of_bytes(&mut input)).unwrap(), network);
    assert_eq!(input.position(), bytes.len());
}

#[test]
fn bytes_that_end_or_lie_are_refused_where_they_do() {
    let bytes = by_hand(&network());
    for end in 0..bytes.len() {
        let error = load(&mut Replayer::of_bytes(&mut QemuIn::new(&bytes[..end]))).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::UnexpectedEnd { .. }),
            "{end}: {error}"
        );
    }
    // A byte array of 4 GiB, and more sockets than there may be.
    let mut long = bytes.clone();
    long[5..9].fill(0xff);
    let error = load(&mut Replayer::of_bytes(&mut QemuIn::new(&long))).unwrap_err();
    assert!(
        error.to_string().starts_with("sockets[0]/data: length"),
        "{error}"
    );
    let mut many = Vec::new();
    for _ in 0..9 {
        many.extend([42, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    let error = load(&mut Replayer::of_bytes(&mut QemuIn::new(&many))).unwrap_err();
    assert!(error.to_string().starts_with("sockets: count 9"), "{error}");
}

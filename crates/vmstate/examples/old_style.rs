//! Two loops and a `switch` of hand-written save code, described: the bytes stay the same, and a description exists.
//!
//! Below each description stands the code that it replaces. `main` lets both write and compares the bytes.

use std::collections::VecDeque;

use vmstate::desc::snapshot::{InvalidError, Migratable, ToMigrationState};
use vmstate::schema::Schema;
use vmstate::schema::json_schema::{Audience, machine_schema};
use vmstate::{Error, Limits, VmState, decode, encode};

/// A socket of a user-mode network.
#[derive(Debug, Clone, Default, PartialEq, VmState)]
#[vmstate(name = "socket", version = 4)]
struct Socket {
    urgent: u32,
    state: i16,
    address: [u8; 4],
}

/// A user-mode network: any number of sockets, each behind the byte 42, and a 0 behind the last. Then the fields.
#[derive(Debug, Clone, Default, PartialEq, VmState)]
#[vmstate(name = "network", version = 4)]
struct Network {
    /// The loader of the C code takes any byte but 0 for a 42.
    #[vmstate(marked(more = 42, stop = 0, lenient), since = 4)]
    sockets: VecDeque<Socket>,
    #[vmstate(since = 2)]
    ip_id: u16,
}

fn save_network_by_hand(network: &Network, out: &mut Vec<u8>) {
    for socket in &network.sockets {
        out.push(42);
        out.extend(socket.urgent.to_be_bytes());
        out.extend(socket.state.to_be_bytes());
        out.extend(socket.address);
    }
    out.push(0);
    out.extend(network.ip_id.to_be_bytes());
}

/// One of a virtio device's queues, as the guest has set it up. A queue of size 0 is not in use, and neither are those behind it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Queue {
    size: u32,
    ring: u64,
    next: u16,
    vector: u16,
}

/// A virtio device: a table of fixed size. What travels is its used part.
#[derive(Debug, Clone, Default, PartialEq)]
struct Virtio {
    status: u8,
    queues: [Queue; 8],
}

/// A queue in the stream.
#[derive(Debug, Clone, Default, VmState)]
#[vmstate(name = "virtqueue", version = 1)]
struct QueueState {
    num: u32,
    desc: u64,
    last_avail_idx: u16,
    vector: u16,
}

/// The device in the stream: the number of queues in use, be32, and those.
#[derive(Debug, Clone, Default, VmState)]
#[vmstate(name = "virtio", version = 1)]
struct VirtioState {
    status: u8,
    #[vmstate(prefixed = 4, since = 1)]
    queues: Vec<QueueState>,
}

impl ToMigrationState for Virtio {
    type Migrated = VirtioState;

    fn snapshot_migration_state(&self, into: &mut VirtioState) -> Result<(), InvalidError> {
        let used = self.queues.iter().take_while(|queue| queue.size != 0);
        *into = VirtioState {
            status: self.status,
            queues: used
                .map(|queue| QueueState {
                    num: queue.size,
                    desc: queue.ring,
                    last_avail_idx: queue.next,
                    vector: queue.vector,
                })
                .collect(),
        };
        Ok(())
    }

    fn restore_migrated_state_mut(
        &mut self,
        from: VirtioState,
        _version_id: u32,
    ) -> Result<(), InvalidError> {
        let mut queues = <[Queue; 8]>::default();
        if from.queues.len() > queues.len() {
            let (found, room) = (from.queues.len(), queues.len());
            return Err(InvalidError::new(format!(
                "{found} queues, but this device has {room}"
            )));
        }
        for (queue, state) in queues.iter_mut().zip(from.queues) {
            *queue = Queue {
                size: state.num,
                ring: state.desc,
                next: state.last_avail_idx,
                vector: state.vector,
            };
        }
        // What the stream does not have is not in use.
        (self.status, self.queues) = (from.status, queues);
        Ok(())
    }
}

fn save_virtio_by_hand(virtio: &Virtio, out: &mut Vec<u8>) {
    out.push(virtio.status);
    let used = virtio.queues.iter().position(|queue| queue.size == 0);
    let used = used.unwrap_or(virtio.queues.len());
    out.extend(u32::try_from(used).unwrap_or(u32::MAX).to_be_bytes());
    for queue in virtio.queues.iter().take(used) {
        out.extend(queue.size.to_be_bytes());
        out.extend(queue.ring.to_be_bytes());
        out.extend(queue.next.to_be_bytes());
        out.extend(queue.vector.to_be_bytes());
    }
}

/// An interrupt goes to a line of the controller …
#[derive(Debug, Clone, Default, PartialEq, VmState)]
#[vmstate(name = "line", version = 1)]
struct Line {
    pin: u32,
    level: bool,
}

/// … or to a processor, as a write to an address.
#[derive(Debug, Clone, Default, PartialEq, VmState)]
#[vmstate(name = "message", version = 1)]
struct Message {
    address: u64,
    data: u32,
}

/// What the C code switches on stands before it in the stream.
#[derive(Debug, Clone, PartialEq, VmState)]
enum Target {
    #[vmstate(case = 0)]
    Masked,
    #[vmstate(case = 1)]
    Line(Line),
    #[vmstate(case = 2)]
    Message(Message),
}

/// An interrupt's route: `type`, and what that says.
#[derive(Debug, Clone, PartialEq, VmState)]
#[vmstate(name = "route", version = 1)]
struct Route {
    #[vmstate(name = "type")]
    kind: u8,
    #[vmstate(variant = kind)]
    target: Target,
    count: u16,
}

fn save_route_by_hand(route: &Route, out: &mut Vec<u8>) {
    out.push(route.kind);
    match &route.target {
        Target::Masked => {}
        Target::Line(line) => {
            out.extend(line.pin.to_be_bytes());
            out.push(line.level.into());
        }
        Target::Message(message) => {
            out.extend(message.address.to_be_bytes());
            out.extend(message.data.to_be_bytes());
        }
    }
    out.extend(route.count.to_be_bytes());
}

fn routes() -> Result<(), Error> {
    let (pin, level) = (9, true);
    let (address, data) = (0xfee0_1000, 0x4041);
    let all = [
        (0, Target::Masked),
        (1, Target::Line(Line { pin, level })),
        (2, Target::Message(Message { address, data })),
    ];
    for (kind, target) in all {
        let route = Route {
            kind,
            target,
            count: 7,
        };
        let (mut described, mut by_hand) = (Vec::new(), Vec::new());
        encode(&route, &mut described)?;
        save_route_by_hand(&route, &mut by_hand);
        assert_eq!(described, by_hand);
        let mut loaded = Route {
            kind: 0,
            target: Target::Masked,
            count: 0,
        };
        decode(&mut loaded, 1, &described, Limits::default())?;
        assert_eq!(loaded, route);
        println!("route of type {kind}: {} bytes", described.len());
        // A type that nobody knows is refused, not skipped: its bytes have no length.
        described[0] = 3;
        match decode(&mut loaded, 1, &described, Limits::default()) {
            Ok(_) => unreachable!("there is no type 3"),
            Err(refused) => println!("{refused}"),
        }
    }
    // In schemas the three are alternatives.
    let schema = Schema::of(Some("router"), [Route::DESCRIPTION])?;
    let text = machine_schema(&schema, Audience::Writer).to_string();
    assert!(text.contains("oneOf"));
    println!("{text}");
    Ok(())
}

fn main() -> Result<(), Error> {
    routes()?;
    let (mut described, mut by_hand) = (Vec::new(), Vec::new());

    let network = Network {
        sockets: [Socket {
            urgent: 0x10,
            state: -2,
            address: *b"abcd",
        }]
        .into(),
        ip_id: 0x1234,
    };
    encode(&network, &mut described)?;
    save_network_by_hand(&network, &mut by_hand);
    assert_eq!(described, by_hand);
    let mut loaded = Network::default();
    decode(&mut loaded, 4, &described, Limits::default())?;
    assert_eq!(loaded, network);
    println!("network: {} bytes, {:x?}", described.len(), described);
    println!("{:#?}", Network::DESCRIPTION);

    let mut virtio = Virtio {
        status: 15,
        ..Virtio::default()
    };
    for (number, queue) in (1..).zip(virtio.queues.iter_mut().take(2)) {
        *queue = Queue {
            size: 256,
            ring: 0x7f3a_1000,
            next: number,
            vector: number,
        };
    }
    let mut device = Migratable::new(virtio);
    (described, by_hand) = (Vec::new(), Vec::new());
    encode(&device, &mut described)?;
    save_virtio_by_hand(&device, &mut by_hand);
    assert_eq!(described, by_hand);
    // A target with a third queue in use: it has two afterwards.
    let mut target = Migratable::new(Virtio::default());
    target.queues[2].size = 64;
    decode(&mut target, 1, &described, Limits::default())?;
    assert_eq!(*target, *device);
    println!("virtio: {} bytes", described.len());

    // More queues than the device has: refused, and the device stays as it was.
    described[4] = 9;
    described.extend([0; 7 * 16]);
    match decode(&mut device, 1, &described, Limits::default()) {
        Ok(_) => unreachable!("nine queues in a table of eight"),
        Err(refused) => println!("{refused}"),
    }
    assert_eq!(*target, *device);
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}

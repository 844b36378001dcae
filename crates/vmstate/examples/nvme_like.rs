//! A controller whose queues may be absent: saved, described, loaded over another one, and refused when it comes broken.

use vmstate::{Error, Limits, Vmdesc, VmdescDialect, decode, encode};
use vmstate_devices::nvme_like::{Controller, LegacyController, Queue};

fn queue(id: u16) -> Option<Box<Queue>> {
    Some(Box::new(Queue {
        head: 1,
        tail: 3,
        base: 0x10_0000 + u64::from(id) * 0x1000,
        ..Queue::new(id, 64)
    }))
}

/// Queues 1 and 3 of four; completions go to queue 1.
fn controller() -> Controller {
    Controller {
        enabled: true,
        admin_submission: Queue::new(0, 32),
        admin_completion: Queue::new(0, 32),
        submission_count: 4,
        submission: vec![None, queue(1), None, queue(3)],
        completion_count: 2,
        completion: vec![None, queue(1)],
    }
}

fn main() -> Result<(), Error> {
    let source = controller();
    let mut bytes = Vec::new();
    encode(&source, &mut bytes)?;
    println!("{} bytes", bytes.len());

    // The target had other queues. None of them is left.
    let mut target = Controller {
        submission_count: 2,
        submission: vec![queue(9), queue(8)],
        ..Controller::default()
    };
    decode(&mut target, 1, &bytes, Limits::default())?;
    assert_eq!(target, source);

    // The trailer, as QEMU 11.1 writes it.
    let mut payload = Vec::new();
    let mut vmdesc = Vmdesc::new(VmdescDialect::V11_1, 4096);
    vmdesc.device("0000:00:04.0/nvme-like", 0, &source, &mut payload)?;
    assert_eq!(payload, bytes);
    println!("{}", vmdesc.finish());

    // Hostile streams. Behind 45 bytes of admin queues comes the count, then the first marker.
    for (at, byte) in [(45, 0xff), (49, b'2'), (56, 77)] {
        let mut broken = bytes.clone();
        if let Some(place) = broken.get_mut(at) {
            *place = byte;
        }
        if let Err(e) = decode(&mut target, 1, &broken, Limits::default()) {
            println!("{e}");
        }
    }

    // The older form: the target has queue 0 only, but the stream has a hole there.
    let mut target = LegacyController {
        submission: [queue(0), None, None, None],
        ..LegacyController::default()
    };
    let holes = [1, b'0', b'0', b'0', b'0'];
    if let Err(e) = decode(&mut target, 1, &holes, Limits::default()) {
        println!("{e}");
    }
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}

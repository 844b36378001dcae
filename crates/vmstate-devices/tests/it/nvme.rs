//! QEMU 11.1's NVMe controller: fresh from reset, with queues, and busy.

use vmstate_desc::VmState as _;
use vmstate_devices::nvme::Nvme;

use crate::common::Capture;

fn present<T>(slots: &[Option<Box<T>>]) -> Vec<usize> {
    let slots = slots.iter().enumerate();
    slots
        .filter_map(|(i, s)| s.is_some().then_some(i))
        .collect()
}

#[test]
fn after_reset() {
    for (name, pairs, queues) in [
        ("pc-11.1-nvme-reset", 64, vec![0, 1]),
        ("q35-11.1-nvme-reset", 64, vec![]),
    ] {
        let capture = Capture::read(name);
        let nvme = capture.check(&Nvme::new(pairs, 65));
        assert_eq!(nvme.pci.config.id(), (0x1b36, 0x0010));
        assert_eq!(nvme.pci.config.msix_vectors(), Some(65));
        assert_eq!(nvme.conf_ioqpairs, pairs);
        assert_eq!(nvme.submission.len(), 65);
        assert_eq!(present(&nvme.submission), queues, "{name}");
        assert_eq!(present(&nvme.completion), queues, "{name}");
    }
    assert!(Nvme::DESCRIPTION.check().is_ok());
}

#[test]
fn with_queues() {
    let capture = Capture::read("pc-11.1-nvme-queues");
    let nvme = capture.check(&Nvme::new(4, 65));
    // What the guest set up: 32 and 4 admin entries, I/O queues 1 and 3.
    assert_eq!(nvme.bar.aqa, 3 << 16 | 31);
    assert_eq!((nvme.bar.asq, nvme.bar.acq), (0x10_0000, 0x10_1000));
    assert_eq!((nvme.bar.cc, nvme.bar.csts & 1), (4 << 20 | 6 << 16 | 1, 1));
    assert_eq!(nvme.pci.config.u16(4) & 6, 6, "memory and bus master");
    assert_eq!(present(&nvme.submission), [0, 1, 3]);
    assert_eq!(present(&nvme.completion), [0, 1, 3]);
    let submission = |i: usize| nvme.submission[i].as_deref().unwrap();
    let completion = |i: usize| nvme.completion[i].as_deref().unwrap();
    assert_eq!((submission(1).size, submission(3).size), (8, 64));
    assert_eq!((submission(1).cqid, submission(3).cqid), (1, 3));
    assert_eq!(submission(1).dma_addr, 0x10_3000);
    assert_eq!((completion(1).size, completion(3).size), (2, 64));
    assert_eq!(
        (completion(1).irq_enabled, completion(3).irq_enabled),
        (1, 0)
    );
    assert_eq!(completion(3).dma_addr, 0x10_4000);
    // One read was taken and completed.
    assert_eq!((submission(1).head, submission(1).tail), (1, 1));
    assert_eq!((completion(1).tail, completion(1).head), (1, 0));
    // Five admin commands.
    assert_eq!((submission(0).head, submission(0).tail), (5, 5));
    assert_eq!(nvme.async_config, 0x0f);
    assert_eq!(
        nvme.namespace.id_ns.nsze, 2048,
        "1 MiB in blocks of 512 bytes"
    );
    assert_eq!((nvme.page_size, nvme.page_bits), (4096, 12));
    assert_eq!(nvme.namespace.lbaf.ds, 9);
    // Independent of the fields: where the markers are, from the end.
    let after = 2 + 2 + 4 + 512 + 4 + 21;
    let cq = capture.payload.len() - after - (5 + 3 * 30);
    let sq = cq - (5 + 3 * 24);
    let at = |start: usize, each: usize| {
        [0, each + 1, 2 * each + 2, 2 * each + 3, 3 * each + 4].map(|i| capture.payload[start + i])
    };
    assert_eq!(&at(sq, 24), b"11010");
    assert_eq!(&at(cq, 30), b"11010");
}

#[test]
fn busy() {
    let capture = Capture::read("pc-11.1-nvme-busy");
    let nvme = capture.check(&Nvme::new(4, 65));
    // Of three requests for events one was used; the second error is masked and waits.
    assert_eq!(nvme.outstanding_aers, 2);
    let requests: Vec<_> = nvme.aer_reqs.iter().flatten().collect();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!(request.cmd.opcode, 0x0c);
        assert!((0x10..0x13).contains(&request.cmd.cid));
    }
    assert_eq!(nvme.aer_mask, 1);
    assert_eq!((nvme.aer_queue.len(), nvme.aer_queued), (1, 1));
    assert_eq!(nvme.aer_queue[0].result.event_type, 0, "error");
    // Five commands were completed, but the ring holds three.
    let admin = nvme.completion[0].as_deref().unwrap();
    assert_eq!(admin.size, 4);
    let waiting: Vec<_> = admin
        .waiting
        .iter()
        .map(|r| (r.cmd.opcode, r.cmd.cid))
        .collect();
    assert_eq!(waiting, [(9, 0x43), (9, 0x44)]);
    assert_eq!(admin.waiting[0].cmd.cdw10, 0x0b);
    assert_eq!((admin.tail + 1) % 4, admin.head, "full");
}

#[test]
fn what_the_target_had_is_replaced() {
    let busy = Capture::read("pc-11.1-nvme-busy");
    let queues = Capture::read("pc-11.1-nvme-queues");
    let nvme = queues.load(busy.load(Nvme::new(4, 65)));
    assert_eq!(nvme, queues.load(Nvme::new(4, 65)));
}

#[test]
fn hostile() {
    let capture = Capture::read("pc-11.1-nvme-queues");
    // Another number of queue pairs.
    let e = capture
        .try_load(&mut Nvme::new(5, 65), &capture.payload)
        .unwrap_err();
    assert_eq!(
        e.to_string(),
        "nvme/conf_ioqpairs: validate refused: 4 I/O queue pairs, but the destination has 5 (byte 0x2466)"
    );
    let refusal = |at: usize, byte: u8| {
        let mut payload = capture.payload.clone();
        payload[at] = byte;
        let e = capture.try_load(&mut Nvme::new(4, 65), &payload);
        e.unwrap_err().to_string()
    };
    let cq = capture.payload.len() - (2 + 2 + 4 + 512 + 4 + 21) - (5 + 3 * 30);
    let sq = cq - (5 + 3 * 24);
    assert_eq!(
        refusal(sq + 50, b'?'),
        format!(
            "nvme/sq[2]: marker 0x3f is neither 0x30 (absent) nor 0x31 (present) (byte {:#x})",
            sq + 50
        )
    );
    assert!(refusal(cq, 0).starts_with("nvme/cq[0]: marker 0x00 is neither"));
    // PCI: a version that is too new, an interrupt line that is neither up nor down.
    assert_eq!(
        refusal(3, 3),
        "nvme/parent_obj/version_id: value 3 is outside of 0..=2 (byte 0x0)"
    );
    assert_eq!(
        refusal(4 + 4096 + 7, 2),
        "nvme/parent_obj/irq_state: pci irq state refused: INTB is 2, which is neither 0 nor 1 (byte 0x100c)"
    );
    // The vendor is not for the stream to change.
    let mut nvme = capture.load(Nvme::new(4, 65));
    nvme.pci.fixed = vec![0xff; 4];
    let mut payload = capture.payload.clone();
    payload[4] = 0x37;
    assert_eq!(
        capture
            .try_load(&mut nvme, &payload)
            .unwrap_err()
            .to_string(),
        "nvme/parent_obj/config: pci config refused: byte 0x0 must agree with the destination's 0x36, found 0x37 \
         (byte 0x1004)"
    );
}

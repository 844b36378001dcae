//! The entropy device over PCI and MMIO, of all generations.

use vmstate_desc::VmState as _;
use vmstate_devices::pci::PciDevice;
use vmstate_devices::virtio::{
    DeviceEndian, PciExtra, QueueSizes, VirtioMmio, VirtioPci, VirtioRng,
};

use crate::common::Capture;

fn conventional(vectors: Option<u16>) -> VirtioRng<VirtioPci> {
    VirtioRng::over(VirtioPci::new(PciDevice::conventional(), vectors))
}

fn express(vectors: Option<u16>) -> VirtioRng<VirtioPci> {
    VirtioRng::over(VirtioPci::new(PciDevice::express(), vectors))
}

#[test]
fn pci_of_all_generations() {
    for (release, entries) in [("7.2", 8), ("10.0", 1024), ("11.1", 8)] {
        let capture = Capture::read(&format!("pc-{release}-virtio-rng"));
        let rng = capture.check(&conventional(Some(2)));
        let virtio = &rng.virtio;
        assert_eq!(virtio.transport.pci.config.id(), (0x1af4, 0x1005));
        assert_eq!(virtio.transport.pci.config.msix_vectors(), Some(2));
        assert_eq!(virtio.transport.pci.lines, [false; 4]);
        assert_eq!(virtio.queues.len(), 1);
        assert_eq!(
            (virtio.queues[0].size, virtio.queues[0].descriptors),
            (entries, 0)
        );
        assert_eq!(virtio.queues[0].vector, 0xffff);
        assert!(virtio.config.is_empty());
        let extension = &virtio.extension;
        assert_eq!(extension.rings.as_ref().unwrap().rings.len(), 1024);
        let modern = extension.extra.as_ref().unwrap().state.modern.as_ref();
        let modern = modern.unwrap();
        assert_eq!(modern.queues.len(), 1024);
        assert_eq!(extension.disabled.as_ref().map(|d| d.disabled), Some(true));
        assert!(extension.packed.is_none() && extension.broken.is_none());
        assert_eq!(extension.guest_features(virtio.guest_features), 0);
    }
}

#[test]
fn express_and_packed() {
    let capture = Capture::read("q35-11.1-virtio-rng-express");
    let rng = capture.check(&express(Some(2)));
    assert_eq!(rng.virtio.transport.pci.config.id(), (0x1af4, 0x1044));
    assert!(rng.virtio.transport.pci.config.is_express());

    let capture = Capture::read("q35-11.1-virtio-rng-packed");
    let rng = capture.check(&conventional(Some(2)));
    let packed = &rng.virtio.extension.packed.as_ref().unwrap().rings;
    assert_eq!(packed.len(), 1024);
    assert!(packed[0].available_wrap && packed[0].used_wrap);
}

#[test]
fn legacy_without_modern_registers() {
    let capture = Capture::read("pc-10.0-virtio-rng-legacy");
    let rng = capture.check(&conventional(None));
    let extension = &rng.virtio.extension;
    // The transport's description is there, with nothing in it.
    let empty = PciExtra { modern: None };
    assert_eq!(extension.extra.as_ref().unwrap().state, empty);
    assert!(extension.features.is_none() && extension.rings.is_none());
}

#[test]
fn mmio_of_all_generations() {
    for release in ["7.2", "10.0", "11.1"] {
        let fresh = VirtioRng::<VirtioMmio>::default();
        let legacy = Capture::read(&format!("microvm-{release}-virtio-rng")).check(&fresh);
        let modern = Capture::read(&format!("microvm-{release}-virtio-rng-modern")).check(&fresh);
        assert!(legacy.virtio.extension.extra.is_none());
        assert!(legacy.virtio.extension.features.is_some());
        let extra = modern.virtio.extension.extra.as_ref().unwrap();
        let state = extra.state.modern.as_ref().unwrap();
        assert_eq!(state.queues.len(), 1024);
        for rng in [&legacy, &modern] {
            assert_eq!(rng.virtio.queues.len(), 1);
            assert_eq!(
                rng.virtio.queues[0].alignment, 4096,
                "{:?}",
                rng.virtio.queues
            );
        }
    }
    assert!(VirtioRng::<VirtioMmio>::DESCRIPTION.check().is_ok());
}

/// Parts that no recording has.
#[test]
fn all_parts() {
    let capture = Capture::read("pc-11.1-virtio-rng");
    let mut rng = capture.load(conventional(Some(2)));
    rng.virtio.extension.endian = Some(DeviceEndian { order: 2 });
    rng.virtio.extension.sizes = Some(QueueSizes {
        defaults: vec![8; 1024],
    });
    rng.virtio.config = (0..=255).cycle().take(700).collect();
    rng.virtio.isr = 5;
    let (payload, entry) = capture.describe(&rng);
    let mut again = conventional(Some(2));
    capture.try_load(&mut again, &payload).unwrap();
    assert_eq!(again, rng);
    // One field, whatever is in it.
    assert!(entry.ends_with(&format!(
        "\"fields\": [{{\"name\": \"virtio\", \"type\": \"virtio\", \"size\": {}}}]}}",
        payload.len()
    )));
    // A part that has lost its queues is not written.
    rng.virtio.extension.sizes = Some(QueueSizes { defaults: vec![8] });
    let e = vmstate_wire::codec::encode(&rng, &mut Vec::new()).unwrap_err();
    assert_eq!(
        e.to_string(),
        "virtio-rng/virtio/virtio/ringsize/vq: has 1 elements, but all_queues says 1024"
    );
}

#[test]
fn what_the_target_had_is_replaced() {
    let capture = Capture::read("q35-11.1-virtio-rng-packed");
    let full = Capture::read("pc-11.1-virtio-rng");
    let mut busy = full.load(conventional(Some(2)));
    busy.virtio.extension.endian = Some(DeviceEndian { order: 2 });
    busy.virtio.config = vec![1; 9];
    busy.virtio.queues = vec![busy.virtio.queues[0].clone(); 5];
    assert_eq!(capture.load(busy), capture.load(conventional(Some(2))));
}

#[test]
fn hostile() {
    let capture = Capture::read("pc-11.1-virtio-rng");
    let refusal = |at: usize, new: &[u8]| {
        let mut payload = capture.payload.clone();
        payload[at..at + new.len()].copy_from_slice(new);
        let e = capture.try_load(&mut conventional(Some(2)), &payload);
        e.unwrap_err().to_string()
    };
    // PCIDevice 4 + 256 + 16, two vectors and pending bits, the vector; status, isr, queue and features.
    let config_len = 276 + 33 + 2 + 8;
    assert_eq!(
        refusal(config_len, &u32::MAX.to_be_bytes()),
        "virtio-rng/virtio/config_len: virtio refused: 4294967295 bytes of configuration space are more than 65536 \
         (byte 0x143)"
    );
    assert_eq!(
        refusal(config_len + 4, &1025_u32.to_be_bytes()),
        "virtio-rng/virtio/queues: virtio refused: 1025 queues are more than 1024 (byte 0x147)"
    );
    let queue = config_len + 8;
    assert_eq!(
        refusal(queue + 4 + 8, &[0, 1]),
        "virtio-rng/virtio/queues[0]: virtio refused: the queue is not set up, but 1 entries were taken from it \
         (byte 0x155)"
    );
    assert_eq!(
        refusal(4 + 256, &[0, 0, 0, 9]),
        "virtio-rng/virtio/pci/irq_state: pci irq state refused: INTA is 9, which is neither 0 nor 1 (byte 0x108)"
    );
    assert!(
        refusal(config_len + 8 + 16 + 2 + 8, b"x").contains("does not exist in virtio (known: ")
    );
    // An end that has no MSI-X, or more of it, or is PCI Express, finds other things where it looks for registers: at the
    // latest the section's footer is not where it should be.
    let mut wrong = vec![
        conventional(None),
        conventional(Some(1)),
        conventional(Some(3)),
    ];
    wrong.push(express(Some(2)));
    for mut wrong in wrong {
        match capture.try_load(&mut wrong, &capture.payload) {
            Ok(used) => assert!(used < capture.payload.len()),
            Err(e) => assert!(e.to_string().starts_with("virtio-rng/virtio/"), "{e}"),
        }
    }
}

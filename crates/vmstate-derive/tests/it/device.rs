//! One device with most of what there is.

use vmstate_derive::VmState;
use vmstate_desc::{Reason, VmState as _};

use crate::common::{hex, load, load_version, refused, save};

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "nic/rss", version = 1)]
struct Rss {
    key: [u8; 4],
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "nic/queue")]
struct Queue {
    head: u16,
    tail: u16,
}

impl Queue {
    fn check(queues: &[Self], nic: &Nic) -> Result<(), Reason> {
        match queues.iter().find(|q| q.head > nic.limit) {
            Some(q) => Err(format!("{} is above the limit {}", q.head, nic.limit).into()),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "nic", version = 3, minimum_version = 1, priority = Iommu)]
#[vmstate(post_load = Self::rearm)]
#[vmstate(subsection(name = "nic/vlan", version = 1, needed = Self::vlan_in_use, fields(vlan)))]
struct Nic {
    control: u32,
    #[vmstate(name = "mac_addr")]
    mac: [u8; 6],
    #[vmstate(since = 2, default = true)]
    link_up: bool,
    #[vmstate(unused = 2, until = 3)]
    _legacy: (),
    #[vmstate(exists = Self::has_mode)]
    mode: u16,
    queue_count: u8,
    #[vmstate(count = queue_count, max = 4, validate = check_queues)]
    queues: Vec<Queue>,
    slot_count: u8,
    #[vmstate(pointers, count = slot_count, max = 8)]
    slots: Vec<Option<Box<Queue>>>,
    #[vmstate(pointers(mark_absent))]
    channels: [Option<Box<u8>>; 3],
    vlan: [u16; 2],
    #[vmstate(subsection)]
    rss: Option<Rss>,
    #[vmstate(skip = "configured by the command line")]
    limit: u16,
}

fn check_queues(queues: &[Queue], nic: &Nic) -> Result<(), Reason> {
    Queue::check(queues, nic)
}

impl Nic {
    fn has_mode(&self, _version: u32) -> bool {
        self.control & 1 != 0
    }
    fn vlan_in_use(&self) -> bool {
        self.vlan != [0; 2]
    }
    fn rearm(&mut self, version: u32) -> Result<(), Reason> {
        self.control |= version << 8;
        Ok(())
    }
}

#[test]
fn a_device_travels() {
    let nic = Nic {
        control: 0x301,
        mac: [1, 2, 3, 4, 5, 6],
        link_up: false,
        mode: 7,
        queue_count: 1,
        queues: vec![Queue { head: 9, tail: 8 }],
        slot_count: 2,
        slots: vec![None, Some(Box::new(Queue { head: 1, tail: 2 }))],
        channels: [Some(Box::new(0xaa)), None, None],
        vlan: [3, 4],
        rss: Some(Rss { key: [9; 4] }),
        limit: 10,
        _legacy: (),
    };
    let bytes = save(&nic);
    let expected = hex(
        "00000301 010203040506 00 0007 01 00090008 02 30 31 00010002 aa 30 30 \
         05 08 6e69632f766c616e 00000001 0003 0004 \
         05 07 6e69632f727373 00000001 09090909",
    );
    assert_eq!(bytes, expected);
    let mut target = Nic {
        limit: 10,
        channels: [Some(Box::new(0)), None, None],
        ..Nic::default()
    };
    load(&mut target, &bytes).unwrap();
    assert_eq!(target, nic);

    target.limit = 8;
    let message = refused(&mut target, &bytes);
    assert_eq!(
        message,
        "nic/queues: validate refused: 9 is above the limit 8 (byte 0x12)"
    );
}

#[test]
fn old_versions_load() {
    let mut nic = Nic::default();
    let bytes = hex("00000000 010203040506 ffff 00 00 303030");
    load_version(&mut nic, 1, &bytes).unwrap();
    assert!(nic.link_up);
    assert_eq!(nic.control, 0x100);
    assert_eq!(Nic::DESCRIPTION.priority, vmstate_desc::Priority::Iommu);
    assert!(Nic::DESCRIPTION.check().is_ok());
}

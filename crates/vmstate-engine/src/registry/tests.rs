use std::sync::{Arc, Mutex};

use vmstate_desc::{Description, DynState, LoadState, Priority};
use vmstate_wire::stream::SectionKind;

use super::*;

struct Nothing;

impl SaveVmHandlers for Nothing {}

struct Legacy;

impl SaveVmHandlers for Legacy {
    fn writes(&self) -> Writes {
        Writes::STATE
    }
}

fn device(name: &'static str, version: u32) -> Device {
    Device::new(Owned(DynState::new(Description::new(name, version, 2))))
}

fn list(registry: &Registry) -> Vec<String> {
    let name = |entry: &Entry| {
        format!(
            "{}/{} {}",
            entry.idstr(),
            entry.instance_id(),
            entry.section_id()
        )
    };
    registry.entries().map(name).collect()
}

fn header(kind: SectionKind, id: u32, idstr: &str, instance: u32, version: u32) -> SectionHeader {
    SectionHeader {
        kind,
        section_id: SectionId(id),
        idstr: IdStr::new(idstr).unwrap(),
        instance_id: InstanceId(instance),
        version_id: VersionId(version),
    }
}

#[test]
fn order_is_priority_then_registration() {
    let mut registry = Registry::new();
    let with = |name: &'static str, priority| {
        Device::new(Owned(DynState::new(
            Description::new(name, 2, 2).with_priority(priority),
        )))
    };
    registry
        .register_device(with("a", Priority::Default))
        .unwrap();
    registry
        .register_device(with("low", Priority::Low))
        .unwrap();
    registry
        .register_savevm_live("ram", InstanceId(0), 4, Box::new(Nothing))
        .unwrap();
    registry
        .register_device(with("iommu", Priority::Iommu))
        .unwrap();
    registry
        .register_device(with("gic", Priority::GicV3))
        .unwrap();
    registry
        .register_device(with("iommu", Priority::Iommu))
        .unwrap();
    let expected = [
        "gic/0 4",
        "iommu/0 3",
        "iommu/1 5",
        "a/0 0",
        "ram/0 2",
        "low/0 1",
    ];
    assert_eq!(list(&registry), expected);
}

#[test]
fn ids_are_given_out_once() {
    let mut registry = Registry::new();
    let mut live = |instance| registry.register_savevm_live("x", instance, 1, Box::new(Nothing));
    // 0 would send the section's later pieces to somebody else.
    assert_eq!(live(InstanceId(7)), Ok(SectionId(1)));
    assert_eq!(live(ANY_INSTANCE), Ok(SectionId(2)));
    let duplicate = live(InstanceId(8)).unwrap_err();
    assert_eq!(duplicate.to_string(), "section x/8 is registered already");
    assert_eq!(live(InstanceId(0xffff_fffe)), Ok(SectionId(3)));
    assert!(matches!(
        live(ANY_INSTANCE),
        Err(RegistryError::Exhausted(_))
    ));
    assert!(registry.unregister_savevm(SectionId(2)));
    assert!(!registry.unregister_savevm(SectionId(2)));
    registry
        .register_savevm_live("y", ANY_INSTANCE, 1, Box::new(Legacy))
        .unwrap();
    assert_eq!(list(&registry), ["x/7 1", "x/4294967294 3", "y/0 4"]);
    for name in [String::new(), "n".repeat(256)] {
        let refused = registry.register_savevm_live(&name, ANY_INSTANCE, 1, Box::new(Nothing));
        assert!(matches!(refused, Err(RegistryError::Name(_))));
    }
    let long = device("d", 2).at_path("p".repeat(254));
    assert!(matches!(
        registry.register_device(long),
        Err(RegistryError::Name(_))
    ));
}

#[test]
fn a_path_makes_a_longer_name_and_keeps_the_old_one() {
    let mut registry = Registry::new();
    for path in ["0000:00:01.0", "0000:00:02.0", "0000:00:02.0"] {
        registry
            .register_device(device("nic", 2).at_path(path))
            .unwrap();
    }
    registry.register_device(device("nic", 2)).unwrap();
    let expected = [
        "0000:00:01.0/nic/0 0",
        "0000:00:02.0/nic/0 1",
        "0000:00:02.0/nic/1 2",
        "nic/0 3",
    ];
    assert_eq!(list(&registry), expected);
    let mut owner = |idstr, instance| {
        registry
            .owner(&header(SectionKind::Full, 99, idstr, instance, 2), None)
            .map(|entry| entry.section_id().0)
            .ok()
    };
    assert_eq!(owner("0000:00:02.0/nic", 1), Some(2));
    // Old names, in the order of the list.
    assert_eq!(
        (owner("nic", 0), owner("nic", 1), owner("nic", 2)),
        (Some(0), Some(1), Some(2))
    );
    assert_eq!(owner("nic", 3), None);
    assert_eq!(owner("02.0/nic", 0), None);
}

#[test]
fn aliases_are_loaded_and_never_sent() {
    let mut registry = Registry::new();
    let at = |id| device("ide", 3).instance(InstanceId(id));
    registry
        .register_device(at(5).alias(InstanceId(0x170), 2))
        .unwrap();
    registry
        .register_device(at(6).at_path("p").alias(InstanceId(0x1f0), 3))
        .unwrap();
    assert_eq!(list(&registry), ["ide/5 0", "p/ide/0 1"]);
    let refused = registry
        .register_device(at(7).alias(InstanceId(1), 1))
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "section ide: an alias id is required for version 1, but versions below 2 cannot be loaded"
    );
    for (idstr, instance, expected) in [
        ("ide", 5, Some(0)),
        ("ide", 0x170, Some(0)),
        ("p/ide", 0, Some(1)),
        ("p/ide", 0x1f0, Some(1)),
        ("ide", 6, Some(1)),
        ("ide", 0x1f0, Some(1)),
        ("ide", 0, None),
    ] {
        let found = registry.owner(&header(SectionKind::Full, 1, idstr, instance, 3), None);
        assert_eq!(
            found.ok().map(|entry| entry.section_id().0),
            expected,
            "{idstr}/{instance}"
        );
    }
}

#[test]
fn later_pieces_go_where_the_first_went() {
    let mut registry = Registry::new();
    registry.register_device(device("timer", 2)).unwrap();
    registry
        .register_savevm_live("ram", InstanceId(0), 4, Box::new(Nothing))
        .unwrap();
    let part = header(SectionKind::Part, 0, "ram", 0, 4);
    assert!(matches!(
        registry.owner(&part, None),
        Err(LookupError::Unknown { .. })
    ));
    registry
        .owner(&header(SectionKind::Start, 0, "ram", 0, 3), None)
        .unwrap();
    assert_eq!(registry.owner(&part, None).unwrap().idstr(), &"ram");
    let newer = registry
        .owner(&header(SectionKind::Start, 9, "ram", 0, 5), None)
        .unwrap_err();
    assert_eq!(
        newer.to_string(),
        "section ram/0: version 5 is newer than 4"
    );
    registry.load_cleanup(&Bql::holding(()));
    assert!(registry.owner(&part, None).is_err());
    let unknown = registry
        .owner(&header(SectionKind::Full, 1, "rtc", 1, 1), None)
        .unwrap_err();
    assert_eq!(unknown.to_string(), "unknown section rtc/1");
}

#[test]
fn blockers() {
    let mut registry = Registry::new();
    registry.add_blocker("no");
    let fixed = Description::new("fixed", 1, 1).with_unmigratable();
    registry
        .register_device(Device::new(Owned(DynState::new(fixed))))
        .unwrap();
    let expected = ["no", "State blocked by non-migratable device 'fixed'"];
    assert_eq!(registry.blockers(), expected);
    assert!(registry.remove_blocker("no") && !registry.remove_blocker("no"));
    assert_eq!(registry.blockers().len(), 1);
}

#[test]
fn shared_devices_are_lent() {
    let one = Arc::new(Mutex::new(DynState::new(Description::new("d", 1, 1))));
    let any: Arc<Mutex<dyn LoadState + Send>> = one.clone();
    for mut device in [Box::new(one) as Box<dyn DescribedDevice>, Box::new(any)] {
        assert_eq!(device.description().name(), "d");
        let mut seen = 0;
        let bql = Bql::holding(());
        device
            .save(&bql, &mut |state| {
                seen += state.description().name().len();
                Ok(())
            })
            .unwrap();
        device
            .load(Some(&bql), &mut |state| {
                seen += state.description().name().len();
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, 2);
    }
}

/// A device that its guest uses.
struct Failover(bool);

impl DescribedDevice for Failover {
    fn description(&self) -> vmstate_desc::DescriptionRef {
        Description::new("failover", 1, 1).into()
    }

    fn unplug_pending(&self, _bql: &Bql<'_>) -> bool {
        self.0
    }

    fn save(
        &self,
        _bql: &Bql<'_>,
        _visit: &mut dyn FnMut(&dyn vmstate_desc::SaveState) -> Result<(), vmstate_desc::Error>,
    ) -> Result<(), vmstate_desc::Error> {
        panic!("a question is no reason to save")
    }

    fn load(
        &mut self,
        _bql: Option<&Bql<'_>>,
        _visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), vmstate_desc::Error>,
    ) -> Result<(), vmstate_desc::Error> {
        Ok(())
    }
}

#[test]
fn one_device_that_waits_holds_all_up() {
    let bql = Bql::holding(());
    let mut registry = Registry::new();
    registry.register_device(device("a", 2)).unwrap();
    registry
        .register_device(Device::new(Failover(false)))
        .unwrap();
    assert!(!registry.unplug_pending(&bql));
    registry
        .register_device(Device::new(Failover(true)))
        .unwrap();
    registry.register_device(device("b", 2)).unwrap();
    assert!(registry.unplug_pending(&bql));
}

/// A state that knows by itself that its guest uses it.
#[derive(Debug, Default, vmstate_derive::VmState)]
#[vmstate(name = "nic", version = 1, unplug_pending = Self::is_used)]
struct Nic {
    used: bool,
}

impl Nic {
    fn is_used(&self) -> bool {
        self.used
    }
}

#[test]
fn a_state_is_asked_through_what_holds_it() {
    let bql = Bql::holding(());
    let nic = Arc::new(Mutex::new(Nic::default()));
    let mut registry = Registry::new();
    let owned = Device::new(Owned(Nic::default())).at_path("owned");
    registry.register_device(owned).unwrap();
    registry
        .register_device(Device::new(Arc::clone(&nic)))
        .unwrap();
    assert!(!registry.unplug_pending(&bql));
    nic.lock().unwrap().used = true;
    assert!(registry.unplug_pending(&bql));
    let owned = Device::new(Owned(Nic { used: true })).at_path("another");
    let mut registry = Registry::new();
    registry.register_device(owned).unwrap();
    assert!(registry.unplug_pending(&bql));
}

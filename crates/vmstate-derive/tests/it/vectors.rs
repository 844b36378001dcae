//! The cases of `vectors/device-state.json`, through derived types and through descriptions that are built from the file.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;
use vmstate_derive::VmState;
use vmstate_desc::{
    Codec, Description, DynHooks, DynState, Element, Field, LoadState, Reason, SaveState, Scalar,
    ScalarType, Scalars, Tmp, Value, VmState,
};

use crate::common::{hex, load_with, save_with};

fn cases() -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/device-state.json");
    let text = std::fs::read_to_string(path).unwrap();
    let mut file: Json = serde_json::from_str(&text).unwrap();
    serde_json::from_value(file["cases"].take()).unwrap()
}

/// The bytes, and the same with the byte behind them where there is one.
fn bytes(case: &Json) -> (Vec<u8>, Vec<u8>) {
    let bytes = hex(case["hex"].as_str().unwrap());
    let mut input = bytes.clone();
    if case["trailing_eof"] == true {
        input.push(0);
    }
    (bytes, input)
}

/// What the file calls an object.
trait Object: Debug + Clone + PartialEq {
    fn set(&mut self, member: &str, value: &Json);

    fn set_all(&mut self, values: &Json) {
        for (member, value) in values.as_object().unwrap() {
            self.set(member, value);
        }
    }
}

/// Runs a case on objects that begin as `empty`.
fn run<T: Object>(
    case: &Json,
    empty: &T,
    state: impl Fn(&T) -> &dyn SaveState,
    load: impl Fn(&mut T) -> &mut dyn LoadState,
) {
    let id = &case["id"];
    let (bytes, input) = bytes(case);
    for plain in [false, true] {
        if let Some(save) = case.get("save") {
            let mut object = empty.clone();
            object.set_all(&save["object"]);
            assert_eq!(save_with(state(&object), plain).unwrap(), bytes, "{id}");
        }
        if let Some(test) = case.get("load") {
            let mut object = empty.clone();
            object.set_all(&test["object_before"]);
            let mut expected = object.clone();
            expected.set_all(&test["object_after"]);
            let version = u32::try_from(test["load_version"].as_u64().unwrap()).unwrap();
            let used = load_with(load(&mut object), version, &input, plain).unwrap();
            assert_eq!(used, bytes.len(), "{id}");
            assert_eq!(object, expected, "{id}");
        }
        for slice in case["reject"].as_array().into_iter().flatten() {
            let at = |i: usize| usize::try_from(slice[i].as_u64().unwrap()).unwrap();
            let part = &input[at(0)..at(0) + at(1)];
            let version = state(empty).description().version_id;
            let result = load_with(load(&mut empty.clone()), version, part, plain);
            assert!(result.is_err(), "{id}: {slice} was accepted");
        }
    }
}

/// A member of a derived type.
trait Member {
    fn set(&mut self, value: &Json);
}

impl Member for bool {
    fn set(&mut self, value: &Json) {
        *self = value.as_bool().unwrap();
    }
}

impl<T: Member, const N: usize> Member for [T; N] {
    fn set(&mut self, value: &Json) {
        let values = value.as_array().unwrap();
        assert_eq!(values.len(), N);
        for (member, value) in self.iter_mut().zip(values) {
            member.set(value);
        }
    }
}

macro_rules! integers {
    ($($ty:ident)*) => {$(
        impl Member for $ty {
            fn set(&mut self, value: &Json) {
                *self = value.as_i64().unwrap().try_into().unwrap();
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 i8 i16 i32 i64);

macro_rules! object {
    ($ty:ident: $($member:ident)*) => {
        impl Object for $ty {
            fn set(&mut self, member: &str, value: &Json) {
                match member {
                    $(stringify!($member) => Member::set(&mut self.$member, value),)*
                    _ => panic!("no member {member}"),
                }
            }
        }
    };
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "simple/primitive", version = 1)]
struct Primitive {
    b_1: bool,
    b_2: bool,
    u8_1: u8,
    u16_1: u16,
    u32_1: u32,
    u64_1: u64,
    i8_1: i8,
    i8_2: i8,
    i16_1: i16,
    i16_2: i16,
    i32_1: i32,
    i32_2: i32,
    i64_1: i64,
    i64_2: i64,
}

object!(Primitive: b_1 b_2 u8_1 u16_1 u32_1 u64_1 i8_1 i8_2 i16_1 i16_2 i32_1 i32_2 i64_1 i64_2);

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "simple/array", version = 1)]
struct Array {
    u16_1: [u16; 3],
}

object!(Array: u16_1);

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "test/versioned", version = 2, minimum_version = 1)]
struct Versioned {
    a: u32,
    #[vmstate(since = 2)]
    b: u32,
    c: u32,
    d: u64,
    #[vmstate(since = 2)]
    e: u32,
    #[vmstate(since = 2)]
    f: u64,
}

object!(Versioned: a b c d e f);

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "test/skip", version = 2, minimum_version = 1)]
struct Skip {
    a: u32,
    b: u32,
    #[vmstate(exists = Self::has_c_e)]
    c: u32,
    d: u64,
    #[vmstate(exists = Self::has_c_e)]
    e: u32,
    #[vmstate(since = 2)]
    f: u64,
    #[vmstate(skip = "not migrated")]
    skip_c_e: bool,
}

impl Skip {
    fn has_c_e(&self, _version: u32) -> bool {
        !self.skip_c_e
    }
}

object!(Skip: a b c d e f skip_c_e);

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "test/with_tmp", version = 1, minimum_version = 0, tmp(TmpChild, after = d))]
struct WithTmp {
    a: u32,
    #[vmstate(skip = "made from the temporary")]
    b: u32,
    d: u64,
    #[vmstate(skip = "part of the temporary")]
    f: u64,
}

object!(WithTmp: a b d f);

#[derive(Debug, Default, VmState)]
#[vmstate(name = "test/tmp_child")]
struct TmpChild {
    diff: i64,
    parent: TmpChildParent,
}

#[derive(Debug, Default, VmState)]
#[vmstate(name = "test/tmp_child_parent")]
struct TmpChildParent {
    f: u64,
}

impl Tmp<WithTmp> for TmpChild {
    fn capture(parent: &WithTmp) -> Result<Self, Reason> {
        Ok(Self {
            diff: parent.b.wrapping_sub(parent.a).into(),
            parent: TmpChildParent { f: parent.f },
        })
    }

    fn apply(&self, parent: &mut WithTmp) -> Result<(), Reason> {
        parent.b = add_low(parent.a, self.diff);
        parent.f = self.parent.f;
        Ok(())
    }
}

/// Low 32 bits of the sum.
fn add_low(a: u32, diff: i64) -> u32 {
    let sum = i64::from(a).wrapping_add(diff).cast_unsigned();
    u32::try_from(sum & u64::from(u32::MAX)).unwrap()
}

/// Runs a case on a derived type, whose description is that of the file.
fn derived<T: Object + VmState + Default>(case: &Json) {
    let mut hooks = Hooks::default();
    let described = describe(&case["vmsd"], &mut hooks);
    assert_eq!(*T::DESCRIPTION, described, "{}", case["id"]);
    run(case, &T::default(), |t| t, |t| t);
}

#[test]
fn derived_types() {
    for case in cases() {
        match case["vmsd"]["name"].as_str().unwrap() {
            "simple/primitive" => derived::<Primitive>(&case),
            "simple/array" => derived::<Array>(&case),
            "test/versioned" => derived::<Versioned>(&case),
            "test/skip" => derived::<Skip>(&case),
            "test/with_tmp" => derived::<WithTmp>(&case),
            name => panic!("no type for {name}"),
        }
    }
}

/// What the file says besides fields.
#[derive(Debug, Default, Clone)]
struct Hooks {
    /// By field: it exists if the member has this value.
    conditions: BTreeMap<usize, (String, Json)>,
    tmp: Option<Description>,
    /// Members that are not fields.
    members: Arc<Mutex<BTreeMap<String, Json>>>,
}

fn describe(vmsd: &Json, hooks: &mut Hooks) -> Description {
    let version = |key: &str| u32::try_from(vmsd[key].as_u64().unwrap()).unwrap();
    let mut fields = Vec::new();
    for (index, json) in vmsd["fields"].as_array().unwrap().iter().enumerate() {
        let scalar = || {
            let name = json["type"].as_str().unwrap();
            Element::Value(Codec::scalar_by_name(name).unwrap())
        };
        let mut field = match json["kind"].as_str().unwrap() {
            "scalar" => Field::new("", scalar()),
            "array" => {
                let count = u32::try_from(json["count"].as_u64().unwrap()).unwrap();
                Field::new("", scalar()).array(count)
            }
            "struct" => Field::new("", Element::Struct(describe(&json["vmsd"], hooks).into())),
            "tmp" => {
                let child = describe(&json["vmsd"], hooks);
                hooks.tmp = Some(child.clone());
                Field::new("", Element::Tmp(child.into()))
            }
            kind => panic!("kind {kind}"),
        };
        field.name = json["name"].as_str().unwrap().to_owned().into();
        if let Some(since) = json.get("since_version") {
            field.version_id = u32::try_from(since.as_u64().unwrap()).unwrap();
        }
        if let Some(condition) = json.get("exists_if") {
            let member = condition["field"].as_str().unwrap().to_owned();
            let condition = (member, condition["equals"].clone());
            hooks.conditions.insert(index, condition);
            field.conditional = true;
        }
        fields.push(field);
    }
    Description {
        name: vmsd["name"].as_str().unwrap().to_owned().into(),
        fields: fields.into(),
        ..Description::new("", version("version_id"), version("minimum_version_id"))
    }
}

fn number(state: &DynState, name: &str) -> i128 {
    match state.get(name) {
        Some(Value::Scalar(value)) => value.as_i128().unwrap(),
        other => panic!("{name} is {other:?}"),
    }
}

impl DynHooks for Hooks {
    fn exists(&self, _: &DynState, field: usize, _: u32) -> bool {
        let (member, value) = &self.conditions[&field];
        self.members.lock().unwrap()[member] == *value
    }

    fn make_tmp(&self, state: &DynState, _: usize) -> Result<Option<DynState>, Reason> {
        let members = self.members.lock().unwrap();
        let member = |name: &str| members[name].as_u64().unwrap();
        let (b, f) = (u32::try_from(member("b")).unwrap(), member("f"));
        let a = u32::try_from(number(state, "a")).unwrap();
        let mut tmp = DynState::new(self.tmp.clone().unwrap());
        tmp.set("diff", Scalar::I64(b.wrapping_sub(a).into()));
        let (parent, _) = tmp.fields().nth(1).unwrap();
        let mut parent = DynState::new(parent.element.child().unwrap().clone());
        parent.set("f", Scalar::U64(f));
        tmp.set("parent", parent);
        Ok(Some(tmp))
    }

    fn apply_tmp(&self, state: &mut DynState, _: usize, tmp: &DynState) -> Result<(), Reason> {
        let a = u32::try_from(number(state, "a")).unwrap();
        let diff = i64::try_from(number(tmp, "diff")).unwrap();
        let Some(Value::Struct(parent)) = tmp.get("parent") else {
            panic!("no parent");
        };
        let f = u64::try_from(number(parent, "f")).unwrap();
        let mut members = self.members.lock().unwrap();
        members.insert("b".to_owned(), add_low(a, diff).into());
        members.insert("f".to_owned(), f.into());
        Ok(())
    }
}

/// A state that is described at run time, with the members that are not its fields.
#[derive(Debug)]
struct Dynamic {
    state: DynState,
    hooks: Hooks,
}

impl Dynamic {
    fn of(description: Description, hooks: &Hooks) -> Self {
        let hooks = Hooks {
            members: Arc::default(),
            ..hooks.clone()
        };
        Self {
            state: DynState::new(description).with_hooks(Arc::new(hooks.clone())),
            hooks,
        }
    }
}

impl Clone for Dynamic {
    /// With members of its own.
    fn clone(&self) -> Self {
        let description = DynState::description(&self.state);
        let mut clone = Self::of((*description).clone(), &self.hooks);
        for (index, (_, value)) in self.state.fields().enumerate() {
            clone.state.set_value(index, value.clone());
        }
        let members = self.hooks.members.lock().unwrap().clone();
        *clone.hooks.members.lock().unwrap() = members;
        clone
    }
}

impl PartialEq for Dynamic {
    fn eq(&self, other: &Self) -> bool {
        let values = |d: &Self| -> Vec<_> {
            // A temporary leaves its last value behind.
            let is_tmp = |field: &Field| matches!(field.element, Element::Tmp(_));
            let fields = d.state.fields().filter(|(field, _)| !is_tmp(field));
            fields.map(|(_, value)| value.clone()).collect()
        };
        values(self) == values(other)
            && *self.hooks.members.lock().unwrap() == *other.hooks.members.lock().unwrap()
    }
}

fn scalar(ty: ScalarType, json: &Json) -> Scalar {
    match json {
        Json::Bool(value) => Scalar::Bool(*value),
        _ => Scalar::from_bits(ty, json.as_i64().unwrap().cast_unsigned()),
    }
}

impl Object for Dynamic {
    fn set(&mut self, member: &str, value: &Json) {
        let description = DynState::description(&self.state);
        let Some(index) = description.field_index(member) else {
            let mut members = self.hooks.members.lock().unwrap();
            members.insert(member.to_owned(), value.clone());
            return;
        };
        let Element::Value(codec) = &description.fields()[index].element else {
            panic!("{member} is no scalar");
        };
        let ty = codec.scalar_type().unwrap();
        let value = match value {
            Json::Array(values) => {
                let mut scalars = Scalars::new(ty);
                values
                    .iter()
                    .for_each(|value| scalars.push(scalar(ty, value)));
                Value::Scalars(scalars)
            }
            _ => scalar(ty, value).into(),
        };
        self.state.set_value(index, value);
    }
}

#[test]
fn described_at_run_time() {
    for case in cases() {
        let mut hooks = Hooks::default();
        let description = describe(&case["vmsd"], &mut hooks);
        assert_eq!(description.check(), Ok(()));
        let empty = Dynamic::of(description, &hooks);
        run(&case, &empty, |d| &d.state, |d| &mut d.state);
    }
}

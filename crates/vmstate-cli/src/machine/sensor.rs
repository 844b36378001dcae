//! A device that can have other shapes: what two ends say to each other about that is worth a demo.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use vmstate_desc::{Codec, Description, DynState, Field, Scalar, Size, Value};
use vmstate_engine::{Device, Registry, RegistryError};

/// What the sensor's state looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// As the last release had it
    Plain,
    /// reading is bytes and no number: cannot be loaded
    ChangedType,
    /// reading has 64 bits: is adapted
    Widened,
    /// Needs a field alarm that the plain one lacks: cannot be loaded
    MissingField,
    /// Does not know the field unit: cannot be loaded
    UnknownField,
    /// Does not know the field hint, which may be dropped
    IgnoredField,
    /// The fields in another order: are found by name
    Reordered,
    /// reading is called temperature and has an alias: is found
    Renamed,
    /// reading is called temperature without an alias: cannot be loaded
    RenamedSilently,
}

const NAME: &str = "sensor";
const ID: Field = Field::value("id", Codec::Uint32);
const READING: Field = Field::value("reading", Codec::Int32);
const UNIT: Field = Field::value("unit", Codec::Uint8);
const HINT: Field = Field::value("hint", Codec::Uint16).ignorable();
const OLD: &[Cow<'static, str>] = &[Cow::Borrowed("reading")];

macro_rules! fields {
    ($($field:expr),*) => {{
        static D: Description =
            Description::new(NAME, 1, 1).with_fields(const { &[$($field),*] });
        &D
    }};
}

impl Shape {
    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::ChangedType => "changed-type",
            Self::Widened => "widened",
            Self::MissingField => "missing-field",
            Self::UnknownField => "unknown-field",
            Self::IgnoredField => "ignored-field",
            Self::Reordered => "reordered",
            Self::Renamed => "renamed",
            Self::RenamedSilently => "renamed-silently",
        }
    }

    fn description(self) -> &'static Description {
        match self {
            Self::Plain => fields!(ID, READING, UNIT, HINT),
            Self::ChangedType => fields!(
                ID,
                Field::value("reading", Codec::Buffer(Size::Fixed(4))),
                UNIT,
                HINT
            ),
            Self::Widened => fields!(ID, Field::value("reading", Codec::Int64), UNIT, HINT),
            Self::MissingField => {
                fields!(ID, READING, UNIT, HINT, Field::value("alarm", Codec::Bool))
            }
            Self::UnknownField => fields!(ID, READING, HINT),
            Self::IgnoredField => fields!(ID, READING, UNIT),
            Self::Reordered => fields!(UNIT, HINT, READING, ID),
            Self::Renamed => fields!(
                ID,
                Field::value("temperature", Codec::Int32).aliases(OLD),
                UNIT,
                HINT
            ),
            Self::RenamedSilently => {
                fields!(ID, Field::value("temperature", Codec::Int32), UNIT, HINT)
            }
        }
    }
}

/// What a sensor has measured, for the monitor.
#[derive(Debug, Clone)]
pub(crate) struct Sensor(Arc<Mutex<DynState>>);

impl Sensor {
    /// A sensor of this shape. One that `measures` has values; any other one waits for them.
    pub(crate) fn new(shape: Shape, measures: bool) -> Self {
        let mut state = DynState::new(shape.description());
        let measured: [(&str, Scalar); 4] = [
            ("id", Scalar::U32(7)),
            ("reading", Scalar::I32(-40)),
            ("unit", Scalar::U8(b'C')),
            ("hint", Scalar::U16(99)),
        ];
        for (name, value) in measured.into_iter().filter(|_| measures) {
            state.set(name, value);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    /// Adds its section.
    pub(crate) fn register(&self, registry: &mut Registry) -> Result<(), RegistryError> {
        let state: Arc<Mutex<DynState>> = Arc::clone(&self.0);
        registry.register_device(Device::new(state)).map(drop)
    }

    /// The numbers that it has, by field.
    pub(crate) fn values(&self) -> BTreeMap<String, i64> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = |value: &Value| match value {
            Value::Scalar(scalar) => i64::try_from(scalar.as_i128()?).ok(),
            _ => None,
        };
        let named = state.fields().map(|(field, value)| (field, number(value)));
        named
            .filter_map(|(field, value)| Some((field.name.to_string(), value?)))
            .collect()
    }
}

//! QMP: `object-add`, `object-del`, `qom-get`, `qom-set`, and what `query-migrate` says of helpers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vmstate_qmp::schema::{Member, Shape, Type, Variants};
use vmstate_qmp::{CommandTable, Empty, ErrorClass, QmpError, QmpMachine};

use crate::objects::{ObjectReport, Objects};
use crate::options::{OBJECT_TYPE, ObjectOptions, OptionsError};

const PROPERTIES: Shape = Shape::of(&[
    Member::optional("addr", Type::String),
    Member::optional("id-list", Type::String),
    Member::optional("x-peers", Type::String),
    Member::optional("x-deadline", Type::U64),
]);

const OBJECT_ADD: Shape = Shape {
    members: &[
        Member::required("qom-type", Type::String),
        Member::required("id", Type::String),
    ],
    variants: Some(Variants {
        tag: "qom-type",
        branches: &[(OBJECT_TYPE, PROPERTIES)],
    }),
};

const OBJECT_DEL: Shape = Shape::of(&[Member::required("id", Type::String)]);

const QOM_GET: Shape = Shape::of(&[
    Member::required("path", Type::String),
    Member::required("property", Type::String),
]);

const QOM_SET: Shape = Shape::of(&[
    Member::required("path", Type::String),
    Member::required("property", Type::String),
    Member::required("value", Type::Any),
]);

/// Where QEMU keeps objects of users.
const CONTAINER: &str = "/objects/";

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[derive(Deserialize)]
struct Property {
    path: String,
    property: String,
    #[serde(default)]
    value: Value,
}

/// An object's part in the last migration.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Share {
    id: String,
    #[serde(flatten)]
    saved: Option<SavedShare>,
    #[serde(flatten)]
    loaded: Option<LoadedShare>,
    /// Ids of those that were there and not listed.
    skipped: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct SavedShare {
    helpers: Vec<HelperShare>,
    /// Part of the downtime.
    save_time_us: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct LoadedShare {
    loaded: Vec<String>,
    /// Ids of those for which nothing has come.
    without: Vec<String>,
    /// Part of the downtime.
    load_time_us: u64,
}

#[derive(Serialize)]
struct HelperShare {
    id: String,
    size: usize,
}

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

impl From<ObjectReport> for Share {
    fn from(report: ObjectReport) -> Self {
        let helper = |(id, size)| HelperShare { id, size };
        Self {
            id: report.id,
            saved: report.saved.map(|saved| SavedShare {
                helpers: saved.saved.into_iter().map(helper).collect(),
                save_time_us: micros(saved.took),
            }),
            loaded: report.loaded.map(|loaded| LoadedShare {
                loaded: loaded.loaded,
                without: loaded.without,
                load_time_us: micros(loaded.took),
            }),
            skipped: report.skipped,
        }
    }
}

/// Adds the commands for a machine's objects to its table, and puts `query-migrate` in place of the one that is there.
///
/// | command | as in QEMU, and |
/// |---|---|
/// | `object-add` | of the type `dbus-vmstate` only; the properties are those of [`ObjectOptions`] |
/// | `object-del` | |
/// | `qom-get`, `qom-set` | of `/objects/ID` only; only `id-list` can be set; `x-skipped` are the ids of helpers that were there and not listed when they were last looked at |
/// | `query-migrate` | member `x-dbus-vmstate`, once an object has saved or loaded: `[{id, helpers: [{id, size}], save-time-us, loaded, without, load-time-us, skipped}]`, bytes and microseconds; `helpers` and its time once it has saved, `loaded`, `without` and their time once it has loaded |
pub fn add_object_commands<C: QmpMachine + ?Sized + 'static>(
    table: &mut CommandTable<C>,
    objects: fn(&C) -> &Objects,
) {
    table.add(
        "object-add",
        OBJECT_ADD,
        move |c: &C, options: ObjectOptions| done(objects(c).add(&options)),
    );
    table.add("object-del", OBJECT_DEL, move |c: &C, Id { id }: Id| {
        done(objects(c).remove(&id))
    });
    table.add("qom-get", QOM_GET, move |c: &C, property: Property| {
        get(objects(c), &property)
    });
    table.add("qom-set", QOM_SET, move |c: &C, property: Property| {
        set(objects(c), &property)
    });
    table.add("query-migrate", Shape::EMPTY, move |c: &C, _: Empty| {
        let mut info = serde_json::to_value(c.migration_info()).map_err(QmpError::generic)?;
        let shares: Vec<Share> = objects(c).reports().into_iter().map(Share::from).collect();
        if !shares.is_empty() {
            info["x-dbus-vmstate"] = serde_json::to_value(shares).map_err(QmpError::generic)?;
        }
        Ok(info)
    });
}

fn done(result: Result<(), OptionsError>) -> Result<Value, QmpError> {
    result.map(|()| json!({})).map_err(QmpError::generic)
}

fn not_found(path: &str) -> QmpError {
    QmpError {
        class: ErrorClass::DeviceNotFound,
        desc: format!("Device '{path}' not found"),
    }
}

fn no_property(property: &str) -> QmpError {
    QmpError::generic(format_args!(
        "Property '{OBJECT_TYPE}.{property}' not found"
    ))
}

fn get(objects: &Objects, Property { path, property, .. }: &Property) -> Result<Value, QmpError> {
    let object = path.strip_prefix(CONTAINER).and_then(|id| objects.get(id));
    let object = object.ok_or_else(|| not_found(path))?;
    let text = |wanted: bool| match wanted {
        true => object.place().to_string(),
        false => String::new(),
    };
    Ok(match property.as_str() {
        "type" => OBJECT_TYPE.into(),
        "addr" => text(object.place().is_bus()).into(),
        "x-peers" => text(!object.place().is_bus()).into(),
        "x-deadline" => u64::try_from(object.deadline().as_millis())
            .unwrap_or(u64::MAX)
            .into(),
        "id-list" => match object.id_list() {
            Some(list) => list.to_string().into(),
            None => "".into(),
        },
        "x-skipped" => object.skipped().into(),
        _ => return Err(no_property(property)),
    })
}

fn set(objects: &Objects, property: &Property) -> Result<Value, QmpError> {
    let id = property.path.strip_prefix(CONTAINER);
    let id = id.filter(|id| objects.get(id).is_some());
    let id = id.ok_or_else(|| not_found(&property.path))?;
    match (property.property.as_str(), &property.value) {
        ("id-list", Value::String(list)) => done(objects.set_id_list(id, list)),
        ("id-list", _) => Err(QmpError::generic(
            "Invalid parameter type for 'id-list', expected: string",
        )),
        (name @ ("type" | "addr" | "x-peers" | "x-deadline" | "x-skipped"), _) => {
            Err(QmpError::generic(format_args!(
                "Insufficient permission to perform this operation: '{name}' is fixed"
            )))
        }
        (name, _) => Err(no_property(name)),
    }
}

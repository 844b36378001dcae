//! The engine's types as QMP shows them, and QMP's changes of settings as the engine takes them.

use std::time::Duration;

use serde_json::{Map, Value};
use vmstate_engine::{
    Capabilities, Capability, MigrationInfo, MigrationParameters, MigrationStats, MigrationStatus,
    ParameterValue, PostcopyInfo, Supported,
};
use vmstate_qmp::migration::CapabilityStatus;
use vmstate_qmp::{QmpError, migration as qmp};

/// A status by its name.
#[must_use]
pub fn status_to_qmp(status: MigrationStatus) -> qmp::MigrationStatus {
    qmp::MigrationStatus::new(status.name())
}

/// The status of this name.
///
/// # Errors
/// A name that no status has.
pub fn status_from_qmp(status: &qmp::MigrationStatus) -> Result<MigrationStatus, QmpError> {
    MigrationStatus::from_name(status.name()).ok_or_else(|| {
        QmpError::generic(format_args!(
            "Parameter 'state' does not accept value '{status}'"
        ))
    })
}

/// The result of `query-migrate`.
#[must_use]
pub fn info_to_qmp(info: &MigrationInfo) -> qmp::MigrationInfo {
    let MigrationInfo {
        status,
        ram,
        remaining,
        total_time,
        expected_downtime,
        downtime,
        setup_time,
        cpu_throttle_percentage,
        error_desc,
        blocked_reasons,
        unknown,
        postcopy,
    } = info;
    let blocktime = postcopy.as_ref().and_then(|p| p.blocktime.as_ref());
    let each = |times: &[Duration], unit: fn(Duration) -> u64| {
        times.iter().copied().map(unit).collect::<Vec<_>>()
    };
    qmp::MigrationInfo {
        status: status.map(status_to_qmp),
        ram: ram.as_ref().map(stats_to_qmp),
        remaining: *remaining,
        total_time: total_time.map(milliseconds),
        expected_downtime: expected_downtime.map(milliseconds),
        downtime: downtime.map(milliseconds),
        setup_time: setup_time.map(milliseconds),
        cpu_throttle_percentage: cpu_throttle_percentage.map(u64::from),
        error_desc: error_desc.clone(),
        blocked_reasons: (!blocked_reasons.is_empty()).then(|| blocked_reasons.clone()),
        unknown: unknown.then_some(true),
        postcopy: postcopy.as_ref().map(postcopy_to_qmp),
        postcopy_blocktime: blocktime.map(|b| milliseconds(b.all_vcpus)),
        postcopy_vcpu_blocktime: blocktime.map(|b| each(&b.vcpus, milliseconds)),
        postcopy_latency: blocktime.map(|b| nanoseconds(b.latency)),
        postcopy_latency_dist: blocktime.map(|b| b.distribution.to_vec()),
        postcopy_vcpu_latency: blocktime.map(|b| each(&b.vcpu_latency, nanoseconds)),
        postcopy_non_vcpu_latency: blocktime.map(|b| nanoseconds(b.non_vcpu_latency)),
        ..qmp::MigrationInfo::default()
    }
}

/// What a destination has adapted; `None` if it is nothing.
#[must_use]
pub fn adapted_to_qmp(warnings: vmstate_ber::Warnings) -> Option<qmp::AdaptedState> {
    let fields = warnings.first.into_iter().map(|one| qmp::AdaptedField {
        rule: one.rule.to_owned(),
        path: one.path,
    });
    (warnings.count > 0).then(|| qmp::AdaptedState {
        count: warnings.count,
        fields: fields.collect(),
    })
}

fn stats_to_qmp(stats: &MigrationStats) -> qmp::MigrationStats {
    let MigrationStats {
        transferred,
        remaining,
        total,
        duplicate,
        normal,
        normal_bytes,
        dirty_pages_rate,
        mbps,
        dirty_sync_count,
        postcopy_requests,
        page_size,
        multifd_bytes,
        pages_per_second,
        precopy_bytes,
        downtime_bytes,
        postcopy_bytes,
        dirty_sync_missed_zero_copy,
    } = *stats;
    qmp::MigrationStats {
        transferred,
        remaining,
        total,
        duplicate,
        skipped: None,
        normal,
        normal_bytes,
        dirty_pages_rate,
        mbps,
        dirty_sync_count,
        postcopy_requests,
        page_size,
        multifd_bytes,
        pages_per_second,
        precopy_bytes,
        downtime_bytes,
        postcopy_bytes,
        dirty_sync_missed_zero_copy,
    }
}

fn postcopy_to_qmp(info: &PostcopyInfo) -> qmp::PostcopyStats {
    let PostcopyInfo {
        latency,
        pages,
        missing,
        blocktime: _,
    } = info;
    let missing = missing.iter().map(|missing| qmp::MissingPages {
        block: missing.block.to_string(),
        pages: missing.pages,
        first: missing.first,
    });
    qmp::PostcopyStats {
        faults: latency.faults,
        latency_p50: nanoseconds(latency.p50),
        latency_p99: nanoseconds(latency.p99),
        latency_max: nanoseconds(latency.max),
        requested_pages: pages.requested,
        background_pages: pages.background,
        repeated_pages: pages.repeated,
        missing: missing.collect(),
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// QMP has milliseconds. An estimate without a bound is the largest number that QEMU shows.
fn milliseconds(time: Duration) -> u64 {
    const MOST: u64 = i64::MAX.cast_unsigned();
    u64::try_from(time.as_millis()).map_or(MOST, |time| time.min(MOST))
}

/// The result of `query-migrate-capabilities`.
#[must_use]
pub fn capabilities_to_qmp(on: Capabilities) -> Vec<CapabilityStatus> {
    let status = |one: &Capability| CapabilityStatus {
        capability: one.name().to_owned(),
        state: on.has(*one),
    };
    Capability::ALL.iter().map(status).collect()
}

/// What `migrate-set-capabilities` makes of the capabilities that are on.
///
/// # Errors
/// What is not supported, and what does not go together.
pub fn change_capabilities(
    on: Capabilities,
    changes: &[CapabilityStatus],
    supported: &Supported,
) -> Result<Capabilities, QmpError> {
    let mut known = Vec::with_capacity(changes.len());
    for CapabilityStatus { capability, state } in changes {
        let one = Capability::from_name(capability).ok_or_else(|| {
            QmpError::generic(format_args!(
                "Parameter 'capability' does not accept value '{capability}'"
            ))
        })?;
        known.push((one, *state));
    }
    on.changed(&known, supported).map_err(QmpError::generic)
}

/// The result of `query-migrate-parameters`.
#[must_use]
pub fn parameters_to_qmp(parameters: &MigrationParameters) -> Map<String, Value> {
    let value = |value| match value {
        ParameterValue::Number(number) => number.into(),
        ParameterValue::Switch(on) => on.into(),
        ParameterValue::Text(text) => text.into(),
        ParameterValue::List(list) => list.into(),
    };
    let all = parameters.values().into_iter();
    all.map(|(name, one)| (name.to_owned(), value(one)))
        .collect()
}

/// What `migrate-set-parameters` makes of the parameters.
///
/// # Errors
/// What is out of range, and parameters that the engine does not have.
pub fn change_parameters(
    parameters: &MigrationParameters,
    changes: &Map<String, Value>,
    page_size: u64,
) -> Result<MigrationParameters, QmpError> {
    let mut known = Vec::with_capacity(changes.len());
    for (name, value) in changes {
        known.push((name.as_str(), parameter(name, value)?));
    }
    parameters
        .changed(&known, page_size)
        .map_err(QmpError::generic)
}

fn parameter(name: &str, value: &Value) -> Result<ParameterValue, QmpError> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let found = match value {
        Value::Number(number) => number.as_u64().map(ParameterValue::Number),
        Value::Bool(on) => Some(ParameterValue::Switch(*on)),
        Value::Null => Some(ParameterValue::Text(String::new())),
        Value::String(text) => Some(ParameterValue::Text(text.clone())),
        Value::Array(list) => {
            let list: Option<Vec<_>> = list.iter().map(text).collect();
            list.map(ParameterValue::List)
        }
        Value::Object(_) => None,
    };
    found.ok_or_else(|| QmpError::generic(format_args!("Parameter '{name}' is not supported")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vmstate_qmp::migration::CAPABILITIES;

    use super::*;

    #[test]
    fn both_sides_have_the_same_names() {
        let names: Vec<_> = Capability::ALL.iter().map(|one| one.name()).collect();
        assert_eq!(names, CAPABILITIES);
        for status in MigrationStatus::ALL {
            let qmp = status_to_qmp(*status);
            assert!(qmp::MigrationStatus::NAMES.contains(&qmp.name()), "{qmp}");
            assert_eq!(status_from_qmp(&qmp), Ok(*status));
        }
        assert_eq!(
            qmp::MigrationStatus::NAMES.len(),
            MigrationStatus::ALL.len()
        );
        status_from_qmp(&qmp::MigrationStatus::new("asleep")).unwrap_err();
    }

    #[test]
    fn statistics() {
        assert_eq!(
            serde_json::to_value(info_to_qmp(&MigrationInfo::default())).unwrap(),
            json!({})
        );
        let info = MigrationInfo {
            status: Some(MigrationStatus::Active),
            ram: Some(MigrationStats {
                transferred: 1,
                mbps: 2.5,
                ..MigrationStats::default()
            }),
            remaining: Some(3),
            total_time: Some(Duration::from_micros(4999)),
            expected_downtime: Some(Duration::MAX),
            blocked_reasons: vec!["x".to_owned()],
            unknown: true,
            ..MigrationInfo::default()
        };
        let shown = serde_json::to_value(info_to_qmp(&info)).unwrap();
        assert_eq!(shown["ram"]["transferred"], 1);
        assert_eq!(shown["ram"]["mbps"], 2.5);
        assert_eq!(shown["ram"]["skipped"], Value::Null);
        assert_eq!(shown["total-time"], 4);
        assert_eq!(shown["expected-downtime"], i64::MAX);
        assert_eq!(shown["blocked-reasons"], json!(["x"]));
        assert_eq!(shown["x-unknown"], true);
    }

    #[test]
    fn capabilities() {
        let change = |on, name: &str, state| {
            let change = CapabilityStatus {
                capability: name.to_owned(),
                state,
            };
            change_capabilities(on, &[change], &Supported::default())
        };
        let none = Capabilities::default();
        let on = change(none, "events", true).unwrap();
        assert!(on.has(Capability::Events));
        let shown = capabilities_to_qmp(on);
        assert!(
            shown
                .iter()
                .all(|one| one.state == (one.capability == "events"))
        );
        assert_eq!(change(on, "events", false), Ok(none));
        assert_eq!(
            change(none, "x-colo", true).unwrap_err().desc,
            "Capability 'x-colo' is not supported"
        );
        change(none, "colour", true).unwrap_err();
    }

    #[test]
    fn parameters() {
        let old = MigrationParameters::default();
        let change = |changes: Value| {
            change_parameters(&old, changes.as_object().unwrap(), 4096).map_err(|e| e.desc)
        };
        let shown = parameters_to_qmp(&old);
        assert_eq!(shown["max-bandwidth"], 128 << 20);
        assert_eq!(shown["direct-io"], false);
        assert_eq!(shown["mode"], "normal");
        // What is shown can be set.
        assert_eq!(change(Value::Object(shown)), Ok(old.clone()));
        let new = change(json!({"downtime-limit": 7, "cpu-throttle-tailslow": true})).unwrap();
        assert_eq!((new.downtime_limit, new.cpu_throttle_tailslow), (7, true));
        assert_eq!(
            change(json!({"downtime-limit": 7, "cpu-throttle-initial": 0})),
            Err(
                "Parameter 'cpu-throttle-initial' expects an integer in the range of 1 to 99"
                    .to_owned()
            )
        );
        assert_eq!(
            change(json!({"tls-creds": null})),
            Err("Parameter 'tls-creds' is not supported".to_owned())
        );
        assert_eq!(
            change(json!({"block-bitmap-mapping": [{}]})),
            Err("Parameter 'block-bitmap-mapping' is not supported".to_owned())
        );
    }
}

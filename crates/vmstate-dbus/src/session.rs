//! Whole operations on helpers, for threads that block. Each connects, does its work before its deadline, and lets go of everything.

use std::pin::Pin;
use std::thread;
use std::time::{Duration, Instant};

use vmstate_wire::helpers::Element;

use crate::alarm::Alarm;
use crate::calls::{Rehearsal, Selection};
use crate::error::{Fault, ObjectError};
use crate::find::{Look, census};
use crate::id_list::IdList;
use crate::peer::State;
use crate::place::Place;

/// Somebody who exports `org.qemu.VMState1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Unique name on the bus, or address.
    pub owner: String,
    /// Its id, or why it has none.
    pub id: Result<String, Fault>,
    /// What else is wrong with it: [`Fault::SecondObject`].
    pub second: Option<Fault>,
    /// Its state, if it was asked for and there is an id.
    pub state: Option<Result<Vec<u8>, Fault>>,
}

/// What helpers gave.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Ids and states, in the order of the ids.
    pub(crate) states: Vec<(String, State)>,
    /// Ids of those that are there and not listed.
    pub(crate) skipped: Vec<String>,
    pub(crate) took: Duration,
}

/// What became of states that were loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Ids of the helpers that took theirs.
    pub loaded: Vec<String>,
    /// Ids of the helpers that take part, and for which none has come.
    pub without: Vec<String>,
    /// Ids of those that are there and not listed.
    pub skipped: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs an operation on a thread of its own: D-Bus's runtime belongs to a thread, and ends with it.
fn run<T: Send>(
    time: Duration,
    operation: impl AsyncFnOnce(&Alarm) -> Result<T, ObjectError> + Send,
) -> Result<T, ObjectError> {
    let system = |error: std::io::Error| ObjectError::System(error.to_string());
    let alarm = Alarm::after(time).map_err(system)?;
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("dbus-vmstate".to_owned())
            .spawn_scoped(scope, || zbus::block_on(operation(&alarm)))
            .map_err(system)?;
        thread.join().unwrap_or_else(|_| {
            Err(ObjectError::System(
                "the D-Bus thread has panicked".to_owned(),
            ))
        })
    })
}

/// Finds who takes part, and lets go of everybody if that fails.
async fn select(
    place: &Place,
    list: Option<&IdList>,
    look: Look,
    alarm: &Alarm,
    time: Duration,
) -> Result<Selection, ObjectError> {
    let census = census(place, look, alarm, time).await?;
    if let Err(error) = census.check(list) {
        census.close().await;
        return Err(error);
    }
    Ok(census.select(list))
}

/// Lists everybody at `place`, whatever is wrong with them, with the states of those on the list, or of all, if `states` says so. Calls
/// end after `time`.
///
/// # Errors
/// A bus that cannot be reached or does not answer.
pub fn list(
    place: &Place,
    list: Option<&IdList>,
    states: bool,
    time: Duration,
) -> Result<Vec<Present>, ObjectError> {
    let asked = |id: &Result<String, Fault>| match id {
        Ok(id) => list.is_none_or(|list| list.contains(id)),
        Err(_) => false,
    };
    run(time, async |alarm| {
        let census = census(place, Look::Objects, alarm, time).await?;
        let mut present: Vec<_> = census
            .found
            .iter()
            .map(|found| Present {
                owner: found.peer.name.clone(),
                id: found.id.clone(),
                second: found.second.clone(),
                state: None,
            })
            .collect();
        if states {
            let found = census.found.iter().filter(|found| asked(&found.id));
            let saves = found.map(|found| found.peer.save());
            let mut answers = alarm.all(saves, |_| false).await.into_iter();
            for one in present.iter_mut().filter(|one| asked(&one.id)) {
                let answer = answers.next().flatten().unwrap_or(Err(Fault::Late(time)));
                one.state = Some(answer.map(|state| state.bytes().to_vec()));
            }
        }
        census.close().await;
        Ok(present)
    })
}

/// Loads these states into the helpers at `place`: all of them, or nothing if one has no helper. Calls end after `time`.
///
/// # Errors
/// [`ObjectError`]. If a helper refuses its state, others may have taken theirs.
pub fn load(
    place: &Place,
    list: Option<&IdList>,
    elements: &[Element],
    time: Duration,
) -> Result<Loaded, ObjectError> {
    let begin = Instant::now();
    run(time, async |alarm| {
        let selection = select(place, list, Look::Ids, alarm, time).await?;
        let result = selection.load(elements, alarm, time).await;
        let without = selection.without(elements);
        let skipped = selection.skipped();
        selection.close().await;
        result?;
        let id = |element: &Element| String::from_utf8_lossy(&element.id).into_owned();
        Ok(Loaded {
            loaded: elements.iter().map(id).collect(),
            without,
            skipped,
            took: begin.elapsed(),
        })
    })
}

/// Finds who would take part.
pub(crate) fn rehearse(
    place: &Place,
    list: Option<&IdList>,
    time: Duration,
) -> Result<Rehearsal, ObjectError> {
    run(time, async |alarm| {
        let selection = select(place, list, Look::Objects, alarm, time).await?;
        let rehearsal = selection.rehearsal();
        selection.close().await;
        Ok(rehearsal)
    })
}

/// Connects, and asks nothing but who is there.
pub(crate) fn probe(place: &Place, time: Duration) -> Result<(), ObjectError> {
    run(time, async |alarm| {
        let census = census(place, Look::Ids, alarm, time).await?;
        census.close().await;
        Ok(())
    })
}

/// This part of the time is given to looking for second objects while states are saved: a guest stands still meanwhile.
const LOOK: u32 = 10;

/// What is done at the same time when helpers are saved.
enum Part {
    Saved(Result<Vec<State>, ObjectError>),
    /// A helper has a second object.
    Looked(Option<ObjectError>),
}

/// Saves everybody who takes part, at the same time. Looks meanwhile whether somebody has got a second object since the migration began.
async fn save_all(
    selection: &Selection,
    alarm: &Alarm,
    time: Duration,
) -> Result<Vec<State>, ObjectError> {
    let parts: [Pin<Box<dyn Future<Output = Part> + '_>>; 2] = [
        Box::pin(async { Part::Saved(selection.save(alarm, time).await) }),
        Box::pin(async { Part::Looked(selection.second(time / LOOK).await) }),
    ];
    let failed = |part: &Part| matches!(part, Part::Saved(Err(_)) | Part::Looked(Some(_)));
    let mut states = Err(ObjectError::List(Fault::Late(time)));
    for part in alarm.all(parts, failed).await.into_iter().flatten() {
        match part {
            Part::Saved(saved) => states = saved,
            Part::Looked(Some(error)) => return Err(error),
            Part::Looked(None) => {}
        }
    }
    states
}

/// Saves everybody who takes part, at the same time.
pub(crate) fn save(
    place: &Place,
    list: Option<&IdList>,
    time: Duration,
) -> Result<Saved, ObjectError> {
    let begin = Instant::now();
    run(time, async |alarm| {
        let selection = select(place, list, Look::Ids, alarm, time).await?;
        let result = save_all(&selection, alarm, time).await;
        let (ids, skipped) = (selection.ids(), selection.skipped());
        selection.close().await;
        Ok(Saved {
            states: ids.into_iter().zip(result?).collect(),
            skipped,
            took: begin.elapsed(),
        })
    })
}

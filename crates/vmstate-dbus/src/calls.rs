//! Calls of all helpers at once, before one deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vmstate_wire::helpers::{BlobError, BlobErrorKind, BlobReader, Element};
use zbus::Connection;

use crate::alarm::Alarm;
use crate::error::{Fault, ObjectError, Step};
use crate::find::MAX_HELPERS;
use crate::id_list::IdList;
use crate::introspection::elsewhere;
use crate::peer::{Peer, State};

/// A helper that has said who it is.
#[derive(Debug)]
pub(crate) struct Helper {
    pub(crate) id: String,
    pub(crate) peer: Peer,
}

/// Somebody who is there.
pub(crate) struct Found {
    pub(crate) peer: Peer,
    /// Who they say that they are.
    pub(crate) id: Result<String, Fault>,
    /// A second object of the interface.
    pub(crate) second: Option<Fault>,
}

/// Everybody who is there.
pub(crate) struct Census {
    pub(crate) found: Vec<Found>,
    /// To be closed at the end, if this is a bus.
    bus: Option<Connection>,
}

impl Census {
    pub(crate) fn new(found: Vec<Found>, bus: Option<Connection>) -> Self {
        Self { found, bus }
    }

    /// Closes all connections. Dropping them does so too, but later.
    pub(crate) async fn close(self) {
        let peers = self.found.into_iter().map(|found| found.peer);
        close(self.bus, peers).await;
    }

    /// Those that take part: all, or those on the list, once [`check`](Self::check) is content.
    pub(crate) fn select(self, list: Option<&IdList>) -> Selection {
        let mut helpers = Vec::new();
        let mut others = Vec::new();
        let mut skipped = Vec::new();
        for Found { peer, id, .. } in self.found {
            match id {
                Ok(id) if list.is_none_or(|list| list.contains(&id)) => {
                    helpers.push(Helper { id, peer });
                }
                Ok(id) => skipped.push(Helper { id, peer }),
                Err(_) => others.push(peer),
            }
        }
        helpers.sort_by(|a, b| a.id.cmp(&b.id));
        Selection {
            helpers,
            skipped,
            others,
            bus: self.bus,
        }
    }

    /// Everybody must have said who it is, with an id of its own, and nobody on the list may be missing.
    pub(crate) fn check(&self, list: Option<&IdList>) -> Result<(), ObjectError> {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for Found { peer, id, second } in &self.found {
            let id = match id {
                Ok(id) => id,
                Err(fault) => return Err(peer.error(None, Step::Id, fault.clone())),
            };
            if list.is_some_and(|list| !list.contains(id)) {
                continue;
            }
            if let Some(second) = second {
                return Err(peer.error(Some(id), Step::Introspect, second.clone()));
            }
            if let Some(first) = seen.insert(id, &peer.name) {
                return Err(ObjectError::Duplicate {
                    id: id.clone(),
                    first: first.to_owned(),
                    second: peer.name.clone(),
                });
            }
        }
        let missing: Vec<String> = list
            .into_iter()
            .flat_map(IdList::iter)
            .filter(|id| !seen.contains_key(id))
            .map(str::to_owned)
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(ObjectError::Missing { ids: missing })
        }
    }
}

/// The helpers that take part, in the order of their ids.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) helpers: Vec<Helper>,
    /// Those that are there and not on the list.
    skipped: Vec<Helper>,
    others: Vec<Peer>,
    bus: Option<Connection>,
}

impl Selection {
    pub(crate) async fn close(self) {
        let helpers = self.helpers.into_iter().chain(self.skipped);
        let peers = helpers.map(|helper| helper.peer);
        close(self.bus, peers.chain(self.others)).await;
    }

    /// Ids of those that are there and not on the list.
    pub(crate) fn skipped(&self) -> Vec<String> {
        ids(&self.skipped)
    }

    /// Ids of those that take part.
    pub(crate) fn ids(&self) -> Vec<String> {
        ids(&self.helpers)
    }

    /// The states of all, in the order of their ids. The first failure ends it.
    pub(crate) async fn save(
        &self,
        alarm: &Alarm,
        time: Duration,
    ) -> Result<Vec<State>, ObjectError> {
        let saves = self.helpers.iter().map(|helper| helper.peer.save());
        let answers = alarm.all(saves, Result::is_err).await;
        outcome(self.helpers.iter().zip(answers), Step::Save, time)
    }

    /// Why a helper cannot be saved that has a second object of the interface, if one has. Nobody has to answer, so that is not waited
    /// for any longer than `patience`.
    pub(crate) async fn second(&self, patience: Duration) -> Option<ObjectError> {
        // Without a thread for the deadline nobody is looked at: what is saved is as good as it was.
        let alarm = Alarm::after(patience).ok()?;
        let looks = self.helpers.iter().map(|helper| elsewhere(&helper.peer));
        let seconds = alarm.all(looks, Option::is_some).await;
        let mut pairs = self.helpers.iter().zip(seconds);
        pairs.find_map(|(helper, second)| {
            let fault = second.flatten()?;
            Some(helper.peer.error(Some(&helper.id), Step::Introspect, fault))
        })
    }

    /// Loads these states, all of which must have a helper. None is loaded if one has not.
    pub(crate) async fn load(
        &self,
        elements: &[Element],
        alarm: &Alarm,
        time: Duration,
    ) -> Result<(), ObjectError> {
        let by_id: BTreeMap<&[u8], &Helper> = self
            .helpers
            .iter()
            .map(|helper| (helper.id.as_bytes(), helper))
            .collect();
        let mut pairs = Vec::with_capacity(elements.len());
        for element in elements {
            match by_id.get(&element.id[..]) {
                Some(helper) => pairs.push((*helper, element)),
                None => return Err(self.rehearsal().unexpected(&element.id)),
            }
        }
        let loads = pairs
            .iter()
            .map(|(helper, element)| helper.peer.load(&element.state));
        let answers = alarm.all(loads, Result::is_err).await;
        let helpers = pairs.iter().map(|(helper, _)| *helper);
        outcome(helpers.zip(answers), Step::Load, time).map(drop)
    }

    /// Who takes part, and who does not.
    pub(crate) fn rehearsal(&self) -> Rehearsal {
        let owner = |helper: &Helper| helper.peer.name.clone();
        Rehearsal {
            present: self.ids(),
            skipped: self.skipped(),
            owners: self.skipped.iter().map(owner).collect(),
        }
    }

    /// Ids of helpers of which no element has come.
    pub(crate) fn without(&self, elements: &[Element]) -> Vec<String> {
        let came: BTreeSet<&[u8]> = elements.iter().map(|element| &element.id[..]).collect();
        self.helpers
            .iter()
            .filter(|helper| !came.contains(helper.id.as_bytes()))
            .map(|helper| helper.id.clone())
            .collect()
    }
}

/// Who would take part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// Ids of the helpers that would be saved, or loaded.
    pub present: Vec<String>,
    /// Ids of those that are there and not listed.
    pub skipped: Vec<String>,
    /// Unique names or addresses of these.
    owners: Vec<String>,
}

impl Rehearsal {
    /// What takes states of those who are present, and of nobody else.
    pub(crate) fn reader(&self) -> BlobReader {
        let most = u32::try_from(MAX_HELPERS).unwrap_or(u32::MAX);
        let ids = self.present.iter().map(|id| id.clone().into_bytes());
        BlobReader::new(most).only(ids)
    }

    /// Why that reader has refused a blob.
    pub(crate) fn explain(&self, error: &BlobError) -> String {
        match error.kind() {
            BlobErrorKind::Unknown { id } => self.unexpected(id).to_string(),
            _ => error.to_string(),
        }
    }

    /// Why a state cannot come for this id, which is none of `present`.
    pub(crate) fn unexpected(&self, id: &[u8]) -> ObjectError {
        let mut skipped = self.skipped.iter().zip(&self.owners);
        match skipped.find(|(skipped, _)| skipped.as_bytes() == id) {
            Some((id, owner)) => ObjectError::Unlisted {
                id: id.clone(),
                owner: owner.clone(),
            },
            None => ObjectError::Unexpected { id: id.to_vec() },
        }
    }
}

fn ids(helpers: &[Helper]) -> Vec<String> {
    helpers.iter().map(|helper| helper.id.clone()).collect()
}

/// All answers, or the failure of a helper: rather one that said something than one that did not come to it.
fn outcome<'h, T>(
    answers: impl Iterator<Item = (&'h Helper, Option<Result<T, Fault>>)>,
    step: Step,
    time: Duration,
) -> Result<Vec<T>, ObjectError> {
    let mut good = Vec::new();
    let mut late = None;
    for (helper, answer) in answers {
        let error = |fault| helper.peer.error(Some(&helper.id), step, fault);
        match answer {
            Some(Ok(answer)) => good.push(answer),
            Some(Err(fault)) => return Err(error(fault)),
            None => late = late.or_else(|| Some(error(Fault::Late(time)))),
        }
    }
    late.map_or(Ok(good), Err)
}

async fn close(bus: Option<Connection>, peers: impl IntoIterator<Item = Peer>) {
    for peer in peers {
        peer.close().await;
    }
    if let Some(bus) = bus {
        // What is closed badly is gone all the same.
        let _ = bus.close().await;
    }
}

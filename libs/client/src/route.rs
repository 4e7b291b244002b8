//! Which follower a session calls.

use std::cmp::Reverse;
use std::sync::Arc;

use tao_rpc::members::List;
use tao_rpc::rendezvous::weight;

use crate::follower::Follower;

/// The followers in the order in which a session wants them. Worked out anew only when the followers are others: a call costs a look
/// at the first, when that is as it should be.
#[derive(Debug)]
pub(crate) struct Route {
    key: u64,
    /// Of the list that the order is of.
    version: Option<u64>,
    /// Places in the list. Not the followers themselves: an idle session must not keep one that is gone.
    order: Vec<usize>,
    /// The number of the follower that was chosen last.
    last: Option<u64>,
}

/// A follower that was chosen.
pub(crate) struct Chosen {
    pub follower: Arc<Follower>,
    /// Whether there are others.
    pub has_others: bool,
    /// Whether another was chosen before.
    pub moved: bool,
}

/// How little a follower is wanted, before all rendezvous.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Doubts {
    /// It has just failed this very call.
    is_avoided: bool,
    /// It has just failed some call.
    is_suspect: bool,
    /// It has to be connected to first, or has asked for no more calls.
    is_closed: bool,
}

impl Doubts {
    const NONE: Self = Self { is_avoided: false, is_suspect: false, is_closed: false };
}

impl Route {
    /// A session's, by a random number.
    pub fn new() -> Self {
        Self { key: rand::random(), version: None, order: Vec::new(), last: None }
    }

    /// The follower to call, another than the number `avoid` if there is one. `None` when there is none at all.
    pub fn choose(&mut self, list: &List<Follower>, avoid: Option<u64>) -> Option<Chosen> {
        if self.version != Some(list.version) {
            self.order.clear();
            self.order.extend(0..list.entries.len());
            self.order.sort_by_key(|place| Reverse(weight(list.entries[*place].hash, self.key)));
            self.version = Some(list.version);
        }
        let ranked = || self.order.iter().map(|place| &list.entries[*place].member);
        let mut best: Option<(Doubts, &Arc<Follower>)> = None;
        for follower in ranked() {
            let doubts = Doubts {
                is_avoided: avoid == Some(follower.number),
                is_suspect: follower.standing.is_suspect(),
                is_closed: !follower.is_open(),
            };
            if best.as_ref().is_none_or(|(least, _)| doubts < *least) {
                let is_without = doubts == Doubts::NONE;
                best = Some((doubts, follower));
                if is_without {
                    break;
                }
            }
        }
        let (_, follower) = best?;
        // Another may stand in for the first until that is connected to.
        ranked().next()?.begin();
        let moved = self.last.replace(follower.number).is_some_and(|last| last != follower.number);
        Some(Chosen { follower: follower.clone(), has_others: list.entries.len() > 1, moved })
    }
}

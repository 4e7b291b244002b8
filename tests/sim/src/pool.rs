//! What all sessions of a run know together: the objects that there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::StdRng;
use tao_model::{ObjectId, Token};

use crate::plan::Plan;

/// The objects that most calls are about.
const HOT: usize = 3;

/// See the module.
#[derive(Clone)]
pub struct Pool {
    most: usize,
    ids: Arc<Mutex<Vec<ObjectId>>>,
    /// What all sessions together have seen.
    seen: Arc<Mutex<Token>>,
    writes: Arc<AtomicU64>,
}

impl Pool {
    /// Empty.
    pub fn new(plan: &Plan) -> Self {
        let seen = Arc::new(Mutex::new(Token::new(plan.info(0).cluster)));
        Self { most: plan.objects, ids: Arc::default(), seen, writes: Arc::default() }
    }

    /// Merges a session's token into that of all of them, and gives that.
    pub fn share(&self, token: &Token) -> Token {
        let mut seen = self.seen.lock();
        seen.merge(token);
        seen.clone()
    }

    /// A number that no other write has.
    pub fn write(&self) -> u64 {
        self.writes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Tells of an object.
    pub fn add(&self, id: ObjectId) {
        let mut ids = self.ids.lock();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }

    /// Whether there are as many objects as there should be.
    pub fn is_full(&self) -> bool {
        self.ids.lock().len() >= self.most
    }

    /// Every object that was told of.
    pub fn all(&self) -> Vec<ObjectId> {
        self.ids.lock().clone()
    }

    /// Some object.
    pub fn any(&self, random: &mut StdRng) -> Option<ObjectId> {
        let ids = self.ids.lock();
        let most = if random.random_bool(0.7) { ids.len().min(HOT) } else { ids.len() };
        (most > 0).then(|| ids[random.random_range(0..most)])
    }

    /// Two objects that an edge can join.
    pub fn pair(&self, random: &mut StdRng) -> Option<(ObjectId, ObjectId)> {
        (0..8).find_map(|_| {
            let (a, b) = (self.any(random)?, self.any(random)?);
            (a != b).then_some((a, b))
        })
    }
}

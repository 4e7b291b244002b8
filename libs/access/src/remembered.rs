//! Tokens that were verified a moment ago, each thread's own: a call with one of them costs a look-up and a comparison of its text.

use std::cell::RefCell;
use std::sync::Arc;

use foldhash::HashMap;

use crate::caller::Caller;

/// Bytes of tokens in the newer half of a thread's memory.
const HALF: usize = 1024 * 1024;

thread_local! {
    static REMEMBERED: RefCell<Remembered> = RefCell::default();
}

/// Two halves: what is used moves to the newer one, and when that is full the older one is forgotten.
#[derive(Default)]
struct Remembered {
    /// Of the rules that all of it was judged by.
    generation: u64,
    newer: HashMap<Box<[u8]>, Arc<Caller>>,
    older: HashMap<Box<[u8]>, Arc<Caller>>,
    /// Of the newer half.
    bytes: usize,
}

/// Whose token this was found to be, by these rules.
pub fn recall(generation: u64, token: &[u8]) -> Option<Arc<Caller>> {
    REMEMBERED.with_borrow_mut(|remembered| {
        if remembered.generation != generation {
            *remembered = Remembered { generation, ..Remembered::default() };
            return None;
        }
        if let Some(caller) = remembered.newer.get(token) {
            return Some(caller.clone());
        }
        let (token, caller) = remembered.older.remove_entry(token)?;
        remembered.keep(token, caller.clone());
        Some(caller)
    })
}

/// Keeps whose token it is, until the rules change.
pub fn remember(generation: u64, token: &[u8], caller: Arc<Caller>) {
    REMEMBERED.with_borrow_mut(|remembered| {
        if remembered.generation == generation {
            remembered.keep(token.into(), caller);
        }
    });
}

/// Forgets one that is over.
pub fn forget(token: &[u8]) {
    REMEMBERED.with_borrow_mut(|remembered| {
        if remembered.newer.remove(token).is_some() {
            remembered.bytes -= token.len();
        }
        remembered.older.remove(token);
    });
}

impl Remembered {
    fn keep(&mut self, token: Box<[u8]>, caller: Arc<Caller>) {
        if self.bytes + token.len() > HALF {
            self.older = std::mem::take(&mut self.newer);
            self.bytes = 0;
        }
        let long = token.len();
        if self.newer.insert(token, caller).is_none() {
            self.bytes += long;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_of_one_generation() {
        let nobody = Arc::new(Caller::of_peer(None, None));
        let token = |n: usize| format!("{n:0>1000}").into_bytes();
        assert!(recall(1, &token(0)).is_none());
        for n in 0..10_000 {
            remember(1, &token(n), nobody.clone());
            // The first is used all the while.
            assert!(recall(1, &token(0)).is_some());
        }
        let held = (0..10_000).filter(|n| recall(1, &token(*n)).is_some()).count();
        assert!((1_000..2_200).contains(&held), "{held}");
        forget(&token(0));
        assert!(recall(1, &token(0)).is_none());
        assert!(recall(1, &token(9_999)).is_some() && recall(2, &token(9_999)).is_none());
        remember(1, &token(7), nobody);
        assert!(recall(2, &token(7)).is_none(), "what was judged by older rules is not kept");
    }
}

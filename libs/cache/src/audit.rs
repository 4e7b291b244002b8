//! Compares what a tier has cached with what is stored. It trusts nothing but the memory of changes, and that only to tell that it can't tell.

use prost::Message as _;
use tao_model::{Error, Key, Position, Result};
use tao_proto::v1;

use crate::entry::{Entry, Fresh, Mode};
use crate::memory::Lookup;
use crate::reader::{CachedReader, Upstream, answer, question};
use crate::redis::SharedCache;

/// What an audit of a key found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audit {
    /// What is cached is what is stored.
    Consistent,
    /// The key is not cached, or may have changed in between.
    Inconclusive,
    /// A cache shows what it must not show: one of the rules was broken, or the store's rows and its log disagree.
    Inconsistent(Box<Inconsistency>),
}

/// What is cached, and what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inconsistency {
    /// Of what.
    pub key: Key,
    /// How fresh the cached value is said to be.
    pub at: Position,
    /// The cached value.
    pub cached: Entry,
    /// What the log's owner read. Nothing is known to have changed between `at` and its position.
    pub stored: Fresh<Entry>,
}

impl<U: Upstream, R: SharedCache> CachedReader<U, R> {
    /// Compares a cached value, fresh as of F, with a strong read as of S, once the stream has come to S: if no change of the key after F
    /// is remembered then, both must be the same. Waits no longer than the context's deadline.
    pub async fn audit(&self, key: Key, context: U::Context) -> Result<Audit> {
        let Lookup::Hit(cached, at) = self.memory().lookup(&key, 0, Position::ZERO) else {
            return Ok(Audit::Inconclusive);
        };
        let newest = if let Entry::List(list) = &cached { list.len() } else { 0 };
        let deadline = U::deadline(&context);
        let read = async {
            let reply = self.upstream().read(key.owner(), question(key, newest), at, Mode::Strong, &context).await?;
            let stored = Fresh { as_of: reply.as_of, value: answer(key, reply.value)? };
            Ok::<_, Error>(self.memory().reached(stored.as_of).await.then_some(stored))
        };
        let stored = match tokio::time::timeout_at(deadline, read).await {
            Ok(read) => read?,
            Err(_) => None,
        };
        // Of another epoch, either may have been undone.
        let stored = stored.filter(|stored| stored.as_of.epoch == at.epoch && stored.as_of >= at);
        let Some(stored) = stored.filter(|_| self.memory().known_until(&key) <= at) else {
            return Ok(Audit::Inconclusive);
        };
        if is_same(&cached, &stored.value) {
            return Ok(Audit::Consistent);
        }
        Ok(Audit::Inconsistent(Box::new(Inconsistency { key, at, cached, stored })))
    }
}

/// Whether both show the same state; of a list, as far as both go.
fn is_same(cached: &Entry, stored: &Entry) -> bool {
    match (cached, stored) {
        (Entry::Object(cached), Entry::Object(stored)) => {
            // A map's fields may be encoded in any order.
            cached == stored
                || cached.as_ref().zip(stored.as_ref()).is_some_and(|(cached, stored)| {
                    let decode = |raw: &[u8]| v1::Object::decode(raw).ok();
                    decode(cached).is_some_and(|cached| Some(cached) == decode(stored))
                })
        }
        (Entry::List(cached), Entry::List(stored)) => {
            let both = cached.len().min(stored.len());
            let (here, there) = (cached.newest_bytes(both), stored.newest_bytes(both));
            cached.count() == stored.count()
                && (here == there || {
                    let decode = |raw: &[u8]| v1::AssocRangeResponse::decode(raw).ok().map(|list| list.assocs);
                    decode(&here).is_some_and(|here| Some(here) == decode(&there))
                })
        }
        _ => false,
    }
}

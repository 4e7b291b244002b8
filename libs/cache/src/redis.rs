//! The second level, shared by followers: values with their `as_of`, and nothing else (rule 8). Whatever Redis evicts, loses or
//! brings back, and whenever it dies, reads are only slower.

mod link;
mod reads;
mod writes;

use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use metrics::counter;
use tao_model::{ClusterId, Key, Position};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::entry::Entry;
use crate::list::CachedList;

use link::{Link, Server, keep_connected};
use reads::{Asked, read_together};
use writes::{Write, write_behind};

/// The version byte of values, and a part of every key.
const VERSION: u8 = 1;
/// Version, epoch, lsn.
const HEAD: usize = 17;
const KIND_ABSENT: u8 = 0;
const KIND_OBJECT: u8 = 1;
const KIND_LIST: u8 = 2;
/// Writes that may wait; more are dropped.
const MAX_QUEUED: usize = 4096;
/// Bytes of values among them.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// Larger values are not stored.
const MAX_VALUE: usize = 1024 * 1024;
/// A value's `as_of` is raised when it lags by so many changes: often enough to stay believable after restarts.
const RAISE_AFTER: u64 = 1_000;

/// Why a Redis can't be configured. One that is down is no error.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// Not an address.
    #[error("not the URL of a Redis: {0}")]
    Url(#[from] redis::RedisError),
}

/// What the caches of a tier share behind their memory (rule 8).
pub trait SharedCache: Send + Sync + 'static {
    /// Nothing is read or written before it is known whose values they are.
    fn meet(&self, cluster: ClusterId);

    /// A value, and the position that it says it is of. Nothing when there is none, or no telling within a moment.
    fn get(&self, key: Key) -> impl Future<Output = Option<(Position, Entry)>> + Send;

    /// Stores a value over an older one, in the background.
    fn set(&self, key: Key, as_of: Position, entry: &Entry);

    /// Raises a validated value's position in the background, when it is worth it.
    fn raise(&self, key: Key, from: Position, to: Position);
}

/// Connections to Redis that come and go: one for each runtime that reads, since a read that changes threads costs more than Redis does.
pub struct RedisCache {
    lines: Vec<Line>,
    /// What keys begin with.
    prefix: OnceLock<Vec<u8>>,
    schema: u64,
    /// By the first line.
    writes: mpsc::Sender<Write>,
    /// Bytes that may wait to be written.
    room: Arc<Semaphore>,
}

/// A connection, with all that uses it, on one runtime.
struct Line {
    runtime: Handle,
    link: Arc<Link>,
    reads: mpsc::UnboundedSender<Asked>,
    connecting: AbortHandle,
}

impl Line {
    fn open(server: Server, runtime: Handle) -> Self {
        let link = Arc::new(Link::new());
        let connecting = runtime.spawn(keep_connected(server, link.clone())).abort_handle();
        let (reads, asked) = mpsc::unbounded_channel();
        runtime.spawn(read_together(link.clone(), asked));
        Self { runtime, link, reads, connecting }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connecting.abort();
    }
}

impl RedisCache {
    /// Connects in the background, on each of these runtimes (none: on the present one), now and whenever a connection breaks: to one
    /// server (`redis://HOST:PORT`) or to a cluster (`redis-cluster://HOST:PORT,HOST:PORT`, some of its servers).
    pub fn connect(url: &str, runtimes: &[Handle]) -> Result<Self, RedisError> {
        let here = [Handle::current()];
        let runtimes = if runtimes.is_empty() { &here } else { runtimes };
        let open = |runtime: &Handle| Ok(Line::open(Server::open(url)?, runtime.clone()));
        let lines = runtimes.iter().map(open).collect::<Result<Vec<_>, RedisError>>()?;
        let (writes, queue) = mpsc::channel(MAX_QUEUED);
        runtimes[0].spawn(write_behind(lines[0].link.clone(), queue));
        // Shown before there are any.
        counter!("tao_cache_redis_errors_total").increment(0);
        counter!("tao_cache_redis_writes_dropped_total").increment(0);
        let room = Arc::new(Semaphore::new(MAX_QUEUED_BYTES));
        Ok(Self { lines, prefix: OnceLock::new(), schema: 0, writes, room })
    }

    /// That of the runtime which asks.
    fn line(&self) -> &Line {
        let [first, more @ ..] = self.lines.as_slice() else { unreachable!("there is one at least") };
        if more.is_empty() {
            return first;
        }
        let Ok(here) = Handle::try_current() else { return first };
        self.lines.iter().find(|line| line.runtime.id() == here.id()).unwrap_or(first)
    }

    /// Apart from the values of other schemas: an object holds its type's name, and a value outlives a renaming.
    #[must_use]
    pub fn of_schema(mut self, fingerprint: u64) -> Self {
        self.schema = fingerprint;
        self
    }

    fn name(&self, key: Key) -> Option<Vec<u8>> {
        let prefix = self.prefix.get()?;
        let mut name = Vec::with_capacity(prefix.len() + 32);
        name.extend_from_slice(prefix);
        // A Vec takes whatever is written.
        match key {
            Key::Object(id) => write!(name, "o:{id}").ok()?,
            Key::List(id1, atype) => write!(name, "l:{id1}:{atype}").ok()?,
        }
        Some(name)
    }

    fn enqueue(&self, write: Write) {
        if self.lines[0].link.is_up() && self.writes.try_send(write).is_err() {
            counter!("tao_cache_redis_writes_dropped_total").increment(1);
        }
    }
}

impl SharedCache for RedisCache {
    fn meet(&self, cluster: ClusterId) {
        // The first stays: a tier never serves a second cluster.
        let schema = self.schema;
        let _ = self.prefix.set(format!("tao:{VERSION}:{cluster}:{schema:016x}:").into_bytes());
    }

    async fn get(&self, key: Key) -> Option<(Position, Entry)> {
        let name = self.name(key)?;
        let line = self.line();
        if !line.link.is_up() {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        line.reads.send(Asked { name, answer }).ok()?;
        decode(key, answered.await.ok()??)
    }

    fn set(&self, key: Key, as_of: Position, entry: &Entry) {
        let Some(name) = self.name(key) else { return };
        let value = encode(as_of, entry);
        if value.len() <= MAX_VALUE {
            match self.room.clone().try_acquire_many_owned(value.len() as u32) {
                Ok(share) => self.enqueue(Write::Set(name, as_of, value, share)),
                Err(_) => counter!("tao_cache_redis_writes_dropped_total").increment(1),
            }
        }
    }

    fn raise(&self, key: Key, from: Position, to: Position) {
        let lags = to.epoch > from.epoch || to.lsn.saturating_sub(from.lsn) >= RAISE_AFTER;
        if let Some(name) = self.name(key).filter(|_| lags) {
            self.enqueue(Write::Raise(name, from, to));
        }
    }
}

fn head(at: Position) -> [u8; HEAD] {
    let mut head = [VERSION; HEAD];
    head[1..9].copy_from_slice(&at.epoch.to_be_bytes());
    head[9..].copy_from_slice(&at.lsn.to_be_bytes());
    head
}

#[doc(hidden)]
pub fn encode(as_of: Position, entry: &Entry) -> Vec<u8> {
    let mut value = head(as_of).to_vec();
    match entry {
        Entry::Object(None) => value.push(KIND_ABSENT),
        Entry::Object(Some(object)) => {
            value.push(KIND_OBJECT);
            value.extend_from_slice(object);
        }
        Entry::List(list) => {
            value.push(KIND_LIST);
            value.extend_from_slice(&list.count().to_be_bytes());
            value.extend_from_slice(&list.edges_bytes());
        }
    }
    value
}

/// What this version did not write is no value.
#[doc(hidden)]
pub fn decode(key: Key, raw: Vec<u8>) -> Option<(Position, Entry)> {
    let raw = Bytes::from(raw);
    let (head, rest) = raw.split_at_checked(HEAD)?;
    if head[0] != VERSION {
        return None;
    }
    let position =
        Position::new(u64::from_be_bytes(head[1..9].try_into().ok()?), u64::from_be_bytes(head[9..].try_into().ok()?));
    let (kind, content) = rest.split_first()?;
    let entry = match (key, *kind) {
        (Key::Object(_), KIND_ABSENT) if content.is_empty() => Entry::Object(None),
        (Key::Object(_), KIND_OBJECT) => Entry::Object(Some(raw.slice(HEAD + 1..))),
        (Key::List(..), KIND_LIST) => {
            let (count, _) = content.split_first_chunk::<8>()?;
            let list = CachedList::from_encoded(u64::from_be_bytes(*count), raw.slice(HEAD + 9..))?;
            Entry::List(Arc::new(list))
        }
        _ => return None,
    };
    Some((position, entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_model::{ObjectId, TypeId};

    #[test]
    fn only_what_was_written_is_read() {
        let id = ObjectId::new(5).unwrap();
        let (object, list) = (Key::Object(id), Key::List(id, TypeId(1)));
        let at = Position::new(7, 9);
        let one = Entry::List(Arc::new(CachedList::from_encoded(3, Bytes::new()).unwrap()));
        for (key, entry) in
            [(object, Entry::Object(None)), (object, Entry::Object(Some(Bytes::from_static(b"x")))), (list, one)]
        {
            let raw = encode(at, &entry);
            assert_eq!(decode(key, raw.clone()), Some((at, entry)));
            let other = if key == object { list } else { object };
            assert_eq!(decode(other, raw.clone()), None);
            let mut newer = raw;
            newer[0] = VERSION + 1;
            assert_eq!(decode(key, newer), None);
        }
        for garbage in [vec![], vec![VERSION; 17], b"hello, world, this is no value".to_vec()] {
            assert_eq!(decode(object, garbage.clone()), None);
            assert_eq!(decode(list, garbage), None);
        }
    }
}

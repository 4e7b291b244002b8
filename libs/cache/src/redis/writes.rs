//! Writes to Redis, in the background: several are under way at once. Their order does not matter: a script decides by positions.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use redis::Script;
use tao_model::Position;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::head;
use super::link::Link;

/// Writes under way.
const UNDER_WAY: usize = 64;
/// Values that nobody asked for so long go by themselves.
const TTL_MS: u64 = 24 * 60 * 60 * 1_000;

/// Sets a value only over a smaller position. Numbers in Lua are doubles: epoch and lsn are compared by themselves.
const SET: &str = r"
local head = redis.call('GETRANGE', KEYS[1], 0, 16)
if #head == 17 and string.byte(head) == string.byte(ARGV[1]) then
  local _, epoch, lsn = struct.unpack('>BI8I8', head)
  local new_epoch, new_lsn = tonumber(ARGV[2]), tonumber(ARGV[3])
  if epoch > new_epoch or (epoch == new_epoch and lsn >= new_lsn) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
return 1";

/// Raises the position of a value that has not changed since.
const RAISE: &str = r"
if redis.call('GETRANGE', KEYS[1], 0, 16) == ARGV[1] then
  redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 1
end
return 0";

/// What is to be written.
pub(super) enum Write {
    /// With its share of the bytes that may wait.
    Set(Vec<u8>, Position, Vec<u8>, OwnedSemaphorePermit),
    Raise(Vec<u8>, Position, Position),
}

/// Writes for as long as there may be more.
pub(super) async fn write_behind(link: Arc<Link>, mut queue: mpsc::Receiver<Write>) {
    let (set, raise) = (Script::new(SET), Script::new(RAISE));
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            next = queue.recv(), if under_way.len() < UNDER_WAY => {
                let Some(next) = next else { return };
                under_way.push(write(&link, &set, &raise, next));
            }
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
        }
    }
}

async fn write(link: &Link, set: &Script, raise: &Script, write: Write) {
    let _: Option<i64> = match write {
        Write::Set(name, at, value, _share) => {
            let mut call = set.prepare_invoke();
            call.key(&name).arg(value).arg(at.epoch).arg(at.lsn).arg(TTL_MS);
            link.run(&name, async move |mut c| call.invoke_async(&mut c).await).await
        }
        Write::Raise(name, from, to) => {
            let mut call = raise.prepare_invoke();
            call.key(&name).arg(head(from).as_slice()).arg(head(to).as_slice()).arg(TTL_MS);
            link.run(&name, async move |mut c| call.invoke_async(&mut c).await).await
        }
    };
}

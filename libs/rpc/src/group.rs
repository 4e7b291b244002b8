//! Several servers that can answer the same calls: the leaders of a cluster, or the storage shards of one database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::BoxStream;
use tao_model::{Error, Result, StableHash};
use tao_proto::internal::{SubscribeRequest, SubscribeResponse};
use tokio::time::{Instant, timeout_at};

use crate::call::{CallContext, Op, TierReply, is_write};
use crate::client::{LinkOptions, TierClient};
use crate::connect::AddressError;

/// How long one of several servers may take for a read before the next is asked.
const READ_PATIENCE: Duration = Duration::from_secs(1);
/// How long a server that failed is asked last, at first; doubled up to [`SUSPECT_LONGEST`] while it goes on failing.
const SUSPECT: Duration = Duration::from_millis(500);
const SUSPECT_LONGEST: Duration = Duration::from_secs(8);

/// Servers among which rendezvous hashing chooses one for each key, and the next when that one fails: so all callers that see the
/// same servers alive agree, and a server that dies moves only its own keys. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TierGroup {
    members: Arc<[Member]>,
    began: Instant,
}

#[derive(Debug)]
struct Member {
    client: TierClient,
    hash: u64,
    /// Milliseconds after `began` until when it is asked last.
    suspect_until: AtomicU64,
    /// Failures in a row.
    failures: AtomicU64,
}

impl TierGroup {
    /// Begins to connect to all of them; at least one. See [`TierClient::new`].
    pub fn new(addresses: &[String], options: &LinkOptions) -> Result<Self, AddressError> {
        let member = |address: &String| {
            Ok(Member {
                client: TierClient::new(address, options.clone())?,
                hash: StableHash::of(address.as_bytes()),
                suspect_until: AtomicU64::new(0),
                failures: AtomicU64::new(0),
            })
        };
        let members = addresses.iter().map(member).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { members: members.into(), began: Instant::now() })
    }

    /// How many servers there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none; then every call fails.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The server that a call with this key would be sent to first.
    pub fn first(&self, key: u64) -> Option<&TierClient> {
        self.ranked(key).first().map(|member| &member.client)
    }

    /// Asks the key's server, and when that can't be reached, the next, until the deadline. A write whose fate is not known is not
    /// sent to another.
    pub async fn call(&self, key: u64, context: &CallContext, op: Op) -> Result<TierReply> {
        if let [only] = &*self.members {
            return only.client.call(context, op).await;
        }
        let is_write = is_write(&op);
        let mut error = Error::unavailable("no server is configured");
        let ranked = self.ranked(key);
        let mut op = Some(op);
        for (n, member) in ranked.iter().enumerate() {
            let is_last = n + 1 == ranked.len();
            let Some(ask) = (if is_last { op.take() } else { op.clone() }) else { break };
            let call = member.client.call(context, ask);
            let answer = if is_write || is_last {
                call.await
            } else {
                let patience = context.deadline.min(Instant::now() + READ_PATIENCE);
                timeout_at(patience, call).await.unwrap_or(Err(Error::DeadlineExceeded { not_applied: true }))
            };
            error = match answer {
                Ok(reply) => {
                    member.failures.store(0, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(error) => error,
            };
            match &error {
                Error::Unavailable { not_applied: true, .. } => self.suspect(member),
                Error::DeadlineExceeded { .. } | Error::Unavailable { .. } => {
                    self.suspect(member);
                    if is_write {
                        return Err(error);
                    }
                }
                _ => return Err(error),
            }
            if context.deadline <= Instant::now() {
                break;
            }
        }
        Err(error)
    }

    /// Begins a change stream at the key's server, or the next that can be reached.
    pub async fn subscribe(
        &self,
        key: u64,
        request: SubscribeRequest,
    ) -> Result<(BoxStream<'static, Result<SubscribeResponse>>, Follows)> {
        self.open(key, request, None).await
    }

    /// The same, with at most so many bytes on their way that the subscriber has not taken.
    pub async fn subscribe_within(
        &self,
        key: u64,
        request: SubscribeRequest,
        window: u32,
    ) -> Result<(BoxStream<'static, Result<SubscribeResponse>>, Follows)> {
        self.open(key, request, Some(window)).await
    }

    async fn open(
        &self,
        key: u64,
        request: SubscribeRequest,
        window: Option<u32>,
    ) -> Result<(BoxStream<'static, Result<SubscribeResponse>>, Follows)> {
        let mut last = Error::unavailable("no server is configured");
        for member in self.ranked(key) {
            match member.client.open(request.clone(), window).await {
                Ok(events) => {
                    let place = self.members.iter().position(|m| std::ptr::eq(m, member)).unwrap_or_default();
                    return Ok((events, Follows { group: self.clone(), place }));
                }
                Err(error) => last = error,
            }
            self.suspect(member);
        }
        Err(last)
    }

    fn suspect(&self, member: &Member) {
        let failures = member.failures.fetch_add(1, Ordering::Relaxed).min(8);
        let time = (SUSPECT * (1 << failures)).min(SUSPECT_LONGEST);
        let until = (self.began.elapsed() + time).as_millis() as u64;
        member.suspect_until.store(until, Ordering::Relaxed);
    }

    /// All servers: the connected ones that did not fail lately first, and among equals in rendezvous order.
    fn ranked(&self, key: u64) -> Vec<&Member> {
        let now = self.began.elapsed().as_millis() as u64;
        let mut ranked: Vec<&Member> = self.members.iter().collect();
        if ranked.len() > 1 {
            ranked.sort_by_cached_key(|member| {
                let is_suspect = member.suspect_until.load(Ordering::Relaxed) > now;
                (!member.client.is_connected(), is_suspect, std::cmp::Reverse(weight(member.hash, key)))
            });
        }
        ranked
    }
}

/// Which server a stream comes from, for when it turns out to be silent.
#[derive(Debug)]
pub struct Follows {
    group: TierGroup,
    place: usize,
}

impl Follows {
    /// The stream broke: another server is asked next, if there is one.
    pub fn broke(&self) {
        self.group.suspect(&self.group.members[self.place]);
    }

    /// The stream's server.
    pub fn server(&self) -> String {
        let address = self.group.members[self.place].client.address();
        address.authority().map_or_else(String::new, ToString::to_string)
    }
}

/// Rendezvous hashing: the server with the highest weight has the key.
fn weight(server: u64, key: u64) -> u64 {
    let mut x = server ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spread_evenly_and_a_lost_server_moves_only_its_own() {
        let servers: Vec<u64> = (0..4).map(|n| StableHash::of(format!("leader-{n}:50052").as_bytes())).collect();
        let first = |servers: &[u64], key| *servers.iter().max_by_key(|s| weight(**s, key)).unwrap();
        let mut counts = std::collections::BTreeMap::<u64, u32>::new();
        for key in 0..1024 {
            let chosen = first(&servers, key);
            *counts.entry(chosen).or_default() += 1;
            let without: Vec<u64> = servers.iter().copied().filter(|s| *s != servers[0]).collect();
            if chosen != servers[0] {
                assert_eq!(first(&without, key), chosen);
            }
        }
        assert!(counts.len() == 4 && counts.values().all(|n| (190..330).contains(n)), "{counts:?}");
    }
}

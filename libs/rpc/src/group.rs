//! Several servers that can answer the same calls: the leaders of a cluster, or the storage shards of one database.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use tao_model::{Error, Result};
use tao_proto::internal::{SubscribeRequest, SubscribeResponse};
use tokio::time::{Instant, timeout_at};

use crate::call::{CallContext, Op, TierReply, is_write};
use crate::client::{LinkOptions, TierClient};
use crate::connect::AddressError;
use crate::members::{List, Members};
use crate::rendezvous::weight;
use crate::standing::Standing;

/// How long one of several servers may take for a read before the next is asked; one that says nothing for so long has failed.
const READ_PATIENCE: Duration = Duration::from_secs(1);

/// Servers among which rendezvous hashing chooses one for each key, and the next when that one fails: so all callers that see the
/// same servers alive agree, and a server that dies moves only its own keys. The servers are all that the names stand for, as they
/// come and go ([`crate::members`]). Cheap to clone.
#[derive(Debug, Clone)]
pub struct TierGroup {
    members: Arc<Members<Member>>,
}

#[derive(Debug)]
struct Member {
    client: TierClient,
    standing: Standing,
}

impl TierGroup {
    /// Begins to connect to all of them; at least one. See [`TierClient::new`].
    pub fn new(names: &[String], options: &LinkOptions) -> Result<Self, AddressError> {
        let to_each = options.clone();
        let make =
            move |place| Member { client: TierClient::to(place, to_each.clone()), standing: Standing::default() };
        Ok(Self { members: Arc::new(Members::new(names, options, make)?) })
    }

    /// What the servers go by, with commas between them: for people.
    pub fn names(&self) -> String {
        self.members.names().join(", ")
    }

    /// How many servers there are now.
    pub fn len(&self) -> usize {
        self.members.now().entries.len()
    }

    /// Whether there are none; then every call fails.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The server that a call with this key would be sent to first.
    pub fn first(&self, key: u64) -> Option<TierClient> {
        ranked(&self.members.list(), key).first().map(|member| member.client.clone())
    }

    /// Asks the key's server, and when that can't be reached, the next, until the deadline. A write whose fate is not known is not
    /// sent to another.
    pub async fn call(&self, key: u64, context: &CallContext, op: Op) -> Result<TierReply> {
        let list = self.members.list();
        if let [only] = &*list.entries {
            return only.member.client.call(context, op).await;
        }
        let is_write = is_write(&op);
        let mut error = Error::unavailable("no server is configured");
        let ranked = ranked(&list, key);
        let mut op = Some(op);
        for (n, member) in ranked.iter().enumerate() {
            let is_last = n + 1 == ranked.len();
            let Some(ask) = (if is_last { op.take() } else { op.clone() }) else { break };
            let began = Instant::now();
            let call = member.client.ask(context, ask, !is_last);
            let answer = if is_write || is_last {
                call.await
            } else {
                let patience = context.deadline.min(Instant::now() + READ_PATIENCE);
                timeout_at(patience, call).await.unwrap_or(Err(Error::DeadlineExceeded { not_applied: true }))
            };
            error = match answer {
                Ok(reply) => {
                    member.standing.succeeded();
                    return Ok(reply);
                }
                Err(error) => error,
            };
            match &error {
                Error::Unavailable { not_applied, .. } => {
                    member.standing.failed();
                    if is_write && !not_applied {
                        return Err(error);
                    }
                }
                Error::DeadlineExceeded { .. } => {
                    // That a caller is in a hurry says nothing about the server.
                    if began.elapsed() >= READ_PATIENCE {
                        member.standing.failed();
                    }
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
        for member in ranked(&self.members.list(), key) {
            match member.client.open(request.clone(), window).await {
                Ok(events) => return Ok((events, Follows(member.clone()))),
                Err(error) => last = error,
            }
            member.standing.failed();
        }
        Err(last)
    }
}

/// All servers: the connected ones that did not fail lately first, and among equals in rendezvous order.
fn ranked(list: &List<Member>, key: u64) -> Vec<&Arc<Member>> {
    let mut ranked: Vec<_> = list.entries.iter().collect();
    if ranked.len() > 1 {
        ranked.sort_by_cached_key(|entry| {
            let Member { client, standing } = &*entry.member;
            (!client.is_connected(), standing.is_suspect(), Reverse(weight(entry.hash, key)))
        });
    }
    ranked.into_iter().map(|entry| &entry.member).collect()
}

/// Which server a stream comes from, for when it turns out to be silent. The server may be none of the group's any more.
#[derive(Debug)]
pub struct Follows(Arc<Member>);

impl Follows {
    /// The stream broke: another server is asked next, if there is one.
    pub fn broke(&self) {
        self.0.standing.failed();
        self.0.client.place().doubt();
    }

    /// The stream's server.
    pub fn server(&self) -> String {
        self.0.client.place().label()
    }
}

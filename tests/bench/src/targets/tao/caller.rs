//! Requests through either door.

use std::cell::RefCell;
use std::sync::Arc;

use anyhow::{Result, bail};
use tao_client::v1::batch_item::Call;
use tao_client::v1::batch_result::Result as Answer;
use tao_client::v1::write_batch_item::Write;
use tao_client::v1::{BatchItem, BatchRequest, WriteBatchItem, WriteBatchRequest};
use tao_client::{Client, ClientError, Session};
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tonic::{Code, Request, Status};

use super::cluster::Loaded;
use super::requests::{self, got, listed};
use crate::op::{Op, Outcome};
use crate::target::Caller;
use crate::targets::answer::{counted, other, sum, wrote};
use crate::targets::channels::Channels;
use crate::targets::lean::Lean;

/// How requests get to the follower.
pub(in crate::targets) enum Door {
    Unary(Channels),
    Lean(Lean),
    Pipelined(Sessions),
}

/// Sessions that nobody uses at present: a request in flight has one to itself.
pub(in crate::targets) struct Sessions {
    clients: Vec<Client>,
    idle: RefCell<Vec<Session>>,
    made: RefCell<usize>,
}

impl Sessions {
    pub fn new(clients: Vec<Client>) -> Self {
        Self { clients, idle: RefCell::default(), made: RefCell::default() }
    }

    fn take(&self) -> Session {
        self.idle.borrow_mut().pop().unwrap_or_else(|| {
            let mut made = self.made.borrow_mut();
            *made += 1;
            self.clients[*made % self.clients.len()].session()
        })
    }

    fn put(&self, session: Session) {
        self.idle.borrow_mut().push(session);
    }
}

/// A thread's way to the follower.
pub struct TaoCaller {
    door: Door,
    loaded: Arc<Loaded>,
}

/// Why there is no answer.
enum Failure {
    NotFound,
    Other(anyhow::Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if status.code() == Code::NotFound { Self::NotFound } else { Self::Other(status.into()) }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        if error.code() == Code::NotFound { Self::NotFound } else { Self::Other(error.into()) }
    }
}

macro_rules! ask {
    ($caller:ident.$method:ident($request:expr)) => {
        match &$caller.door {
            Door::Unary(channels) => {
                let answer = GraphServiceClient::new(channels.next()).$method(channels.request($request)).await;
                answer.map(tonic::Response::into_inner).map_err(Failure::from)
            }
            Door::Lean(connections) => {
                let answer = GraphServiceClient::new(connections.next()).$method(Request::new($request)).await;
                answer.map(tonic::Response::into_inner).map_err(Failure::from)
            }
            Door::Pipelined(sessions) => {
                let session = sessions.take();
                let answer = session.$method($request).await;
                sessions.put(session);
                answer.map_err(Failure::from)
            }
        }
    };
}

impl Caller for TaoCaller {
    async fn run(&self, op: &Op) -> Result<Outcome> {
        match self.answer(op).await {
            Ok(outcome) => Ok(outcome),
            Err(Failure::NotFound) => Ok(Outcome::default()),
            Err(Failure::Other(error)) => Err(error),
        }
    }
}

impl TaoCaller {
    pub(in crate::targets) fn new(door: Door, loaded: Arc<Loaded>) -> Self {
        Self { door, loaded }
    }

    fn id(&self, node: u32) -> i64 {
        self.loaded.ids[node as usize]
    }

    fn ends(&self, id1: u32, id2: u32) -> (i64, i64) {
        (self.id(id1), self.id(id2))
    }

    fn payload(&self, ticket: u32) -> &[u8] {
        self.loaded.graph.payload(ticket)
    }

    async fn answer(&self, op: &Op) -> Result<Outcome, Failure> {
        Ok(match *op {
            Op::ObjectGet { id } => got(ask!(self.object_get(requests::object_get(self.id(id))))?.object.as_ref()),
            Op::AssocGet { id1, id2 } => {
                listed(&ask!(self.assoc_get(requests::assoc_get(self.ends(id1, id2))))?.assocs)
            }
            Op::AssocCount { id1 } => counted(ask!(self.assoc_count(requests::assoc_count(self.id(id1))))?.count),
            Op::AssocRange { id1, limit } => {
                listed(&ask!(self.assoc_range(requests::assoc_range(self.id(id1), limit)))?.assocs)
            }
            Op::AssocTimeRange { id1, low, high, limit } => {
                let request = requests::assoc_time_range(self.id(id1), (low, high), limit);
                listed(&ask!(self.assoc_time_range(request))?.assocs)
            }
            Op::ObjectAdd { payload } => {
                ask!(self.object_add(requests::object_add(0, self.payload(payload))))?;
                wrote(false)
            }
            Op::ObjectUpdate { id, payload } => {
                ask!(self.object_update(requests::object_update(self.id(id), self.payload(payload))))?;
                wrote(true)
            }
            Op::ObjectDelete { id } => wrote(ask!(self.object_delete(requests::object_delete(self.id(id))))?.deleted),
            Op::AssocAdd { id1, id2, time, payload, atype } => {
                let request = requests::assoc_add(self.ends(id1, id2), atype, time, self.payload(payload));
                wrote(!ask!(self.assoc_add(request))?.created)
            }
            Op::AssocDelete { id1, id2, atype } => {
                wrote(ask!(self.assoc_delete(requests::assoc_delete(self.ends(id1, id2), atype)))?.deleted)
            }
            Op::AssocChangeType { id1, id2, from } => {
                let request = requests::assoc_change_type(self.ends(id1, id2), from, other(from));
                ask!(self.assoc_change_type(request))?;
                wrote(true)
            }
            Op::ReadTransaction(ref ops) => self.read_all(ops).await?,
            Op::WriteTransaction(ref ops) => self.write_all(ops).await?,
        })
    }

    async fn read_all(&self, ops: &[Op]) -> Result<Outcome, Failure> {
        let items = ops.iter().map(|op| Ok(BatchItem { call: Some(self.read(op)?) })).collect::<Result<_>>();
        let request = BatchRequest { items: items.map_err(Failure::Other)?, options: None };
        let results = ask!(self.batch(request))?.results;
        let outcomes = results.into_iter().map(|result| match result.result {
            Some(Answer::ObjectGet(answer)) => Ok(got(answer.object.as_ref())),
            Some(Answer::AssocGet(answer)) => Ok(listed(&answer.assocs)),
            Some(Answer::AssocCount(answer)) => Ok(counted(answer.count)),
            Some(Answer::AssocRange(answer)) => Ok(listed(&answer.assocs)),
            Some(Answer::AssocTimeRange(answer)) => Ok(listed(&answer.assocs)),
            Some(Answer::Error(error)) if error.code == Code::NotFound as i32 => Ok(Outcome::default()),
            Some(Answer::Error(error)) => bail!("{}: {}", error.reason, error.message),
            _ => bail!("an answer to something else"),
        });
        Ok(sum(outcomes.collect::<Result<Vec<_>>>().map_err(Failure::Other)?))
    }

    fn read(&self, op: &Op) -> Result<Call> {
        Ok(match *op {
            Op::ObjectGet { id } => Call::ObjectGet(requests::object_get(self.id(id))),
            Op::AssocGet { id1, id2 } => Call::AssocGet(requests::assoc_get(self.ends(id1, id2))),
            Op::AssocCount { id1 } => Call::AssocCount(requests::assoc_count(self.id(id1))),
            Op::AssocRange { id1, limit } => Call::AssocRange(requests::assoc_range(self.id(id1), limit)),
            Op::AssocTimeRange { id1, low, high, limit } => {
                Call::AssocTimeRange(requests::assoc_time_range(self.id(id1), (low, high), limit))
            }
            _ => bail!("{op:?} in a read transaction"),
        })
    }

    async fn write_all(&self, ops: &[Op]) -> Result<Outcome, Failure> {
        let writes = ops.iter().map(|op| Ok(WriteBatchItem { write: Some(self.write(op)?) })).collect::<Result<_>>();
        let request = WriteBatchRequest { writes: writes.map_err(Failure::Other)?, ..Default::default() };
        let results = ask!(self.write_batch(request))?.results;
        // What was new was not there before.
        let found = ops.iter().zip(results).map(|(op, result)| match op {
            Op::ObjectAdd { .. } | Op::AssocAdd { .. } => !result.applied && !matches!(op, Op::ObjectAdd { .. }),
            _ => result.applied,
        });
        Ok(sum(found.map(wrote)))
    }

    fn write(&self, op: &Op) -> Result<Write> {
        Ok(match *op {
            Op::ObjectAdd { payload } => Write::ObjectAdd(requests::object_add(0, self.payload(payload))),
            Op::ObjectUpdate { id, payload } => {
                Write::ObjectUpdate(requests::object_update(self.id(id), self.payload(payload)))
            }
            Op::ObjectDelete { id } => Write::ObjectDelete(requests::object_delete(self.id(id))),
            Op::AssocAdd { id1, id2, time, payload, atype } => {
                Write::AssocAdd(requests::assoc_add(self.ends(id1, id2), atype, time, self.payload(payload)))
            }
            Op::AssocDelete { id1, id2, atype } => {
                Write::AssocDelete(requests::assoc_delete(self.ends(id1, id2), atype))
            }
            Op::AssocChangeType { id1, id2, from } => {
                Write::AssocChangeType(requests::assoc_change_type(self.ends(id1, id2), from, other(from)))
            }
            _ => bail!("{op:?} in a write transaction"),
        })
    }
}

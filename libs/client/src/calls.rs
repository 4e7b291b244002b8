//! The calls of GraphService, and what a session has to know of each: where its token is, and whether it may be repeated.

use tao_proto::v1::batch_item::Call as Item;
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tao_proto::v1::pipeline_answer::Result as Answered;
use tao_proto::v1::pipeline_call::Call;
use tao_proto::v1::{self, ReadOptions, WriteOptions};
use tonic::transport::Channel;

use crate::error::ClientError;
use crate::session::Session;

/// A request that carries a session.
pub trait SessionRequest: Clone + prost::Message {
    /// Whether it may change something.
    const IS_WRITE: bool;
    /// What spans of its calls are called.
    const SPAN: &'static str;
    /// Takes the token out that its caller gave it.
    fn take_token(&mut self) -> String;
    /// Gives it one.
    fn set_token(&mut self, token: &str);
    /// As a pipeline has it.
    fn into_call(self) -> Call;
    /// Whether doing it twice does no more than doing it once; gives writes their keys for that, where that is wanted.
    fn make_repeatable(&mut self, generate_keys: bool) -> bool;
}

/// An answer that carries the session's token.
pub trait SessionAnswer: Sized {
    /// Takes it out: it is the session's business, and in the way of those who compare answers.
    fn take_token(&mut self) -> String;
    /// As a pipeline had it; `None`: it is another call's answer.
    fn from_answer(answer: Answered) -> Option<Self>;
}

/// Sees to it that a write has a key, and says whether it has.
fn has_key(options: &mut Option<WriteOptions>, generate: bool) -> bool {
    let key = &mut options.get_or_insert_with(WriteOptions::default).idempotency_key;
    if key.is_empty() && generate {
        *key = format!("{:032x}", rand::random::<u128>());
    }
    !key.is_empty()
}

macro_rules! session {
    ($options:ident, $writes:expr, $repeatable:expr; $($kind:ident: $request:ident => $answer:ident),* $(,)?) => {$(
        impl SessionRequest for v1::$request {
            const IS_WRITE: bool = $writes;
            const SPAN: &'static str = concat!("tao.v1.GraphService/", stringify!($kind));
            fn take_token(&mut self) -> String {
                self.options.as_mut().map(|options| std::mem::take(&mut options.session_token)).unwrap_or_default()
            }
            fn set_token(&mut self, token: &str) {
                if !token.is_empty() {
                    token.clone_into(&mut self.options.get_or_insert_with($options::default).session_token);
                }
            }
            fn into_call(self) -> Call {
                Call::$kind(self.into())
            }
            fn make_repeatable(&mut self, generate_keys: bool) -> bool {
                let repeatable: fn(&mut Self, bool) -> bool = $repeatable;
                repeatable(self, generate_keys)
            }
        }
        impl SessionAnswer for v1::$answer {
            fn take_token(&mut self) -> String {
                std::mem::take(&mut self.session_token)
            }
            fn from_answer(answer: Answered) -> Option<Self> {
                if let Answered::$kind(answer) = answer { Some(answer) } else { None }
            }
        }
    )*};
}

session!(ReadOptions, false, |_, _| true;
    ObjectGet: ObjectGetRequest => ObjectGetResponse,
    ObjectMultiGet: ObjectMultiGetRequest => ObjectMultiGetResponse,
    AssocGet: AssocGetRequest => AssocGetResponse,
    AssocCount: AssocCountRequest => AssocCountResponse,
    AssocRange: AssocRangeRequest => AssocRangeResponse,
    AssocTimeRange: AssocTimeRangeRequest => AssocTimeRangeResponse,
);
session!(WriteOptions, true, |request, generate| has_key(&mut request.options, generate);
    ObjectAdd: ObjectAddRequest => ObjectAddResponse,
    ObjectUpdate: ObjectUpdateRequest => ObjectUpdateResponse,
    ObjectUpsert: ObjectUpsertRequest => ObjectUpsertResponse,
    ObjectDelete: ObjectDeleteRequest => ObjectDeleteResponse,
    AssocAdd: AssocAddRequest => AssocAddResponse,
    AssocDelete: AssocDeleteRequest => AssocDeleteResponse,
    AssocChangeType: AssocChangeTypeRequest => AssocChangeTypeResponse,
    WriteBatch: WriteBatchRequest => WriteBatchResponse,
);
// Ids that nobody got are never missed.
session!(WriteOptions, true, |_, _| true; AllocateIds: AllocateIdsRequest => AllocateIdsResponse);
session!(ReadOptions, true, |batch, generate| {
    let mut repeatable = true;
    for item in &mut batch.items {
        repeatable &= item.call.as_mut().is_none_or(|call| item_is_repeatable(call, generate));
    }
    repeatable
}; Batch: BatchRequest => BatchResponse);

fn item_is_repeatable(call: &mut Item, generate: bool) -> bool {
    match call {
        Item::ObjectAdd(write) => has_key(&mut write.options, generate),
        Item::ObjectUpdate(write) => has_key(&mut write.options, generate),
        Item::ObjectUpsert(write) => has_key(&mut write.options, generate),
        Item::ObjectDelete(write) => has_key(&mut write.options, generate),
        Item::AssocAdd(write) => has_key(&mut write.options, generate),
        Item::AssocDelete(write) => has_key(&mut write.options, generate),
        Item::AssocChangeType(write) => has_key(&mut write.options, generate),
        Item::ObjectGet(_)
        | Item::AssocGet(_)
        | Item::AssocCount(_)
        | Item::AssocRange(_)
        | Item::AssocTimeRange(_) => true,
    }
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $answer:ident;)*) => {
        impl Session {$(
            $(#[$doc])*
            pub async fn $name(&self, request: v1::$request) -> Result<v1::$answer, ClientError> {
                self.call(request, async |graph: &mut GraphServiceClient<Channel>, request| graph.$name(request).await).await
            }
        )*}
    };
}

calls! {
    /// See GraphService.ObjectAdd.
    object_add(ObjectAddRequest) -> ObjectAddResponse;
    /// See GraphService.ObjectGet.
    object_get(ObjectGetRequest) -> ObjectGetResponse;
    /// See GraphService.ObjectMultiGet.
    object_multi_get(ObjectMultiGetRequest) -> ObjectMultiGetResponse;
    /// See GraphService.ObjectUpdate.
    object_update(ObjectUpdateRequest) -> ObjectUpdateResponse;
    /// See GraphService.ObjectUpsert.
    object_upsert(ObjectUpsertRequest) -> ObjectUpsertResponse;
    /// See GraphService.ObjectDelete.
    object_delete(ObjectDeleteRequest) -> ObjectDeleteResponse;
    /// See GraphService.AssocAdd.
    assoc_add(AssocAddRequest) -> AssocAddResponse;
    /// See GraphService.AssocDelete.
    assoc_delete(AssocDeleteRequest) -> AssocDeleteResponse;
    /// See GraphService.AssocChangeType.
    assoc_change_type(AssocChangeTypeRequest) -> AssocChangeTypeResponse;
    /// See GraphService.AssocGet.
    assoc_get(AssocGetRequest) -> AssocGetResponse;
    /// See GraphService.AssocCount.
    assoc_count(AssocCountRequest) -> AssocCountResponse;
    /// See GraphService.AssocRange.
    assoc_range(AssocRangeRequest) -> AssocRangeResponse;
    /// See GraphService.AssocTimeRange.
    assoc_time_range(AssocTimeRangeRequest) -> AssocTimeRangeResponse;
    /// See GraphService.Batch. Repeated as a whole when the batch itself fails; items that fail are the caller's to look at.
    batch(BatchRequest) -> BatchResponse;
    /// See GraphService.WriteBatch. Repeated as a whole, with one key.
    write_batch(WriteBatchRequest) -> WriteBatchResponse;
    /// See GraphService.AllocateIds. An answer that is lost costs ids, which are never missed.
    allocate_ids(AllocateIdsRequest) -> AllocateIdsResponse;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(calls: impl IntoIterator<Item = Item>) -> v1::BatchRequest {
        v1::BatchRequest {
            items: calls.into_iter().map(|call| v1::BatchItem { call: Some(call) }).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_batch_may_be_repeated_when_all_its_writes_have_keys() {
        let read = Item::ObjectGet(v1::ObjectGetRequest::default());
        let write = Item::AssocAdd(v1::AssocAddRequest::default());
        assert!(batch([read.clone()]).make_repeatable(false));
        assert!(!batch([read.clone(), write.clone(), read.clone()]).make_repeatable(false));
        let mut keyed = batch([write.clone(), read, write]);
        assert!(keyed.make_repeatable(true) && keyed.clone().make_repeatable(false));
        let keys = keyed.items.iter().filter_map(|item| match item.call.as_ref()? {
            Item::AssocAdd(write) => Some(write.options.as_ref()?.idempotency_key.clone()),
            _ => None,
        });
        let keys: Vec<_> = keys.collect();
        assert!(keys.len() == 2 && keys[0] != keys[1] && keys.iter().all(|k| k.len() == 32), "{keys:?}");
    }

    #[test]
    fn a_key_that_was_given_is_kept() {
        let options = Some(WriteOptions { idempotency_key: "mine".to_owned(), ..Default::default() });
        let mut request = v1::ObjectDeleteRequest { options, ..Default::default() };
        assert!(request.make_repeatable(true));
        assert_eq!(request.options.unwrap().idempotency_key, "mine");
        assert!(!v1::ObjectDeleteRequest::default().make_repeatable(false));
        assert!(v1::AllocateIdsRequest::default().make_repeatable(false));
        let mut batch = v1::WriteBatchRequest::default();
        assert!(!batch.make_repeatable(false) && batch.make_repeatable(true) && batch.make_repeatable(false));
    }
}

//! The answers of the public API, put together from encoded parts. Field numbers are those of proto/tao/v1/service.proto; a test
//! decodes each.

use bytes::Bytes;
use tao_model::{Error, ObjectId, Result};
use tao_proto::answer::{field_len, put_field_head};
use tao_proto::{Answer, error, v1};

use crate::hits::Found;
use crate::validate::ReadCall;

const SESSION_TOKEN: u32 = 15;
/// Room that every answer keeps for its token and cursor.
pub const RESERVE: usize = 12 * 1024;
/// Room that an answer of up to 1,000 results keeps: each may turn out to be the error that it doesn't fit.
const RESULTS_RESERVE: usize = RESERVE + 200 * 1024;

/// ObjectGetResponse, ObjectAddResponse, ObjectUpdateResponse.
pub fn object(object: Bytes) -> Answer {
    let mut answer = Answer::new();
    answer.push_field(1, object);
    answer
}

/// ObjectGetResponse, AssocGetResponse, AssocCountResponse, AssocRangeResponse, AssocTimeRangeResponse: of what memory has.
pub fn found(call: &ReadCall, found: Found<'_>) -> Result<Answer> {
    match (found, call) {
        (Found::Object(Some(content)), _) => {
            let mut field = Vec::with_capacity(field_len(1, content.len()));
            put_field_head(1, content.len(), &mut field);
            field.extend_from_slice(content);
            let mut answer = Answer::new();
            answer.push_raw(field.into());
            Ok(answer)
        }
        (Found::Object(None), ReadCall::Object(id)) => Err(no_object(*id)),
        (Found::Object(None), _) => Err(Error::Internal { what: "an object was found for a list".to_owned() }),
        (Found::Count(n), _) => Ok(count(n)),
        (Found::Edges(edges, next), _) => Ok(range(Bytes::copy_from_slice(edges), Vec::new(), &next)),
    }
}

/// An object that does not exist.
pub fn no_object(id: ObjectId) -> Error {
    Error::NotFound { what: format!("object {id}") }
}

/// ObjectUpsertResponse.
pub fn upserted(encoded: Bytes, created: bool) -> Answer {
    let mut answer = object(encoded);
    answer.push_int(2, i64::from(created));
    answer
}

/// ObjectDeleteResponse.
pub fn object_deleted(deleted: bool) -> Answer {
    let mut answer = Answer::new();
    answer.push_int(1, i64::from(deleted));
    answer
}

/// AssocAddResponse.
pub fn assoc_added(assoc: Bytes, created: bool, count: u64, pending: bool) -> Answer {
    let mut answer = Answer::new();
    answer.push_field(1, assoc);
    answer.push_int(2, i64::from(created));
    answer.push_int(3, count as i64);
    answer.push_int(4, i64::from(pending));
    answer
}

/// AssocDeleteResponse.
pub fn assoc_deleted(deleted: bool, count: u64, pending: bool) -> Answer {
    let mut answer = Answer::new();
    answer.push_int(1, i64::from(deleted));
    answer.push_int(2, count as i64);
    answer.push_int(3, i64::from(pending));
    answer
}

/// AssocChangeTypeResponse.
pub fn assoc_changed(assoc: Bytes, count: u64, pending: bool) -> Answer {
    let mut answer = Answer::new();
    answer.push_field(1, assoc);
    answer.push_int(2, count as i64);
    answer.push_int(3, i64::from(pending));
    answer
}

/// What one write of a WriteBatch has done: a WriteBatchResult's parts.
#[derive(Debug, Default)]
pub struct BatchWritten {
    /// See the message.
    pub applied: bool,
    /// An encoded tao.v1.Object.
    pub object: Option<Bytes>,
    /// An encoded tao.v1.Assoc.
    pub assoc: Option<Bytes>,
    /// See the message.
    pub pending: bool,
}

/// WriteBatchResponse. Objects and edges that don't fit into `max` are left out.
pub fn batch_written(results: Vec<BatchWritten>, max: usize) -> Answer {
    let mut answer = Answer::new();
    let pending = results.iter().any(|result| result.pending);
    for written in results {
        let mut item = Answer::new();
        item.push_int(1, i64::from(written.applied));
        for (field, content) in [(2, written.object), (3, written.assoc)] {
            let Some(content) = content else { continue };
            if answer.len() + item.len() + field_len(field, content.len()) + RESULTS_RESERVE <= max {
                item.push_field(field, content);
            }
        }
        item.push_int(4, i64::from(written.pending));
        answer.push_answer(1, item);
    }
    answer.push_int(2, i64::from(pending));
    answer
}

/// AssocCountResponse.
pub fn count(count: u64) -> Answer {
    let mut answer = Answer::new();
    answer.push_int(1, count as i64);
    answer
}

/// AssocGetResponse: the encoded edges, and the ids that were not looked at.
pub fn edges(edges: Bytes, remaining: Vec<i64>) -> Answer {
    let mut answer = Answer::new();
    answer.push_raw(edges);
    if !remaining.is_empty() {
        let rest = v1::AssocGetResponse { remaining, ..Default::default() };
        answer.push_raw(prost::Message::encode_to_vec(&rest).into());
    }
    answer
}

/// AssocRangeResponse, AssocTimeRangeResponse.
pub fn range(edges: Bytes, objects: Vec<Bytes>, next_cursor: &str) -> Answer {
    let mut answer = Answer::new();
    answer.push_raw(edges);
    for object in objects {
        answer.push_field(2, object);
    }
    answer.push_str(3, next_cursor);
    answer
}

/// AllocateIdsResponse.
pub fn ids(ids: Vec<i64>) -> Answer {
    Answer::encode(&v1::AllocateIdsResponse { ids, ..Default::default() })
}

/// Appends one result of an ObjectMultiGetResponse, unless it would make the answer larger than `max`.
pub fn push_object_result(answer: &mut Answer, result: Result<Bytes>, max: usize) {
    let result = result.map_or_else(|error| failed(2, &error), object);
    push_bounded(answer, result, 2, max);
}

/// Appends one result of a BatchResponse: the answer to the call at `field` of BatchItem, unless the batch grows beyond `max`.
pub fn push_batch_result(answer: &mut Answer, field: u32, result: Result<Answer>, max: usize) {
    let mut item = Answer::new();
    match result {
        Ok(content) => item.push_answer(field, content),
        Err(error) => item = failed(15, &error),
    }
    push_bounded(answer, item, 15, max);
}

/// Appends `item` to the field `results` (number 1), or an error at `error_field` when it doesn't fit.
fn push_bounded(answer: &mut Answer, item: Answer, error_field: u32, max: usize) {
    if answer.len() + field_len(1, item.len()) + RESULTS_RESERVE > max {
        answer.push_answer(1, failed(error_field, &Error::AnswerTooLarge));
    } else {
        answer.push_answer(1, item);
    }
}

fn failed(field: u32, error: &Error) -> Answer {
    let mut item = Answer::new();
    item.push_answer(field, Answer::encode(&error::to_item(error)));
    item
}

/// Completes an answer with the session's token.
pub fn with_token(mut answer: Answer, token: &str) -> Answer {
    answer.push_str(SESSION_TOKEN, token);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use tao_model::{Edge, ObjectId};
    use tao_proto::edges::{encode_edge, encode_list, full_assoc};

    fn decode<M: prost::Message + Default>(answer: Answer) -> M {
        let answer = with_token(answer, "t");
        assert_eq!(answer.len(), answer.to_bytes().len());
        M::decode(answer.to_bytes()).unwrap()
    }

    #[test]
    fn answers_decode_as_what_they_stand_for() {
        let node = v1::Object { id: 4, version: 2, r#type: "user".to_owned(), ..Default::default() };
        let bytes = Bytes::from(node.encode_to_vec());
        let got: v1::ObjectGetResponse = decode(object(bytes.clone()));
        assert_eq!((got.object, got.session_token.as_str()), (Some(node.clone()), "t"));
        let got: v1::ObjectUpsertResponse = decode(upserted(bytes.clone(), true));
        assert!(got.created && got.object == Some(node.clone()));
        assert!(decode::<v1::ObjectDeleteResponse>(object_deleted(true)).deleted);

        let edge = Edge { id2: ObjectId::new(9).unwrap(), time: 3, data: Bytes::new() };
        let full = full_assoc(ObjectId::new(4).unwrap(), "likes", &encode_edge(&edge));
        let got: v1::AssocAddResponse = decode(assoc_added(full.clone(), true, 5, true));
        let want = v1::Assoc { id1: 4, r#type: "likes".to_owned(), id2: 9, time: 3, ..Default::default() };
        assert_eq!((got.assoc, got.created, got.count), (Some(want.clone()), true, 5));
        assert!(got.inverse_pending);
        let got: v1::AssocChangeTypeResponse = decode(assoc_changed(full.clone(), 5, true));
        assert_eq!((got.assoc, got.count, got.inverse_pending), (Some(want.clone()), 5, true));
        let got: v1::AssocDeleteResponse = decode(assoc_deleted(true, 6, false));
        assert_eq!((got.deleted, got.count, got.inverse_pending), (true, 6, false));
        let results = || {
            let put = BatchWritten { applied: true, object: Some(bytes.clone()), ..Default::default() };
            vec![put, BatchWritten { assoc: Some(full.clone()), pending: true, ..Default::default() }]
        };
        let got: v1::WriteBatchResponse = decode(batch_written(results(), usize::MAX));
        let object = v1::WriteBatchResult { applied: true, object: Some(node.clone()), ..Default::default() };
        let linked = v1::WriteBatchResult { assoc: Some(want), pending: true, ..Default::default() };
        assert_eq!((got.results, got.pending), (vec![object, linked], true));
        let got: v1::WriteBatchResponse = decode(batch_written(results(), 0));
        assert!(got.results[0].applied && got.results[0].object.is_none(), "left out where it doesn't fit");
        assert_eq!(decode::<v1::AssocCountResponse>(count(7)).count, 7);

        let (list, _) = encode_list(&[edge], usize::MAX);
        let got: v1::AssocGetResponse = decode(edges(list.clone(), vec![1, 2]));
        assert_eq!((got.assocs[0].id2, got.remaining), (9, vec![1, 2]));
        let got: v1::AssocRangeResponse = decode(range(list.clone(), vec![bytes.clone()], "c"));
        assert_eq!((got.assocs[0].time, got.objects, got.next_cursor.as_str()), (3, vec![node.clone()], "c"));
        let got: v1::AssocTimeRangeResponse = decode(range(list, vec![bytes.clone()], "c"));
        assert_eq!((got.assocs[0].time, got.objects, got.next_cursor.as_str()), (3, vec![node], "c"));
        assert_eq!(decode::<v1::AllocateIdsResponse>(ids(vec![5, 6])).ids, [5, 6]);
    }

    #[test]
    fn what_does_not_fit_is_an_error_of_its_own() {
        let big = Bytes::from(v1::Object { r#type: "x".repeat(1000), ..Default::default() }.encode_to_vec());
        let mut many = Answer::new();
        for _ in 0..3 {
            push_object_result(&mut many, Ok(big.clone()), RESULTS_RESERVE + 2_100);
        }
        push_object_result(&mut many, Err(Error::NotFound { what: "object 1".to_owned() }), usize::MAX);
        let got: v1::ObjectMultiGetResponse = decode(many);
        let errors: Vec<_> = got
            .results
            .iter()
            .map(|r| match r.result.as_ref().unwrap() {
                v1::object_result::Result::Object(_) => "",
                v1::object_result::Result::Error(e) => e.reason.as_str(),
            })
            .collect();
        assert_eq!(errors, ["", "", "ANSWER_TOO_LARGE", "NOT_FOUND"]);

        let mut batch = Answer::new();
        push_batch_result(&mut batch, 10, Ok(count(3)), usize::MAX);
        push_batch_result(&mut batch, 2, Err(Error::AnswerTooLarge), usize::MAX);
        let got: v1::BatchResponse = decode(batch);
        assert!(matches!(&got.results[0].result, Some(v1::batch_result::Result::AssocCount(c)) if c.count == 3));
        assert!(matches!(&got.results[1].result, Some(v1::batch_result::Result::Error(e)) if e.code == 8));
    }
}

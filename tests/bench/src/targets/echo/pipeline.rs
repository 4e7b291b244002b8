//! Many calls over one stream: each message is answered by one, written from ready bytes into one buffer.

use prost::Message as _;
use tao_client::v1::pipeline_call::Call;
use tao_client::v1::{ItemError, PipelineRequest};
use tao_proto::Answer;
use tao_proto::answer::{field_len, int_len, put_field_head, put_int};
use tonic::Code;

use super::answers::Answers;
use super::service::{CURSOR, DEFAULT_LIMIT};

/// Fields of PipelineResponse.
const ANSWERS: u32 = 1;
const SESSION_TOKENS: u32 = 3;
/// Fields of PipelineAnswer.
const SEQ: u32 = 1;
const SESSION: u32 = 2;
const ERROR: u32 = 3;
const OBJECT_GET: u32 = 4;
const ASSOC_COUNT: u32 = 6;
const ASSOC_RANGE: u32 = 7;

/// Answers all calls of a message, with one token.
pub fn answer(answers: &Answers, request: PipelineRequest) -> Answer {
    let mut out = Vec::with_capacity(1_024);
    for call in request.calls {
        match call.call {
            Some(Call::ObjectGet(get)) => match answers.object(get.id) {
                Some(object) => {
                    head(&mut out, call.seq, OBJECT_GET, field_len(1, object.len()));
                    put_field_head(1, object.len(), &mut out);
                    out.extend_from_slice(&object);
                }
                None => error(&mut out, call.seq, Code::NotFound, "NOT_FOUND"),
            },
            Some(Call::AssocCount(count)) => {
                let count = answers.count(count.id1).into();
                head(&mut out, call.seq, ASSOC_COUNT, int_len(1, count));
                put_int(1, count, &mut out);
            }
            Some(Call::AssocRange(range)) => {
                let limit = if range.limit == 0 { DEFAULT_LIMIT } else { range.limit as usize };
                let (edges, has_more) = answers.newest(range.id1, limit);
                let cursor = if has_more { answers.cursor() } else { "" };
                let cursor_len = if has_more { field_len(CURSOR, cursor.len()) } else { 0 };
                head(&mut out, call.seq, ASSOC_RANGE, edges.len() + cursor_len);
                out.extend_from_slice(&edges);
                if has_more {
                    put_field_head(CURSOR, cursor.len(), &mut out);
                    out.extend_from_slice(cursor.as_bytes());
                }
            }
            _ => error(&mut out, call.seq, Code::Unimplemented, "UNIMPLEMENTED"),
        }
    }
    put_field_head(SESSION_TOKENS, answers.token().len(), &mut out);
    out.extend_from_slice(answers.token().as_bytes());
    let mut answer = Answer::new();
    answer.push_raw(out.into());
    answer
}

/// Everything of a PipelineAnswer up to the content of its result.
fn head(out: &mut Vec<u8>, seq: u64, field: u32, content: usize) {
    put_field_head(ANSWERS, int_len(SEQ, seq) + int_len(SESSION, 1) + field_len(field, content), out);
    put_int(SEQ, seq, out);
    put_int(SESSION, 1, out);
    put_field_head(field, content, out);
}

fn error(out: &mut Vec<u8>, seq: u64, code: Code, reason: &str) {
    let message = "the echo answers ObjectGet, AssocCount and AssocRange".to_owned();
    let error = ItemError { code: code as i32, reason: reason.to_owned(), message, ..Default::default() };
    let error = error.encode_to_vec();
    head(out, seq, ERROR, error.len());
    out.extend_from_slice(&error);
}

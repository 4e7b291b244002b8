//! The answers that are to be sent, encoded as a tao.v1.PipelineResponse has them.

use tao_model::{LogId, Position, ShardId, Token};
use tao_proto::Answer;
use tao_proto::answer::{field_len, int_len, put_field_head, put_int};
use tao_topology::ClusterMap;

use super::call::Field;
use crate::hits::At;

/// Bytes that fill a message. One answer more may come on top, of up to 3 MiB: together they stay below gRPC's usual 4 MiB.
const FULL: usize = 256 * 1024;
/// Tokens that are looked through for one that was used before.
const LOOK_BACK: usize = 8;

const ANSWERS: u32 = 1;
const DRAINING: u32 = 2;
const SESSION_TOKENS: u32 = 3;
const SEQ: u32 = 1;
const SESSION: u32 = 2;

/// What a token is of: a log, or one of its shards.
type Of = (LogId, Option<ShardId>, Position);

/// Whose answer it is.
pub struct Sent {
    /// The call's number.
    pub seq: u64,
    /// Place of its token, from 1; 0: none.
    pub session: u64,
    /// Which field of the answer has the content.
    pub field: Field,
}

/// See the module.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    tokens: Vec<(Option<Of>, String)>,
    token_bytes: usize,
    /// The last token of a log by itself: most hits have the same.
    last: Option<(Of, String)>,
}

impl Outbox {
    /// Place of the token of what a hit has seen.
    pub fn session(&mut self, map: &ClusterMap, at: At) -> u64 {
        let log = map.log_of(at.shard);
        let of = (log, (!at.is_of_log).then_some(at.shard), at.position);
        let known = self.tokens.iter().enumerate().rev().take(LOOK_BACK);
        for (place, (known, _)) in known {
            if *known == Some(of) {
                return place as u64 + 1;
            }
        }
        let text = match &self.last {
            Some((last, text)) if *last == of => text.clone(),
            _ => {
                let mut token = Token::new(map.cluster);
                if at.is_of_log {
                    token.see_at(log, at.position);
                } else {
                    token.see(at.shard, at.position, |_| log);
                }
                token.encode()
            }
        };
        if at.is_of_log {
            self.last = Some((of, text.clone()));
        }
        self.push_token(Some(of), text)
    }

    /// Place of a token; 0 when it is empty.
    pub fn token(&mut self, text: String) -> u64 {
        if text.is_empty() {
            return 0;
        }
        self.push_token(None, text)
    }

    fn push_token(&mut self, of: Option<Of>, text: String) -> u64 {
        self.token_bytes += text.len() + 4;
        self.tokens.push((of, text));
        self.tokens.len() as u64
    }

    /// Begins an answer whose result has so many bytes.
    fn begin(&mut self, sent: &Sent, content: usize) {
        let ids = int_len(SEQ, sent.seq) + int_len(SESSION, sent.session);
        put_field_head(ANSWERS, ids + field_len(sent.field.0, content), &mut self.bytes);
        put_int(SEQ, sent.seq, &mut self.bytes);
        put_int(SESSION, sent.session, &mut self.bytes);
        put_field_head(sent.field.0, content, &mut self.bytes);
    }

    /// An answer of any kind.
    pub fn push(&mut self, sent: &Sent, content: &Answer) {
        self.begin(sent, content.len());
        content.chunks().iter().for_each(|chunk| self.bytes.extend_from_slice(chunk));
    }

    /// An answer whose first field holds an encoded message.
    pub fn push_field(&mut self, seq: u64, session: u64, field: Field, message: &[u8]) {
        self.begin(&Sent { seq, session, field }, field_len(1, message.len()));
        put_field_head(1, message.len(), &mut self.bytes);
        self.bytes.extend_from_slice(message);
    }

    /// An answer whose first field is a number.
    pub fn push_int(&mut self, seq: u64, session: u64, field: Field, value: u64) {
        self.begin(&Sent { seq, session, field }, int_len(1, value));
        put_int(1, value, &mut self.bytes);
    }

    /// An answer that lists edges: encoded fields, and where to go on.
    pub fn push_edges(&mut self, seq: u64, session: u64, field: Field, edges: &[u8], next: &str) {
        let cursor = if next.is_empty() { 0 } else { field_len(3, next.len()) };
        self.begin(&Sent { seq, session, field }, edges.len() + cursor);
        self.bytes.extend_from_slice(edges);
        if !next.is_empty() {
            put_field_head(3, next.len(), &mut self.bytes);
            self.bytes.extend_from_slice(next.as_bytes());
        }
    }

    /// Whether what is here fills a message.
    pub fn is_full(&self) -> bool {
        self.bytes.len() + self.token_bytes >= FULL
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All of it, as one message.
    pub fn message(&mut self, draining: bool) -> Answer {
        // The next message is likely to be about as large.
        let next = Vec::with_capacity(self.bytes.len().min(FULL));
        let mut bytes = std::mem::replace(&mut self.bytes, next);
        put_int(DRAINING, u64::from(draining), &mut bytes);
        self.token_bytes = 0;
        for (_, token) in self.tokens.drain(..) {
            put_field_head(SESSION_TOKENS, token.len(), &mut bytes);
            bytes.extend_from_slice(token.as_bytes());
        }
        let mut answer = Answer::new();
        answer.push_raw(bytes.into());
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use tao_model::{ClusterId, ClusterInfo, IdLayout};
    use tao_proto::v1::pipeline_answer::Result as Got;
    use tao_proto::v1::{Object, PipelineResponse};
    use tao_topology::Topology;

    fn map() -> ClusterMap {
        let info = ClusterInfo { cluster: ClusterId([7; 16]), log: LogId(0), layout: IdLayout::STANDARD };
        ClusterMap::new(&info, Topology::single(Vec::new(), Vec::new()).into()).unwrap()
    }

    #[test]
    fn answers_decode_as_what_they_stand_for() {
        let mut outbox = Outbox::default();
        let at = |shard, lsn, is_of_log| At { shard: ShardId(shard), position: Position::new(1, lsn), is_of_log };
        let map = map();
        let sessions =
            [at(1, 5, true), at(2, 5, true), at(2, 9, false), at(3, 9, false)].map(|at| outbox.session(&map, at));
        assert_eq!(sessions, [1, 1, 2, 3], "what all of the log was known to is one token");
        let object = Object { id: 4, ..Object::default() };
        outbox.push_field(7, 1, Field::OBJECT_GET, &object.encode_to_vec());
        outbox.push_int(8, 2, Field::ASSOC_COUNT, 0);
        let mut edges = Vec::new();
        tao_proto::edges::push_edge(&mut edges, &[3 << 3, 9]);
        outbox.push_edges(300, 3, Field::ASSOC_RANGE, &edges, "on");
        let got = PipelineResponse::decode(outbox.message(true).to_bytes()).unwrap();
        assert!(got.draining && outbox.is_empty() && got.session_tokens.len() == 3);
        let token = Token::parse(&got.session_tokens[0]).unwrap();
        assert_eq!(token.floor(ShardId(900), LogId(0)), Position::new(1, 5));
        let token = Token::parse(&got.session_tokens[1]).unwrap();
        assert_eq!(token.floor(ShardId(900), LogId(0)), Position::ZERO);
        let [one, two, three] = got.answers.as_slice() else { panic!("{got:?}") };
        assert!(matches!(&one.result, Some(Got::ObjectGet(got)) if got.object == Some(object)));
        assert!(matches!(&two.result, Some(Got::AssocCount(got)) if got.count == 0));
        assert!(
            matches!(&three.result, Some(Got::AssocRange(got)) if got.assocs.len() == 1 && got.next_cursor == "on")
        );
        assert_eq!((one.seq, one.session, two.seq, three.seq, three.session), (7, 1, 8, 300, 3));
    }
}

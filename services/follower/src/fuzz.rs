//! The follower's decoders for tests/fuzz: no part of this crate's API.

use std::sync::Arc;

use prost::Message as _;
use tao_access::Caller;
use tao_model::{ClusterId, ClusterInfo, IdLayout, LogId, Schema, Token, Violations};
use tao_proto::v1::{PipelineCall, PipelineRequest, WatchRequest, pipeline_call::Call};
use tao_topology::{ClusterMap, Topology};

use crate::batch;
use crate::pipeline::call::{Prepared, plain_read};
use crate::validate::Door;
use crate::watch::Filter;

/// A cluster with the built-in schema.
pub struct Cluster {
    caller: Arc<Caller>,
    schema: Schema,
    map: ClusterMap,
}

impl Cluster {
    /// Of this id.
    pub fn new(cluster: ClusterId) -> Self {
        let info = ClusterInfo { cluster, log: LogId(0), layout: IdLayout::STANDARD };
        let topology = Topology::single(vec!["leader:1".into()], vec!["shard:1".into()]);
        let map = ClusterMap::new(&info, Arc::new(topology)).unwrap_or_else(|never| panic!("{never}"));
        Self { caller: Caller::anybody().into(), schema: Schema::social(), map }
    }

    fn door(&self) -> Door<'_> {
        Door { schema: &self.schema, layout: self.map.layout }
    }

    /// A message of a pipeline, and whether a call of it is valid. Checks that what the quick way takes, the careful one takes too.
    pub fn pipeline(&self, raw: &[u8]) -> bool {
        let Ok(request) = PipelineRequest::decode(raw) else { return false };
        let decode = |text: &String| Token::decode(text, self.map.cluster).ok();
        let tokens: Vec<_> = request.session_tokens.iter().map(decode).collect();
        let mut valid = false;
        for PipelineCall { session, call, .. } in request.calls {
            let given = (session as usize).checked_sub(1).and_then(|place| tokens.get(place)?.as_ref());
            valid |= call.is_some_and(|call| self.call(call, given));
        }
        valid
    }

    fn call(&self, call: Call, given: Option<&Token>) -> bool {
        if let Call::Batch(batch) = &call {
            self.items(batch.items.clone(), given);
        }
        let is_plain = plain_read(&call, &self.door()).is_some();
        let mut violations = Violations::default();
        let prepared = Prepared::new(&self.caller, &self.door(), &self.map, given, call, &mut violations);
        let is_right = matches!(prepared, Ok(Some(_))) && violations.check().is_ok();
        assert!(!is_plain || is_right, "the quick way takes what is refused");
        is_right
    }

    fn items(&self, items: Vec<tao_proto::v1::BatchItem>, given: Option<&Token>) {
        let mut violations = Violations::default();
        let session = crate::session::Session::of_piped_read(&self.caller, &self.map, given, None, &mut violations);
        if let Ok(session) = session {
            items.into_iter().for_each(|item| drop(batch::check(&self.door(), item, &session)));
        }
    }

    /// What a watch asks for, and whether it is valid.
    pub fn watch(&self, raw: &[u8]) -> bool {
        let Ok(request) = WatchRequest::decode(raw) else { return false };
        let mut violations = Violations::default();
        let filter = Filter::new(&request, &self.door(), &mut violations);
        let valid = violations.check().is_ok();
        assert!(!valid || filter.places(&self.map).len() <= 1, "more logs than there are");
        valid
    }
}

//! The log of writes by identity: a line for each, whether it was done or refused, for whoever asks later who did what.

use prost::Message as _;
use tao_model::{Error, ItemOutcome, ObjectId, Result, TypeId, Write};
use tao_proto::{Answer, v1};
use tao_rpc::CallContext;

use crate::execute::Executor;
use crate::session::Session;

/// What a line says of a write.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line<'a> {
    operation: &'static str,
    r#type: Option<&'a str>,
    id: Option<i64>,
    id2: Option<i64>,
}

impl Executor {
    /// Logs a write that came by itself. `object` is what it made of the object that it was about.
    pub fn log_write(
        &self,
        write: &Write,
        object: Option<&[u8]>,
        result: &Result<Answer>,
        session: &Session,
        context: &CallContext,
    ) {
        let object = object.and_then(|object| v1::Object::decode(object).ok());
        self.line(write, object.as_ref()).log(None, result.as_ref().err(), session, context);
    }

    /// Logs the writes of a batch, which were all done, or none.
    pub fn log_batch(
        &self,
        writes: &[Write],
        items: &[ItemOutcome],
        error: Option<&Error>,
        session: &Session,
        context: &CallContext,
    ) {
        for (n, write) in writes.iter().enumerate() {
            let object = items.get(n).and_then(|item| item.result.object.as_ref());
            let object = object.and_then(|object| v1::Object::decode(object.as_ref()).ok());
            self.line(write, object.as_ref()).log(Some(n), error, session, context);
        }
    }

    fn line<'a>(&'a self, write: &Write, object: Option<&'a v1::Object>) -> Line<'a> {
        let otype = |number: TypeId| self.schema.object(number).map(|found| found.name.as_str());
        let atype = |number: TypeId| self.schema.assoc(number).map(|found| found.name.as_str());
        let of_object = |operation, id: Option<ObjectId>, named: Option<&'a str>| Line {
            operation,
            r#type: named.or(object.map(|object| object.r#type.as_str())),
            id: id.map(ObjectId::get).or(object.map(|object| object.id)),
            id2: None,
        };
        let of_edge = |operation, edge: &tao_model::AssocRef, number| Line {
            operation,
            r#type: atype(number),
            id: Some(edge.id1.get()),
            id2: Some(edge.id2.get()),
        };
        match write {
            Write::ObjectAdd { otype: number, .. } => of_object("ObjectAdd", None, otype(*number)),
            Write::ObjectUpdate { id, .. } => of_object("ObjectUpdate", Some(*id), None),
            Write::ObjectUpsert { id, otype: number, .. } => of_object("ObjectUpsert", Some(*id), otype(*number)),
            Write::ObjectDelete { id, .. } => of_object("ObjectDelete", Some(*id), None),
            Write::AssocAdd { edge, .. } => of_edge("AssocAdd", edge, edge.atype),
            Write::AssocDelete { edge } => of_edge("AssocDelete", edge, edge.atype),
            Write::AssocChangeType { edge, new_atype } => of_edge("AssocChangeType", edge, *new_atype),
            // They are logged by their parts, and no caller sends intents.
            Write::Batch(_) | Write::Intents { .. } => Line::default(),
        }
    }
}

impl Line<'_> {
    fn log(&self, item: Option<usize>, error: Option<&Error>, session: &Session, context: &CallContext) {
        let code = error.map_or("OK", |error| error.reason());
        let trace = (!context.trace.is_none()).then(|| context.trace.to_string());
        tracing::info!(
            target: "tao::audit",
            caller = session.caller().name(),
            operation = self.operation,
            r#type = self.r#type,
            id = self.id,
            id2 = self.id2,
            item,
            code,
            traceparent = trace,
            "write"
        );
    }
}

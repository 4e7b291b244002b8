//! Spans as an exporter gets them.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tao_trace::{Kind, TraceContext, begin, current, export};
use tracing_subscriber::layer::SubscriberExt as _;

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn exported(run: impl FnOnce()) -> Vec<SpanData> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, run);
    exporter.get_finished_spans().unwrap()
}

/// One after the other, since what is exported is said for the process.
#[test]
fn spans_are_made_of_what_is_sampled() {
    let caller = TraceContext::parse(CALLER).unwrap();
    let passed_on = exported(|| {
        let span = begin("a.B/Get", || Some(caller));
        assert!(span.context() == caller && !span.is_recorded(), "nobody exports: passed on");
        assert!(begin("a.B/Get", || None).context().is_none());
    });
    assert!(passed_on.is_empty());

    export(0.0);
    let spans = exported(|| {
        assert!(begin("a.B/Get", || None).context().is_none(), "not drawn");
        let unsampled = TraceContext::parse(&CALLER.replace("-01", "-00"));
        assert!(begin("a.B/Get", || unsampled).context().is_none(), "its caller says no");
        assert!(!TraceContext::NONE.span("part", Kind::Client).is_recorded());
        let span = begin("a.B/Get", || Some(caller));
        span.within(|| {
            assert_eq!(current(), span.context());
            let part = current().span("part", Kind::Client);
            part.set("db.system.name", "redis");
            part.fail("gone");
        });
        assert!(current().is_none());
    });
    let [part, call] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((part.name.as_ref(), call.name.as_ref()), ("part", "a.B/Get"));
    assert_eq!(call.parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(part.parent_span_id, call.span_context.span_id());
    assert_eq!(part.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert!(part.attributes.iter().any(|a| a.key.as_str() == "db.system.name"), "{part:?}");
    assert_eq!(part.status, opentelemetry::trace::Status::error("gone"));
    assert!(call.end_time.duration_since(call.start_time).unwrap() < Duration::from_secs(60));

    export(1.0);
    let drawn = exported(|| drop(begin("a.B/Get", || None)));
    assert!(drawn.len() == 1 && drawn[0].parent_span_id.to_string() == "0000000000000000", "{drawn:?}");
}

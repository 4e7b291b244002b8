//! Every target gives the same answers to the same requests, on real servers.

use std::sync::Arc;

use anyhow::Result;
use prost::Message as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tokio::task::LocalSet;

use super::cache_aside::CacheAside;
use super::connections::Connections;
use super::echo::{EchoStreams, EchoUnary};
use super::edge_writes;
use super::l2;
use super::log::Log;
use super::lone_writer;
use super::postgres::Direct;
use super::reads;
use super::tao::{Cluster, Tao, Way, assoc_range, object_get};
use crate::graph::{Graph, NEWEST, Shape};
use crate::op::{AType, Op, Outcome};
use crate::target::{Caller, Setup, Target};

const SETUP: Setup = Setup { threads: 1, connections: 2, cache_size: None, redis: true };

fn graph() -> Arc<Graph> {
    Graph::new(Shape::Tao, 1_500, 11).unwrap()
}

/// Nodes with long lists, short ones and none.
fn some_nodes(graph: &Graph) -> Vec<u32> {
    let mut nodes: Vec<u32> = (0..graph.nodes()).collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(graph.degree(*node)));
    [&nodes[..4], &nodes[nodes.len() / 4..][..4], &nodes[nodes.len() - 4..]].concat()
}

fn reads(graph: &Graph) -> Vec<Op> {
    let of_node = |id1: u32| {
        let edges: Vec<_> = graph.list(id1).take(2).collect();
        let present = edges.iter().map(move |edge| Op::AssocGet { id1, id2: edge.id2 });
        let absent = (0..graph.nodes()).find(|id2| graph.list(id1).all(|edge| edge.id2 != *id2));
        let absent = absent.map(|id2| Op::AssocGet { id1, id2 });
        let times = [(0, NEWEST), (NEWEST / 2, NEWEST - 100_000), (5, 6)];
        let bounded = times.map(|(low, high)| Op::AssocTimeRange { id1, low, high, limit: 40 });
        let oldest = graph.list(id1).last().map_or(0, |edge| edge.time);
        let to_the_end = Op::AssocTimeRange { id1, low: oldest, high: NEWEST, limit: 6_000 };
        present.chain(absent).chain(bounded).chain([to_the_end]).collect::<Vec<_>>()
    };
    let nodes = some_nodes(graph);
    let mut ops: Vec<Op> = nodes.iter().flat_map(|id1| of_node(*id1)).collect();
    let points = ops.iter().filter(|op| matches!(op, Op::AssocGet { .. })).cloned();
    let all = points.chain(nodes.iter().map(|id| Op::ObjectGet { id: *id })).collect();
    ops.push(Op::ReadTransaction(all));
    ops
}

/// Those that the echo has answers to as well.
fn plain_reads(graph: &Graph) -> Vec<Op> {
    let of_node = |id1: u32| {
        let ranges = [1, 50, 1_000].map(|limit| Op::AssocRange { id1, limit });
        [vec![Op::ObjectGet { id: id1 }, Op::AssocCount { id1 }], ranges.to_vec()].concat()
    };
    some_nodes(graph).into_iter().flat_map(of_node).collect()
}

fn writes(graph: &Graph) -> Vec<Op> {
    let mut ops = Vec::new();
    for (n, id1) in some_nodes(graph).into_iter().enumerate() {
        let n = n as u32;
        let new = |step: u32| graph.new_edge(u64::from(n * 10 + step));
        let friend = (id1 + 1 + n) % graph.nodes();
        let add = |id2, step, atype| Op::AssocAdd { id1, id2, time: NEWEST + step, payload: new(step), atype };
        let old = graph.list(id1).next().map_or(friend, |edge| edge.id2);
        ops.extend([add(old, 1, AType::Link), add(friend, 2, AType::Friend), add(friend, 3, AType::Friend)]);
        ops.push(Op::AssocChangeType { id1, id2: old, from: AType::Link });
        ops.push(Op::AssocChangeType { id1, id2: old, from: AType::Link });
        if n.is_multiple_of(2) {
            ops.push(Op::AssocChangeType { id1, id2: old, from: AType::Link2 });
        }
        ops.push(Op::AssocDelete { id1: friend, id2: id1, atype: AType::Friend });
        ops.push(Op::AssocDelete { id1, id2: friend, atype: AType::Friend });
        ops.extend([
            Op::ObjectUpdate { id: id1, payload: graph.new_object(n.into()) },
            Op::ObjectAdd { payload: new(4) },
        ]);
        let several = vec![add(friend, 5, AType::Link), Op::ObjectUpdate { id: id1, payload: graph.new_object(7) }];
        ops.push(Op::WriteTransaction(several));
        if n.is_multiple_of(5) {
            ops.extend([Op::ObjectDelete { id: id1 }, Op::ObjectDelete { id: id1 }]);
        }
    }
    ops
}

/// What a graph without anything around it answers.
fn expected(graph: &Graph, op: &Op) -> Option<Outcome> {
    let listed = |edges: Vec<crate::graph::Edge>| {
        let bytes = edges.iter().map(|edge| Graph::payload_len(edge.payload)).sum();
        Outcome { found: !edges.is_empty(), items: edges.len() as u32, bytes }
    };
    Some(match *op {
        Op::ObjectGet { id } => Outcome { found: true, items: 1, bytes: Graph::payload_len(graph.object(id)) },
        Op::AssocGet { id1, id2 } => listed(graph.list(id1).filter(|edge| edge.id2 == id2).collect()),
        Op::AssocCount { id1 } => Outcome { found: graph.degree(id1) > 0, items: graph.degree(id1), bytes: 0 },
        Op::AssocRange { id1, limit } => listed(graph.list(id1).take(limit as usize).collect()),
        Op::AssocTimeRange { id1, low, high, limit } => {
            let edges = graph.list(id1).filter(|edge| (low..=high).contains(&edge.time));
            listed(edges.take(limit as usize).collect())
        }
        _ => return None,
    })
}

async fn outcomes<T: Target>(target: &T, graph: &Arc<Graph>, ops: &[Op]) -> Result<Vec<Outcome>> {
    target.load(graph, &|_| {}).await?;
    let run = async {
        let caller = target.caller(0).await?;
        let mut outcomes = Vec::new();
        for op in ops {
            outcomes.push(caller.run(op).await?);
        }
        Ok(outcomes)
    };
    LocalSet::new().run_until(run).await
}

#[tokio::test]
async fn all_targets_answer_alike() {
    let graph = graph();
    let ops = [plain_reads(&graph), reads(&graph), reads(&graph), writes(&graph), reads(&graph), plain_reads(&graph)];
    let ops = ops.concat();
    let direct = outcomes(&Direct::start(&SETUP, Log::Ordered).unwrap(), &graph, &ops).await.unwrap();
    let fresh = plain_reads(&graph).len() + 2 * reads(&graph).len();
    for (op, outcome) in ops.iter().zip(&direct).take(fresh) {
        if let Some(expected) = expected(&graph, op) {
            assert_eq!(*outcome, expected, "{op:?}");
        }
    }
    assert!(direct.iter().filter(|outcome| outcome.found).count() > ops.len() / 3);

    let check = |name: &str, theirs: Vec<Outcome>| {
        for ((op, ours), theirs) in ops.iter().zip(&direct).zip(&theirs) {
            assert_eq!(theirs, ours, "{name}: {op:?}");
        }
    };
    check("cache-aside", outcomes(&CacheAside::start(&SETUP).unwrap(), &graph, &ops).await.unwrap());
    for way in [Way::Unary, Way::Pipelined] {
        let tao = Tao::new("tao", way, &SETUP, Arc::new(Cluster::on_postgres(&SETUP).unwrap()));
        check("PostgreSQL", outcomes(&tao, &graph, &ops).await.unwrap());
        let hits = tao.hits().await.unwrap().unwrap();
        assert!(hits.l1_hits > 0 && hits.l1_misses > 0, "{hits:?}");
    }
    let sqlite = Cluster::on_sqlite(&Setup { redis: false, ..SETUP }).unwrap();
    check("SQLite", outcomes(&Tao::new("tao", Way::Pipelined, &SETUP, Arc::new(sqlite)), &graph, &ops).await.unwrap());
}

#[tokio::test]
async fn the_echo_answers_as_a_fresh_graph_does() {
    let graph = graph();
    let ops = plain_reads(&graph);
    let expected: Vec<_> = ops.iter().filter_map(|op| expected(&graph, op)).collect();
    assert_eq!(outcomes(&EchoUnary::new(&SETUP), &graph, &ops).await.unwrap(), expected);
    assert_eq!(outcomes(&EchoStreams::new(&SETUP), &graph, &ops).await.unwrap(), expected);
}

/// The limit is one of the same bytes: an answer of the echo is as long as the follower's.
#[tokio::test]
async fn the_echo_answers_with_as_many_bytes() {
    let graph = graph();
    let (tao, echo) = (Cluster::on_sqlite(&Setup { redis: false, ..SETUP }).unwrap(), EchoUnary::new(&SETUP));
    let tao = Tao::new("tao", Way::Unary, &SETUP, Arc::new(tao));
    tao.load(&graph, &|_| {}).await.unwrap();
    echo.load(&graph, &|_| {}).await.unwrap();
    let connect = |address: &str| GraphServiceClient::connect(format!("http://{address}"));
    let mut ours = connect(tao.cluster().address()).await.unwrap();
    let mut theirs = connect(echo.address().unwrap()).await.unwrap();
    let ids = &tao.cluster().loaded().unwrap().ids;
    for node in some_nodes(&graph) {
        let (our_id, their_id) = (ids[node as usize], super::echo::id(node));
        let our_object = ours.object_get(object_get(our_id)).await.unwrap().into_inner().encoded_len();
        let their_object = theirs.object_get(object_get(their_id)).await.unwrap().into_inner().encoded_len();
        // The same, and two times, whose fractions of a second take up to four bytes.
        assert!(our_object.abs_diff(their_object) <= 8, "{node}: {our_object}, {their_object}");
        for limit in [1, 50] {
            let our_list = ours.assoc_range(assoc_range(our_id, limit)).await.unwrap().into_inner().encoded_len();
            let their_list = theirs.assoc_range(assoc_range(their_id, limit)).await.unwrap().into_inner().encoded_len();
            // The token's position, which grows with the log.
            assert!(our_list.abs_diff(their_list) <= 4, "{node}, {limit}: {our_list}, {their_list}");
        }
    }
}

#[tokio::test]
async fn without_a_log_direct_writes_do_the_same() {
    let graph = graph();
    let ops = [writes(&graph), reads(&graph)].concat();
    let mut all = Vec::new();
    for log in [Log::None, Log::Ordered, Log::Unordered] {
        all.push(outcomes(&Direct::start(&SETUP, log).unwrap(), &graph, &ops).await.unwrap());
    }
    assert!(all[0] == all[1] && all[1] == all[2]);
}

#[test]
fn writes_are_compared_with_direct_ones() {
    let graph = graph();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = Arc::new(Cluster::on_postgres(&SETUP).unwrap());
    let (tao, direct) = (Tao::new("tao", Way::Unary, &SETUP, cluster), Direct::start(&SETUP, Log::None).unwrap());
    runtime.block_on(tao.load(&graph, &|_| {})).unwrap();
    runtime.block_on(direct.load(&graph, &|_| {})).unwrap();

    let options = edge_writes::Options { threads: 2, rounds: 1, seconds: 0.2 };
    for (atype, directions) in [(AType::Link, 1), (AType::Friend, 2)] {
        let log = |column: &str| {
            let sql = format!("SELECT {column} FROM change_log WHERE epoch = 1");
            runtime.block_on(scalar(&direct.url(), sql))
        };
        let before = log("coalesce(max(last_lsn), 0)");
        let writes = edge_writes::compare(&tao, &direct, &graph, atype, options).unwrap();
        assert!(writes.ratio() > 0.0 && writes.ratio_to_unordered() > 0.0, "{writes:?}");
        assert_eq!(writes.direct.tried.len(), edge_writes::CONNECTIONS.len());
        // Every position of the log is taken, by as many changes as an edge has directions.
        assert_eq!(log("sum(last_lsn - first_lsn + 1)::bigint - max(last_lsn)"), 0);
        assert!(log("max(last_lsn)") >= before + directions);
        let wrong = "SELECT count(*) FROM (SELECT id1, atype, count(*) AS n FROM assocs GROUP BY id1, atype) AS l \
                     FULL JOIN assoc_counts c USING (id1, atype) WHERE coalesce(n, 0) <> coalesce(c.count, 0)";
        assert_eq!(
            runtime.block_on(scalar(&direct.url(), wrong.to_owned())),
            0,
            "counts that are not those of their lists"
        );
    }

    // Last, since its statements leave counts as they are.
    let lone = lone_writer::compare(&tao, &direct, &graph, 20).unwrap();
    for latency in [lone.ours, lone.statement] {
        assert!(latency.median > 0.0 && latency.p99 >= latency.median, "{lone:?}");
    }
    assert!(lone.ratio() > 0.0);
}

/// With the plans that prepared statements get, a list is read in its order and nothing is sorted, and keys are looked up.
#[tokio::test]
async fn direct_reads_walk_the_indexes() {
    let graph = Graph::new(Shape::Tao, 30_000, 1).unwrap();
    let direct = Direct::start(&SETUP, Log::None).unwrap();
    direct.load(&graph, &|_| {}).await.unwrap();
    let connections = Connections::open(&direct.url(), 1).await.unwrap();
    let mut lease = connections.take().await.unwrap();
    for (n, (statement, arguments, index)) in reads::STATEMENTS.into_iter().enumerate() {
        let prepare = format!("PREPARE s{n} AS {statement}");
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(lease.connection()).await.unwrap();
        let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE s{n}({arguments})"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(lease.connection()).await.unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(index) && !plan.contains("Sort") && !plan.contains("Seq Scan"), "{statement}\n{plan}");
    }
}

async fn scalar(url: &str, sql: String) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn the_second_level_is_compared_with_redis() {
    let options = l2::Options { threads: 2, connections: 2, in_flight: 8, rounds: 1, seconds: 0.2 };
    let found = l2::compare(&graph(), options).await.unwrap();
    assert!(found.ratio() > 0.0 && found.hit_rate > 0.98, "{found:?}");
}

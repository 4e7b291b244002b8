//! Single flight (rule 3): one request upstream for all who miss the same key at once.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tao_model::mutation::{Rule, is_off};
use tao_model::{Error, Key, Position, Result};

use crate::entry::{Entry, Fresh};

type Running = Shared<BoxFuture<'static, Result<Fresh<Entry>>>>;

/// What a flight brings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub floor: Position,
    /// How many of a list's newest edges.
    pub newest: usize,
    /// How many milliseconds behind the answer may be at most.
    pub staleness_ms: Option<u64>,
}

impl Need {
    /// Whether whoever needs `other` is served too.
    fn includes(&self, other: &Self) -> bool {
        let is_young = match (self.staleness_ms, other.staleness_ms) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(other)) => own <= other,
        };
        let is_high = self.floor >= other.floor || is_off(Rule::FlightFloor);
        is_high && self.newest >= other.newest && is_young
    }
}

struct Flight {
    number: u64,
    need: Need,
    running: Running,
}

/// The flights under way.
#[derive(Default)]
pub(crate) struct Flights {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    flights: HashMap<Key, Flight>,
    next: u64,
}

impl Flights {
    /// Joins a flight that asks for at least as much, at at least the same floor; else starts one. A flight that was started by
    /// somebody else may end with that one's deadline or departure: the caller then asks again.
    pub async fn fly<F>(&self, key: Key, need: Need, start: impl Fn() -> F) -> Result<Fresh<Entry>>
    where
        F: Future<Output = Result<Fresh<Entry>>> + Send + 'static,
    {
        let mut may_join = true;
        loop {
            let (running, number, joined) = self.join(key, need, may_join, &start);
            let guard = Ended { flights: self, key, number };
            let result = running.await;
            drop(guard);
            match result {
                // The other's deadline, or its higher floor, may be the reason.
                Err(Error::DeadlineExceeded { .. } | Error::Cancelled) if joined.is_some() => {}
                Err(_) if joined.is_some_and(|joined| joined > need.floor) => may_join = false,
                result => return result,
            }
        }
    }

    /// A flight, its number, and the floor that it has when it is somebody else's.
    fn join<F>(&self, key: Key, need: Need, may_join: bool, start: &impl Fn() -> F) -> (Running, u64, Option<Position>)
    where
        F: Future<Output = Result<Fresh<Entry>>> + Send + 'static,
    {
        let mut state = self.state.lock();
        if may_join
            && let Some(flight) = state.flights.get(&key)
            && flight.need.includes(&need)
            && flight.running.peek().is_none()
        {
            return (flight.running.clone(), flight.number, Some(flight.need.floor));
        }
        let number = state.next;
        state.next += 1;
        // A panic would go on in everybody who waits, and in every later reader of the key.
        let flight = AssertUnwindSafe(start()).catch_unwind();
        let running = flight.map(|landed| landed.unwrap_or_else(|_| Err(crashed()))).boxed().shared();
        state.flights.insert(key, Flight { number, need, running: running.clone() });
        (running, number, None)
    }
}

fn crashed() -> Error {
    Error::Internal { what: "reading from the next tier crashed".to_owned() }
}

/// Takes a flight off the list when it has landed, or when the last who waited for it has gone.
struct Ended<'a> {
    flights: &'a Flights,
    key: Key,
    number: u64,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut state = self.flights.state.lock();
        if let Some(flight) = state.flights.get(&self.key)
            && flight.number == self.number
            // The list's own handle, and at most the caller's.
            && (flight.running.peek().is_some() || flight.running.strong_count().is_none_or(|n| n <= 2))
        {
            state.flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tao_model::ObjectId;
    use tokio::sync::Semaphore;

    fn key() -> Key {
        Key::Object(ObjectId::new(1).unwrap())
    }

    fn at(lsn: u64) -> Position {
        Position::new(1, lsn)
    }

    fn need(newest: usize, floor: u64) -> Need {
        Need { floor: at(floor), newest, staleness_ms: None }
    }

    #[test]
    fn a_flight_serves_who_needs_no_more_than_it_brings() {
        let young = |ms| Need { staleness_ms: ms, ..need(5, 5) };
        assert!(need(5, 5).includes(&need(5, 5)) && need(6, 6).includes(&need(5, 5)));
        assert!(!need(5, 5).includes(&need(6, 5)) && !need(5, 5).includes(&need(5, 6)));
        assert!(young(Some(100)).includes(&young(None)) && young(Some(100)).includes(&young(Some(200))));
        assert!(!young(Some(100)).includes(&young(Some(50))) && !young(None).includes(&young(Some(50))));
    }

    /// An upstream that answers when it is let.
    struct Upstream {
        started: AtomicUsize,
        let_go: Semaphore,
    }

    fn upstream() -> Arc<Upstream> {
        Arc::new(Upstream { started: AtomicUsize::new(0), let_go: Semaphore::new(0) })
    }

    async fn fly(flights: &Flights, upstream: &Arc<Upstream>, newest: usize, floor: u64) -> Result<Fresh<Entry>> {
        let upstream = upstream.clone();
        let start = move || {
            let upstream = upstream.clone();
            let number = upstream.started.fetch_add(1, Ordering::SeqCst) as u64 + 1;
            async move {
                upstream.let_go.acquire().await.unwrap().forget();
                Ok(Fresh { as_of: at(number * 100), value: Entry::Object(None) })
            }
        };
        flights.fly(key(), need(newest, floor), start).await
    }

    #[tokio::test]
    async fn equals_share_a_flight_and_higher_floors_start_their_own() {
        let (flights, upstream) = (Flights::default(), upstream());
        let mut first = Box::pin(fly(&flights, &upstream, 0, 5));
        assert!(futures::poll!(&mut first).is_pending());
        let mut lower = Box::pin(fly(&flights, &upstream, 0, 4));
        assert!(futures::poll!(&mut lower).is_pending());
        assert_eq!(upstream.started.load(Ordering::SeqCst), 1);
        let mut higher = Box::pin(fly(&flights, &upstream, 0, 6));
        assert!(futures::poll!(&mut higher).is_pending());
        let mut longer = Box::pin(fly(&flights, &upstream, 9, 1));
        assert!(futures::poll!(&mut longer).is_pending());
        assert_eq!(upstream.started.load(Ordering::SeqCst), 3);
        upstream.let_go.add_permits(3);
        let (first, lower) = futures::join!(first, lower);
        assert_eq!(first, lower);
        assert!(higher.await.unwrap().as_of > first.unwrap().as_of);
        longer.await.unwrap();
        assert!(flights.state.lock().flights.is_empty());
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_take_the_flight_along() {
        let (flights, upstream) = (Flights::default(), upstream());
        let mut first = Box::pin(fly(&flights, &upstream, 0, 5));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(fly(&flights, &upstream, 0, 5));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        upstream.let_go.add_permits(1);
        assert_eq!(second.await.unwrap().as_of, at(100));
        assert!(flights.state.lock().flights.is_empty());
        let mut alone = Box::pin(fly(&flights, &upstream, 0, 5));
        assert!(futures::poll!(&mut alone).is_pending());
        drop(alone);
        assert!(flights.state.lock().flights.is_empty(), "nobody waits for it any more");
    }

    #[tokio::test]
    async fn a_crash_is_an_error_and_ends_with_its_flight() {
        let flights = Flights::default();
        let fly = |n: usize| {
            flights.fly(key(), need(0, 1), move || async move {
                assert!(n > 0, "a bug");
                Ok(Fresh { as_of: at(1), value: Entry::Object(None) })
            })
        };
        assert!(matches!(fly(0).await, Err(Error::Internal { .. })));
        assert!(fly(1).await.is_ok() && flights.state.lock().flights.is_empty());
    }

    #[tokio::test]
    async fn the_error_of_a_higher_floor_is_not_that_of_who_joined() {
        let (flights, calls) = (Flights::default(), Arc::new(AtomicUsize::new(0)));
        let fly = |floor: u64| {
            let calls = calls.clone();
            flights.fly(key(), need(0, floor), move || {
                calls.fetch_add(1, Ordering::SeqCst);
                async move {
                    tokio::task::yield_now().await;
                    let seen = at(floor);
                    if floor > 5 {
                        Err(Error::TokenFromFuture { seen, head: at(5) })
                    } else {
                        Ok(Fresh { as_of: at(5), value: Entry::Object(None) })
                    }
                }
            })
        };
        let (forged, honest) = futures::join!(fly(9), fly(1));
        assert!(forged.is_err() && honest.is_ok() && calls.load(Ordering::SeqCst) == 2);
    }

    #[tokio::test]
    async fn the_deadline_of_who_started_is_not_that_of_who_joined() {
        let (flights, calls) = (Flights::default(), Arc::new(AtomicUsize::new(0)));
        let late = Arc::new(Semaphore::new(0));
        let fly = || {
            let (calls, late) = (calls.clone(), late.clone());
            flights.fly(key(), need(0, 1), move || {
                let (n, late) = (calls.fetch_add(1, Ordering::SeqCst), late.clone());
                async move {
                    late.acquire().await.unwrap().forget();
                    if n == 0 {
                        Err(Error::DeadlineExceeded { not_applied: true })
                    } else {
                        Ok(Fresh { as_of: at(1), value: Entry::Object(None) })
                    }
                }
            })
        };
        let (mut first, mut second) = (Box::pin(fly()), Box::pin(fly()));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        late.add_permits(2);
        let (first, second) = futures::join!(first, second);
        assert!(first.is_err() && second.is_ok());
    }
}

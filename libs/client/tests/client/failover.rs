//! Several followers.

use tao_client::Client;

use crate::scripted::{Scripted, get};

#[tokio::test]
async fn one_follower_is_called_until_it_is_gone_and_then_another() {
    let (one, two) = (Scripted::default(), Scripted::default());
    let (one_serves, two_serves) = (one.serve(), two.serve());
    let addresses = format!("{},{}", one_serves.address, two_serves.address);
    let session = Client::connect(&addresses, crate::options()).unwrap().session();
    for id in 1..=10 {
        session.object_get(get(id)).await.unwrap();
    }
    let (mut both, mut calls) = ([(one, one_serves), (two, two_serves)], 10);
    both.sort_by_key(|(server, _)| server.asked().len());
    let [(second, _second_serves), (first, first_serves)] = both;
    assert_eq!((first.asked().len(), second.asked().len()), (calls, 0), "one of them has it all in its cache");
    drop(first_serves);
    for id in 1..=10 {
        session.object_get(get(id)).await.unwrap();
        calls += 1;
    }
    assert_eq!((first.asked().len(), second.asked().len()), (10, calls - 10));
}

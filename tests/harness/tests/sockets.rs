//! What is said of sockets is what was set.

use std::net::{TcpListener, TcpStream};

use tao_harness::tcp_ends;

#[test]
fn each_end_says_for_itself_whether_it_sends_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let made = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    made.set_nodelay(true).unwrap();
    let ends = tcp_ends(std::process::id()).unwrap();
    let nodelay = |of: &TcpStream| {
        let (local, peer) = (of.local_addr().unwrap(), of.peer_addr().unwrap());
        ends.iter().find(|end| (end.local, end.peer) == (local, peer)).map(|end| end.nodelay)
    };
    assert_eq!((nodelay(&made), nodelay(&accepted)), (Some(true), Some(false)), "{ends:?}");
}

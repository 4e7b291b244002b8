//! The faulty network: each fault is seen by both ends, and passes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;
use tao_harness::{Network, Proxy};

/// Long enough for what must come, and waited for in full by nothing that passes.
const SOON: Duration = Duration::from_secs(20);
/// For what must not come.
const A_WHILE: Duration = Duration::from_millis(200);

struct Wire {
    proxy: Proxy,
    server: TcpListener,
}

fn wire() -> Result<Wire> {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let proxy = Proxy::start(server.local_addr()?, 7)?;
    Ok(Wire { proxy, server })
}

fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(SOON))?;
    Ok(stream)
}

impl Wire {
    fn pair(&self) -> Result<(TcpStream, TcpStream)> {
        let client = dial(self.proxy.address())?;
        let (server, _) = self.server.accept()?;
        server.set_read_timeout(Some(SOON))?;
        Ok((client, server))
    }
}

fn passes(from: &mut TcpStream, to: &mut TcpStream, text: &str) -> Result<()> {
    from.write_all(text.as_bytes())?;
    arrives(to, text)
}

fn arrives(to: &mut TcpStream, text: &str) -> Result<()> {
    let mut got = vec![0; text.len()];
    to.read_exact(&mut got)?;
    assert_eq!(String::from_utf8(got)?, text);
    Ok(())
}

fn nothing_comes(to: &mut TcpStream) -> Result<()> {
    to.set_read_timeout(Some(A_WHILE))?;
    let got = to.read(&mut [0]);
    to.set_read_timeout(Some(SOON))?;
    let timed_out = |e: &io::Error| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(got.as_ref().is_err_and(timed_out), "{got:?}");
    Ok(())
}

fn is_reset(stream: &mut TcpStream) {
    let got = stream.read(&mut [0]);
    assert!(got.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset), "{got:?}");
}

#[test]
fn it_passes_both_ways_and_to_the_end() -> Result<()> {
    let wire = wire()?;
    let (mut client, mut server) = wire.pair()?;
    passes(&mut client, &mut server, "there")?;
    passes(&mut server, &mut client, "back")?;
    wire.proxy.set(Network::Delay(Duration::from_millis(30)));
    passes(&mut client, &mut server, "later")?;
    wire.proxy.set(Network::Uneven(Duration::from_millis(30)));
    passes(&mut server, &mut client, "later still")?;
    drop(client);
    assert_eq!(server.read(&mut [0])?, 0);
    assert_eq!(wire.proxy.accepted(), 1);
    Ok(())
}

#[test]
fn a_black_hole_swallows_nothing_for_ever() -> Result<()> {
    let wire = wire()?;
    let (mut client, mut server) = wire.pair()?;
    passes(&mut client, &mut server, "a")?;
    wire.proxy.set(Network::BlackHole);
    client.write_all(b"b")?;
    server.write_all(b"c")?;
    let mut second = dial(wire.proxy.address())?;
    nothing_comes(&mut server)?;
    nothing_comes(&mut client)?;
    wire.proxy.set(Network::Pass);
    arrives(&mut server, "b")?;
    arrives(&mut client, "c")?;
    let (mut other, _) = wire.server.accept()?;
    passes(&mut second, &mut other, "d")
}

#[test]
fn half_open_passes_one_way() -> Result<()> {
    let wire = wire()?;
    let (mut client, mut server) = wire.pair()?;
    wire.proxy.set(Network::HalfOpen);
    passes(&mut client, &mut server, "a")?;
    server.write_all(b"b")?;
    nothing_comes(&mut client)?;
    wire.proxy.set(Network::Pass);
    arrives(&mut client, "b")
}

#[test]
fn a_reset_ends_what_is_open_and_what_comes() -> Result<()> {
    let wire = wire()?;
    let (mut client, mut server) = wire.pair()?;
    passes(&mut client, &mut server, "a")?;
    wire.proxy.set(Network::Reset);
    is_reset(&mut client);
    is_reset(&mut server);
    is_reset(&mut dial(wire.proxy.address())?);
    wire.proxy.set(Network::Pass);
    let (mut client, mut server) = wire.pair()?;
    passes(&mut client, &mut server, "b")
}

#[test]
fn a_reset_by_one_side_reaches_the_other() -> Result<()> {
    let wire = wire()?;
    let (mut client, server) = wire.pair()?;
    client.write_all(b"unread")?;
    // Closing a socket that holds unread bytes resets it.
    while server.peek(&mut [0; 8])? < 6 {}
    drop(server);
    is_reset(&mut client);
    Ok(())
}

#[test]
fn an_absent_server_is_a_reset_and_a_dropped_proxy_is_gone() -> Result<()> {
    let Wire { proxy, server } = wire()?;
    drop(server);
    is_reset(&mut dial(proxy.address())?);
    let address = proxy.address();
    drop(proxy);
    assert!(dial(address).is_err());
    Ok(())
}

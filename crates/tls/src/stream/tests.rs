//! The server's side against rustls's client, over pipes in memory that hold few bytes.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::Waker;

use futures::FutureExt as _;
use inventory_testkit::certificates::{Authority, CertificateSpec, CertificateUsage};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

use super::*;
use crate::FileSetting;
use crate::client::ClientFiles;
use crate::names::NamePattern;
use crate::server::ServerFiles;

/// Bytes in flight in one direction.
#[derive(Default)]
struct Wire {
    bytes: VecDeque<u8>,
    is_closed: bool,
}

/// One end of a connection, which accepts at most `room` bytes that are not read yet.
struct WireEnd {
    inbound: Rc<RefCell<Wire>>,
    outbound: Rc<RefCell<Wire>>,
    room: usize,
}

fn wires(room: usize) -> (WireEnd, WireEnd) {
    let (one, two) = (Rc::<RefCell<Wire>>::default(), Rc::<RefCell<Wire>>::default());
    let client = WireEnd { inbound: Rc::clone(&one), outbound: Rc::clone(&two), room };
    (client, WireEnd { inbound: two, outbound: one, room })
}

impl io::Read for WireEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.inbound.borrow_mut();
        match wire.bytes.is_empty() {
            true if wire.is_closed => Ok(0),
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => io::Read::read(&mut wire.bytes, buffer),
        }
    }
}

impl io::Write for WireEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.outbound.borrow_mut();
        let taken = bytes.len().min(self.room.saturating_sub(wire.bytes.len()));
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.bytes.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn polled<R>(result: io::Result<R>) -> Poll<io::Result<R>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}

impl AsyncRead for WireEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        polled(io::Read::read(&mut *self, buffer))
    }
}

impl AsyncWrite for WireEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        polled(io::Write::write(&mut *self, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbound.borrow_mut().is_closed = true;
        Poll::Ready(Ok(()))
    }
}

struct CertificateFixture {
    directory: tempfile::TempDir,
    authority: Authority,
}

impl CertificateFixture {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), authority: Authority::new("ca") }
    }

    fn file(&self, name: &str) -> FileSetting {
        FileSetting { setting: "FILE", path: self.directory.path().join(name) }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Requires client certificates if patterns are given.
    fn server(&self, allowed: Option<&[&str]>) -> Arc<ServerConfig> {
        self.authority.issue_server().write(self.path(), "server");
        self.authority.write(self.path(), "ca.crt");
        let patterns = allowed.unwrap_or_default().iter();
        let files = ServerFiles {
            certificate: self.file("server.crt"),
            key: self.file("server.key"),
            client_authorities: allowed.map(|_| self.file("ca.crt")),
            allowed_clients: patterns.map(|text| NamePattern::parse(text).unwrap()).collect(),
        };
        files.load(&files.read().unwrap()).unwrap().config
    }

    fn client(&self, authority: &Authority, spec: Option<CertificateSpec<'_>>) -> ClientConfig {
        self.authority.write(self.path(), "ca.crt");
        let pair = spec.map(|spec| {
            authority.issue(spec).write(self.path(), "client");
            (self.file("client.crt"), self.file("client.key"))
        });
        let files = ClientFiles { authorities: Some(self.file("ca.crt")), pair };
        let config = files.load(|| unreachable!("authorities are given"), &[b"h2"]).unwrap();
        Arc::unwrap_or_clone(config)
    }
}

fn spec<'a>(names: &'a [&'a str], years: (i32, i32)) -> CertificateSpec<'a> {
    CertificateSpec { names, years, usage: CertificateUsage::Client }
}

/// The client's side: rustls on a wire.
struct TestClient {
    tls: ClientConnection,
    end: WireEnd,
}

impl TestClient {
    fn new(config: ClientConfig, end: WireEnd) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        Self { tls: ClientConnection::new(Arc::new(config), name).unwrap(), end }
    }

    /// Moves what can be moved.
    fn turn(&mut self) -> Result<(), rustls::Error> {
        while self.tls.wants_write() && self.tls.write_tls(&mut self.end).is_ok() {}
        while self.tls.read_tls(&mut self.end).is_ok_and(|count| count > 0) {
            self.tls.process_new_packets()?;
        }
        Ok(())
    }
}

/// Runs both sides until the server's is complete; the error of the client, if it got one.
fn shake(
    server: Arc<ServerConfig>,
    client: &mut TestClient,
    end: WireEnd,
) -> (Result<TlsStream<WireEnd>, HandshakeFailure>, Option<rustls::Error>) {
    let mut accepting = pin!(accept(end, server, &Unpaced));
    let mut refused = None;
    for _ in 0..10_000 {
        if let Err(error) = client.turn() {
            refused.get_or_insert(error);
        }
        if let Some(result) = accepting.as_mut().now_or_never() {
            if let Err(error) = client.turn() {
                refused.get_or_insert(error);
            }
            return (result.map_err(|failed| failed.failure), refused);
        }
    }
    panic!("the handshake does not end");
}

/// A client of one version that trusts the authority of the fixture.
fn client_of_version(
    fixture: &CertificateFixture,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let authority = fixture.file("ca.crt");
    let authorities = crate::files::read_authorities(&authority).unwrap();
    let mut config = ClientConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(crate::files::authorities(&authority, &authorities).unwrap())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[test]
fn both_versions_of_tls_carry_bytes_in_both_directions() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let fixture = CertificateFixture::new();
        let server = fixture.server(None);
        let (near, far) = wires(700);
        let mut client = TestClient::new(client_of_version(&fixture, version), near);
        let (stream, refused) = shake(server, &mut client, far);
        assert_eq!(refused, None);
        let mut stream = stream.unwrap_or_else(|failure| panic!("{failure}"));
        let tls = stream.get_ref().1;
        assert_eq!(tls.protocol_version(), Some(version.version));
        assert_eq!(tls.alpn_protocol(), Some(&b"h2"[..]));
        exchange(&mut stream, &mut client);
    }
}

#[test]
fn a_client_that_offers_only_another_protocol_is_refused() {
    let fixture = CertificateFixture::new();
    let server = fixture.server(None);
    let mut config = client_of_version(&fixture, &rustls::version::TLS13);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (near, far) = wires(64 * 1024);
    let mut client = TestClient::new(config, near);
    let (stream, refused) = shake(server, &mut client, far);
    assert_eq!(stream.err().unwrap().label(), "no_http2");
    assert!(matches!(refused, Some(rustls::Error::AlertReceived(_))), "{refused:?}");
}

/// Sends more than the wires and the buffers of TLS hold, in both directions, then closes in order.
fn exchange(stream: &mut TlsStream<WireEnd>, client: &mut TestClient) {
    let text: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let (mut to_client, mut at_client) = (0, Vec::new());
    let (mut to_server, mut at_server) = (0, Vec::new());
    let mut scratch = vec![0; 4_096];
    for _ in 0..100_000 {
        if to_client < text.len()
            && let Poll::Ready(taken) =
                Pin::new(&mut *stream).poll_write(&mut cx, &text[to_client..])
        {
            to_client += taken.unwrap();
        }
        let _ = Pin::new(&mut *stream).poll_flush(&mut cx);
        if to_server < text.len() {
            to_server += client.tls.writer().write(&text[to_server..]).unwrap();
        }
        client.turn().unwrap();
        while let Ok(count @ 1..) = client.tls.reader().read(&mut scratch) {
            at_client.extend_from_slice(&scratch[..count]);
        }
        while let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(&mut cx, &mut scratch) {
            at_server.extend_from_slice(&scratch[..read.unwrap()]);
        }
        if at_client.len() == text.len() && at_server.len() == text.len() {
            break;
        }
    }
    assert!(at_client == text && at_server == text, "bytes are missing or wrong");
    while Pin::new(&mut *stream).poll_close(&mut cx).is_pending() {
        client.turn().unwrap();
    }
    client.turn().unwrap();
    assert_eq!(client.tls.reader().read(&mut scratch).unwrap(), 0, "no close_notify");
}

#[test]
fn clients_without_a_usable_certificate_are_refused_with_the_reason() {
    let fixture = CertificateFixture::new();
    let other = Authority::new("other");
    let same_name = Authority::new("ca");
    let server = fixture.server(Some(&["api.sale.svc"]));
    let allowed = ["api.sale.svc"];
    let usage = CertificateUsage::Server;
    for (authority, certificate, label) in [
        (&fixture.authority, None, "no_certificate"),
        (&other, Some(spec(&allowed, (2020, 4000))), "unknown_authority"),
        (&same_name, Some(spec(&allowed, (2020, 4000))), "unknown_authority"),
        (&fixture.authority, Some(spec(&allowed, (2000, 2001))), "certificate_expired"),
        (&fixture.authority, Some(spec(&allowed, (3000, 4000))), "certificate_not_yet_valid"),
        (&fixture.authority, Some(spec(&["web.sale.svc"], (2020, 4000))), "name_not_allowed"),
        (
            &fixture.authority,
            Some(CertificateSpec { names: &allowed, years: (2020, 4000), usage }),
            "certificate_invalid",
        ),
    ] {
        let (near, far) = wires(64 * 1024);
        let mut client = TestClient::new(fixture.client(authority, certificate), near);
        let (stream, refused) = shake(Arc::clone(&server), &mut client, far);
        let failure = stream.err().unwrap_or_else(|| panic!("{label}: accepted"));
        assert_eq!(failure.label(), label, "{failure}");
        assert!(failure.is_refusal());
        assert!(matches!(refused, Some(rustls::Error::AlertReceived(_))), "{label}: {refused:?}");
    }
}

#[test]
fn an_allowed_client_is_accepted_with_its_names() {
    let fixture = CertificateFixture::new();
    let server = fixture.server(Some(&["spiffe://c.local/ns/sale/sa/*"]));
    let names = ["spiffe://c.local/ns/sale/sa/api", "api.sale.svc"];
    let config = fixture.client(&fixture.authority, Some(spec(&names, (2020, 4000))));
    let (near, far) = wires(64 * 1024);
    let mut client = TestClient::new(config, near);
    let (stream, refused) = shake(server, &mut client, far);
    assert_eq!(refused, None);
    let stream = stream.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(stream.peer_names().unwrap().to_string(), names.join(", "));
}

#[test]
fn a_client_of_another_protocol_gets_an_answer_in_it() {
    let server = CertificateFixture::new().server(None);
    for (sent, protocol, answer) in [
        (
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            PlaintextProtocol::Http2,
            &b"this port requires TLS"[..],
        ),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", PlaintextProtocol::Http1, b"HTTP/1.1 400 "),
        (b"SSH-2.0-x\r\n", PlaintextProtocol::Other, b""),
    ] {
        let (mut near, far) = wires(64 * 1024);
        io::Write::write_all(&mut near, sent).unwrap();
        let failed = accept(far, Arc::clone(&server), &Unpaced).now_or_never().unwrap();
        let failed = failed.err().unwrap();
        assert_eq!(failed.failure.label(), "plaintext");
        assert!(matches!(failed.failure, HandshakeFailure::Plaintext(found) if found == protocol));
        let got: Vec<u8> = near.inbound.borrow().bytes.iter().copied().collect();
        assert!(
            got.windows(answer.len().max(1)).any(|part| part == answer) || answer.is_empty(),
            "{got:?}"
        );
        if protocol == PlaintextProtocol::Http2 {
            // The length of the GOAWAY frame is that of its payload.
            assert_eq!(usize::from(got[11]), got.len() - 9 - 9);
        }
    }
}

#[test]
fn a_peer_that_closes_or_sends_garbage_fails_the_handshake() {
    let server = CertificateFixture::new().server(None);
    let (near, far) = wires(1_024);
    near.outbound.borrow_mut().is_closed = true;
    let failed = accept(far, Arc::clone(&server), &Unpaced).now_or_never().unwrap();
    assert_eq!(failed.err().unwrap().failure.label(), "disconnected");
    let (mut near, far) = wires(1_024);
    io::Write::write_all(&mut near, b"\x16\x03\x01\x00\x05garbage that is no hello").unwrap();
    let failed = accept(far, server, &Unpaced).now_or_never().unwrap();
    assert_eq!(failed.err().unwrap().failure.label(), "protocol_error");
}

//! TLS of the gRPC port: versions, client certificates, reloads, floods of handshakes, and clients of other protocols.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use inventory_client::{ClientTls, connect, connect_secure};
use inventory_testkit::certificates::{Authority, CertificateSpec, CertificateUsage};
use inventory_testkit::server::{ServerCommand, TestServer};
use inventory_testkit::{DEADLINE, within_deadline};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::*;
use crate::tls_fixture::TlsFixture;

const EVENT: &str = "evt_2025_1001";

async fn handshakes(server: &TestServer, result: &str) -> f64 {
    let name = format!("inventory_tls_handshakes_total{{port=\"grpc\",result=\"{result}\"}}");
    MetricsSample::scrape(server).await.get(&name)
}

#[tokio::test]
async fn calls_over_tls_are_served_and_the_start_reports_it() {
    let fixture = TlsFixture::new();
    let server = fixture.command().start();
    assert!(server.banner.contains("with TLS and no authentication"), "{}", server.banner);
    assert!(server.log.wait_for(|log| log.contains("\"grpc_tls\":\"TLS\"")));
    let client = connect_secure(&server.grpc, &fixture.trusting()).await.unwrap();
    client.order(commit("r1", EVENT, 2)).await;
    // More bytes in both directions than one record has.
    let calls = (0..200).map(|n| {
        let client = client.clone();
        async move { client.try_check(check(EVENT, 1 + n % 3)).await.unwrap() }
    });
    futures::future::join_all(calls).await;
    until("one handshake", async || handshakes(&server, "ok").await == 1.0).await;
    let expiry = "inventory_tls_certificate_expiry_timestamp_seconds{port=\"grpc\"}";
    assert_eq!(MetricsSample::scrape(&server).await.get(expiry), 64_060_588_800.0);
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn clients_are_accepted_or_refused_by_their_certificates() {
    let fixture = TlsFixture::new();
    let server = fixture.mutual("api.sale.svc, *.team.test").start();
    assert!(server.banner.contains("mutual TLS for TLS_ALLOWED_CLIENTS"), "{}", server.banner);
    let authority = &fixture.authority;
    for name in ["api.sale.svc", "web.team.test"] {
        let tls = fixture.client(authority, name, (2020, 4000));
        let client = connect_secure(&server.grpc, &tls).await.unwrap();
        client.order(commit(&format!("r-{name}"), EVENT, 1)).await;
    }
    let other = Authority::new("other");
    for (tls, reason) in [
        (fixture.trusting(), "no_certificate"),
        (fixture.client(&other, "api.sale.svc", (2020, 4000)), "unknown_authority"),
        (fixture.client(authority, "api.sale.svc", (2000, 2001)), "certificate_expired"),
        (fixture.client(authority, "web.sale.svc", (2020, 4000)), "name_not_allowed"),
    ] {
        // With TLS 1.3 the client learns of the refusal when it reads, so that the first call fails.
        if let Ok(client) = connect_secure(&server.grpc, &tls).await {
            assert!(client.try_check(check(EVENT, 1)).await.is_err(), "{reason}: accepted");
        }
        until(reason, async || handshakes(&server, reason).await >= 1.0).await;
    }
    assert!(server.log.text().contains("TLS handshake failed"), "{}", server.log.text());
    server.stop().await;
}

/// Calls a server without a pause until it is stopped; counts the answers and the failed calls.
struct ConnectingLoad {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl ConnectingLoad {
    /// A new connection for each ten calls.
    fn start(address: &str, tls: ClientTls) -> Self {
        let (is_over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ends, counts, address) =
            (Arc::clone(&is_over), Arc::clone(&answered), address.to_owned());
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                let client = match connect_secure(&address, &tls).await {
                    Ok(client) => client,
                    Err(error) => {
                        failures.push(format!("{error:?}"));
                        continue;
                    }
                };
                for _ in 0..10 {
                    match client.try_check(check(EVENT, 1)).await {
                        Ok(_) => counts.fetch_add(1, Ordering::Relaxed),
                        Err(status) => {
                            failures.push(format!("{status:?}"));
                            0
                        }
                    };
                }
            }
            failures
        });
        Self { is_over, answered, task }
    }

    /// Waits for further calls.
    async fn proceed(&self, calls: u64) {
        let from = self.answered.load(Ordering::Relaxed);
        until("further calls", async || self.answered.load(Ordering::Relaxed) >= from + calls)
            .await;
    }

    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        assert_eq!(self.task.await.unwrap(), Vec::<String>::new());
    }
}

/// A directory as Kubernetes mounts a secret: files are links through `..data`, which is replaced in one step.
struct SecretVolume {
    root: PathBuf,
    versions: u32,
}

impl SecretVolume {
    fn new(root: PathBuf) -> Self {
        fs::create_dir(&root).unwrap();
        for name in ["server.crt", "server.key"] {
            std::os::unix::fs::symlink(format!("..data/{name}"), root.join(name)).unwrap();
        }
        Self { root, versions: 0 }
    }

    fn update(&mut self, write: impl FnOnce(&Path)) {
        self.versions += 1;
        let version = format!("..version-{}", self.versions);
        fs::create_dir(self.root.join(&version)).unwrap();
        write(&self.root.join(&version));
        let link = self.root.join("..data_tmp");
        std::os::unix::fs::symlink(version, &link).unwrap();
        fs::rename(link, self.root.join("..data")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_load_and_a_broken_one_is_not_used() {
    let fixture = TlsFixture::new();
    let mut volume = SecretVolume::new(fixture.path().join("secret"));
    volume.update(|directory| {
        fixture.authority.issue_server().write(directory, "server");
    });
    let server = ServerCommand::dev_in_memory()
        .env("TLS_CERT_FILE", volume.root.join("server.crt").to_str().unwrap())
        .env("TLS_KEY_FILE", volume.root.join("server.key").to_str().unwrap())
        .start();
    let standing = connect_secure(&server.grpc, &fixture.trusting()).await.unwrap();
    let load = ConnectingLoad::start(&server.grpc, fixture.trusting());
    load.proceed(20).await;
    let reloads =
        |result: &str| format!("inventory_tls_reloads_total{{port=\"grpc\",result=\"{result}\"}}");
    let count = async |name: String| MetricsSample::scrape(&server).await.get(&name);

    // By a swap of the link.
    let usage = CertificateUsage::Server;
    let spec = |years| CertificateSpec { names: &["localhost", "127.0.0.1"], years, usage };
    volume.update(|directory| {
        fixture.authority.issue(spec((2020, 3000))).write(directory, "server");
    });
    until("a reload", async || count(reloads("ok")).await == 1.0).await;
    let expiry = "inventory_tls_certificate_expiry_timestamp_seconds{port=\"grpc\"}";
    assert_eq!(count(expiry.to_owned()).await, 32_503_680_000.0);
    load.proceed(20).await;

    // Expired, and then with the key of another certificate.
    volume.update(|directory| {
        fixture.authority.issue(spec((2000, 2001))).write(directory, "server");
    });
    until("a refused reload", async || count(reloads("failed")).await == 1.0).await;
    assert!(server.log.text().contains("expired"), "{}", server.log.text());
    let rejected = "inventory_tls_files_rejected{port=\"grpc\"}".to_owned();
    assert_eq!(count(rejected.clone()).await, 1.0);
    volume.update(|directory| {
        let pair = fixture.authority.issue(spec((2020, 3000))).write(directory, "server");
        fs::write(pair.key, fixture.authority.issue_server().key_pem).unwrap();
    });
    // SIGHUP reads at once.
    server.signal(libc::SIGHUP);
    until("a refused reload", async || count(reloads("failed")).await == 2.0).await;
    assert!(server.log.text().contains("is not the key of the certificate"));
    load.proceed(20).await;

    // And usable again: also the connections of the first certificate are still open.
    volume.update(|directory| {
        fixture.authority.issue(spec((2020, 3500))).write(directory, "server");
    });
    until("a reload", async || count(reloads("ok")).await == 2.0).await;
    assert_eq!(count(rejected).await, 0.0);
    load.proceed(20).await;
    load.end().await;
    standing.try_check(check(EVENT, 1)).await.unwrap();
    drop(standing);
    server.stop().await;
}

#[test]
fn unusable_files_end_the_start_with_the_setting_and_the_path() {
    let fixture = TlsFixture::new();
    let other = fixture.authority.issue_server().write(fixture.path(), "other");
    let usage = CertificateUsage::Server;
    let spec = CertificateSpec { names: &["localhost"], years: (2000, 2001), usage };
    let expired = fixture.authority.issue(spec).write(fixture.path(), "expired");
    let missing = fixture.path().join("missing.pem");
    let empty = fixture.path().join("empty.pem");
    fs::write(&empty, "\n").unwrap();
    for (variable, path, needle) in [
        ("TLS_CERT_FILE", &missing, "No such file"),
        ("TLS_CERT_FILE", &empty, "has no certificate"),
        ("TLS_CERT_FILE", &expired.certificate, "expired"),
        ("TLS_KEY_FILE", &missing, "No such file"),
        ("TLS_KEY_FILE", &other.key, "is not the key of the certificate"),
        ("TLS_CLIENT_CA_FILE", &empty, "has no certificate"),
    ] {
        let ran = fixture.command().env(variable, path.to_str().unwrap()).run();
        assert_eq!(ran.code, Some(1), "{ran:?}");
        ran.assert_error_names(&[variable, path.to_str().unwrap(), needle, "want a"]);
    }
    let ran = ServerCommand::dev_in_memory().env("TLS_KEY_FILE", "a.key").run();
    assert_eq!(ran.code, Some(64), "{ran:?}");
    ran.assert_error_names(&["TLS_KEY_FILE=\"a.key\"", "TLS_CERT_FILE"]);
}

/// Longest time of a call over an open connection, of fifty.
async fn slowest_call(client: &InventoryClient) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        client.try_check(check(EVENT, 1)).await.unwrap();
        slowest = slowest.max(start.elapsed());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_end_and_floods_of_them_leave_others_served() {
    let fixture = TlsFixture::new();
    let server = fixture.command().env("SHARDS", "1").start();
    let standing = connect_secure(&server.grpc, &fixture.trusting()).await.unwrap();
    standing.try_check(check(EVENT, 1)).await.unwrap();

    // Half-open: some are silent, some send a part of a record. More than the server keeps.
    let most = inventory_api::limits::TLS_HANDSHAKES_PER_SHARD_MAX;
    let mut open = Vec::new();
    for number in 0..most + 100 {
        let mut stream = TcpStream::connect(&server.grpc).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        open.push(stream);
    }
    until("evictions", async || handshakes(&server, "evicted").await >= 100.0).await;
    assert!(slowest_call(&standing).await < Duration::from_secs(5));
    let newest = connect_secure(&server.grpc, &fixture.trusting()).await.unwrap();
    newest.try_check(check(EVENT, 1)).await.unwrap();
    drop(open);

    // A flood of complete handshakes.
    let is_over = Arc::<AtomicBool>::default();
    let flood: Vec<_> = (0..16)
        .map(|_| {
            let (tls, address) = (fixture.trusting(), server.grpc.clone());
            let is_over = Arc::clone(&is_over);
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = connect_secure(&address, &tls).await;
                }
            })
        })
        .collect();
    until("a flood", async || handshakes(&server, "ok").await > 50.0).await;
    assert!(slowest_call(&standing).await < Duration::from_secs(5));
    is_over.store(true, Ordering::Relaxed);
    for task in flood {
        task.await.unwrap();
    }
    drop((standing, newest));
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_closed_in_time() {
    let fixture = TlsFixture::new();
    let server = fixture.command().start();
    let start = Instant::now();
    let mut stream = TcpStream::connect(&server.grpc).await.unwrap();
    stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let mut buffer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut buffer)).await;
    assert!(read.is_ok(), "still open");
    assert!(start.elapsed() >= inventory_api::limits::TLS_HANDSHAKE_TIMEOUT);
    until("a count", async || handshakes(&server, "timeout").await == 1.0).await;
}

/// What a server answers to `bytes` before it closes the connection.
async fn answer_to(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end, too.
    let _ = within_deadline(stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn clients_without_tls_get_an_answer_from_a_port_with_tls() {
    let fixture = TlsFixture::new();
    let server = fixture.command().start();
    let http1 = answer_to(&server.grpc, b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&http1).contains("requires TLS"), "{http1:?}");
    let http2 =
        answer_to(&server.grpc, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(String::from_utf8_lossy(&http2).contains("requires TLS"), "{http2:?}");
    let client = connect(&server.grpc).await;
    let failed = match client {
        Ok(client) => client.try_check(check(EVENT, 1)).await.is_err(),
        Err(_) => true,
    };
    assert!(failed, "served without TLS");
    until("counts", async || handshakes(&server, "plaintext").await >= 3.0).await;
    assert!(server.log.text().contains("without TLS, and this port requires TLS"));
}

#[tokio::test]
async fn clients_of_other_protocols_get_an_answer_from_a_port_without_tls_and_are_logged() {
    let fixture = TlsFixture::new();
    let server = ServerCommand::dev_in_memory().start();
    assert!(server.banner.contains("no TLS and no authentication"), "{}", server.banner);
    assert!(server.log.wait_for(|log| log.contains("\"grpc_tls\":\"plaintext\"")));
    // Libraries for TLS name the cause if the answer is no TLS: here "InvalidContentType", "first record does not look like
    // a TLS handshake" in Go, "wrong version number" in OpenSSL.
    let error = connect_secure(&server.grpc, &fixture.trusting()).await.unwrap_err();
    assert!(format!("{error:?}").contains("InvalidContentType"), "{error:?}");
    let ran =
        ServerCommand::new(&["health", "--server", &format!("https://{}", server.grpc)]).run();
    ran.assert_error_names(&["answers without TLS", "http://"]);
    let hello = answer_to(&server.grpc, &fixture.client_hello()).await;
    assert!(hello.starts_with(b"HTTP/1.1 400 Bad Request\r\n"), "{hello:?}");
    assert!(hello.ends_with(b"this port has no TLS: connect without TLS.\n"), "{hello:?}");
    let get = answer_to(&server.grpc, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(get.starts_with(b"HTTP/1.1 505 HTTP Version Not Supported\r\n"), "{get:?}");
    assert!(String::from_utf8_lossy(&get).contains("requires HTTP/2"), "{get:?}");
    // Bytes of no known protocol: at most a SETTINGS frame, and the end.
    let other = answer_to(&server.grpc, b"SSH-2.0-OpenSSH_9.9\r\n").await;
    assert!(!other.starts_with(b"HTTP"), "{other:?}");
    let count = async |protocol: &str| {
        let name = format!("inventory_wrong_protocol_connections_total{{protocol=\"{protocol}\"}}");
        MetricsSample::scrape(&server).await.get(&name)
    };
    until("counts", async || count("tls").await >= 1.0 && count("http1").await >= 1.0).await;
    assert!(server.log.text().contains("this port has no TLS"), "{}", server.log.text());
}

//! Region, endpoint and credentials from the standard AWS environment variables. A process has one environment: each case
//! runs [`child`] in a process of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use inventory_store::{CredentialSource, NoObserver, Store, StoreRegion, StoreSettings, tables};
use inventory_testkit::store_proxy::{ProxyAction, StoreProxy};

use crate::fixture::*;
use crate::network::authority;

/// Creates tables and probes them, configured by the environment alone.
#[test]
#[ignore = "run by the other tests of this module, each with an environment"]
fn child() {
    if std::env::var_os("STORE_TEST_CHILD").is_none() {
        return;
    }
    let settings = StoreSettings {
        endpoint: None,
        region: None,
        profile: std::env::var("AWS_PROFILE").ok(),
        credentials: CredentialSource::Environment,
        ..settings(([127, 0, 0, 1], 1).into())
    };
    let settings = settings.resolve().unwrap_or_else(|error| panic!("resolve: {error}"));
    let aws = settings.aws().unwrap();
    let StoreRegion { name, source } = settings.region.clone().unwrap();
    println!("region {name} ({source}), account {:?}, endpoint {}", aws.account(), aws.endpoint());
    if std::env::var_os("STORE_TEST_RESOLVE_ONLY").is_some() {
        return;
    }
    // Two shards, each on an executor of its own.
    for _ in 0..2 {
        on_shard(async {
            let store = Store::connect(settings.clone(), Rc::new(NoObserver)).await.unwrap();
            create_tables(&store).await;
            store.probe().await.unwrap();
        });
    }
}

/// Creates tables, again while the machine is too busy for a connection in the time that a store gets for one.
async fn create_tables(store: &Store) {
    for _ in 0..10 {
        match tables::create(store).await {
            Err(error) if error.to_string().contains("no connection within") => {}
            created => {
                created.unwrap();
                return;
            }
        }
    }
    panic!("ten connects have taken too long");
}

/// Runs [`child`] with this environment only; returns its output.
fn run(environment: &[(&str, &str)]) -> Result<String, String> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "credentials::child", "--ignored", "--nocapture"]);
    child.env_clear().env("STORE_TEST_CHILD", "1");
    child.env("AWS_EC2_METADATA_DISABLED", "true");
    let output = child.envs(environment.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("running 1 test"), "{text}");
    match output.status.success() {
        true => Ok(text.into_owned()),
        false => Err(text.into_owned()),
    }
}

fn endpoint() -> String {
    format!("http://{}", engine())
}

#[test]
fn keys_and_the_endpoint_come_from_the_environment() {
    let keys = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let endpoint = endpoint();
    let everything = [keys[0], keys[1], ("AWS_ENDPOINT_URL", &endpoint)];
    run(&everything).unwrap();
    // The variable for DynamoDB has precedence.
    let wrong = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let specific = ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.as_str());
    run(&[keys[0], keys[1], wrong, specific]).unwrap();
}

#[test]
fn profile_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config");
    let text = format!(
        "[profile sale]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n\
         endpoint_url = {}\n",
        endpoint()
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    run(&[("AWS_CONFIG_FILE", file), ("AWS_PROFILE", "sale")]).unwrap();
    let error = run(&[("AWS_CONFIG_FILE", file), ("AWS_PROFILE", "typo")]).unwrap_err();
    assert!(error.contains("typo"), "{error}");
}

#[test]
fn container_credentials_are_fetched_over_shard_sockets() {
    let proxy = StoreProxy::start(engine(), None);
    let body = r#"{"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"secret","Token":"token",
        "Expiration":"2999-01-01T00:00:00Z"}"#;
    proxy.next(ProxyAction::Answer(200, body.to_owned()));
    let uri = format!("http://{}/credentials", proxy.address);
    let endpoint = endpoint();
    run(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri), ("AWS_ENDPOINT_URL", &endpoint)]).unwrap();
    assert_eq!(proxy.requests(), 1);
}

#[test]
fn missing_credentials_are_reported_with_the_remedy() {
    let error = run(&[("AWS_ENDPOINT_URL", &endpoint())]).unwrap_err();
    assert!(error.contains("no AWS credentials for the store"), "{error}");
    assert!(error.contains("AWS_ACCESS_KEY_ID"), "{error}");
}

/// A profile file, and the directory that keeps it.
fn profiles(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (dir, file)
}

const KEYS: &str = "aws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n";

#[test]
fn program_of_a_profile_runs_once_for_all_shards() {
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs");
    let answer = r#"{"Version":1,"AccessKeyId":"ASIAQNZGKIQY56JQ7WML","SecretAccessKey":"s","SessionToken":"t","Expiration":"2999-01-01T00:00:00Z"}"#;
    let program = dir.path().join("program");
    let script = format!("echo run >> {}\necho '{answer}'\n", runs.display());
    std::fs::write(&program, script).unwrap();
    let (_dir, file) = profiles(&format!(
        "[profile sale]\ncredential_process = sh {}\nendpoint_url = {}\n",
        program.display(),
        endpoint()
    ));
    let text = run(&[("AWS_CONFIG_FILE", &file), ("AWS_PROFILE", "sale")]).unwrap();
    assert!(text.contains("account Some(\"029608264753\")"), "{text}");
    assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\n");
}

#[test]
fn program_that_fails_is_reported_with_its_output() {
    let (_dir, file) =
        profiles("[default]\ncredential_process = sh -c 'echo no ticket >&2; exit 3'\n");
    let error = run(&[("AWS_CONFIG_FILE", &file)]).unwrap_err();
    assert!(error.contains("no AWS credentials") && error.contains("no ticket"), "{error}");
}

#[test]
fn sources_that_are_not_supported_are_named_with_what_to_use_instead() {
    let sso = "[profile sale]\nsso_session = corp\nsso_account_id = 1\nsso_role_name = r\n\
               [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://x.awsapps.com/start\n";
    let login = "[profile sale]\nlogin_session = arn:aws:iam::012345678901:user/a\n";
    for (text, key) in [(sso, "sso_session"), (login, "login_session")] {
        let (_dir, file) = profiles(text);
        let error = run(&[("AWS_CONFIG_FILE", &file), ("AWS_PROFILE", "sale")]).unwrap_err();
        for needle in [key, "export-credentials --profile sale --format process", "AWS_PROFILE"] {
            assert!(error.contains(needle), "no {needle} in {error}");
        }
    }
}

#[test]
fn region_comes_from_the_profile_or_is_the_default_one() {
    let only = ("STORE_TEST_RESOLVE_ONLY", "1");
    let (_dir, file) = profiles(&format!("[default]\nregion = eu-west-1\n{KEYS}"));
    let text = run(&[("AWS_CONFIG_FILE", &file), only]).unwrap();
    assert!(text.contains("region eu-west-1 (profile default)"), "{text}");
    assert!(text.contains("endpoint https://dynamodb.eu-west-1.amazonaws.com"), "{text}");
    let (_dir, file) = profiles(&format!("[default]\n{KEYS}"));
    let text = run(&[("AWS_CONFIG_FILE", &file), only]).unwrap();
    assert!(text.contains("region ap-northeast-2 (default)"), "{text}");
}

#[test]
fn endpoint_of_the_environment_is_trimmed() {
    let endpoint = format!(" {}\n", endpoint());
    let (_dir, file) = profiles(&format!("[default]\n{KEYS}"));
    run(&[("AWS_CONFIG_FILE", &file), ("AWS_ENDPOINT_URL_DYNAMODB", &endpoint)]).unwrap();
}

/// An HTTP proxy that accepts tunnels to any name and connects them to `upstream`; counts them.
fn tunnel_proxy(upstream: SocketAddr, status: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let tunnels = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tunnels);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            assert!(head.starts_with("CONNECT store.test:443 HTTP/1.1\r\n"), "{head}");
            // user:secret
            assert!(head.contains("proxy-authorization: Basic dXNlcjpzZWNyZXQ=\r\n"), "{head}");
            client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut server = TcpStream::connect(upstream).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut server, &mut client));
        }
    });
    (address, tunnels)
}

#[test]
fn store_is_reached_through_a_proxy_and_a_private_authority() {
    let (pem, config) = authority("ours", &["store.test"]);
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("ca.pem");
    std::fs::write(&bundle, pem).unwrap();
    let bundle = bundle.to_str().unwrap();
    let store = StoreProxy::start(engine(), Some(config));
    let (proxy, tunnels) = tunnel_proxy(store.address, "200 Connection established");
    let proxy = format!("http://user:secret@{proxy}");
    let (_dir, file) = profiles(&format!("[default]\n{KEYS}"));
    let (_dir_2, with_bundle) = profiles(&format!("[default]\nca_bundle = {bundle}\n{KEYS}"));
    let usual = [("AWS_ENDPOINT_URL", "https://store.test"), ("HTTPS_PROXY", proxy.as_str())];
    for (file, variable) in
        [(&file, "AWS_CA_BUNDLE"), (&file, "SSL_CERT_FILE"), (&with_bundle, "X")]
    {
        let before = tunnels.load(Ordering::SeqCst);
        let environment = [usual[0], usual[1], ("AWS_CONFIG_FILE", file), (variable, bundle)];
        run(&environment).unwrap();
        assert!(tunnels.load(Ordering::SeqCst) > before, "{variable}");
    }
    let refused = [usual[0], usual[1], ("AWS_CONFIG_FILE", &file)];
    let error = run(&refused).unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let (denying, _) = tunnel_proxy(store.address, "403 Forbidden");
    let denying = format!("http://user:secret@{denying}");
    let error = run(&[usual[0], ("HTTPS_PROXY", &denying), refused[2]]).unwrap_err();
    assert!(error.contains("403 Forbidden") && !error.contains("secret@"), "{error}");
    let error = run(&[usual[0], ("HTTPS_PROXY", "socks5://u:p@proxy:1"), refused[2]]).unwrap_err();
    assert!(error.contains("HTTPS_PROXY") && error.contains("socks5"), "{error}");
}

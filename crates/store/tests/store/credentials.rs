//! Region, endpoint and credentials from the standard AWS environment variables. A process has one environment: each case
//! runs [`child`] in a process of its own.

use std::process::Command;
use std::rc::Rc;

use inventory_store::{CredentialSource, NoObserver, Store, StoreSettings, tables};
use inventory_testkit::store_proxy::{ProxyAction, StoreProxy};

use crate::fixture::*;

/// Creates tables and probes them, configured by the environment alone.
#[test]
#[ignore = "run by the other tests of this module, each with an environment"]
fn child() {
    if std::env::var_os("STORE_TEST_CHILD").is_none() {
        return;
    }
    let settings = StoreSettings {
        endpoint: None,
        credentials: CredentialSource::Environment,
        ..settings(([127, 0, 0, 1], 1).into())
    };
    on_shard(async {
        let store = match Store::connect(settings, Rc::new(NoObserver)).await {
            Ok(store) => store,
            Err(error) => panic!("connect: {error}"),
        };
        tables::create(&store).await.unwrap();
        store.probe().await.unwrap();
    });
}

/// Runs [`child`] with this environment only; `Err` has its output.
fn run(environment: &[(&str, &str)]) -> Result<(), String> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "credentials::child", "--ignored", "--nocapture"]);
    child.env_clear().env("STORE_TEST_CHILD", "1");
    child.env("AWS_EC2_METADATA_DISABLED", "true");
    let output = child.envs(environment.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("running 1 test"), "{text}");
    match output.status.success() {
        true => Ok(()),
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

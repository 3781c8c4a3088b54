//! The AWS configuration as any AWS program finds it: variables, profile, token, container, instance.
//!
//! Sources that need further SDKs are not compiled in and are named with what to use instead: IAM Identity Center
//! (`sso_session`) and `aws login`. Not here: renewal ([`super::credentials`]).

use std::borrow::Cow;
use std::path::PathBuf;

use aws_config::SdkConfig;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::profile::{self, ProfileSet};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::error::CredentialsError;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials as _, Region};
use aws_types::os_shim_internal::{Env, Fs};
use aws_types::service_config::ServiceConfigKey;
use inventory_runtime::timeout;

use super::connect_error::StoreConnectError;
use super::connector::{NetworkSettings, ShardHttp, ShardSleep};
use super::failure::chain;
use super::{behavior, check_endpoint};
use crate::limits;

/// What is given before the configuration is read. See `StoreSettings`.
#[derive(Clone, Debug)]
pub(super) struct AwsSource {
    pub(super) region: Option<StoreRegion>,
    pub(super) profile: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) ca_bundle: Option<PathBuf>,
}

/// The region that is used if nothing names one.
pub const DEFAULT_REGION: &str = "ap-northeast-2";

/// An AWS region, and what names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRegion {
    pub name: String,
    /// For messages: a variable, a profile.
    pub source: String,
}

impl Default for StoreRegion {
    fn default() -> Self {
        Self { name: DEFAULT_REGION.to_owned(), source: "default".to_owned() }
    }
}

/// One reading of the configuration, without anything that belongs to a thread.
pub(super) struct LoadedAws {
    pub(super) config: SdkConfig,
    pub(super) network: NetworkSettings,
    pub(super) region: StoreRegion,
    /// The endpoint that a variable or a profile names.
    pub(super) endpoint: Option<String>,
    pub(super) account: Option<String>,
    pub(super) credentials: Credentials,
}

/// Why the configuration could not be loaded.
pub(super) enum LoadError {
    /// A retry cannot help.
    Permanent(StoreConnectError),
    /// A source of credentials failed. One that does not answer in time is permanent: it has retried by itself.
    Transient(StoreConnectError),
}

impl From<StoreConnectError> for LoadError {
    fn from(error: StoreConnectError) -> Self {
        Self::Permanent(error)
    }
}

impl LoadError {
    /// This error, with a profile that does not exist in front of what the other sources reported.
    fn naming(self, unknown_profile: Option<&str>) -> Self {
        let Some(profile) = unknown_profile else { return self };
        let name = |error| match error {
            StoreConnectError::Credentials { why } => StoreConnectError::Credentials {
                why: format!(
                    "the profile {profile:?} is not in the AWS configuration files; {why}"
                ),
            },
            other => other,
        };
        match self {
            Self::Permanent(error) => Self::Permanent(name(error)),
            Self::Transient(error) => Self::Transient(name(error)),
        }
    }
}

/// Reads the configuration and fetches credentials, on an executor. `network` is that of an earlier reading.
pub(super) async fn load(
    source: &AwsSource,
    network: Option<NetworkSettings>,
) -> Result<LoadedAws, LoadError> {
    let named = source.profile.clone().map(Cow::Owned);
    let files = EnvConfigFiles::default();
    // The SDK reports files that it cannot use if it needs them.
    let profiles = profile::load(&Fs::real(), &Env::real(), &files, named).await.ok();
    let profiles = profiles.as_ref();
    let network = match network {
        Some(network) => network,
        None => {
            let bundle = profiles.and_then(|profiles| profiles.get("ca_bundle"));
            NetworkSettings::from_environment(source.ca_bundle.as_deref(), bundle)
                .map_err(StoreConnectError::from)?
        }
    };
    let http = ShardHttp::over(network.clone());
    let region = source.region.clone().or_else(|| region_of(profiles?)).unwrap_or_default();
    let mut loader = aws_config::defaults(behavior())
        .http_client(http.clone())
        .sleep_impl(ShardSleep)
        .region(Region::new(region.name.clone()));
    if let Some(profile) = &source.profile {
        loader = loader.profile_name(profile);
    }
    let config = loader.load().await;
    let credentials = fetch(&config, source.profile.as_deref()).await;
    let credentials =
        credentials.map_err(|error| error.naming(profiles.and_then(unknown_profile)))?;
    let region = match region == StoreRegion::default() && is_from_instance(&credentials) {
        true => region_of_instance(http).await.unwrap_or(region),
        false => region,
    };
    let endpoint = source.endpoint.clone().or_else(|| endpoint_of(&config));
    if let Some(url) = &endpoint {
        check_endpoint(url)?;
    }
    let mut parts = config.into_builder();
    // What belongs to this executor.
    parts.set_http_client(None).set_credentials_provider(None).set_token_provider(None);
    parts.set_identity_cache(None).set_region(Region::new(region.name.clone()));
    let account = credentials.account_id().map(|account| account.as_str().to_owned());
    let account = account.or_else(|| account_of_key(credentials.access_key_id()));
    Ok(LoadedAws { config: parts.build(), network, region, endpoint, account, credentials })
}

async fn fetch(config: &SdkConfig, profile: Option<&str>) -> Result<Credentials, LoadError> {
    let fail = |why: String| StoreConnectError::Credentials { why };
    let provider = config.credentials_provider();
    let provider =
        provider.ok_or_else(|| fail("no source of credentials is configured".to_owned()))?;
    let limit = limits::CREDENTIALS_TIMEOUT;
    match timeout(limit, provider.provide_credentials()).await {
        Some(Ok(credentials)) => Ok(credentials),
        Some(Err(error)) => Err(explain(&error, profile)),
        // Long enough for a retry inside the source.
        None => Err(fail(format!("no credentials within {limit:?}")).into()),
    }
}

fn explain(error: &CredentialsError, profile: Option<&str>) -> LoadError {
    let why = chain(error);
    // The SDK's words for a source that is not compiled in.
    let missing = why.split_once("cargo feature(s) enabled: ").map(|(_, feature)| feature);
    let key = missing.map(|feature| match feature {
        login if login.starts_with("credentials-login") => "login_session",
        _ => "sso_session",
    });
    if let Some(key) = key {
        let profile = profile.unwrap_or("default").to_owned();
        return StoreConnectError::UnsupportedSource { profile, key }.into();
    }
    let failed = StoreConnectError::Credentials { why };
    match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            LoadError::Permanent(failed)
        }
        _ => LoadError::Transient(failed),
    }
}

/// The selected profile, if no file has it: the chain of sources skips it without a word.
fn unknown_profile(profiles: &ProfileSet) -> Option<&str> {
    let selected = profiles.selected_profile();
    (selected != "default" && profiles.get_profile(selected).is_none()).then_some(selected)
}

fn region_of(profiles: &ProfileSet) -> Option<StoreRegion> {
    let name = profiles.get("region")?.trim();
    let source = format!("profile {}", profiles.selected_profile());
    (!name.is_empty()).then(|| StoreRegion { name: name.to_owned(), source })
}

/// Whether the instance metadata provided the credentials: then the metadata answers, and has the region too.
fn is_from_instance(credentials: &Credentials) -> bool {
    let features = credentials.get_property::<Vec<AwsCredentialFeature>>();
    features.is_some_and(|features| features.contains(&AwsCredentialFeature::CredentialsImds))
}

async fn region_of_instance(http: ShardHttp) -> Option<StoreRegion> {
    let provider =
        ProviderConfig::without_region().with_http_client(http).with_sleep_impl(ShardSleep);
    let provider = ImdsRegionProvider::builder().configure(&provider).build();
    let region = timeout(limits::CREDENTIALS_TIMEOUT, provider.region()).await??;
    Some(StoreRegion { name: region.to_string(), source: "instance metadata".to_owned() })
}

fn endpoint_of(config: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("DynamoDB")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url");
    let key = key.build().ok()?;
    let of_service = config.service_config().and_then(|service| service.load_config(key));
    let url = of_service.or_else(|| config.endpoint_url().map(str::to_owned))?;
    let url = url.trim();
    (!url.is_empty()).then(|| url.to_owned())
}

/// The account of an access key: bits 1 to 40 after the prefix, which is how `aws sts get-access-key-info` answers.
/// `None` for keys of another form, such as those of local stores.
fn account_of_key(key: &str) -> Option<String> {
    let rest = key.strip_prefix("AKIA").or_else(|| key.strip_prefix("ASIA"))?;
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(u64::from(c - b'A')),
        b'2'..=b'7' => Some(u64::from(c - b'2') + 26),
        _ => None,
    };
    // The first bit is set in all keys that contain their account, which is since 2019.
    if rest.len() != 16 || digit(rest.as_bytes()[0])? < 16 {
        return None;
    }
    // Ten digits of five bits: the account is in the first 48 bits.
    let bits = rest.bytes().take(10).try_fold(0u64, |bits, c| Some(bits << 5 | digit(c)?))?;
    let account = (bits >> 2 & 0x7fff_ffff_ff80) >> 7;
    Some(format!("{account:012}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_key_contains_its_account() {
        assert_eq!(account_of_key("ASIAQNZGKIQY56JQ7WML").as_deref(), Some("029608264753"));
        for other in ["AKIDEXAMPLE", "local", "", "AKIAIOSFODNN7EXAMPLE", "ASIAQ!ZGKIQY56JQ7WML"] {
            assert_eq!(account_of_key(other), None, "{other}");
        }
    }
}
